"""Side by side: ours and the alternatives, interleaved, each in a fresh process; medians, ratios and goals.

    python -m benchmarks [--rows N] [--rounds N] [--only flat|nested|http]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.data import named, wire_rows

FILES = ("naive", "orjson_blocks", "duckdb_named", "polars_named", "ours", "ours_python", "read_only")
ROAD = ("naive_http", "export_http", "drain_http")
GOALS = {  # (section, ours, other): how many times faster
    ("flat", "ours", "naive"): 10.0, ("flat", "ours", "duckdb_named"): 1.0, ("flat", "ours", "polars_named"): 1.0,
    ("nested", "ours", "naive"): 6.0, ("nested", "ours", "duckdb_named"): 1.0,
    ("http table, large chunks", "export_http", "naive_http"): 8.0,
    ("http stream, a chunk per row", "export_http", "naive_http"): 5.0,
}
Measured = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="flat rows; half as many nested ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("flat", "nested", "http"))
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench_") as name:
        directory = Path(name)
        sizes = {"flat": args.rows, "nested": args.rows // 2}
        kinds = {"flat": ["flat"], "nested": ["nested"], "http": ["flat"]}.get(args.only or "", ["flat", "nested"])
        for kind in kinds:
            _generate(directory, kind, sizes[kind])
        print("| what | way | seconds | CPU s | peak MB | rows/s | times the first |\n|---|---|---|---|---|---|---|")
        met: list[str] = []
        if args.only != "http":
            for kind in kinds:
                met += _section(kind, _rounds(directory, kind, FILES, args.rounds), sizes[kind])
        if args.only in (None, "http"):
            with _server(directory) as url:
                for title, mark in (("http table, large chunks", "table"), ("http stream, a chunk per row", "stream")):
                    found = _rounds(directory, "flat", ROAD, args.rounds, mark, url)
                    met += _section(title, found, sizes["flat"])
        print("\n| goal | reached | |\n|---|---|---|\n" + "\n".join(met))
    return 0


def _generate(directory: Path, kind: str, rows: int) -> None:
    with (directory / f"{kind}.query").open("wb", 1 << 20) as file:
        file.writelines(wire_rows(kind, rows))
    with (directory / f"{kind}.ndjson").open("wb", 1 << 20) as file:
        file.writelines(named(kind, rows))
    size = (directory / f"{kind}.query").stat().st_size
    print(f"{kind}: {rows:,} rows, {size / 1e6:.0f} MB as ksqlDB sends them", file=sys.stderr)


@contextmanager
def _server(directory: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.server", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def _rounds(
    directory: Path, kind: str, ways: Sequence[str], rounds: int, mark: str = "", url: str = ""
) -> dict[str, Measured]:
    """Medians per way; the ways take turns, so that a busy minute hits all of them."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds):
        for way in (*ways[number % len(ways) :], *ways[: number % len(ways)]):
            out = directory / f"out_{way}_{mark}"
            command = [sys.executable, "-m", "benchmarks.ways", way, kind, str(directory), str(out), url]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            shutil.rmtree(out, ignore_errors=True)
            if done.returncode:
                print(f"{way} {kind}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            found[way].append(json.loads(done.stdout))
    return {
        way: {key: statistics.median(m[key] for m in measured) for key in measured[0]}
        for way, measured in ((way, found[way]) for way in ways)
        if measured
    }


def _section(title: str, found: dict[str, Measured], rows: int) -> list[str]:
    first = next(iter(found.values()))["seconds"]
    for way, m in found.items():
        print(f"| {title} | {way} | {m['seconds']:.2f} | {m['cpu']:.2f} | {m['mb']:.0f} | {rows / m['seconds']:,.0f} "
              f"| {first / m['seconds']:.1f} |", flush=True)
    lines = []
    for (section, mine, other), goal in GOALS.items():
        if section == title and mine in found and other in found:
            ratio = found[other]["seconds"] / found[mine]["seconds"]
            word = "met" if ratio >= goal else "NOT met"
            lines.append(f"| {title}: {goal:g} times {other} | {ratio:.1f} | {word} |")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
