"""Feeds with `"timestamps": "us"`: the same history in milliseconds and in microseconds, the same to every reader."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.arrays import iso_text
from ksql_lake.embedded import EmbeddedKsqlDB
from tests.typed_lake import DAY, JAN15, build

UNITS = ("ms", "us")
MS, US = (pa.timestamp(unit, "UTC") for unit in UNITS)
LAST = 294_247  # the year in which microseconds end
HOLDS = (1 << 63) // 1000 - 1000  # ms, about the last that microseconds can hold
COLUMNS = "`ID` STRING, `TS` TIMESTAMP, `TM` TIME, `S` STRUCT<`AT` TIMESTAMP>, `L` ARRAY<TIMESTAMP>"


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The typed lake in each unit."""
    lakes = {}
    with pytest.MonkeyPatch.context() as patch:
        for unit in UNITS:
            lakes[unit] = tmp_path_factory.mktemp(unit) / "lake"
            with EmbeddedKsqlDB() as database:
                build(lakes[unit], database, patch, f"timestamps={unit}")
    yield lakes


def in_milliseconds(table: pa.Table) -> pa.Table:
    """Every time of a table in milliseconds, at any depth."""
    return pa.table({field.name: table[field.name].cast(_coarse(field.type)) for field in table.schema})


def _coarse(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return MS
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _coarse(field.type)) for field in kind])
    return pa.list_(_coarse(kind.value_type)) if pa.types.is_list(kind) else kind


def units_of(directory: Path) -> set[str]:
    """The units of all timestamps in the files below a directory."""
    found = set()
    for path in directory.rglob("*.parquet"):
        for field in pq.read_schema(path):
            inner = field.type.field(0).type if pa.types.is_struct(field.type) or pa.types.is_list(field.type) else None
            found |= {kind.unit for kind in (field.type, inner) if kind is not None and pa.types.is_timestamp(kind)}
    return found


def test_every_reader_finds_the_same_in_both(twins: dict[str, Path]) -> None:
    for unit, lake in twins.items():
        assert units_of(lake) == {unit}
    for feed in ("streams/all_types", "streams/events", "tables/t.totals"):
        mine = [ksql_lake.read(feed, lake=lake, arrow=True).sort_by("ROWOFFSET") if "streams" in feed
                else ksql_lake.read(feed, lake=lake, arrow=True) for lake in twins.values()]
        assert in_milliseconds(mine[1]).equals(in_milliseconds(mine[0])), feed
        assert len(ksql_lake.read(feed, lake=twins["us"])) == len(mine[0])
    plain = {
        "pandas": lambda path: pd.read_parquet(path)["TS"].dropna().dt.tz_convert("UTC").dt.tz_localize(None).tolist(),
        "pyarrow": lambda path: ds.dataset(path, partitioning="hive").to_table()["TS"].drop_null().cast(
            pa.timestamp("us")).to_pylist(),
        "duckdb": lambda path: [v for (v,) in duckdb.sql(
            f"select TS::timestamptz at time zone 'UTC' from read_parquet('{path}/**/*.parquet', union_by_name=true) "
            "where TS is not null").fetchall()],
        "polars": lambda path: pl.scan_parquet(f"{path}/year=*/**/*.parquet", missing_columns="insert",
                                               extra_columns="ignore").select("TS").drop_nulls().collect()["TS"].dt.replace_time_zone(None).to_list(),
    }
    when = dt.datetime(2023, 11, 14, 22, 13, 20, 123_000)
    for name, reader in plain.items():
        for unit, lake in twins.items():
            found = reader(lake / "streams" / "all_types")
            assert len(found) == 3 and {pd.Timestamp(one).to_pydatetime() for one in found} == {when}, (name, unit)


