"""One TIME of 24:00, which the server can read but not send, ends every answer that reaches it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB

JAN15 = 1_736_899_200_000
DAY = 86_400_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "0.5")
        yield database


def lake() -> Path:
    return Path(os.environ["DATA_LAKE_DIR"])


def make(database: EmbeddedKsqlDB, policy: str, bad: set[tuple[int, int]], rows: int = 10, partitions: int = 2) -> None:
    database.create_stream("S", "`ID` STRING, `T` TIME", partitions)
    for offset in range(rows):
        for partition in range(partitions):
            value = DAY if (partition, offset) in bad else 1000
            database.append("S", partition, JAN15 + offset, [f"{partition}-{offset}", value])
    assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S"]) == 0
    path = lake() / "feeds" / "active" / "s.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "on_bad_value": policy}))


def ids() -> list[str]:
    return sorted(ksql_lake.read("s", lake=lake())["ID"])


def export(*argv: str) -> int:
    return export_to_data_lake.main(list(argv) or ["--all"])


def test_by_default_it_is_told_with_its_place(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    make(ksqldb, "fail", {(1, 4)})
    capsys.readouterr()
    assert export() == 1
    told = capsys.readouterr().err
    assert "partition 1, after offset 3: the server cannot send the row at offset 4" in told
    assert "Failed to serialize buffer" in told and '"on_bad_value" to "quarantine"' in told and "a bug" not in told
    assert all(one in ids() for one in ("1-3", "0-3")) and "1-5" not in ids()  # what came before is published


def test_the_first_row_of_all(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    make(ksqldb, "fail", {(0, 0)}, partitions=1)
    capsys.readouterr()
    assert export() == 1
    assert "s: partition 0, at its beginning: the server cannot send the row at offset 0" in capsys.readouterr().err
    assert not list(lake().rglob("*.parquet"))


@pytest.mark.parametrize("policy", ["quarantine", "null"])
@pytest.mark.parametrize("bad", [
    {(1, 4)}, {(0, 0)}, {(0, 9), (1, 9)}, {(0, 3), (0, 4), (1, 4), (1, 7)},
])
def test_it_is_stepped_over_and_quarantined_without_its_content(
    ksqldb: EmbeddedKsqlDB, policy: str, bad: set[tuple[int, int]], capsys: Any
) -> None:
    make(ksqldb, policy, bad)
    capsys.readouterr()
    assert export() == 1
    told = capsys.readouterr().err
    for partition, offset in bad:
        assert f"partition {partition}, " in told and f"the server cannot send the row at offset {offset} " in told
    good = sorted(f"{p}-{o}" for p in range(2) for o in range(10) if (p, o) not in bad)
    assert ids() == good
    files = list((lake() / "quarantine").rglob("*.parquet"))
    rows = pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])
    assert set(zip(rows["ROWPARTITION"], rows["ROWOFFSET"], strict=True)) == bad and len(rows) == len(bad)
    assert rows["ID"].null_count() == rows["T"].null_count() == len(bad)
    assert all(reason.startswith("on_bad_value: row was not sent: ") for reason in rows["_reason"])
    asked = len(ksqldb.statements)
    assert export() == 0 and ids() == good  # known now: left out from the start
    assert len(ksqldb.statements) - asked <= 2
    for partition in range(2):
        ksqldb.append("S", partition, JAN15 + 100, [f"{partition}-later", 5])
    assert export() == 0 and ids() == sorted([*good, "0-later", "1-later"])
    assert len(list((lake() / "quarantine").rglob("*.parquet"))) == len(files)
    assert metadata_utils.main(["--verify", "--deep"]) == 0


@pytest.mark.parametrize("queryable", [True, False])
def test_a_table_says_what_it_is(ksqldb: EmbeddedKsqlDB, queryable: bool, capsys: Any) -> None:
    ksqldb.create_table("TT", "`ID` STRING KEY, `T` TIME", queryable=queryable)
    ksqldb.upsert("TT", ["a", 5])
    ksqldb.upsert("TT", ["b", DAY])
    assert manage_feeds.main(["add", "--name", "tt", "--type", "table", "--source", "TT"]) == 0
    capsys.readouterr()
    assert export() == 1
    told = capsys.readouterr().err
    assert "a row holds a value that the server cannot send, such as a TIME of 24:00" in told and told.count("\n") == 1


def test_a_run_of_one_day_leaves_the_other_days_for_later(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    make(ksqldb, "quarantine", set(), rows=3, partitions=1)
    ksqldb.append("S", 0, JAN15 + DAY, ["bad", DAY])
    ksqldb.append("S", 0, JAN15 + 2 * DAY, ["after", 7])
    assert export("--stream", "s", "--date", "2025-01-17") == 0
    assert ids() == ["after"] and not list((lake() / "quarantine").rglob("*.parquet"))
    assert export() == 1
    assert ids() == ["0-0", "0-1", "0-2", "after"] and len(list((lake() / "quarantine").rglob("*.parquet"))) == 1
