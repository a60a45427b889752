"""Value -> wire -> Arrow -> Parquet -> reader -> the same value: every type, nested to any depth, null everywhere."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import export_to_data_lake
import ksql_lake
import manage_feeds
from ksql_lake.catalogs.ddl import script
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.embedded.encode import RowEncoder
from ksql_lake.embedded.schema import header_text, parse_columns
from ksql_lake.model.recorded import UNITS
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import parse_schema
from ksql_lake.sources.ksqldb.rows import Decoder

JAN15 = 1_736_899_200_000
MILLISECONDS = st.integers(0, 999).map(lambda ms: ms * 1000)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "BOOLEAN": st.booleans(),
    "INTEGER": st.integers(-(2**31), 2**31 - 1),
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "DOUBLE": st.floats(allow_nan=True),
    "STRING": TEXT,
    "BYTES": st.binary(max_size=10),
    "DATE": st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31)),
    "TIME": st.times().map(lambda t: t.replace(microsecond=0)),
    "TIMESTAMP": st.builds(
        lambda moment, us: moment.replace(microsecond=us),
        st.datetimes(dt.datetime(1600, 1, 1), dt.datetime(9999, 12, 30)), MILLISECONDS,
    ),
}


@st.composite
def decimals(draw: st.DrawFn, inside: bool) -> tuple[str, st.SearchStrategy[Any]]:
    """Inside a STRUCT the server sends a double: what 15 digits hold comes through exactly."""
    precision = draw(st.integers(1, 15 if inside else 38))
    scale = draw(st.integers(0, precision))
    values = st.integers(-(10**precision) + 1, 10**precision - 1).map(
        lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -scale))
    )
    return f"DECIMAL({precision}, {scale})", values


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2, inside: bool = False) -> tuple[str, st.SearchStrategy[Any]]:
    """A ksqlDB type and values of it (None included)."""
    shapes = ["scalar", "scalar", "DECIMAL"] + (["ARRAY", "MAP", "STRUCT"] if depth else [])
    shape = draw(st.sampled_from(shapes))
    if shape == "scalar":
        name = draw(st.sampled_from(sorted(SCALARS)))
        text, values = name, SCALARS[name]
    elif shape == "DECIMAL":
        text, values = draw(decimals(inside))
    elif shape == "ARRAY":
        inner, items = draw(kinds(depth - 1, inside))
        text, values = f"ARRAY<{inner}>", st.lists(items, max_size=3)
    elif shape == "MAP":
        inner, items = draw(kinds(depth - 1, inside))
        text, values = f"MAP<STRING, {inner}>", st.dictionaries(TEXT, items, max_size=3)
    else:
        names = draw(st.lists(st.sampled_from(["A", "a", "b c", "x,y", "Ü"]), min_size=1, max_size=3, unique=True))
        fields = [(name, *draw(kinds(depth - 1, True))) for name in names]
        text = "STRUCT<" + ", ".join(f"`{name}` {inner}" for name, inner, _ in fields) + ">"
        values = st.fixed_dictionaries({name: items for name, _, items in fields})
    return text, st.none() | values


@st.composite
def sources(draw: st.DrawFn) -> tuple[str, list[list[Any]]]:
    """The columns of a stream and some rows."""
    chosen = draw(st.lists(kinds(), min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*(values for _, values in chosen)).map(list), min_size=1, max_size=6))
    return ", ".join(f"`C{i}` {text}" for i, (text, _) in enumerate(chosen)), rows


def plain(value: Any) -> Any:
    """One form for what was produced and what a reader returns; fields by position, zones taken off."""
    if isinstance(value, float):
        return ("double", "NaN" if math.isnan(value) else value)
    if isinstance(value, dt.datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dict):
        return sorted((plain(v) for v in value.values()), key=repr)
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return sorted((plain(item) for _, item in value), key=repr)
        return [plain(item) for item in value]
    return value


def keys(value: Any) -> Any:
    """The keys of a MAP as Arrow returns it, or as it was produced."""
    if isinstance(value, dict):
        return sorted(value)
    return sorted(key for key, _ in value or ())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sources())
def test_decoded_is_what_was_encoded(source: tuple[str, list[list[Any]]]) -> None:
    text, rows = source
    columns = parse_columns(text)
    encoder = RowEncoder(columns)
    lines = "".join(f'{{"row":{{"columns":[{encoder.all(row)}]}}}},\n' for row in rows).encode()
    for native in (True, False):
        (batch,) = Decoder(parse_schema(header_text(columns, False)), native=native).decode(lines)
        assert isinstance(batch, pa.RecordBatch)
        for i, column in enumerate(batch.columns):
            values = column.to_pylist()
            assert [plain(v) for v in values] == [plain(row[i]) for row in rows]
            if pa.types.is_map(column.type):
                assert [keys(v) for v in values] == [keys(row[i]) for row in rows]


@pytest.fixture(scope="module")
def ksqldb() -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        yield database


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(source=sources(), unit=st.sampled_from(UNITS))
def test_exported_is_what_was_produced(
    source: tuple[str, list[list[Any]]], unit: str, ksqldb: EmbeddedKsqlDB, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Through the scripts into a lake; pyarrow, DuckDB and Polars return the same values, in either unit of time."""
    text, rows = source
    lake = tmp_path_factory.mktemp("types")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("KSQLDB_URL", ksqldb.url), ("IDLE_SECONDS", "0.1"), ("DATA_LAKE_DIR", str(lake))):
            patch.setenv(name, value)
        ksqldb.create_stream("S", text, 1)
        for row in rows:
            ksqldb.append("S", 0, JAN15, row)
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s", f"timestamps={unit}"]) == 0
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        ksqldb.drop("S")
    (path,) = (lake / "streams").rglob("*.parquet")
    table = pq.ParquetFile(path).read()
    assert table.schema.field("ROWTIME").type == pa.timestamp(unit, "UTC")
    assert {"ms": "[us", "us": "timestamp[ms"}[unit] not in str(table.schema)
    names = table.schema.names[3:]
    for i, name in enumerate(names):
        wanted = [plain(row[i]) for row in rows]
        assert [plain(v) for v in table[name].to_pylist()] == wanted
        if "MAP" not in text and "TIME" not in text and "DATE" not in text:  # these readers have other Python values
            found = duckdb.sql(f"select \"{name}\" from read_parquet('{path}') order by ROWOFFSET").fetchall()
            assert [plain(bytes(v) if isinstance(v, bytearray) else v) for (v,) in found] == wanted
    assert ksql_lake.read("s", lake=lake, arrow=True).select(names).equals(table.select(names))
    assert len(ksql_lake.read("s", lake=lake)) == len(rows)
    known = json.loads((lake / "streams" / "s" / "_metadata.json").read_text())
    with duckdb.connect() as views:
        views.execute(script("duckdb", {"s": FeedState.from_json(known)}, lake))
        assert views.sql("from s").to_arrow_table().num_rows == len(rows)
    if "MAP" not in text:  # Polars reads a MAP as a list of pairs
        frame = pl.read_parquet(path)
        flat = [i for i, name in enumerate(names) if not pa.types.is_nested(table.schema.field(name).type)]
        for i in flat:
            assert [plain(v) for v in frame[names[i]].to_list()] == [plain(row[i]) for row in rows]


