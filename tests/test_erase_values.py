"""A value is erased, and its later rows are dropped, in whatever spelling it was given; what is none is refused."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.maintain.erased import Rules, salted

RULES = ".state/_erasures.jsonl"

JAN15 = 1_736_899_200_000
COLUMNS = (
    "`ID` INTEGER, `CUST` DECIMAL(18, 2), `DBL` DOUBLE, `B` BOOLEAN, `I` INTEGER, `L` BIGINT, `BY` BYTES, `DT` DATE, "
    "`TM` TIME, `TS` TIMESTAMP, `T` STRING, `TAGS` ARRAY<DECIMAL(6, 2)>, `ATTR` MAP<STRING, STRING>, "
    "`BYID` MAP<STRING, STRUCT<`X` DOUBLE>>, `DAY` BIGINT, `P` STRUCT<`BORN` DATE, `Q` STRUCT<`AMOUNT` DECIMAL(9, 3)>>"
)
MINE: list[Any] = [
    1, Decimal("12345.00"), 12345.0, True, 77, 2**53 + 1, b"user_42", dt.date(1990, 5, 17), dt.time(8, 30),
    dt.datetime(1990, 5, 17, 22, 15), "12.50", [Decimal("1.50"), None], {"user_id": "user_42", "n": None},
    {"user_42": {"X": 0.25}}, 15, {"BORN": dt.date(1990, 5, 17), "Q": {"AMOUNT": Decimal("5.000")}},
]
OTHER: list[Any] = [
    2, Decimal("12345.01"), 12345.5, False, 78, 2**53, b"user_43", dt.date(1990, 5, 18), dt.time(8, 31),
    dt.datetime(1990, 5, 17), "12.5", [Decimal("2.50")], {"user_id": "user_43", "other": "user_44"},
    {"user_43": {"X": 0.5}}, 16, {"BORN": dt.date(1990, 5, 18), "Q": {"AMOUNT": Decimal("5.001")}},
]
NULLS: list[Any] = [3, *[None] * (len(MINE) - 1)]
SPELLINGS = [
    "cust=12345.00", "cust=12345", "CUST=12345.0", "cust=1.2345e4", "cust=+12345", "dbl=12345", "dbl=12345.0",
    "dbl=1.2345E4", "b=true", "b=TRUE", "b=True", "i=77", "i=77.0", "i=+77", f"l={2**53 + 1}", f"l={2**53 + 1}.0",
    "by=user_42", "by=dXNlcl80Mg==", "by=b'user_42'", "by=0x757365725f3432", "dt=1990-05-17", "dt=19900517",
    "dt=1990-05-17T00:00:00Z", "tm=08:30", "tm=08:30:00.000", "ts=1990-05-17 22:15:00+00:00", "ts=1990-05-17T22:15Z",
    "ts=1990-05-18T00:15:00.000+02:00", "t=12.50", "tags=1.5", "attr=user_42", "attr.user_id=user_42",
    "user_id=user_42", "byid=user_42", "byid.user_42.x=.25", "x=0.250", "day=15", "day_=15", "p.born=1990-05-17",
    "born=1990-05-17", "p.q.amount=5", "amount=5.0",
]


@pytest.fixture
def ksqldb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    """A stream of every type with the person's row, somebody else's and one of nulls."""
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2")):
            monkeypatch.setenv(name, value)
        database.create_stream("S", COLUMNS, 1)
        for row in (MINE, OTHER, NULLS):
            database.append("S", 0, JAN15, row)
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        yield database


def ids(lake: Path) -> list[int]:
    """What Parquet files anywhere in the lake hold."""
    return sorted(v for p in lake.rglob("*.parquet") for v in pq.ParquetFile(p).read(["ID"])["ID"].to_pylist())


def test_every_spelling_is_found(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    for where in SPELLINGS:
        capsys.readouterr()
        assert manage_feeds.main(["erase", "--where", where, "--dry-run"]) == 0, where
        assert "\n1 row would be erased" in capsys.readouterr().out, where
    for where in ("cust=12345.01", "t=12.500", "attr=user_4", "attr.other=user_42", "l=9007199254740994", "by=dXNl="):
        assert manage_feeds.main(["erase", "--where", where, "--dry-run"]) == 0, where
        erased = "1 row would be erased" if where == "cust=12345.01" else "0 rows would be erased"
        assert erased in capsys.readouterr().out, where


@pytest.mark.parametrize("where", ["cust=12345", "b=TRUE", "ts=1990-05-17T22:15", "tags=1.5", "user_id=user_42"])
def test_later_rows_of_an_equal_value_are_dropped(
    where: str, ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    lake = tmp_path / "lake"
    assert manage_feeds.main(["erase", "--where", where, "--later", "drop"]) == 0
    assert "1 row erased in 1 feed, 0 left" in capsys.readouterr().out
    assert ids(lake) == [2, 3] and metadata_utils.main(["--verify", "--deep"]) == 0
    for row in (MINE, OTHER):
        ksqldb.append("S", 0, JAN15 + 1, row)
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert ids(lake) == [2, 2, 3]
    assert manage_feeds.main(["add", "--name", "again", "--type", "stream", "--source", "s"]) == 0
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert ids(lake / "streams" / "again") == [2, 2, 3], "a feed that comes later keeps the rule"
    assert manage_feeds.main(["erase", "--where", where, "--later", "drop"]) == 0
    assert "0 rows erased" in capsys.readouterr().out
    assert len((lake / RULES).read_text().splitlines()) == 1, "one rule, however often it is asked for"


REFUSED = [
    ("cust=abc", "CUST is DECIMAL(18, 2), which cannot hold 'abc'; expected a number"),
    ("cust=12345.001", "expected a value that decimal128(18, 2) can hold"), ("cust=NaN", "expected a number"),
    ("cust=1_2345", "expected a number"), ("cust=1e999999999", "expected a number"), ("i=77.5", "a value that int32"),
    ("i=3000000000", "a value that int32 can hold"), ("dbl=much", "expected a number"), ("b=1", "true or false"),
    ("b=yes", "true or false"), ("dt=1990-02-30", "ISO 8601"), ("dt=17.5.1990", "ISO 8601"),
    ("dt=1990-05-17T12:00", "a value that date32"), ("tm=25:00", "a time of day"), ("tm=8h", "a time of day"),
    ("ts=yesterday", "ISO 8601"), ("ts=643075200000", "ISO 8601"), ("ts=1990-05-17T00:00:00.0001", "a value that tim"),
    ("tags=x", "TAGS is DECIMAL(6, 2)"), ("p.born=x", "ISO 8601"), ("nobody=1", "no feed has a column nobody"),
    ("attr.phone=1", "no feed has a column attr.phone"),
]


def test_what_no_column_can_hold_is_refused(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """Never 0 left and a receipt."""
    for where, expected in REFUSED:
        for more in (["--later", "drop"], ["--dry-run"]):
            assert manage_feeds.main(["erase", "--where", where, *more]) == 1, where
            assert expected.casefold() in capsys.readouterr().err.casefold(), where
    assert not (tmp_path / "lake" / "logs" / "erasures").exists() and not (tmp_path / "lake" / RULES).exists()
    assert ids(tmp_path / "lake") == [1, 2, 3]


def test_a_column_of_two_types(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """Where one feed can hold the value and another cannot, the first is erased and the second is told."""
    ksqldb.create_stream("W", "`ID` INTEGER, `CUST` STRING", 1)
    ksqldb.append("W", 0, JAN15, [1, "A-7"])
    assert manage_feeds.main(["add", "--name", "w", "--type", "stream", "--source", "w"]) == 0
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert manage_feeds.main(["erase", "--where", "cust=A-7", "--later", "keep"]) == 0
    told = capsys.readouterr()
    assert "1 row erased in 1 feed, 0 left" in told.out
    assert "s: cust is DECIMAL(18, 2), which cannot hold 'A-7'" in told.err


OLD = [
    ("CUST", "12345.00"), ("CUST", "12345"), ("B", "True"), ("B", "true"), ("BY", "b'user_42'"), ("BY", "user_42"),
    ("TS", "1990-05-17 22:15:00+00:00"), ("TS", "1990-05-17T22:15:00Z"), ("DBL", "12345"), ("DT", "1990-05-17"),
    ("TM", "08:30"), ("TM", "08:30:00"), ("T", "12.50"), ("AMOUNT", "5"), ("L", str(2**53 + 1)),
]


def test_rules_of_older_versions_know_every_type(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """They keep one hash, of the text as it was typed, and matched what Python's str() makes of a value."""
    (path,) = (tmp_path / "lake").rglob("*.parquet")
    (rows,) = pq.read_table(path).combine_chunks().to_batches()
    for column, typed in OLD:
        rules = Rules()
        rules.add({"column": column, "salt": "ab" * 16, "hash": salted("ab" * 16, typed)})
        assert rows.column("ID").filter(pa.array(rules.rows_of(rows))).to_pylist() == [1], (column, typed)


