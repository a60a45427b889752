"""Sources that change under the exporter: a message a person understands, and nothing lost or doubled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB

DAY = 86_400_000
JAN15 = 1_736_899_200_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        database.create_stream("S", "`ID` STRING, `V` INTEGER", 2)
        produce(database, 0, 20)
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        yield database


def produce(database: EmbeddedKsqlDB, first: int, last: int, *more: Any, prefix: str = "e") -> None:
    for i in range(first, last):
        database.append("S", i % 2, JAN15 + i * 3_600_000, [f"{prefix}{i}", i, *more])


def export(*argv: str) -> int:
    return export_to_data_lake.main(list(argv or ("--all",)))


def ids(tmp_path: Path) -> list[str]:
    files = sorted((tmp_path / "lake" / "streams" / "s").rglob("*.parquet"))
    return sorted(value for path in files for value in pq.ParquetFile(path).read(["ID"])["ID"].to_pylist())


def expected(*spans: tuple[str, int, int]) -> list[str]:
    return sorted(f"{prefix}{i}" for prefix, first, last in spans for i in range(first, last))


def state(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "lake" / "streams" / "s" / "_metadata.json").read_text())


def redefine(database: EmbeddedKsqlDB, columns: str, rows: list[list[Any]]) -> None:
    """CREATE OR REPLACE STREAM over the same topic: the same rows at the same offsets, seen through other columns."""
    database.drop("S")
    database.create_stream("S", columns, 2)
    for i, values in enumerate(rows):
        database.append("S", i % 2, JAN15 + i * 3_600_000, values)


@pytest.mark.parametrize("rows", [4, 60])
def test_topic_recreated_with_fewer_and_with_more_rows(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, rows: int, capsys: Any
) -> None:
    assert export() == 0
    ksqldb.recreate("S")
    produce(ksqldb, 0, rows, prefix="n")
    assert export() == 1
    assert "s: the topic was recreated" in capsys.readouterr().err
    assert ids(tmp_path) == expected(("e", 0, 20), ("n", 0, rows))
    produce(ksqldb, rows, rows + 10, prefix="n")
    assert export() == 0
    assert ids(tmp_path) == expected(("e", 0, 20), ("n", 0, rows + 10))
    assert state(tmp_path)["generation"] == 2


def test_recreated_and_empty_is_silence_and_no_evidence(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    assert export() == 0
    ksqldb.recreate("S")
    export()
    assert state(tmp_path)["generation"] == 1
    produce(ksqldb, 0, 30, prefix="n")
    assert export() == 1
    assert ids(tmp_path) == expected(("e", 0, 20), ("n", 0, 30))


def test_a_partition_is_added(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    assert export() == 0
    added = ksqldb.add_partition("S")
    ksqldb.append("S", added, JAN15, ["e20", 20])
    assert export() == 0 and export() == 0
    assert ids(tmp_path) == expected(("e", 0, 21))


def test_the_stream_is_dropped(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert export() == 0
    ksqldb.drop("S")
    assert export() == 1
    assert "s: no such stream" in capsys.readouterr().err
    assert ids(tmp_path) == expected(("e", 0, 20))


def test_a_column_is_added(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    assert export() == 0
    redefine(ksqldb, "`ID` STRING, `V` INTEGER, `NEW` DECIMAL(9, 2)", [[f"e{i}", i, None] for i in range(20)])
    produce(ksqldb, 20, 24, Decimal("1.50"))
    assert export() == 0
    assert ids(tmp_path) == expected(("e", 0, 24))
    assert state(tmp_path)["schema_version"] == "1.1"
    newest = max((tmp_path / "lake" / "streams" / "s").rglob("*.parquet"), key=lambda path: path.stat().st_mtime)
    assert set(pq.ParquetFile(newest).read()["NEW"].to_pylist()) == {Decimal("1.50")}


@pytest.mark.parametrize(("columns", "row", "words"), [
    ("`ID` STRING", ["e"], "s: column V is gone from the source"),
    ("`ID` STRING, `V` BIGINT", ["e", 1], "s: column V was INTEGER and is now BIGINT"),
    ("`ID` STRING, `V` STRING", ["e", "1"], "s: column V was INTEGER and is now STRING"),
])
def test_a_column_that_plain_readers_could_not_follow_stops_the_feed(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, columns: str, row: list[Any], words: str, capsys: Any
) -> None:
    assert export() == 0
    redefine(ksqldb, columns, [row] * 30)
    assert export() == 1
    assert words in capsys.readouterr().err
    assert ids(tmp_path) == expected(("e", 0, 20))
    assert not list((tmp_path / "lake" / ".staging").glob("s/*"))


def test_another_timestamp_column_over_the_same_topic_stops_the_feed(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    assert export() == 0
    ksqldb.drop("S")
    ksqldb.create_stream("S", "`ID` STRING, `V` INTEGER", 2)
    for i in range(25):
        ksqldb.append("S", i % 2, JAN15 + 7 + i * DAY, [f"e{i}", i])
    assert export() == 1
    assert "the stream was redefined over the same topic" in capsys.readouterr().err
    assert ids(tmp_path) == expected(("e", 0, 20))


def test_rows_that_expired_before_they_were_exported_are_counted(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    assert export() == 0
    produce(ksqldb, 20, 60)
    ksqldb.expire("S", 0, 20)
    assert export() == 1
    assert "s: up to 10 rows of partition 0 expired before they were exported" in capsys.readouterr().err
    assert export() == 0
    assert len(ids(tmp_path)) == 50


def test_honest_holes_are_no_finding(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """Undecodable and null records leave holes in the offsets."""
    assert export() == 0
    ksqldb.skip("S", 0, 5)
    produce(ksqldb, 20, 30)
    assert export() == 0 and export() == 0
    assert ids(tmp_path) == expected(("e", 0, 30))


def test_a_table_that_stops_being_pullable_goes_on_by_its_changelog(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "t"]) == 0
    for queryable in (True, False):
        ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER", queryable=queryable)
        for i in range(6):
            ksqldb.upsert("T", [f"k{i}", i])
        assert export("--table", "t") == 0
        ksqldb.drop("T")
    first, second = (pd.read_parquet(tmp_path / "lake" / "tables" / "t" / f"version=v{n}") for n in (1, 2))
    assert sorted(first.itertuples(index=False)) == sorted(second.itertuples(index=False))


def test_an_event_of_the_future_does_not_hide_later_ones(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    ksqldb.append("S", 0, 4_102_444_800_000, ["future", 0])
    assert export() == 0
    produce(ksqldb, 20, 25)
    assert export() == 0
    assert ids(tmp_path) == sorted([*expected(("e", 0, 25)), "future"])


def test_a_topic_recreated_after_a_run_of_some_days(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """A run with --date moves no resume point, but it sees the first rows: by them the next run knows."""
    assert export("--stream", "s", "--date", "2025-01-15") == 0
    ksqldb.recreate("S")
    produce(ksqldb, 0, 20, prefix="new")
    assert export() == 1 and "the topic was recreated" in capsys.readouterr().err
    assert ids(tmp_path) == expected(("e", 0, 20), ("new", 0, 20))
    assert state(tmp_path)["generation"] == 2 and export() == 0


def test_a_topic_recreated_twice_with_days_in_between(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    assert export() == 0
    for prefix in ("b", "c"):
        ksqldb.recreate("S")
        produce(ksqldb, 0, 30, prefix=prefix)
        assert export("--stream", "s", "--date", "2025-01-15") == 1
    assert export() == 0
    assert ids(tmp_path) == expected(("e", 0, 20), ("b", 0, 24), ("c", 0, 30))
    assert state(tmp_path)["generation"] == 3