@pytest.mark.parametrize("filters", [
    [("ROWTIME", ">=", "2025-01-16")], [("ROWTIME", "<", dt.datetime(2025, 1, 16, tzinfo=dt.UTC))],
    [("ROWTIME", "=", "2025-01-15T00:00:00Z")], [("ROWTIME", "!=", "2025-01-15T00:00:00.000500Z")],
    [("ROWTIME", ">", "2025-01-14T23:59:59.999999Z")], [("ROWTIME", "in", ["2025-01-15T00:00:00Z"])],
    [("TS", "=", "2023-11-14T22:13:20.123Z")], [("TS", ">", "2023-11-14T22:13:20.1225Z")],
    [("TS", "<", "2023-11-14T22:13:20.123Z")], [("TS", "<", "+300000-01-01")],
    [("TS", "=", 1_700_000_000_123)], [("ROWTIME", ">=", JAN15 + DAY)], [("TS", "<", 1 << 62)], [("TS", ">", -1 << 62)],
])
def test_filters_mean_the_same(twins: dict[str, Path], filters: Any) -> None:
    found = [sorted(ksql_lake.read("all_types", lake=lake, filters=filters)["ID"]) for lake in twins.values()]
    assert found[0] == found[1]


def test_stats_metadata_and_verify(twins: dict[str, Path], capsys: Any) -> None:
    told = []
    for lake in twins.values():
        assert metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0
        capsys.readouterr()
        assert metadata_utils.main(["--stats", "--deep", "--json", "--lake", str(lake)]) == 0
        told.append(capsys.readouterr().out.replace("[us,", "[ms,"))
        for name in ("all_types", "events"):
            state = json.loads((lake / "streams" / name / "_metadata.json").read_text())
            times = [file["rowtime_min"] for file in state["files"]]
            assert min(times) == JAN15 and max(times) <= JAN15 + 2 * DAY
    columns = [_columns(json.loads(text)) for text in told]
    assert columns[0] == columns[1] and len(columns[0]) > 20
    kept = json.loads((twins["us"] / "tables" / "t.totals" / "_metadata.json").read_text())
    assert kept["timestamps"] == "us"
    assert "timestamps" not in json.loads((twins["ms"] / "tables" / "t.totals" / "_metadata.json").read_text())


def _columns(said: Any) -> list[Any]:
    """What is said of each column, wherever it stands."""
    if isinstance(said, list):
        return [found for one in said for found in _columns(one)]
    if not isinstance(said, dict):
        return []
    return [said] if "greatest" in said else [found for one in said.values() for found in _columns(one)]


def test_a_rebuild_knows_the_unit_with_and_without_the_log(twins: dict[str, Path], tmp_path: Path) -> None:
    for log in (True, False):
        lake = tmp_path / f"lake{log}"
        shutil.copytree(twins["us"], lake)
        before = {}
        for directory in [*(lake / "streams").iterdir(), *(lake / "tables").iterdir()]:
            path = directory / "_metadata.json"
            if not list(directory.rglob("*.parquet")):
                continue
            before[path] = json.loads(path.read_text())
            path.unlink()
            if not log:
                (lake / ".state" / f"{directory.name}.jsonl").unlink()
            assert metadata_utils.main(["--rebuild", "--feed", directory.name, "--lake", str(lake)]) == 0
        for path, old in before.items():
            new = json.loads(path.read_text())
            assert new["timestamps"] == "us" and new["columns"] == old["columns"]
            keys = ("path", "rows", "rowtime_min", "rowtime_max")
            times = [[[file.get(key) for key in keys] for file in one["files"]] for one in (old, new)]
            assert times[0] == times[1]


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2")):
            monkeypatch.setenv(name, value)
        yield database


def add(name: str, kind: str, lake: Path, **more: Any) -> None:
    settings = [f"{key}={value}" for key, value in more.items() if key != "checks"]
    given = ["--name", name, "--type", kind, "--source", name, "--lake", str(lake), *settings]
    assert manage_feeds.main(["add", *given]) == 0
    if "checks" in more:
        path = lake / "feeds" / "active" / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "checks": more["checks"]}))


def row(i: int) -> list[Any]:
    at = dt.datetime(2020, 1, 1) + dt.timedelta(milliseconds=i)
    return [f"e{i}", at, dt.time(1, 2, 3), {"AT": at}, [at, None]]


