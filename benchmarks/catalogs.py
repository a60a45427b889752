"""What one new file costs a feed of 10,000, in CPU seconds: a Delta commit, an Iceberg snapshot, a catalog's plan.

    python -m benchmarks.catalogs [--files N]
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ksql_lake.catalogs.delta.table import append, sync, verify
from ksql_lake.catalogs.glue import STYLE
from ksql_lake.catalogs.tables import Found, plan, wanted
from ksql_lake.catalogs.targets import Target, register_with
from ksql_lake.model.change import Change
from ksql_lake.model.entries import FileEntry, FileSet
from ksql_lake.model.partitions import day_path
from ksql_lake.model.recorded import RecordedColumn
from ksql_lake.model.state import FeedState
from ksql_lake.store.metadata import Dataset

DAYS = 3650
GOAL = 0.3


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    print(f"| one new file after {args.files:,} | CPU s (median of {args.rounds}) |\n|---|---|")
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="bench_") as lake:
        dataset, state = Dataset(Path(lake), "s", "stream"), _state(args.files)
        print(f"| the first version, all files | {_seconds(lambda: sync(dataset, state, 0)):.3f} |")
        for title, one in (("a version of Delta, the whole log followed", _commit),
                           ("a version of Delta, of an export that adds files", _append),
                           ("the plan for Glue or Hive", _plan),
                           ("a snapshot of Iceberg, in a catalog in SQLite", _snapshot)):
            seconds = statistics.median(one(dataset, state, args.files + i) for i in range(args.rounds))
            worst = max(worst, seconds)
            print(f"| {title} | {seconds:.3f} |")
        sync(dataset, state, 0)
        assert verify(dataset, state) == []
    print(f"\ngoal: under {GOAL} s: {'met' if worst < GOAL else 'MISSED'}")
    return worst >= GOAL


def _commit(dataset: Dataset, state: FeedState, number: int) -> float:
    state.files.add([_file(number)])
    state.sequence += 1
    return _seconds(lambda: sync(dataset, state, 0))


def _append(dataset: Dataset, state: FeedState, number: int) -> float:
    file = _file(number)
    state.files.add([file])
    state.sequence += 1
    change = Change("export", state.sequence, "r", "2025-01-01T00:00:00Z", (file,))
    return _seconds(lambda: append(dataset, state, change, 0))


def _plan(dataset: Dataset, state: FeedState, number: int) -> float:
    """The catalog has all days but one; its partitions are remembered."""
    (table,) = wanted(dataset.feed, state, "s3://bucket/lake", STYLE)
    known = dict(list(table.partitions.items())[1:])
    found = Found("now", table.columns, table.location, table.parameters, table.keys, known)

    def decide() -> None:
        (again,) = wanted(dataset.feed, state, "s3://bucket/lake", STYLE)
        assert len(plan(again, found).new) == 1

    return _seconds(decide)


def _snapshot(dataset: Dataset, state: FeedState, number: int) -> float:
    """The first time with all files that were there before; only the new one's registration is measured."""
    warehouse = dataset.lake / "warehouse"
    target = Target("iceberg", "lake", f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")
    if not warehouse.exists():
        warehouse.mkdir()
        _seconds(lambda: _registered(target, dataset, state))
    state.files.add([_file(number + DAYS * 100)])
    state.sequence += 1
    return _seconds(lambda: _registered(target, dataset, state))


def _registered(target: Target, dataset: Dataset, state: FeedState) -> None:
    done = register_with(target, dataset.lake, {dataset.feed: state}, lambda line: None)
    assert done == (1, []), done


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _state(files: int) -> FeedState:
    columns = tuple(RecordedColumn(f"C{i}", f"C{i}", "STRING", "string", False, "1.0") for i in range(20))
    made = FileSet(_file(i) for i in range(files))
    return FeedState("S", "stream", "2025-01-01T00:00:00Z", sequence=1, run="r", columns=columns, files=made,
                     timestamps="us")


def _file(number: int) -> FileEntry:
    day = dt.date(2015, 1, 1) + dt.timedelta(days=number % DAYS)
    path, begins = day_path(day), (day - dt.date(1970, 1, 1)).days * 86_400_000
    return FileEntry(
        f"{path}/data_{number:06d}_20250101T000000_abcdef_0001.parquet", path, 1000, 100_000, 1, "r", "export", "1.0",
        "2025-01-01T00:00:00Z", rowtime_min=begins, rowtime_max=begins + 86_399_999, offsets={0: (0, 9, 10)},
    )


if __name__ == "__main__":
    raise SystemExit(main())
