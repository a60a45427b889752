"""A feed's Delta log: read by delta-rs and Polars after everything that happens to a lake, locked, healed, told."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as pads
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake import read
from ksql_lake.catalogs.delta import plan
from ksql_lake.catalogs.delta.actions import Commit, Version
from ksql_lake.catalogs.delta.log import Log
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.recorded import UNITS
from ksql_lake.model.state import FeedState
from ksql_lake.store import metadata
from tests.conftest import ROOT
from tests.test_crash import drive
from tests.test_types_property import plain
from tests.typed_lake import build

deltalake = pytest.importorskip("deltalake", reason="pip install -r requirements-dev.txt")
JAN15 = 1_736_899_200_000
DAY = 86_400_000


@pytest.fixture(scope="module", params=UNITS)
def typed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every type, two column ages, a table with two versions; logs kept from the first export on. In each unit."""
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        made = tmp_path_factory.mktemp("delta") / "lake"
        patch.setenv("DELTA", "on")
        build(made, database, patch, f"timestamps={request.param}")
        patch.undo()
        yield made


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    """A stream with three nights of two days and a table with two versions, both with a log."""
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2"),
                            ("RETENTION", "off")):
            monkeypatch.setenv(name, value)
        database.create_stream("S", "`ID` STRING, `V` DECIMAL(12, 2)", 2)
        database.create_table("T", "`K` STRING KEY, `V` INTEGER")
        for name, kind in (("s", "stream"), ("t", "table")):
            assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name, "delta=true"]) == 0
        for night in range(3):
            produce(database, night)
            database.upsert("T", [f"k{night}", night])
            if night < 2:
                assert export("--all") == 0
        assert export("--stream", "s") == 0
        yield database


@pytest.fixture
def lake(tmp_path: Path, ksqldb: EmbeddedKsqlDB) -> Path:
    return tmp_path / "lake"


def produce(database: EmbeddedKsqlDB, night: int) -> None:
    for i in range(10):
        database.append("S", i % 2, JAN15 + i % 2 * DAY, [f"e{night}_{i}", Decimal(i)])


def export(*argv: str) -> int:
    return export_to_data_lake.main([*argv, "--quiet"])


def delta(*argv: str) -> int:
    return metadata_utils.main(["delta", *argv])


def table(lake: Path, name: str, version: int | None = None) -> Any:
    kind = "streams" if (lake / "streams" / name).is_dir() else "tables"
    return deltalake.DeltaTable(lake / kind / name, version=version)


def rows(lake: Path, name: str, version: int | None = None) -> list[Any]:
    """What a reader of the Delta table gets, without the partition columns."""
    found = table(lake, name, version).to_pyarrow_table().to_pylist()
    return sorted(tuple(row[key] for key in row if key not in ("year", "month", "day", "version")) for row in found)


def lake_rows(lake: Path, name: str, **how: Any) -> list[Any]:
    found = read(name, lake=lake, arrow=True, **how).to_pylist()
    return sorted(tuple(row[key] for key in row if key not in ("year", "month", "day", "version")) for row in found)


def state_of(lake: Path, name: str) -> FeedState:
    kind = "stream" if (lake / "streams" / name).is_dir() else "table"
    found = metadata.load(metadata.Dataset(lake, name, kind))
    assert found is not None
    return found


def right(lake: Path, name: str) -> int:
    """The log is what the metadata are, delta-rs agrees with `read`, a second sync writes nothing; the version."""
    assert delta("verify", name) == 0
    made = table(lake, name)
    state = state_of(lake, name)
    active = {path.removeprefix(f"{made.table_uri.removeprefix('file://')}") for path in made.file_uris()}
    wanted = {file.path for file in state.files if plan.is_active(state, file)}
    assert {path.split("/s/")[-1].split("/t/")[-1].lstrip("/") for path in active} == wanted
    assert rows(lake, name) == lake_rows(lake, name)
    assert made.transaction_version("ksql_lake") == state.sequence
    version = made.version()
    assert delta("sync", name) == 0 and table(lake, name).version() == version
    return int(version)