def test_a_life_in_both_units(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """Checks, quarantine and its import, compaction, erasure, a later column, reload, retention, reconcile, compare."""
    early = {"check": "range", "column": "TS", "max": "2020-01-01T00:00:00.009Z", "level": "quarantine"}
    fresh = {"check": "freshness", "hours": 1, "level": "warn"}
    ksqldb.create_stream("S", COLUMNS, 2)
    ksqldb.create_table("T", "`K` STRING KEY, `AT` TIMESTAMP")
    lakes = [tmp_path / unit for unit in UNITS]
    for unit, lake in zip(UNITS, lakes, strict=True):
        add("s", "stream", lake, timestamps=unit, checks=[early, fresh])
        add("t", "table", lake, timestamps=unit, checks=[{**fresh, "column": "AT"}])

    def each(script: Any, *argv: str, code: int = 0) -> None:
        told = []
        for unit, lake in zip(UNITS, lakes, strict=True):
            capsys.readouterr()
            found, said = script.main([*argv, "--lake", str(lake)]), capsys.readouterr()
            assert found == code, (argv, said)
            print(said.out, said.err)
            told.append(said.out.count("\n"))
            assert units_of(lake) <= {unit} and metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0
        assert told[0] == told[1]
        for feed in ("s", "t"):
            tables = [ksql_lake.read(feed, lake=lake, arrow=True) for lake in lakes]
            tables = [in_milliseconds(t.sort_by([(t.schema.names[0], "ascending"), ("ID", "ascending")])
                                      if feed == "s" else t.sort_by("K")) for t in tables]
            assert tables[0].equals(tables[1]), argv
        for feed in ("streams/s", "tables/t"):
            kept = [json.loads((lake / feed / "_metadata.json").read_text()) for lake in lakes]
            spans = [[(f["partition"], f["rows"], f.get("rowtime_min"), f.get("rowtime_max"))
                      for f in [*one["files"], *one.get("quarantine", [])]] for one in kept]
            assert sorted(spans[0], key=str) == sorted(spans[1], key=str), argv

    for i in range(4):
        ksqldb.append("S", i % 2, JAN15 + i, row(i))
    ksqldb.upsert("T", ["a", dt.datetime(2020, 1, 1)])
    each(export_to_data_lake, "--all", "--quiet", code=1)  # not fresh
    for i in range(4, 14):
        ksqldb.append("S", i % 2, JAN15 + i % 3 * DAY + i, row(i))
    ksqldb.upsert("T", ["a", dt.datetime(2021, 1, 1)])
    ksqldb.upsert("T", ["b", None])
    each(export_to_data_lake, "--all", "--quiet", code=1)
    held = [list((lake / "quarantine" / "s").rglob("*.parquet")) for lake in lakes]
    assert held[0] and len(held[0]) == len(held[1])
    each(manage_feeds, "quarantine", "s", "--import", "--force")
    each(manage_feeds, "compact", "s")
    each(metadata_utils, "--reconcile", "s", "--date", "2025-01-16")
    each(manage_feeds, "erase", "--where", "TS=2020-01-01T00:00:00.005Z", "--later", "drop")
    each(manage_feeds, "erase", "--where", "AT=2020-01-01T00:00:00.006Z", "--later", "drop")
    assert len(ksql_lake.read("s", lake=lakes[1])) == 12
    each(manage_feeds, "reload", "s", "--date", "2025-01-16")
    ksqldb.append("S", 0, JAN15 + 3 * DAY, row(5))  # erased for ever, in either unit
    ksqldb.append("S", 1, JAN15 + 3 * DAY, row(8))
    each(export_to_data_lake, "--all", "--quiet", code=1)
    assert len(ksql_lake.read("s", lake=lakes[1])) == 13
    each(metadata_utils, "--compare", "t", "1", "2")
    each(manage_feeds, "retention", "--dry-run")


def test_the_unit_is_fixed_at_the_first_export(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    ksqldb.create_stream("S", COLUMNS, 1)
    ksqldb.append("S", 0, JAN15, row(1))
    ksqldb.create_table("T", "`K` STRING KEY, `AT` TIMESTAMP")
    lake = tmp_path / "lake"
    add("s", "stream", lake, timestamps="us")
    add("t", "table", lake)
    assert manage_feeds.main(["update", "t", "timestamps=us"]) == 0  # not exported yet
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    for name, kind in (("s", "stream"), ("t", "table")):
        assert manage_feeds.main(["update", name, "timestamps=ms"]) == 0
        capsys.readouterr()
        assert export_to_data_lake.main([f"--{kind}", name]) == 1
        told = capsys.readouterr().err
        assert f"{name}: timestamps was us at the first export and is now ms" in told and "change the feed back" in told
        assert manage_feeds.main(["update", name, "timestamps=us"]) == 0
        assert export_to_data_lake.main([f"--{kind}", name]) == 0
    assert manage_feeds.main(["update", "s", "timestamps=ns"]) != 0
    assert "expected ms or us" in capsys.readouterr().err


def text(milliseconds: int) -> str:
    """A TIMESTAMP as the server writes it, of any year."""
    return iso_text(pa.scalar(milliseconds, MS)).rstrip("Z")


@pytest.mark.parametrize("kind", ["stream", "table"])
@pytest.mark.parametrize("policy", ["fail", "null", "quarantine"])
def test_times_beyond_microseconds_are_bad_values(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, kind: str, policy: str
) -> None:
    """Milliseconds hold them; in microseconds they are what `on_bad_value` is for, at any depth."""
    lake, far = tmp_path / "lake", HOLDS + 10_000
    columns = "`TS` TIMESTAMP, `L` ARRAY<STRUCT<`AT` TIMESTAMP>>, `N` BIGINT"
    if kind == "stream":
        ksqldb.create_stream("F", f"`K` STRING, {columns}", 1)
    else:
        ksqldb.create_table("F", f"`K` STRING KEY, {columns}")
    rows: list[list[Any]] = [["a", text(HOLDS), [{"AT": HOLDS}], 1], ["b", text(far), None, 2],
            ["c", None, [{"AT": 0}, {"AT": far}], 3], ["d", text(0), [], 4]]
    for values in rows:
        if kind == "stream":
            ksqldb.append("F", 0, JAN15, values)
        else:
            ksqldb.upsert("F", values)
    add("f", kind, lake, timestamps="us", on_bad_value=json.dumps(policy))
    capsys.readouterr()
    assert export_to_data_lake.main(["--all", "--lake", str(lake)]) == 1
    told = capsys.readouterr().err
    assert f"a time after the year {LAST}, which microseconds cannot hold" in told
    if policy == "fail":
        assert "on_bad_value" in told and not list(lake.rglob("*.parquet"))
        return
    found = ksql_lake.read("f", lake=lake, arrow=True).select(["K", "TS", "L", "N"]).sort_by("K")
    assert found["K"].to_pylist() == (["a", "b", "c", "d"] if policy == "null" else ["a", "d"])
    assert found["TS"].cast(pa.int64()).to_pylist()[0] == HOLDS * 1000
    if policy == "null":
        assert found["TS"].null_count == 2 and found["L"].null_count == 2
    else:
        held = [pq.read_table(path) for path in sorted((lake / "quarantine").rglob("*.parquet"))]
        assert sorted(pa.concat_tables(held)["K"].to_pylist()) == ["b", "c"]
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0
    assert export_to_data_lake.main(["--all", "--lake", str(lake)]) == (0 if kind == "stream" else 1)


def test_a_rowtime_beyond_microseconds_stops_the_feed(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """A producer that sent nanoseconds: milliseconds hold it, microseconds cannot, and no policy makes up a ROWTIME."""
    ksqldb.create_stream("S", "`ID` STRING", 1)
    ksqldb.append("S", 0, JAN15, ["a"])
    ksqldb.append("S", 0, JAN15 * 1_000_000, ["b"])
    for unit, code in (("ms", 0), ("us", 1)):
        lake = tmp_path / unit
        add("s", "stream", lake, timestamps=unit, on_bad_value="quarantine")
        capsys.readouterr()
        assert export_to_data_lake.main(["--all", "--lake", str(lake)]) == code
        told = capsys.readouterr().err
        assert code == 0 or ("partition 0, offset 1: column ROWTIME" in told and '"timestamps": "ms"' in told)
    assert len(pc.unique(ksql_lake.read("s", lake=tmp_path / "ms", arrow=True)["ID"])) == 2
