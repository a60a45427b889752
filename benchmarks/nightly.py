"""What a night costs that finds little new: CPU seconds of a first export, with 1 % new rows, with none.

    python -m benchmarks.nightly [--rows N] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data import START
from ksql_lake.embedded import EmbeddedKsqlDB

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = "`ID` STRING, `USER_ID` STRING, `AMOUNT` DECIMAL(12, 2), `CITY` STRING, `QUANTITY` INTEGER"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    found = [_nights(args.rows) for _ in range(args.rounds)]
    start, first, little, nothing = (statistics.median(column) for column in zip(*found, strict=True))
    print("| run | CPU s | more than with none new | share of the first |\n|---|---|---|---|")
    print(f"| start-up alone (`--help`) | {start:.2f} | | |\n| none new | {nothing:.2f} | | |")
    for title, seconds in ((f"first, {args.rows:,} rows", first), ("1 % new", little)):
        share = (seconds - nothing) / (first - nothing)
        print(f"| {title} | {seconds:.2f} | {seconds - nothing:.2f} | {share:.1%} |")
    return 0


def _nights(rows: int) -> tuple[float, float, float, float]:
    with EmbeddedKsqlDB() as database, tempfile.TemporaryDirectory(prefix="bench_") as lake:
        environment = {
            **os.environ, "KSQLDB_URL": database.url, "DATA_LAKE_DIR": lake, "IDLE_SECONDS": "3", "RETENTION": "off"
        }
        database.create_stream("S", COLUMNS, 4)
        _append(database, 0, rows)
        _cpu(environment, "manage_feeds.py", "add", "--name", "s", "--type", "stream", "--source", "s")
        start = _cpu(environment, "export_to_data_lake.py", "--help")
        first = _cpu(environment, "export_to_data_lake.py", "--all", "--quiet")
        _append(database, rows, rows // 100)
        little = _cpu(environment, "export_to_data_lake.py", "--all", "--quiet")
        return start, first, little, _cpu(environment, "export_to_data_lake.py", "--all", "--quiet")


def _append(database: EmbeddedKsqlDB, first: int, count: int) -> None:
    for i in range(first, first + count):
        values = [f"tx_{i:09d}", f"user_{i % 5000}", f"{i % 900}.{i % 100:02d}", "Lyon", i % 9]
        database.append("S", i % 4, START + i * 100, values)


def _cpu(environment: dict[str, str], script: str, *argv: str) -> float:
    """User and system seconds of one script, in a process of its own."""
    command = [sys.executable, str(ROOT / script), *argv]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as one:
        _, status, usage = os.wait4(one.pid, 0)
        one.returncode = os.waitstatus_to_exitcode(status)
    assert one.returncode == 0, (script, argv, one.returncode)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