def test_every_type_and_age_by_two_readers(typed: Path) -> None:
    """All values but those of TIME columns, which Delta has not: they are left out, and named in the table."""
    for name, kind, count in (("all_types", "streams", 4), ("events", "streams", 20), ("t.totals", "tables", 2)):
        expected = read(name, lake=typed, arrow=True)
        expected = expected.drop_columns([c for c in ("TM",) if c in expected.schema.names])
        if kind == "tables":
            expected = expected.drop_columns(["version"])
        order = [column for column in ("ROWPARTITION", "ROWOFFSET", "K") if column in expected.schema.names]
        wanted = [plain(row) for row in expected.sort_by([(key, "ascending") for key in order]).to_pylist()]
        arrow = table(typed, name).to_pyarrow_table().sort_by([(key, "ascending") for key in order])
        polars = pl.scan_delta(str(typed / kind / name)).sort(order).collect().to_arrow()
        for found in (arrow, polars):
            names = [column for column in found.schema.names if column != "version"]
            assert names == expected.schema.names and found.num_rows == count
            assert [plain(row) for row in found.select(names).cast(expected.schema).to_pylist()] == wanted, name
    description = table(typed, "all_types").metadata().description
    assert description == "Left out, since Delta has no TIME: TM"
    assert table(typed, "t.totals").to_pyarrow_table()["version"].to_pylist() == ["v2", "v2"]


def test_filters_prune_and_stay_right(typed: Path) -> None:
    """Statistics and partition values: a filter reads the days it needs, and no row is missed."""
    made = table(typed, "events")
    day = dt.datetime(2025, 1, 16, tzinfo=dt.UTC)
    for expression in (pads.field("ROWTIME") >= day, pads.field("day") > 15):
        assert made.to_pyarrow_dataset().to_table(filter=expression).num_rows == 13
    scan = pl.scan_delta(str(typed / "streams" / "events"))
    assert scan.filter(pl.col("ROWTIME") >= day).collect().height == 13
    assert scan.filter((pl.col("month") == 1) & (pl.col("day") == 16)).collect().height == 7
    assert len(made.file_uris(partition_filters=[("month", "=", "1"), ("day", "=", "15")])) == 1


def test_a_column_that_came_later_is_a_new_schema_of_the_same_table(typed: Path) -> None:
    first, last = table(typed, "all_types", 0), table(typed, "all_types")
    assert "LATE" not in [field.name for field in first.schema().fields]
    assert "LATE" in [field.name for field in last.schema().fields] and first.metadata().id == last.metadata().id
    assert first.to_pyarrow_table().num_rows == 2 and last.to_pyarrow_table().num_rows == 4


