"""`--register iceberg` and REGISTER with an SQL catalog (SQLite): pyiceberg and Polars read what `read` says.

REST catalogs and other engines: tests/test_engines_iceberg.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.errors import ConfigError
from ksql_lake.catalogs.targets import parse
from ksql_lake.embedded import EmbeddedKsqlDB
from tests import typed_lake
from tests.typed_lake import DAY, JAN15

FEEDS = {"all_types": "all_types", "events": "events", "t_totals": "t.totals", "empty": "empty"}


@pytest.fixture(scope="module")
def database() -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as made:
        yield made


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, EmbeddedKsqlDB]]:
    """The typed lake in microseconds, which has no TIME: Iceberg cannot have one."""
    with EmbeddedKsqlDB() as database:
        without_time(monkeypatch)
        made = tmp_path / "lake"
        typed_lake.build(made, database, monkeypatch, "timestamps=us")
        (tmp_path / "warehouse").mkdir()
        monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
        yield made, database


def without_time(patch: pytest.MonkeyPatch) -> None:
    values = list(typed_lake.VALUES)
    values[8] = values[9]
    patch.setattr(typed_lake, "COLUMNS", typed_lake.COLUMNS.replace("`TM` TIME,", "`TM` TIMESTAMP,"))
    patch.setattr(typed_lake, "VALUES", values)


def uri(lake: Path) -> str:
    return f"sqlite:///{lake.parent}/warehouse/catalog.db"


def register(lake: Path, *more: str, code: int = 0) -> None:
    argv = ["--register", "iceberg", "--uri", uri(lake), "--database", "lake", "--lake", str(lake)]
    assert metadata_utils.main([*argv, "--warehouse", f"file://{lake.parent}/warehouse", *more]) == code


def catalog(lake: Path) -> Catalog:
    return load_catalog("ksql_lake", type="sql", uri=uri(lake), warehouse=f"file://{lake.parent}/warehouse")


def table(lake: Path, name: str) -> Table:
    return catalog(lake).load_table(("lake", name))


def active(of: Table) -> list[str]:
    return sorted(task.file.file_path for task in of.scan().plan_files())


def same(lake: Path, *feeds: str) -> None:
    """Each table has exactly the files of its feed, and pyiceberg and Polars read what `read` says."""
    for name, feed in FEEDS.items():
        if feeds and feed not in feeds:
            continue
        there, mine = table(lake, name), ksql_lake.read(feed, lake=lake, arrow=True)
        keys = [(key, "ascending") for key in (["K"] if name == "t_totals" else ["ROWPARTITION", "ROWOFFSET", "ID"])
                if key in mine.schema.names]
        found = there.scan().to_arrow()
        mine = mine.select(found.schema.names).sort_by(keys)
        found = found.sort_by(keys)
        assert found.to_pylist() == mine.to_pylist(), feed
        frame = pl.scan_iceberg(there).collect()
        assert frame.height == len(mine) and frame.columns == found.schema.names
        kind = "tables" if name == "t_totals" else "streams"
        state = json.loads((lake / kind / feed / "_metadata.json").read_text())
        files = [file["path"] for file in state["files"]
                 if kind == "streams" or file["partition"] == state["current"]["path"]]
        assert active(there) == sorted(f"file://{lake}/{kind}/{feed}/{path}" for path in files)
        snapshot = there.current_snapshot()
        assert snapshot is not None and snapshot.summary is not None and snapshot.summary["ksql_lake.sequence"]


def test_every_feed_is_a_table_and_nothing_is_sent_twice(lake: Any, capsys: Any) -> None:
    there, _ = lake
    capsys.readouterr()
    register(there, "--dry-run")
    assert "4 tables, 4 would change, 0 failed" in capsys.readouterr().out
    register(there)
    assert "lake.events: add 3 files: file:///" in capsys.readouterr().out
    same(there)
    for forgotten in (False, True):
        if forgotten:
            (there / ".state" / "iceberg.json").unlink()
        register(there)
        assert capsys.readouterr().out == "4 tables, 0 changed, 0 failed\n"
    events = table(there, "events")
    assert [str(one.transform) for one in events.spec().fields] == ["day"]
    assert not table(there, "t_totals").spec().fields
    plan = list(events.scan("ROWTIME >= '2025-01-16T00:00:00+00:00'").plan_files())
    assert len(plan) == 2 and events.scan("ROWTIME >= '2025-01-16T00:00:00+00:00'").to_arrow().num_rows == 13
    late = pl.scan_iceberg(events).filter(pl.col("ROWTIME") >= pl.datetime(2025, 1, 16, time_zone="UTC")).collect()
    assert late.height == 13
    assert events.schema().find_field("ROWTIME").field_type.__class__.__name__ == "TimestamptzType"


def test_it_follows_every_change(lake: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """REGISTER: exports, a compaction, an erasure, a rollback, a later column; one snapshot each, none without need."""
    there, database = lake
    where = f"iceberg:{uri(there)}/lake?warehouse=file://{there.parent}/warehouse"
    monkeypatch.setenv("REGISTER", where)

    def run(script: Any, *argv: str) -> None:
        assert script.main([*argv, "--lake", str(there)]) == 0, capsys.readouterr()
        same(there)

    run(export_to_data_lake, "--all", "--quiet")
    for i in range(3):
        database.append("EVENTS", 0, JAN15 + DAY + i, [f"late{i}", Decimal(i), i])
        run(export_to_data_lake, "--stream", "events", "--quiet")
    before = table(there, "events").snapshots()
    run(manage_feeds, "compact", "events")
    run(manage_feeds, "erase", "--where", "ID=late1", "--later", "drop")
    run(manage_feeds, "rollback", "t.totals", "v1")
    run(manage_feeds, "rollback", "t.totals", "v2")
    database.upsert("TOTALS", ["c", Decimal(7)])
    run(export_to_data_lake, "--table", "t.totals", "--quiet")
    database.drop("EVENTS")
    database.create_stream("EVENTS", "`ID` STRING, `AMOUNT` DECIMAL(12, 2), `N` BIGINT, `NEW` ARRAY<TIMESTAMP>", 2)
    for _ in range(10):
        database.append("EVENTS", 0, JAN15 + 3 * DAY, ["again", None, None, [JAN15]])
    assert export_to_data_lake.main(["--stream", "events", "--quiet"]) in (0, 1)
    same(there)
    assert "NEW" in table(there, "events").scan().to_arrow().schema.names
    kept = [one.summary["ksql_lake.sequence"] for one in table(there, "events").snapshots() if one.summary]
    assert len(kept) == len(set(kept)) and len(before) == 4
    (old,) = (one for one in table(there, "t_totals").snapshots()[-2:-1])
    then = table(there, "t_totals").scan(snapshot_id=old.snapshot_id).to_arrow()
    assert len(then) == 2, "the version before, as long as it is kept"


def test_a_new_file_leaves_the_manifests_of_the_others_alone(lake: Any) -> None:
    """What a registration costs does not grow with the table."""
    there, database = lake
    register(there)
    before = {one.manifest_path for one in _manifests(table(there, "events"))}
    database.append("EVENTS", 0, JAN15 + 9 * DAY, ["new", Decimal(1), 1])
    assert export_to_data_lake.main(["--stream", "events", "--quiet", "--lake", str(there)]) == 0
    register(there)
    after = _manifests(table(there, "events"))
    assert before < {one.manifest_path for one in after} and len(after) == len(before) + 1
    same(there, "events")


def _manifests(of: Table) -> list[Any]:
    snapshot = of.current_snapshot()
    assert snapshot is not None
    return snapshot.manifests(of.io)


def test_days_of_another_zone_have_no_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "lake"
    (tmp_path / "warehouse").mkdir()
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("DATA_LAKE_DIR", str(there))):
            monkeypatch.setenv(name, value)
        database.create_stream("S", "`ID` STRING, `AT` TIMESTAMP", 1)
        for i in range(48):
            database.append("S", 0, JAN15 + i * DAY // 24, [f"e{i}", JAN15])
        for name, more in (("zone", ["timezone=Asia/Kolkata"]), ("at", ["timestamp_column=AT"])):
            given = ["--name", name, "--type", "stream", "--source", "s", "timestamps=us", *more]
            assert manage_feeds.main(["add", *given]) == 0
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    register(there)
    for name in ("zone", "at"):
        found = table(there, name)
        assert not found.spec().fields and found.scan().to_arrow().num_rows == 48
        assert found.scan("ROWTIME >= '2025-01-16T00:00:00+00:00'").to_arrow().num_rows == 24


def test_what_iceberg_cannot_have_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    there = tmp_path / "lake"
    (tmp_path / "warehouse").mkdir()
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("DATA_LAKE_DIR", str(there))):
            monkeypatch.setenv(name, value)
        database.create_stream("S", "`ID` STRING", 1)
        database.create_stream("T", "`ID` STRING, `L` ARRAY<STRUCT<`TM` TIME>>", 1)
        for name, source, unit in (("milli", "s", "ms"), ("micro", "s", "us"), ("time", "t", "us")):
            database.append(source.upper(), 0, JAN15, ["a", None][: 1 if source == "s" else 2])
            given = ["--name", name, "--type", "stream", "--source", source, f"timestamps={unit}"]
            assert manage_feeds.main(["add", *given]) == 0
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    capsys.readouterr()
    register(there, code=1)
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error")]
    assert len(errors) == 2 and "3 tables, 1 changed, 2 failed" in said.out
    assert errors[0].startswith("error: lake.milli: its files count milliseconds") and '"timestamps": "us"' in errors[0]
    assert errors[1].startswith("error: lake.time: column L is a TIME")


def test_a_table_of_somebody_else_and_a_foreign_snapshot(lake: Any, capsys: Any) -> None:
    there, _ = lake
    made = catalog(there)
    made.create_namespace("lake")
    made.create_table(("lake", "events"), pa.schema([("a", pa.int64())]))
    capsys.readouterr()
    register(there, code=1)
    assert "lake.events: table events: was not made by --register" in capsys.readouterr().err
    made.drop_table(("lake", "events"))
    register(there)
    table(there, "t_totals").append(pa.table({"K": ["z"], "TOTAL": pa.array([Decimal("1.00")], pa.decimal128(12, 2))}))
    capsys.readouterr()
    register(there, code=1)
    told = capsys.readouterr().err
    assert "lake.t_totals: its snapshot" in told and "was not written by this tool; drop the table" in told
    made.drop_table(("lake", "t_totals"))
    register(there)
    same(there)
    assert made.load_table(("lake", "events")).properties["gc.enabled"] == "false"


@pytest.mark.parametrize(("argv", "told"), [
    (["--register", "iceberg", "--database", "x"], "--register iceberg needs --uri http://HOST:PORT"),
    (["--register", "iceberg", "--database", "x", "--uri", "sqlite:////tmp/x.db"], "needs --warehouse URI"),
    (["--register", "iceberg", "--database", "x", "--uri", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
    (["--register", "iceberg", "--database", "x", "--uri", "nothing://x", "--warehouse", "file:///x"], "nothing"),
    (["--register", "glue", "--database", "x", "--warehouse", "file:///x"], "only go with --register iceberg"),
    (["--register", "iceberg", "--database", "x", "--uri", "http://x", "--without-time"], "go with --register hive"),
])
def test_what_does_not_connect_is_told_in_a_line(tmp_path: Path, capsys: Any, argv: list[str], told: str) -> None:
    (tmp_path / "lake").mkdir()
    assert metadata_utils.main([*argv, "--lake", str(tmp_path / "lake")]) in (1, 2)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert told in line


def test_without_pyiceberg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "lake").mkdir()
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyiceberg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    argv = ["--register", "iceberg", "--uri", "http://127.0.0.1:9", "--database", "x", "--lake", str(tmp_path / "lake")]
    assert metadata_utils.main(argv) == 2
    assert "needs pyiceberg: pip install -r requirements-iceberg.txt" in capsys.readouterr().err


def test_register_names_an_iceberg_catalog() -> None:
    (rest, sql) = parse("iceberg:http://localhost:8181/api/lake?location=s3://b/l,iceberg:sqlite:////srv/c.db/Lake"
                        "?warehouse=file:///srv/w")
    assert rest.name == "iceberg:http://localhost:8181/api/lake" and sql.name == "iceberg:sqlite:////srv/c.db/lake"
    for wrong in ("iceberg:", "iceberg:http://x", "iceberg:lake", "iceberg:http://x/y?colour=red"):
        with pytest.raises(ConfigError):
            parse(wrong)
