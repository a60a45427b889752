"""Rows per day here and there: equal after an export, and every way they may differ."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, Fault
from ksql_lake.ingest.streams.reconcile import SourceCount, compare

JAN15 = 1_736_899_200_000
DAYS = [dt.date(2025, 1, day) for day in range(15, 19)]


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.3")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        database.create_stream("S", "`ID` STRING, `AT` TIMESTAMP", 2)
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        produce(database, 0, 72)
        yield database


def produce(database: EmbeddedKsqlDB, first: int, last: int) -> None:
    for i in range(first, last):
        database.append("S", i % 2, JAN15 + i * 3_600_000, [f"e{i}", JAN15])


def test_an_export_with_reconcile_finds_equal_days(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    assert export_to_data_lake.main(["--all", "--reconcile"]) == 0
    out = capsys.readouterr().out
    for day in (15, 16, 17):
        assert f"2025-01-{day}  source         24  lake         24  equal" in out


def test_what_came_after_the_export_is_explained(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    assert export_to_data_lake.main(["--all"]) == 0
    produce(ksqldb, 72, 80)
    assert metadata_utils.main(["--reconcile", "s"]) == 0
    assert "2025-01-18  source          8  lake          0  8 newer than the last export" in capsys.readouterr().out
    assert metadata_utils.main(["--reconcile", "s", "--date", "2025-01-16"]) == 0
    out = capsys.readouterr().out
    assert "2025-01-16" in out and "2025-01-18" not in out and "s: 1 day, 0 differ" in out


def test_a_late_event_is_named_until_the_next_export(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    assert export_to_data_lake.main(["--all"]) == 0
    ksqldb.append("S", 0, JAN15 + 5, ["late", None])
    assert metadata_utils.main(["--reconcile", "s"]) == 1
    assert "2025-01-15  source         25  lake         24  1 not in the lake" in capsys.readouterr().out
    assert export_to_data_lake.main(["--all", "--reconcile"]) == 0


def test_expired_rows_are_explained(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    assert export_to_data_lake.main(["--all"]) == 0
    for partition in (0, 1):
        ksqldb.expire("S", partition, 15)
    assert metadata_utils.main(["--reconcile", "s"]) == 0
    out = capsys.readouterr().out
    assert "24 expired at the source" in out and "6 expired at the source" in out


@pytest.mark.parametrize("fault", [Fault(cut_after=7), Fault(complete_after=7), Fault(error_after=7)])
def test_a_count_that_was_cut_is_made_again(ksqldb: EmbeddedKsqlDB, fault: Fault) -> None:
    assert export_to_data_lake.main(["--all"]) == 0
    ksqldb.faults.add(fault)
    assert metadata_utils.main(["--reconcile", "s"]) == 0


def test_a_timestamp_column_decides_the_day(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    feed = tmp_path / "lake" / "feeds" / "active" / "s.json"
    feed.write_text(feed.read_text().replace('"enabled"', '"timestamp_column": "at",\n  "enabled"'))
    assert export_to_data_lake.main(["--all", "--reconcile"]) == 0
    assert "2025-01-15  source         72  lake         72  equal" in capsys.readouterr().out


def test_only_a_stream_that_was_exported(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    assert metadata_utils.main(["--reconcile", "s"]) == 1
    assert "s: only a stream that was exported before" in capsys.readouterr().err


@pytest.mark.parametrize(("source", "lake", "newer", "whole", "words", "explained"), [
    ([5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 0, 0], True, ["", "", "", ""], True),
    ([0, 2, 5, 5], [5, 5, 5, 5], [0, 0, 0, 0], True, ["5 expired", "3 expired", "", ""], True),
    ([5, 5, 4, 5], [5, 5, 5, 5], [0, 0, 0, 0], True, ["", "", "1 more in the lake", ""], False),
    ([5, 5, 5, 9], [5, 5, 5, 5], [0, 0, 0, 4], True, ["", "", "", "4 newer"], True),
    ([5, 5, 5, 9], [5, 5, 5, 5], [0, 0, 0, 3], True, ["", "", "", "4 not in the lake"], False),
    ([5, 5, 5, 5], [0, 5, 0, 0], [0, 0, 0, 0], False, ["5 not exported", "", "5 not exported", "5 not"], True),
])
def test_why_days_differ(
    source: list[int], lake: list[int], newer: list[int], whole: bool, words: list[str], explained: bool
) -> None:
    counted = SourceCount(Counter(dict(zip(DAYS, source, strict=True))), Counter(dict(zip(DAYS, newer, strict=True))))
    found = compare(counted, dict(zip(DAYS, lake, strict=True)), exported_whole=whole, removed={})
    assert [day.day for day in found] == DAYS
    assert all(day.reason.startswith(word) and bool(day.reason) == bool(word)
               for day, word in zip(found, words, strict=True))
    assert all(day.explained for day in found) == explained


def test_what_retention_took_is_not_called_newer(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """All days are gone from the lake: what was read once is removed here, not still to come."""
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    assert manage_feeds.main(["update", "s", "retention_days=1"]) == 0
    assert manage_feeds.main(["retention", "s", "--max-delete", "100"]) == 0
    capsys.readouterr()
    assert metadata_utils.main(["--reconcile", "s"]) == 0
    shown = capsys.readouterr().out
    assert "removed from the lake by retention or erasure" in shown and "newer" not in shown
