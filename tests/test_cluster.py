"""--cluster with a real Dask scheduler and workers of its own: the same lake, also when a worker is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, Fault
from ksql_lake.model.state import new_stream
from tests.conftest import ROOT
from tests.test_crash import strays

JAN15 = 1_736_899_200_000
NAMES = ("a", "b", "c")


@contextmanager
def started(*command: str, path: str = str(ROOT)) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler or worker in another directory than ours, which finds the package by PYTHONPATH only."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd="/", env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def worker(address: str, name: str, path: str = str(ROOT)) -> Any:
    return started(
        "distributed.cli.dask_worker", address, "--nthreads", "2", "--no-nanny", "--no-dashboard", "--name", name,
        "--host", "127.0.0.1", path=path,
    )


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "scheduler.json"
    with started(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file",
        str(file),
    ):
        for _ in range(1200):
            if file.exists() and file.read_text().endswith("}"):
                break
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.3")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "5")
        for name in NAMES:
            database.create_stream(name.upper(), "`ID` STRING", 2)
            for i in range(200):
                database.append(name.upper(), i % 2, JAN15 + i * 3_600_000, [f"{name}{i}"])
            assert manage_feeds.main(["add", "--name", name, "--type", "stream", "--source", name]) == 0
        database.create_table("T", "`ID` STRING KEY, `V` INTEGER")
        database.upsert("T", ["k", 1], JAN15)
        assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "t"]) == 0
        yield database


def ids(lake: Path, name: str) -> list[str]:
    return sorted(pd.read_parquet(lake / "streams" / name)["ID"])


def test_a_cluster_makes_the_same_lake(
    scheduler: str, ksqldb: EmbeddedKsqlDB, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = tmp_path / "lake"
    monkeypatch.setenv("RETENTION", "off")
    with worker(scheduler, "w1"), worker(scheduler, "w2"):
        assert export_to_data_lake.main(["--all", "--cluster", scheduler]) == 0
        shown = capfd.readouterr()
        assert shown.out.count("200 rows") == 3 and "1 rows as v1" in shown.out and shown.err == ""
        assert export_to_data_lake.main(["--all", "--cluster", scheduler, "--quiet"]) == 0
    for name in NAMES:
        assert ids(lake, name) == sorted(f"{name}{i}" for i in range(200)), "the second run added nothing"
    assert metadata_utils.main(["--verify", "--deep"]) == 0 and strays(lake) == []
    runs = [json.loads(line) for line in (lake / "logs" / "runs.jsonl").read_text().splitlines()]
    assert {r["feed"]: r["offsets"] for r in runs[:4]}["a"] == {"0": [0, 99], "1": [0, 99]}


def test_a_worker_killed_at_work(scheduler: str, ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """The other worker begins again under another name; what the dead one staged is never seen."""
    lake = tmp_path / "lake"
    ksqldb.faults.add(Fault(silent_after=100, silent_seconds=30), Fault(silent_after=100, silent_seconds=30))
    with worker(scheduler, "w1") as first:
        command = [sys.executable, str(ROOT / "export_to_data_lake.py"), "--stream", "a", "--cluster", scheduler]
        export = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(1200):
            if list((lake / ".staging").glob("a/*/a0")):
                break
            assert export.poll() is None, export.communicate()
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        with worker(scheduler, "w2"):
            out, error = export.communicate(timeout=60)
        assert (export.returncode, error) == (0, ""), error
        assert "200 rows" in out
    assert ids(lake, "a") == sorted(f"a{i}" for i in range(200))
    assert metadata_utils.main(["--verify", "--deep", "--feed", "a"]) == 0
    assert export_to_data_lake.main(["--stream", "a"]) == 0
    assert len(ids(lake, "a")) == 200 and strays(lake) == [], "the next run cleans up after the dead worker"


def test_what_a_cluster_lacks_is_said_before_anything_is_read(
    scheduler: str, ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ksql_lake.ingest.cluster.PATIENCE", 0.5)
    assert export_to_data_lake.main(["--all", "--cluster", "tcp://127.0.0.1:1"]) == 2
    assert "no scheduler answers" in capsys.readouterr().err
    assert export_to_data_lake.main(["--all", "--cluster", scheduler]) == 2
    assert f"start one with: dask worker {scheduler}" in capsys.readouterr().err
    monkeypatch.setattr("ksql_lake.ingest.cluster.PATIENCE", 15)
    with worker(scheduler, "w1", path=""):
        assert export_to_data_lake.main(["--all", "--cluster", scheduler]) == 2
        assert "cannot import ksql_lake; start it with PYTHONPATH" in capsys.readouterr().err
    assert not (tmp_path / "lake" / "streams").exists()


def test_a_failing_feed_fails_alone(scheduler: str, ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert manage_feeds.main(["add", "--name", "gone", "--type", "stream", "--source", "gone"]) == 0
    capsys.readouterr()
    with worker(scheduler, "w1"):
        assert export_to_data_lake.main(["--all", "--cluster", scheduler]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "gone: no such stream" in error
    assert len(ids(tmp_path / "lake", "c")) == 200


def test_a_worker_that_was_given_up_stages_nothing_more(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """The exporting process is killed, its worker reads on; the next run takes the lease away, and nothing is left."""
    import threading

    from ksql_lake.base.errors import StateError
    from ksql_lake.ingest.export import FeedTask, dataset_of, stage_on_worker
    from ksql_lake.ingest.staged import lease
    from ksql_lake.model.feeds import load
    from ksql_lake.sources.ksqldb.client import Server
    from ksql_lake.sources.pace import Limits
    from ksql_lake.store import journal
    from ksql_lake.store.writer import WriterOptions

    lake = tmp_path / "lake"
    ksqldb.faults.add(Fault(silent_after=100, silent_seconds=2))
    feed = load(lake / "feeds" / "active" / "a.json")
    task = FeedTask(feed, lake, Server(ksqldb.url), "20250115T020000_x", Limits(first_row=5, idle=3), WriterOptions())
    dataset = dataset_of(task)
    raised: list[BaseException] = []

    def work(given: FeedTask) -> None:
        try:
            stage_on_worker(given, new_stream("a", "UTC", None, "2025-01-15T02:00:00Z"))
        except StateError as error:
            raised.append(error)

    with lease(dataset) as granted:
        options = WriterOptions(lease=granted, row_group_rows=10, file_rows=10)
        from dataclasses import replace

        thread = threading.Thread(target=work, args=(replace(task, writer=options),))
        thread.start()
        for _ in range(400):
            if list(dataset.staging.rglob("*.parquet")):
                break
            time.sleep(0.02)
        assert len(journal.recover(dataset)) == 1
        assert not granted.exists() and not list(dataset.staging.iterdir())
        thread.join(30)
    assert len(raised) == 1 and "the run that asked for these files is over" in str(raised[0])
    assert strays(lake) == [] and not list(dataset.staging.rglob("*.parquet"))