def test_what_happens_to_a_stream(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports, a compaction, retention, undo, an erasure: one version each, and the rows that `read` has."""
    assert right(lake, "s") == 2
    nights = [len(rows(lake, "s", version)) for version in range(3)]
    assert nights == [10, 20, 30], "earlier versions are the lake as it was"
    assert export("--stream", "s") == 0 and right(lake, "s") == 3, "a run without news is a change of the metadata too"
    before = rows(lake, "s")
    assert manage_feeds.main(["compact", "--older-than", "2d"]) == 0
    history = table(lake, "s").history()
    assert right(lake, "s") == 3 + len([h for h in history if h["operation"] == "COMPACT"])
    assert rows(lake, "s") == before and {a["dataChange"] for a in actions(lake, "s", 4)} == {False}
    monkeypatch.setenv("MAX_DELETE_PERCENT", "100")
    days = (dt.datetime.now(dt.UTC).date() - dt.date(2025, 1, 16)).days
    assert manage_feeds.main(["update", "s", f"retention_days={days}"]) == 0
    assert manage_feeds.main(["retention", "s"]) == 0
    version = right(lake, "s")
    assert len(rows(lake, "s")) == 15 and {a["dataChange"] for a in actions(lake, "s", version)} == {True}
    assert manage_feeds.main(["undo", "s"]) == 0
    assert right(lake, "s") == version + 1 and rows(lake, "s") == before
    assert manage_feeds.main(["erase", "--where", "ID=e1_3", "--later", "keep"]) == 0
    assert right(lake, "s") == version + 2 and len(rows(lake, "s")) == 29
    assert {a["dataChange"] for a in actions(lake, "s", version + 2)} == {True}
    with pytest.raises(FileNotFoundError):
        rows(lake, "s", 2)  # a stream's past ends where files went


def test_days_read_again_and_a_feed_begun_anew(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    before = rows(lake, "s")
    assert manage_feeds.main(["reload", "s", "--date", "2025-01-16"]) == 0
    assert right(lake, "s") == 3 and rows(lake, "s") == before
    assert manage_feeds.main(["reset", "s", "--yes"]) == 0
    assert delta("verify", "s") == 0 and rows(lake, "s") == []
    assert export("--stream", "s") == 0 and right(lake, "s") and len(rows(lake, "s")) == 30


def actions(lake: Path, name: str, version: int) -> list[dict[str, Any]]:
    kind = "streams" if (lake / "streams" / name).is_dir() else "tables"
    text = (lake / kind / name / "_delta_log" / f"{version:020d}.json").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    return [action.get("add") or action["remove"] for action in found if {"add", "remove"} & action.keys()]


def test_what_happens_to_a_table(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    """Each version of the table is a version of Delta; a rollback is one more, and what was current stays readable."""
    assert right(lake, "t") == 1 and [len(rows(lake, "t", v)) for v in (0, 1)] == [1, 2]
    assert export("--table", "t") == 0 and right(lake, "t") == 2 and len(rows(lake, "t")) == 3
    assert manage_feeds.main(["rollback", "t", "v1"]) == 0
    assert right(lake, "t") == 3 and len(rows(lake, "t")) == 1
    assert manage_feeds.main(["rollback", "t", "v3"]) == 0
    assert right(lake, "t") == 4 and rows(lake, "t") == rows(lake, "t", 2)
    assert [len(rows(lake, "t", v)) for v in range(4)] == [1, 2, 3, 1]
    kept = manage_feeds.main(["update", "t", "retention_versions=1"])
    assert kept == 0 and manage_feeds.main(["retention", "t", "--allow", "amount"]) in (0, 1, 2)
    right(lake, "t")


def test_rows_from_quarantine_and_lost_metadata(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    check = {"check": "not_null", "column": "ID", "level": "quarantine"}
    assert manage_feeds.main(["update", "s", f"checks={json.dumps([check])}"]) == 0
    ksqldb.append("S", 0, JAN15, [None, Decimal(1)])
    ksqldb.append("S", 0, JAN15, ["good", Decimal(1)])
    assert export("--stream", "s") in (0, 1) and right(lake, "s") == 3 and len(rows(lake, "s")) == 31
    assert manage_feeds.main(["update", "s", "checks=[]"]) == 0
    assert manage_feeds.main(["quarantine", "s", "--import"]) == 0
    assert right(lake, "s") == 4 and len(rows(lake, "s")) == 32
    before = rows(lake, "s")
    (lake / "streams" / "s" / "_metadata.json").unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    assert export("--stream", "s") == 0
    right(lake, "s")
    assert rows(lake, "s") == before


def test_the_same_question_in_read_and_in_delta(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    """The table as it was at a time: the version whose commit was the last before it."""
    at = dt.datetime.now(dt.UTC)
    time.sleep(1.1)  # the lake counts in whole seconds
    assert export("--table", "t") == 0
    made = table(lake, "t")
    made.load_as_version(at.isoformat())
    found = sorted((row["K"], row["V"]) for row in made.to_pyarrow_table().to_pylist())
    assert found == lake_rows(lake, "t", as_of=at) and len(found) == 2 and len(rows(lake, "t")) == 3


def test_other_writers_are_locked_out(lake: Path) -> None:
    """delta-rs refuses each of these, and no file is touched."""
    before = sorted(path for path in lake.rglob("*") if path.is_file())
    made = table(lake, "t")
    attempts = [
        lambda: made.optimize.compact(), lambda: made.delete("V = 1"),
        lambda: made.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False),
        lambda: deltalake.write_deltalake(made, made.to_pyarrow_table(), mode="append"),
    ]
    for attempt in attempts:
        with pytest.raises(Exception, match="(?i)feature"):
            attempt()
    assert sorted(path for path in lake.rglob("*") if path.is_file()) == before


def test_a_version_of_somebody_else_is_a_finding_with_its_way_out(
    lake: Path, ksqldb: EmbeddedKsqlDB, capsys: Any
) -> None:
    log = lake / "streams" / "s" / "_delta_log"
    stranger = {"commitInfo": {"timestamp": 1, "operation": "DELETE", "engineInfo": "Apache-Spark/4.0.5"}}
    gone = {"remove": {"path": actions(lake, "s", 0)[0]["path"], "dataChange": True, "deletionTimestamp": 1}}
    (log / f"{3:020d}.json").write_text("".join(json.dumps(line) + "\n" for line in (stranger, gone)))
    way = f"metadata_utils.py delta rebuild s --lake {lake}"
    capsys.readouterr()
    assert delta("verify", "s") == 1 and "version 3 was not written by this tool" in capsys.readouterr().out
    assert metadata_utils.main(["--verify", "--feed", "s"]) == 1 and way in capsys.readouterr().out
    produce(ksqldb, 3)
    assert export("--stream", "s") == 1, "the rows are in the lake, the log is left as it is"
    assert way in capsys.readouterr().err and len(read("s", lake=lake)) == 40
    assert len(list(log.glob("*.json"))) == 4
    assert delta("sync", "s") == 1 and way in capsys.readouterr().err
    old = table(lake, "s", 0).metadata().id
    assert delta("rebuild", "s") == 0
    assert right(lake, "s") == 0 and table(lake, "s").metadata().id != old
    (kept,) = (lake / ".state" / "delta").iterdir()
    assert f"now in {kept}" in capsys.readouterr().out and len(list(kept.glob("*.json"))) == 4
    assert export("--stream", "s") == 0 and right(lake, "s") == 1


@pytest.mark.parametrize("damage", ["missing", "torn", "hole"])
def test_a_damaged_log_is_a_finding(damage: str, lake: Path, capsys: Any) -> None:
    log = lake / "streams" / "s" / "_delta_log"
    if damage == "torn":
        (log / f"{1:020d}.json").write_text('{"commitInfo": {')
    elif damage == "hole":
        (log / f"{1:020d}.json").unlink()
    else:
        (log / f"{0:020d}.json").unlink()
    assert delta("verify", "s") == 1
    said = capsys.readouterr().out
    assert f"{1 if damage == 'torn' or damage == 'hole' else 0:020d}.json: is " in said and "delta rebuild s" in said
    assert delta("sync", "s") == 1 and delta("rebuild", "s") == 0
    right(lake, "s")


def test_a_version_is_put_only_where_there_is_none(tmp_path: Path) -> None:
    log = Log(tmp_path / "_delta_log", 0o750, 0o640)
    first, second = (Version(Commit("ksql_lake/1", name, "r", 1, 0)) for name in ("A", "B"))
    assert log.put(0, first) and not log.put(0, second)
    assert b'"A"' in log.path(0).read_bytes() and [p.name for p in log.directory.iterdir()] == [log.path(0).name]
    assert stat.S_IMODE(log.path(0).stat().st_mode) == 0o640 and stat.S_IMODE(log.directory.stat().st_mode) == 0o750


def test_plain_readers_see_what_they_saw_before(typed: Path, tmp_path: Path) -> None:
    """A log of JSON beside the files changes nothing for those who read the directory."""
    without = shutil.copytree(typed, tmp_path / "lake")
    for log in without.rglob("_delta_log"):
        shutil.rmtree(log)
    for lake in (typed, without):
        events = lake / "streams" / "events"
        assert len(pd.read_parquet(events)) == 20 and pads.dataset(events, partitioning="hive").count_rows() == 20
        glob = f"{events}/**/*.parquet"
        assert duckdb.sql(f"from read_parquet('{glob}', hive_partitioning=true)").to_arrow_table().num_rows == 20
        assert pl.scan_parquet(glob, hive_partitioning=True).collect().height == 20
        assert len(read("events", lake=lake)) == 20
        assert metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0
        assert metadata_utils.main(["--report", "--lake", str(lake)]) == 0


def test_a_checkpoint_on_request(lake: Path, ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    """Read instead of the versions before it; globs name the days then; none of our commands trips over it."""
    assert delta("checkpoint", "s", "t") == 0
    assert "year=*/**/*.parquet" in capsys.readouterr().out
    log = lake / "streams" / "s" / "_delta_log"
    moved = log / f"{0:020d}.json"
    moved.rename(lake / "moved")  # readers start from the checkpoint
    assert rows(lake, "s") == lake_rows(lake, "s")
    (lake / "moved").rename(moved)
    assert right(lake, "s") == 2 and right(lake, "t") == 1
    glob = f"{lake}/streams/s/year=*/**/*.parquet"
    assert duckdb.sql(f"from read_parquet('{glob}', hive_partitioning=true)").to_arrow_table().num_rows == 30
    assert pl.scan_parquet(glob, hive_partitioning=True).collect().height == 30
    assert len(pd.read_parquet(lake / "streams" / "s")) == 30
    for argv in (["--verify", "--deep"], ["--report"], ["--stats"], ["--rebuild"], ["--rebuild", "--feed", "s"]):
        assert metadata_utils.main(argv) == 0, argv
    produce(ksqldb, 3)
    assert export("--stream", "s") == 0 and "not in the feed's metadata" not in capsys.readouterr().err
    right(lake, "s")


def test_who_gets_a_log(lake: Path, ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A feed that says so, every other one by DELTA=on; and a log that is there is kept right in any case."""
    for name, said in (("a", []), ("b", ["delta=false"])):
        assert manage_feeds.main(["add", "--name", name, "--type", "stream", "--source", "s", *said]) == 0
    assert export("--all") == 0
    assert not list(lake.glob("streams/[ab]/_delta_log")) and (lake / "streams" / "s" / "_delta_log").is_dir()
    monkeypatch.setenv("DELTA", "on")
    assert export("--all") == 0
    assert [p.parent.name for p in lake.glob("streams/[ab]/_delta_log")] == ["a"]
    monkeypatch.setenv("DELTA", "off")
    assert manage_feeds.main(["update", "s", "delta=false"]) == 0
    produce(ksqldb, 3)
    assert export("--all") == 0
    assert right(lake, "s") and right(lake, "a")
    capsys.readouterr()
    assert delta("verify", "b") == 2 and "delta sync b" in capsys.readouterr().err
    assert delta("sync", "nobody") == 2


def test_a_restricted_feed_has_a_restricted_log(lake: Path) -> None:
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (lake / "streams" / "s" / "_delta_log").rglob("*")}
    assert set(found.values()) == {0o640} and manage_feeds.main(["permissions"]) == 0
    assert manage_feeds.main(["update", "s", "access=open"]) == 0 and manage_feeds.main(["permissions", "--apply"]) == 0
    assert stat.S_IMODE(next(iter(found)).stat().st_mode) == 0o644


