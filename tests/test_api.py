"""`import ksql_lake`: what notebooks and schedulers use, and the examples that show it."""

from __future__ import annotations

import datetime as dt
import importlib.util
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
from ksql_lake.base.errors import ConfigError
from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo
from tests.conftest import ROOT

JAN15 = 1_736_899_200_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        monkeypatch.setenv("RETENTION", "off")
        for name in ("S", "R"):
            database.create_stream(name, "`ID` STRING", 1)
            for i in range(10):
                database.append(name, 0, JAN15 + i * 43_200_000, [f"e{i}"])
            assert manage_feeds.main(["add", "--name", name.lower(), "--type", "stream", "--source", name]) == 0
        yield database


def test_export_is_the_command(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    handlers = list(logging.getLogger().handlers)
    first = ksql_lake.export()
    assert [(one["feed"], one["result"], one["rows"]) for one in first] == [("r", "ok", 10), ("s", "ok", 10)]
    assert [one["rows"] for one in ksql_lake.export()] == [0, 0], "the second time there is nothing new"
    assert capsys.readouterr() == ("", "") and logging.getLogger().handlers == handlers, "it says nothing by itself"
    assert len(ksql_lake.read("s")) == 10, "read finds the same lake by DATA_LAKE_DIR"
    assert export_to_data_lake.main(["--stream", "s", "--json"]) == 0
    import json

    by_command = json.loads(capsys.readouterr().out)[0]
    assert by_command.keys() == first[0].keys()


def test_names_days_lake_and_settings_are_arguments(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KSQLDB_URL")
    lake = tmp_path / "lake"
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "other"))
    given: dict[str, object] = {"KSQLDB_URL": ksqldb.url, "PARQUET_COMPRESSION": "zstd", "JOBS": 1}
    results = ksql_lake.export("s", lake=lake, settings=given, days=["2025-01-16", dt.date(2025, 1, 17)])
    assert [(one["feed"], one["rows"]) for one in results] == [("s", 4)]
    assert sorted(ksql_lake.read("s", lake=lake)["ID"]) == ["e2", "e3", "e4", "e5"]
    results = ksql_lake.export(["s", "nobody"], lake=lake, settings=given)
    assert [(one["feed"], one["result"]) for one in results] == [("nobody", "failed"), ("s", "ok")]
    assert "no such feed" in results[0]["messages"][0]
    for wrong in ({"JOBS": "many"}, {"JBOS": 1}):
        with pytest.raises(ConfigError):
            ksql_lake.export(lake=lake, settings=wrong)
    results = ksql_lake.export(lake=lake, settings={"KSQLDB_URL": "http://127.0.0.1:1", "KSQLDB_TIMEOUT": 0.1})
    assert [one["result"] for one in results] == ["failed", "failed"]
    assert "cannot be reached" in results[0]["messages"][0]


def test_the_options_of_the_script(ksqldb: EmbeddedKsqlDB) -> None:
    import json

    ksqldb.create_table("T", "`ID` STRING KEY, `N` BIGINT")
    for i in range(10):
        ksqldb.upsert("T", [f"k{i}", i])
    assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "T"]) == 0
    results = ksql_lake.export(since="2025-01-17", source="rest")
    assert [(one["feed"], one["rows"], one["exit_code"]) for one in results] == [("r", 6, 0), ("s", 6, 0), ("t", 10, 0)]
    assert json.loads(json.dumps(results)) == results, "nothing but what JSON has"
    for i in range(9):
        ksqldb.delete("T", [f"k{i}"])
    assert [one["result"] for one in ksql_lake.export("t")] == ["failed"]
    assert [one["result"] for one in ksql_lake.export("t", allow_shrink=True)] == ["ok"]
    ksqldb.cluster_id = "another-cluster"
    (refused,) = ksql_lake.export("t")
    assert refused["result"] == "failed" and "--accept-cluster" in refused["messages"][0]
    assert ksql_lake.export("t", accept_cluster=True)[0]["result"] == "ok"
    for wrong in ({"source": "carrier pigeon"}, {"since": "yesterday"}, {"days": ["2025-13-01"]}):
        with pytest.raises(ConfigError, match="expected"):
            ksql_lake.export("s", **wrong)  # type: ignore[arg-type]