ODD = ["a, b", "x<y>", "with space", 'quo"te', "back`tick", "select", "day", "YEAR", "Version", "id", "ID", "Ü", "日本",
       "a.b", "year_", "rowtime"]


def test_odd_column_names(ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every column comes through under a name that no reader confuses, its own where it is free."""
    monkeypatch.setenv("KSQLDB_URL", ksqldb.url)
    monkeypatch.setenv("IDLE_SECONDS", "0.1")
    columns = ", ".join(f"`{name.replace('`', '``')}` STRING" for name in ODD)
    ksqldb.create_stream("ODD", columns, 1)
    ksqldb.append("ODD", 0, JAN15, [f"value of {name}" for name in ODD])
    assert manage_feeds.main(["add", "--name", "odd", "--type", "stream", "--source", "odd"]) == 0
    assert export_to_data_lake.main(["--all"]) == 0
    state = json.loads((tmp_path / "lake" / "streams" / "odd" / "_metadata.json").read_text())
    on_disk = {column["name"]: column["disk_name"] for column in state["columns"]}
    assert list(on_disk) == ODD
    changed = {name: disk for name, disk in on_disk.items() if disk != name}
    assert changed == {"day": "day_", "YEAR": "YEAR_", "ID": "ID_", "year_": "year__", "rowtime": "rowtime_"}
    glob = f"{tmp_path}/lake/streams/odd/**/*.parquet"
    row = dict(zip(*_duck(glob), strict=True))
    frame = pl.read_parquet(glob, hive_partitioning=True).row(0, named=True)
    for name, disk in on_disk.items():
        assert row[disk] == frame[disk] == f"value of {name}"
    assert (row["year"], row["month"], row["day"]) == ("2025", "01", "15") or int(row["day"]) == 15
    (mine,) = ksql_lake.read("odd", lake=tmp_path / "lake", columns=ODD, arrow=True).to_pylist()
    exact = {name: disk for name, disk in on_disk.items() if name not in ("day", "year_", "ID", "rowtime")}
    assert {disk: mine[disk] for disk in exact.values()} == {d: f"value of {n}" for n, d in exact.items()}
    with duckdb.connect() as views:
        views.execute(script("duckdb", {"odd": FeedState.from_json(state)}, tmp_path / "lake"))
        (view,) = views.sql("from odd").to_arrow_table().to_pylist()
    assert {disk: view[disk] for disk in on_disk.values()} == {d: f"value of {n}" for n, d in on_disk.items()}
    ksqldb.drop("ODD")


def _duck(glob: str) -> tuple[Sequence[str], Sequence[Any]]:
    found = duckdb.sql(f"from read_parquet('{glob}', hive_partitioning=true)")
    return found.columns, found.fetchall()[0]