@pytest.mark.parametrize(("where", "column", "typed"), [("lake", "CUST", "12345"), ("feed", "T", "12.50")])
def test_rules_of_older_versions_still_hold(
    where: str, column: str, typed: str, ksqldb: EmbeddedKsqlDB, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    old = {"column": column, "salt": "ab" * 16, "hash": salted("ab" * 16, typed)}
    if where == "lake":
        (lake / RULES).write_text(json.dumps({**old, "feeds": []}) + "\n")
    else:
        path = lake / "streams" / "s" / "_metadata.json"
        state = json.loads(path.read_text())
        state["erasures"] = [{**old, "receipt": "r", "later": "drop", "rows": 0, "files": 0}]
        path.write_text(json.dumps(state))
    for row in (MINE, OTHER):
        ksqldb.append("S", 0, JAN15 + 1, row)
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert ids(lake) == [1, 2, 2, 3]
    assert manage_feeds.main(["erase", "--where", f"{column}={typed}", "--later", "drop"]) == 0
    assert ids(lake) == [2, 2, 3]


def test_a_receipt_begun_goes_on(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    receipts = tmp_path / "lake" / "logs" / "erasures"
    assert manage_feeds.main(["erase", "--where", "cust=12345", "--later", "keep"]) == 0
    (path,) = receipts.glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "ended": None}))
    assert manage_feeds.main(["erase", "--where", "CUST=12345", "--later", "keep"]) == 0
    assert [p.name for p in receipts.glob("*.json")] == [path.name] and json.loads(path.read_text())["ended"]