def test_nothing_of_delta_is_loaded_where_no_log_is_kept(lake: Path, tmp_path: Path) -> None:
    code = (
        "import sys, manage_feeds; manage_feeds.main(['list']); "
        "sys.exit(any(name in sys.modules for name in ('deltalake', 'pyarrow', 'ksql_lake.catalogs.delta.table')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, env=dict(os.environ)).returncode == 0


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "step"), [
    ("kill", 9), pytest.param("kill", 1, marks=pytest.mark.slow), pytest.param("ENOSPC", 5, marks=pytest.mark.slow),
])
def test_an_export_failing_at_every_nth_call(
    fault: str, step: int, lake: Path, ksqldb: EmbeddedKsqlDB, tmp_path: Path
) -> None:
    produce(ksqldb, 3)
    tried = drive(lake, tmp_path / "work", fault, step, "export_to_data_lake", "--stream", "s", "--quiet")
    healed(tried, "s", 40)
    assert step > 1 or any("_delta_log" in one["call"] and one["call"].startswith("link") for one in tried)


@pytest.mark.slow
def test_a_compaction_failing_at_every_nth_call(lake: Path, tmp_path: Path) -> None:
    healed(drive(lake, tmp_path / "work", "kill", 2, "manage_feeds", "compact", "s"), "s", 30)


