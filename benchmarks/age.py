"""What an old lake costs: `python -m benchmarks.age [--files 100,1000,10000,100000]`.

For each number of files: a night with nothing new (a whole process: wall time, peak memory), a commit of one file, a
report. Then a small table after 730 nights: the bytes of its metadata and state log.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.maintain import retention
from ksql_lake.model.change import Change
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.partitions import day_path, version_path
from ksql_lake.model.state import Current, FeedState, LastRun, new_table
from ksql_lake.store import journal, metadata
from ksql_lake.store.dataset import Dataset, Move

ROOT = Path(__file__).resolve().parent.parent
START = dt.date(2022, 1, 1)
JAN15 = 1_736_899_200_000
NIGHTS = 730


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", default="100,1000,10000,100000", help="numbers of files, with commas between")
    args = parser.parse_args()
    print(f"{'files':>8} {'empty night':>12} {'peak':>8} {'one-file commit':>16} {'report':>8} {'_metadata.json':>15}")
    with tempfile.TemporaryDirectory() as directory:
        for number in map(int, args.files.split(",")):
            print(_measured(Path(directory) / str(number), number), flush=True)
        print(f"a table of 50 rows after {NIGHTS} nights: {_table(Path(directory) / 'table'):,} bytes of state")


def _measured(lake: Path, number: int) -> str:
    with EmbeddedKsqlDB() as database:
        os.environ.update(DATA_LAKE_DIR=str(lake), KSQLDB_URL=database.url, IDLE_SECONDS="0.1", RETENTION="off")
        database.create_stream("S", "`ID` STRING", 1)
        for i in range(10):
            database.append("S", 0, JAN15 + i, [f"e{i}"])
        manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S"])
        export_to_data_lake.main(["--stream", "s", "--quiet"])
        dataset = Dataset(lake, "s", "stream", True)
        _grow(dataset, number)
        night, peak = _process("export_to_data_lake.py", "--stream", "s", "--quiet")
        report, _ = _process("metadata_utils.py", "--report")
        commit = min(_commit(dataset, i) for i in range(5))
    size = os.stat(dataset.metadata).st_size
    return (f"{number:>8,} {night:>10.2f} s {peak:>5.0f} MB {1000 * commit:>13.1f} ms {report:>6.2f} s "
            f"{size:>13,} B")


def _grow(dataset: Dataset, number: int) -> None:
    """Many files of days long past, each a link to the same Parquet file, and the metadata that own them."""
    state = _state(dataset)
    first = next(iter(state.files))
    real, days = dataset.local(first.path), max(min(number // 100, 1000), 1)
    entries = []
    for i in range(number):
        partition = day_path(START + dt.timedelta(days=i % days))
        path = dataset.local(f"{partition}/data_{i:06d}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        if i % 50_000 == 49_999:  # a file system allows so many links to a file
            real = Path(shutil.copy(real, path))
        else:
            os.link(real, path)
        entries.append(replace(first, path=f"{partition}/{path.name}", partition=partition))
    run = "20250115T020000_000000"
    state.files.add(entries)
    state.sequence, state.run = state.sequence + 1, run
    journal.commit(dataset, run, state.sequence - 1, (), state, Change("export", state.sequence, run, "2025-01-15"))


def _commit(dataset: Dataset, number: int) -> float:
    """Seconds of a commit that adds one file, of the state loaded for it as well."""
    run = f"20250116T020000_{number:06d}"
    staged = dataset.staged(run, "f.parquet")
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"PAR1")
    started = time.perf_counter()
    state = _state(dataset)
    partition = day_path(START)
    entry = FileEntry(f"{partition}/new_{number}.parquet", partition, 1, 4, 0, run, "export", "1.0", "2025-01-16")
    state.files.add([entry])
    state.sequence, state.run = state.sequence + 1, run
    move = Move.of(dataset, staged, dataset.file(entry.path))
    journal.commit(dataset, run, state.sequence - 1, [move], state, Change("export", state.sequence, run, "2025"))
    return time.perf_counter() - started


def _state(dataset: Dataset) -> FeedState:
    state = metadata.load(dataset)
    assert state is not None
    return state


def _process(script: str, *arguments: str) -> tuple[float, float]:
    """(wall seconds, peak MB) of a script."""
    code = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, code)\n"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, script, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    peak, result = map(int, done.stdout.split())
    assert result in (0, 1), done.stderr
    return time.perf_counter() - started, peak * resource.getpagesize() / 4096 / 1000


def _table(lake: Path) -> int:
    """Bytes of metadata and state log of a table that is exported each night and keeps seven versions."""
    dataset = Dataset(lake, "t", "table")
    state = new_table("T", "2022-01-01T02:00:00Z")
    for night in range(1, NIGHTS + 1):
        now = f"{dt.datetime(2022, 1, 1, 2) + dt.timedelta(days=night):%Y-%m-%dT%H:%M:%SZ}"
        run, path = f"{now[:10].replace('-', '')}T020000_{night:06d}", version_path(night)
        dataset.local(path).mkdir(parents=True)
        dataset.local(f"{path}/f.parquet").write_bytes(b"PAR1")
        state.files.add([FileEntry(f"{path}/f.parquet", path, 50, 4000, night, run, "export", "1.0", now)])
        state.sequence, state.run, state.last_export = state.sequence + 1, run, now
        state.last_version, state.current = night, Current(f"v{night}", path)
        state.last_run = LastRun(now, 50, 1, "ok")
        journal.commit(dataset, run, state.sequence - 1, (), state, Change("export", state.sequence, run, now))
        moment = dt.datetime.fromisoformat(now)
        decided = retention.plan("t", state, retention.Rule(versions=7, max_share=1.0), moment)
        if decided.going:
            retention.apply(dataset, state, decided, f"{run}r", now=now, by="cron")
    return os.stat(dataset.metadata).st_size + os.stat(dataset.log).st_size


if __name__ == "__main__":
    main()
