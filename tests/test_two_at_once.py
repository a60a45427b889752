"""Two runs at the same moment, one stopped, one killed with its locks, and feeds side by side."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, Fault
from tests.conftest import ROOT

JAN15 = 1_736_899_200_000
NAMES = ("a", "b", "c")


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.5")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "5")
        for name in NAMES:
            database.create_stream(name.upper(), "`ID` STRING", 2)
            for i in range(40):
                database.append(name.upper(), i % 2, JAN15 + i * 3_600_000, [f"{name}{i}"])
            assert manage_feeds.main(["add", "--name", name, "--type", "stream", "--source", name]) == 0
        yield database


def start(*argv: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "export_to_data_lake.py"), *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def until_locked(lake: Path, name: str, process: subprocess.Popen[str]) -> None:
    """Wait until that process says in the lock file that it holds the lock."""
    lock = lake / ".state" / f"{name}.lock"
    for _ in range(600):
        if lock.exists() and f'"pid": {process.pid}' in lock.read_text():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"{name} was never locked")


def ids(lake: Path, name: str) -> list[str]:
    files = (lake / "streams" / name).rglob("*.parquet")
    return sorted(value for path in files for value in pq.ParquetFile(path).read(["ID"])["ID"].to_pylist())


def check(lake: Path) -> None:
    for name in NAMES:
        assert ids(lake, name) == sorted(f"{name}{i}" for i in range(40))
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0
    assert not list((lake / ".staging").glob("*/*"))


def test_two_runs_of_everything_at_the_same_moment(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    runs = [start("--all"), start("--all")]
    said = [run.communicate(timeout=60) for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes in ([0, 0], [0, 3], [3, 3]), said
    for code, (_, err) in zip((run.returncode for run in runs), said, strict=True):
        held = re.findall(r"another run \(pid \d+\) has held the lock since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", err)
        assert bool(held) == (code == 3), err
    assert export_to_data_lake.main(["--all"]) == 0
    check(tmp_path / "lake")


def test_one_that_waits_goes_on_when_the_other_is_done(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    runs = [start("--all"), start("--all", "--wait")]
    said = [run.communicate(timeout=60) for run in runs]
    assert runs[1].returncode == 0 and runs[0].returncode in (0, 3), said
    check(tmp_path / "lake")


def test_a_stopped_run_keeps_its_lock_and_finishes_when_it_wakes(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    ksqldb.faults.add(*[Fault(silent_after=10, silent_seconds=1.0)] * 2)
    stopped = start("--stream", "a")
    until_locked(tmp_path / "lake", "a", stopped)
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        assert export_to_data_lake.main(["--all"]) == 3
        assert f"a: another run (pid {stopped.pid}) has held the lock since" in capsys.readouterr().err
        assert ids(tmp_path / "lake", "b") and not ids(tmp_path / "lake", "a")
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 0, (out, err)
    assert export_to_data_lake.main(["--all"]) == 0
    check(tmp_path / "lake")


def test_a_run_killed_with_its_lock_holds_nobody_up(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    ksqldb.faults.add(*[Fault(silent_after=10, silent_seconds=1.0)] * 2)
    killed = start("--stream", "a")
    until_locked(tmp_path / "lake", "a", killed)
    killed.kill()
    killed.communicate()
    ksqldb.faults.clear()  # what the killed run did not take must not silence the good one
    assert export_to_data_lake.main(["--all"]) == 0
    check(tmp_path / "lake")


def test_jobs_make_the_same_lake_and_a_slow_feed_holds_nobody(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """One feed's answer is silent for a while; the other two are committed before it."""
    monkeypatch.setenv("IDLE_SECONDS", "3")
    for name in NAMES[1:]:
        feed = tmp_path / "lake" / "feeds" / "active" / f"{name}.json"
        feed.write_text(feed.read_text().replace('"enabled"', '"idle_seconds": 0.3,\n  "enabled"'))
    capsys.readouterr()
    assert export_to_data_lake.main(["--all", "--jobs", "3"]) == 0
    order = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(order) == list(NAMES) and order[-1] == "a"
    check(tmp_path / "lake")


def test_jobs_with_a_failing_feed(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    ksqldb.drop("B")
    capsys.readouterr()
    assert export_to_data_lake.main(["--all", "--jobs", "2", "--json"]) == 1
    shown = capsys.readouterr()
    results = {result["feed"]: result["result"] for result in json.loads(shown.out)}
    assert results == {"a": "ok", "b": "failed", "c": "ok"}
    assert "no such stream" in shown.err


def test_an_interrupt_does_not_wait_for_feeds_at_work(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """Ctrl-C with --jobs: at once, exit code 130, and the next run makes it right."""
    ksqldb.faults.add(*(Fault(silent_after=5, silent_seconds=60) for _ in range(12)))
    process = start("--all", "--jobs", "3")
    for name in NAMES:
        until_locked(tmp_path / "lake", name, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - began < 10, error
    assert error.startswith("interrupted; what was committed stays") and error.count("\n") == 1
    ksqldb.faults.clear()
    assert export_to_data_lake.main(["--all"]) == 0
    for name in NAMES:
        assert ids(tmp_path / "lake", name) == sorted(f"{name}{i}" for i in range(40))
