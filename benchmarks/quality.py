"""What checks cost: the same export of a stream over HTTP without any, and with some.

The least seconds of several rounds, which take turns: what else the machine does can only add to them. Two exports
differ by more than the checks take; so the seconds inside of them are counted as well.

    python -m benchmarks.quality [--rows N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.__main__ import _generate, _server
from benchmarks.ways import IDLE

ROWS: list[dict[str, Any]] = [
    {"check": "not_null", "column": "user_id", "level": "fail"},
    {"check": "range", "column": "amount", "min": 0, "max": 100_000, "level": "fail"},
    {"check": "accepted_values", "column": "currency", "values": ["EUR", "USD", "GBP"], "level": "fail"},
    {"check": "row_count"}, {"check": "freshness", "hours": 1e6},
]
SETS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "not_null, range, accepted_values, row_count, freshness": ROWS,
    "the same and a regex": [*ROWS, {"check": "regex", "column": "transaction_id", "pattern": "^tx_", "level": "fail"}],
    "unique": [{"check": "unique", "column": "transaction_id", "level": "fail"}],
    "range, 2 % of the rows set aside": [{"check": "range", "column": "amount", "max": 980, "level": "quarantine"}],
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, metavar=("URL", "OUT", "SET"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        return _one(args.one[0], Path(args.one[1]), SETS[args.one[2]])
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench_") as name:
        directory = Path(name)
        _generate(directory, "flat", args.rows)
        with _server(directory) as url:
            for number in range(args.rounds):
                for which in SETS:
                    out = directory / f"out{number}_{len(found[which])}_{list(SETS).index(which)}"
                    command = [sys.executable, "-m", "benchmarks.quality", "--one", url, str(out), which]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    found[which].append(json.loads(done.stdout))
    print("| checks | seconds | CPU s | CPU s in the checks | % of the export |\n|---|---|---|---|---|")
    base = min(m["cpu"] for m in found["none"])
    for which, measured in found.items():
        seconds, cpu, inside = (min(m[key] for m in measured) for key in ("seconds", "cpu", "checks"))
        print(f"| {which} | {seconds:.2f} | {cpu:.2f} | {inside:.2f} | {100 * inside / base:.1f} |")
    return 0


def _timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The function, counting the CPU seconds of its thread."""
    def timed(*args: Any) -> Any:
        begun = time.thread_time()
        try:
            return function(*args)
        finally:
            spent.append(time.thread_time() - begun)

    return timed


def _one(url: str, out: Path, checks: list[dict[str, Any]]) -> int:
    from ksql_lake.ingest.export import FeedTask, export_feed
    from ksql_lake.ingest.streams import stage as streams
    from ksql_lake.model.feeds import load, new, save
    from ksql_lake.quality import checker as quality
    from ksql_lake.quality import quarantine
    from ksql_lake.sources.ksqldb.client import Server
    from ksql_lake.sources.pace import Limits
    from ksql_lake.store.writer import WriterOptions

    out.mkdir(parents=True)
    feed = out / "feed.json"
    save(feed, new("feed", "stream", "S_FLAT", "2025-01-01T00:00:00Z", checks=checks))
    limits = Limits(first_row=30, idle=IDLE)
    task = FeedTask(load(feed), out / "lake", Server(url), "20250115T000000_bench", limits, WriterOptions())
    spent: list[float] = []
    for owner, name in ((quality.Checker, "look"), (quarantine.Aside, "write"), (streams, "results")):
        setattr(owner, name, _timed(getattr(owner, name), spent))
    begun, cpu = time.perf_counter(), time.process_time()
    result = export_feed(task)
    assert result.result in ("ok", "findings") and result.rows, result
    seconds, cpu = time.perf_counter() - begun - IDLE, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "checks": sum(spent)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
