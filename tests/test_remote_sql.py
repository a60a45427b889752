"""What other engines are told of a lake in two places: each day where it lies, none twice, none missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

import metadata_utils
from ksql_lake.catalogs.tables import Style, wanted
from ksql_lake.store import metadata as store_metadata
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.remote.places import sql_root
from tests.memory_store import MemoryStore
from tests.remote_lakes import files_of, lake_in, remote, rows, use


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = lake_in(tmp_path)
    monkeypatch.setenv("DATA_LAKE_DIR", str(made))
    return made


@pytest.fixture
def memory(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """With two of three days, and the older version, only there."""
    store = MemoryStore(tmp_path / "objects")
    use(store, monkeypatch)
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    assert remote("drop", "t", "--versions", "v1") == 0
    return store


def sql(capsys: Any, dialect: str, *more: str) -> str:
    capsys.readouterr()
    assert metadata_utils.main(["--sql", dialect, *more]) == 0
    return str(capsys.readouterr().out)


def test_duckdb_sees_every_row_once(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    told = sql(capsys, "duckdb")
    assert told.count("s3://memory/lake/streams/s/year=2025/month=01/day=1") == 4, "each file that is away"
    for _ in range(2):
        with duckdb.connect() as engine:
            engine.execute(told.replace("s3://memory/lake", str(memory.directory)))
            assert engine.execute("SELECT count(*), count(DISTINCT ID) FROM s").fetchall() == [(24, 24)]
            assert engine.execute("SELECT count(*) FROM s WHERE day = 15").fetchall() == [(8,)]
            assert engine.execute("SELECT count(*), sum(N) FROM t").fetchall() == [(5, 60)]
        assert remote("pull", "s", "--days", "2025-01-15") == 0  # both homes have it; it counts once
        told = sql(capsys, "duckdb")
    assert remote("drop", "s", "--days", "2025-01-15..2025-01-17") == 0 and files_of(lake) == []
    with duckdb.connect() as engine:
        engine.execute(sql(capsys, "duckdb").replace("s3://memory/lake", str(memory.directory)))
        assert engine.execute("SELECT count(*) FROM s").fetchall() == [(24,)]


@pytest.mark.parametrize(("dialect", "root", "more"), [
    ("spark", "s3a://memory/lake", []), ("hive", "s3a://memory/lake", []),
    ("athena", "s3://memory/lake", ["--location", "s3://elsewhere/lake"]),
])
def test_partitions_are_named_where_they_lie(
    lake: Path, memory: MemoryStore, capsys: Any, dialect: str, root: str, more: list[str]
) -> None:
    told = sql(capsys, dialect, *more)
    here = more[1] if more else f"file://{lake}"
    values = [f"(year = '2025', month = '01', day = '{day}')" for day in (15, 16, 17)]
    for value, place in zip(values, (root, root, here), strict=True):
        day = value[-4:-2]
        assert f"PARTITION {value} LOCATION '{place}/streams/s/year=2025/month=01/day={day}/'" in told
    moved = f"PARTITION {values[0]} SET LOCATION '{root}/streams/s/year=2025/month=01/day=15/';"
    assert moved in told and told.count("SET LOCATION") == 3, "days and the version that a table has by their old place"


def test_bigquery_is_told_what_it_misses(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert "-- not seen by BigQuery: 2 partitions only in s3://memory/lake/streams/s" in sql(
        capsys, "bigquery", "--location", "gs://elsewhere/lake")


def test_catalogs_have_each_partition_where_it_lies(lake: Path, memory: MemoryStore) -> None:
    state = store_metadata.load(Dataset(lake, "s", "stream"))
    assert state is not None
    (table,) = wanted("s", state, "s3://elsewhere/lake", Style(True, True, True), sql_root(lake, "glue", {}))
    places = {values[2]: table.where(values) for values in table.partitions}
    assert places["15"] == "s3://memory/lake/streams/s/year=2025/month=01/day=15/"
    assert places["17"] == "s3://elsewhere/lake/streams/s/year=2025/month=01/day=17/"
    (before,) = wanted("s", state, "s3://elsewhere/lake", Style(True, True, True))
    changed = {values[2] for values, mark in table.partitions.items() if before.partitions[values] != mark}
    assert changed == {"15", "16"}, "what moved is sent again"


def test_a_delta_log_follows_days_that_move(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remote("pull") == 0
    assert metadata_utils.main(["delta", "sync", "s"]) == 0
    assert remote("drop", "s", "--days", "2025-01-15") == 0
    log = sorted((lake / "streams" / "s" / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in log[-1].read_text().splitlines()]
    adds, removes = ([one[kind] for one in actions if kind in one] for kind in ("add", "remove"))
    assert len(adds) == len(removes) == 2 and not any(one["dataChange"] for one in (*adds, *removes))
    assert all(one["path"].startswith("s3a://memory/lake/streams/s/year=2025/month=01/day=15/") for one in adds)
    assert remote("pull", "s") == 0
    last = sorted((lake / "streams" / "s" / "_delta_log").glob("*.json"))[-1]
    back = [json.loads(line)["add"]["path"] for line in last.read_text().splitlines() if '"add"' in line]
    assert sorted(back) == [path for path in files_of(lake) if "day=15" in path] and len(rows(lake)) == 24


def test_an_azure_remote_is_named_for_hadoop(lake: Path) -> None:
    (lake / ".state" / "remote.json").write_text('{"lake": "1", "url": "az://data/lake"}')
    assert sql_root(lake, "spark", {"AZURE_STORAGE_ACCOUNT": "acme"}) == "abfss://data@acme.dfs.core.windows.net/lake"
    text = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=c2VjcmV0==;EndpointSuffix=core.windows.net"
    assert sql_root(lake, "hive", {"AZURE_STORAGE_CONNECTION_STRING": text}) == (
        "abfss://data@acme.dfs.core.windows.net/lake")
    assert sql_root(lake, "duckdb", {}) == "az://data/lake"