def test_a_rollback_failing_at_every_nth_call(lake: Path, tmp_path: Path) -> None:
    healed(drive(lake, tmp_path / "work", "kill", 1, "manage_feeds", "rollback", "t", "v1"), "t", 1)


@pytest.mark.slow
def test_a_rebuild_of_the_log_failing_at_every_nth_call(lake: Path, tmp_path: Path) -> None:
    healed(drive(lake, tmp_path / "work", "kill", 1, "metadata_utils", "delta", "rebuild", "s"), "s", 30)


def healed(tried: list[dict[str, Any]], name: str, count: int) -> None:
    """After the same command once more the log is what the metadata are."""
    assert len(tried) > 5 and not tried[-1]["fired"]
    for one in tried:
        lake = Path(one["lake"])
        assert one["again"] == 0, one
        dataset = metadata.Dataset(lake, name, "stream" if name == "s" else "table")
        state = metadata.load(dataset)
        from ksql_lake.catalogs.delta.table import verify

        assert state is not None and verify(dataset, state) == [], one
        assert not list((dataset.directory / "_delta_log").glob(".*")), one
        assert len(rows(lake, name)) == count, one


@pytest.mark.parametrize(("milliseconds", "text"), [
    (0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"),
    (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    (253_402_300_800_000, None), (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"), (-62_135_596_800_001, None),
    (2**62, None),
])
def test_times_of_statistics(milliseconds: int, text: str | None) -> None:
    """A time that no calendar has is no reason to lose the file: it has no statistics then."""
    assert plan.timestamp(milliseconds) == text
    file = FileEntry("year=2025/month=01/day=15/a b.parquet", "year=2025/month=01/day=15", 1, 1, 1, "r", "export",
                     "1.0", "2025-01-20T00:00:00Z", rowtime_min=milliseconds, rowtime_max=milliseconds)
    added = plan.add(file, True)
    assert added.path == "year=2025/month=01/day=15/a%20b.parquet"
    assert added.values == {"year": "2025", "month": "1", "day": "15"}
    assert ("minValues" in json.loads(added.stats)) is bool(text) and json.loads(added.stats)["numRecords"] == 1
