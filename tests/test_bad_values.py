"""What Parquet can hold is stored exactly, whatever its year; the rest follows the feed's `on_bad_value`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.arrays import iso_text
from ksql_lake.embedded import EmbeddedKsqlDB

JAN15 = 1_736_899_200_000
MICROS = int(np.datetime64("57011-01-23T12:00:00.000", "ms").astype(np.int64))
LEAST, MOST = -(2**63), 2**63 - 1


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        yield database


def add(name: str, kind: str = "stream", **settings: Any) -> None:
    assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name.upper()]) == 0
    path = Path(lake()) / "feeds" / "active" / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def lake() -> str:
    return os.environ["DATA_LAKE_DIR"]


def export(*argv: str) -> int:
    return export_to_data_lake.main(list(argv) or ["--all"])


def read(name: str) -> pa.Table:
    return ksql_lake.read(name, lake=lake(), arrow=True)


TIMES = [
    ("TIMESTAMP", '"57011-01-23T12:00:00.000"', MICROS),
    ("TIMESTAMP", '"10000-01-01T04:59:59.999"', 253_402_300_800_000 + 5 * 3_600_000 - 1),
    ("TIMESTAMP", '"0001-01-02T23:00:00.000"', -62_135_596_800_000 - 3_600_000),
    ("TIMESTAMP", '"1500-02-29T00:00:00.000"', -14_825_894_400_000),
    ("TIMESTAMP", '"292278994-08-17T07:12:55.807"', MOST),
    ("DATE", '"+10000-01-01"', 2_932_897),
    ("DATE", '"0000-12-31"', -719_163),
    ("DATE", '"-0001-12-31"', -719_163 - 366),
    ("DATE", '"+5881580-07-11"', 2**31 - 1),
    ("STRUCT<`T` TIMESTAMP>", f'{{"T":{LEAST}}}', {"T": LEAST}),
    ("STRUCT<`T` TIMESTAMP>", '{"T":1736899200000000}', {"T": 1_736_899_200_000_000}),
    ("STRUCT<`D` DATE>", '{"D":-2147483648}', {"D": -(2**31)}),
    ("ARRAY<TIMESTAMP>", '["57011-01-23T12:00:00.000",null]', [MICROS, None]),
    ("MAP<STRING, DATE>", '{"k":"+10000-01-01"}', [("k", 2_932_897)]),
    ("TIMESTAMP", '"0001-01-03T00:00:00.000"', -62_135_596_800_000),
    ("TIMESTAMP", '"9999-12-31T23:59:59.999"', 253_402_300_799_999),
]


def numbers(value: pa.Scalar) -> Any:
    """The value with dates and times as their numbers."""
    if not value.is_valid:
        return None
    if pa.types.is_struct(value.type):
        return {value.type.field(i).name: numbers(value[i]) for i in range(value.type.num_fields)}
    if pa.types.is_map(value.type):
        return [(numbers(pair[0]), numbers(pair[1])) for pair in value.values]
    if pa.types.is_list(value.type):
        return [numbers(item) for item in value.values]
    return value.value if pa.types.is_temporal(value.type) else value.as_py()


@pytest.mark.parametrize("kind", ["stream", "table"])
def test_times_of_any_year_are_stored_exactly_and_can_be_used(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, kind: str, each_reader: str, capsys: Any
) -> None:
    columns = "`ID` STRING KEY, " + ", ".join(f"`C{i}` {type_}" for i, (type_, _, _) in enumerate(TIMES))
    row = ",".join(text for _, text, _ in TIMES)
    if kind == "stream":
        ksqldb.create_stream("S", columns.replace(" KEY", ""), 1)
        for i in range(3):
            ksqldb.append_text("S", 0, JAN15 + i, f'"e{i}",' + row)
    else:
        ksqldb.create_table("S", columns)
        ksqldb.append_text("S", 0, JAN15, '"e",' + row)
    add("s", kind)
    assert export() == 0 and export() == 0
    found = read("s")
    for i, (_, _, wanted) in enumerate(TIMES):
        assert numbers(found[f"C{i}"][0]) == wanted, TIMES[i]
    frame = ksql_lake.read("s", lake=lake())
    assert len(frame) == len(found) == (3 if kind == "stream" else 1)
    assert frame["C1"][0] == "+10000-01-01T04:59:59.999Z" and frame["C7"][0] == "-0001-12-31"
    assert "+10000-01-01" in repr(frame["C5"]) and frame["C11"][0] == {"D": "-5877641-06-23"}
    assert frame["C14"][0].year == 1
    assert metadata_utils.main(["--report"]) == 0
    assert metadata_utils.main(["--stats", "--deep", "--feed", "s"]) == 0
    if kind == "table":
        assert metadata_utils.main(["--compare", "s", "v1", "v2"]) == 0
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    files = str(tmp_path / "lake" / "**" / "*.parquet")
    assert duckdb.sql(f"SELECT epoch_ms(C1), C5 - DATE '1970-01-01' FROM read_parquet('{files}')").fetchall()[0] == (
        TIMES[1][2], TIMES[5][2])
    assert pl.read_parquet(files).get_column("C1").to_physical()[0] == TIMES[1][2]


def test_a_changelog_with_keys_of_any_year_is_folded_and_its_tombstones_count(ksqldb: EmbeddedKsqlDB) -> None:
    ksqldb.create_table("T", "`D` DATE KEY, `N` INTEGER", queryable=False)
    for text in ('"+10000-01-01",1', '"2025-01-15",2', '"+10000-01-01",3'):
        ksqldb.append_text("T", 0, JAN15, text)
    ksqldb.delete("T", ["2025-01-15"])
    add("t", "table")
    assert export() == 0
    assert [iso_text(v) for v in read("t")["D"]] == ["+10000-01-01"] and read("t")["N"].to_pylist() == [3]


def test_half_a_character_is_stored_as_the_replacement_character(ksqldb: EmbeddedKsqlDB, each_reader: str) -> None:
    half = "\\uD83D"
    columns = "`A` STRING, `B` ARRAY<STRING>, `C` MAP<STRING, INTEGER>, `D` STRUCT<`X` STRING>"
    ksqldb.create_stream("S", columns, 1)
    ksqldb.append_text("S", 0, JAN15, f'"cut {half}",["\\uDE00",null],{{"{half}":1}},{{"X":"{half}x"}}')
    ksqldb.append("S", 0, JAN15 + 1, ["whole \U0001F600", ["a"], {"k": 2}, {"X": "y"}])
    add("s")
    assert export() == 0 and export() == 0
    assert read("s").select(["A", "B", "C", "D"]).to_pylist() == [
        {"A": "cut \ufffd", "B": ["\ufffd", None], "C": [("\ufffd", 1)], "D": {"X": "\ufffdx"}},
        {"A": "whole \U0001F600", "B": ["a"], "C": [("k", 2)], "D": {"X": "y"}},
    ]


BAD = [
    ("DECIMAL(4, 2)", "123456.78", "more than 2 digits before the point"),
    ("DECIMAL(4, 2)", "1.005", "more than 2 digits after the point"),
    ("INTEGER", "2147483648", "the number is too large"),
    ("BIGINT", "9" * 5000, "expected a whole number"),
    ("BIGINT", "1e999999999", "expected a number of reasonable size"),
    ("DECIMAL(38, 0)", "1e99999999999999999999999", "expected a number"),
    ("DOUBLE", "1e400", "the number is too large"),
    ("DATE", '"2025-02-30"', "there is no such day"),
    ("TIMESTAMP", '"292278994-08-17T07:12:55.808"', "the number is too large"),
    ("STRUCT<`T` TIME>", '{"T":86400000}', "a day has 86,400,000 milliseconds"),
    ("ARRAY<INTEGER>", '[1,"x"]', "expected a whole number"),
    ("BYTES", '"#"', "expected Base64"),
]


@pytest.mark.parametrize(("type_", "text", "why"), BAD)
def test_by_default_one_line_names_feed_column_partition_and_offset(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, type_: str, text: str, why: str, capsys: Any, each_reader: str
) -> None:
    ksqldb.create_stream("ORDERS", f"`ID` STRING, `AMOUNT` {type_}", 2)
    ksqldb.append_text("ORDERS", 1, JAN15, '"a",null')
    ksqldb.append_text("ORDERS", 1, JAN15, f'"b",{text}')
    add("orders")
    capsys.readouterr()
    assert export() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: orders: ") and f"does not fit {type_} ({why})" in line, line
    assert "partition 1, offset 1: column AMOUNT" in line and 'set "on_bad_value" to "null" or "quarantine"' in line
    assert len(line) < 400 and not list((tmp_path / "lake").rglob("*.parquet"))


@pytest.mark.parametrize(("type_", "text", "why"), BAD[:3] + BAD[-3:])
@pytest.mark.parametrize("policy", ["null", "quarantine"])
def test_the_other_rows_go_on(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, type_: str, text: str, why: str, policy: str, capsys: Any
) -> None:
    ksqldb.create_stream("ORDERS", f"`ID` STRING, `AMOUNT` {type_}", 1)
    for i in range(10):
        ksqldb.append_text("ORDERS", 0, JAN15 + i, f'"e{i}",{text if i in (3, 7) else "null"}')
    add("orders", on_bad_value=policy)
    capsys.readouterr()
    assert export() == 1
    told = capsys.readouterr()
    assert "orders: column AMOUNT: 2 values that its type cannot hold" in told.err, told
    assert "partition 0, offset 3: column AMOUNT holds " in told.err and why in told.err
    assert export() == 0  # nothing comes twice, nothing is told twice
    kept = [f"e{i}" for i in range(10) if policy == "null" or i not in (3, 7)]
    assert read("orders")["ID"].to_pylist() == kept and read("orders")["AMOUNT"].null_count == len(kept)
    aside = list((tmp_path / "lake" / "quarantine").rglob("*.parquet"))
    if policy == "null":
        assert not aside
        return
    (file,) = aside
    rows = pl.read_parquet(file, hive_partitioning=False)
    assert rows["ROWOFFSET"].to_list() == [3, 7] and rows["AMOUNT"].null_count() == 2
    assert all(reason.startswith("on_bad_value: AMOUNT holds ") and why in reason for reason in rows["_reason"])
    (tmp_path / "lake" / "logs").mkdir(exist_ok=True)
    assert metadata_utils.main(["--verify", "--deep"]) == 0


@pytest.mark.parametrize("queryable", [True, False])
def test_rows_of_a_table_too(ksqldb: EmbeddedKsqlDB, tmp_path: Path, queryable: bool, capsys: Any) -> None:
    """In a changelog only the latest row of a key counts, good or bad."""
    ksqldb.create_table("T", "`ID` STRING KEY, `N` DECIMAL(4, 2)", queryable=queryable)
    rows = ['"a",1.00', '"b",123456.78', '"c",3.00'] if queryable else [
        '"a",123456.78', '"b",2.00', '"c",123456.78', '"a",1.00', '"b",123456.78', '"c",3.00']
    for row in rows:
        ksqldb.append_text("T", 0, JAN15, row)
    add("t", "table", on_bad_value="quarantine")
    capsys.readouterr()
    assert export() == 1
    assert "t: column N: 1 value that its type cannot hold, quarantined" in capsys.readouterr().err
    assert sorted(read("t").select(["ID", "N"]).to_pylist(), key=str) == [
        {"ID": "a", "N": Decimal("1.00")}, {"ID": "c", "N": Decimal("3.00")}]
    (file,) = (tmp_path / "lake" / "quarantine").rglob("*.parquet")
    assert pl.read_parquet(file, hive_partitioning=False)["ID"].to_list() == ["b"]


@pytest.mark.parametrize(("policy", "code", "words"), [
    ("null", 1, "it is a key, which cannot be null"), ("quarantine", 1, "quarantined"),
    ("fail", 1, 'set "on_bad_value"'),
])
def test_a_key_that_its_type_cannot_hold(
    ksqldb: EmbeddedKsqlDB, policy: str, code: int, words: str, capsys: Any
) -> None:
    ksqldb.create_table("T", "`ID` INTEGER KEY, `N` INTEGER")
    for row in ("1,1", "2147483648,2", "2147483649,3"):
        ksqldb.append_text("T", 0, JAN15, row)
    add("t", "table", on_bad_value=policy)
    capsys.readouterr()
    assert export() == code
    assert words in capsys.readouterr().err
    if policy == "quarantine":
        assert read("t")["ID"].to_pylist() == [1]


def test_the_feed_file_is_checked(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    ksqldb.create_stream("S", "`ID` STRING", 1)
    add("s", on_bad_value="ignore")
    capsys.readouterr()
    assert manage_feeds.main(["check"]) == 1
    told = capsys.readouterr()
    assert '"on_bad_value" is "ignore"; expected fail or null or quarantine' in told.out + told.err