def test_an_export_from_python_is_logged_as_the_script_logs_it(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    """Into the lake's log, at its level; the caller's own logging gets what it got before, no more and no less."""
    capsys.readouterr()
    loggers = [logging.getLogger(name) for name in ("export_to_data_lake", "ksql_lake")]
    before = [(one.level, one.propagate, list(one.handlers)) for one in loggers]
    own = logging.getLogger("mine")
    ksql_lake.export("s")
    own.info("of the caller")
    assert [(one.level, one.propagate, list(one.handlers)) for one in loggers] == before
    (log,) = (tmp_path / "lake" / "logs").glob("export_*.log")
    assert "INFO - s: 10 rows in" in log.read_text() and "of the caller" not in log.read_text()
    assert capsys.readouterr() == ("", "")
    there = log.read_text()
    ksql_lake.export("s", settings={"LOG_LEVEL": "ERROR"})
    assert log.read_text() == there


def test_feeds_and_report(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    (tmp_path / "lake" / "feeds" / "active" / "bad.json").write_text("{")
    assert manage_feeds.main(["disable", "r"]) == 0
    assert [(one["name"], one["state"]) for one in ksql_lake.feeds()] == [
        ("bad", "broken"), ("r", "disabled"), ("s", "active")
    ]
    ksql_lake.export("s")
    assert [(one["feed"], one["rows"]) for one in ksql_lake.report("s")] == [("s", 10)]
    assert {one["feed"] for one in ksql_lake.report()} == {"bad", "r", "s"}


def test_where_read_looks(ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ksql_lake.export("s")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lake").rename(tmp_path / "data_lake")
    monkeypatch.delenv("DATA_LAKE_DIR")
    assert len(ksql_lake.read("s")) == 10, "data_lake below the current directory"
    settings = tmp_path / "settings.toml"
    settings.write_text(f'DATA_LAKE_DIR = "{tmp_path / "data_lake"}"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("DATA_LAKE_SETTINGS", str(settings))
    assert len(ksql_lake.read("s")) == 10, "the settings file"


def test_the_package_shows_what_it_offers() -> None:
    code = "import ksql_lake; ksql_lake.feeds(lake='nowhere'); print(dir(ksql_lake))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['__version__', 'export', 'feeds', 'read', 'report']\n"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        fill_demo(database, 300, 1, export_to_data_lake.DEMO_START, 3)
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("RETENTION", "off")
        assert manage_feeds.main(["sync"]) == 0
        yield database


def test_the_notebook_runs_from_top_to_bottom(demo: EmbeddedKsqlDB, capsys: Any) -> None:
    made = runpy.run_path(str(ROOT / "examples" / "notebook.py"))
    assert len(made["totals"]) == 4 and made["results"]["rows"].sum() > 300 and len(made["sales"]) == 100
    assert made["sales"].columns.tolist()[:3] == ["COUNTRY", "CURRENCY", "AMOUNT"]


def test_the_server_with_sources_of_its_own_serves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "own_server.py"), "--port", "0"], cwd=tmp_path,
        stdout=subprocess.PIPE, text=True,
    )
    try:
        assert server.stdout is not None
        for name, value in (("KSQLDB_URL", server.stdout.readline().split()[2].strip(";")), ("IDLE_SECONDS", "0.3")):
            monkeypatch.setenv(name, value)
        assert manage_feeds.main(["discover", "--add"]) == 0 and manage_feeds.main(["check", "--online"]) == 0
        assert [one["rows"] for one in ksql_lake.export()] == [20, 300]
        assert len(ksql_lake.read("orders")) == 300 and len(ksql_lake.read("customers")) == 20
    finally:
        server.terminate()
        assert server.wait(10) == 0


def test_the_tasks_of_the_dag_run(demo: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each task calls, in the order of the DAG; the DAG itself where Airflow is installed."""
    dag = runpy.run_path(str(ROOT / "examples" / "airflow_dag.py"))
    names = dag["feed_names"]()
    assert len(names) == 8
    assert sum(dag["export_feed"](name) for name in names if "stream" in name or "flattened" in name) > 900
    with pytest.raises(RuntimeError, match="no such feed"):
        dag["export_feed"]("nobody")
    with pytest.raises(RuntimeError, match="hours old"):  # events of 2025: a nightly lake would be stale
        dag["check_report"]()
    if importlib.util.find_spec("airflow"):
        assert os.environ and "ksql_lake_export" in dag
