"""The log of changes and the metrics file learn of changes by hand, also of one whose line a crash has swallowed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.reporting import observers


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2"),
                            ("RETENTION", "off"), ("METRICS_FILE", str(tmp_path / "lake.prom"))):
            monkeypatch.setenv(name, value)
        database.create_table("T", "`K` STRING KEY, `V` BIGINT")
        assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "T"]) == 0
        for i in range(3):
            database.upsert("T", [f"k{i}", i])
            assert export_to_data_lake.main(["--all"]) == 0
        yield tmp_path / "lake"


def lines(lake: Path) -> list[dict[str, Any]]:
    path = lake / "logs" / "changes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_each_change_by_hand_has_a_line(lake: Path) -> None:
    assert lines(lake) == [], "exports have their own history"
    assert manage_feeds.main(["pin", "t", "v1"]) == 0
    assert manage_feeds.main(["rollback", "t", "v2"]) == 0
    assert export_to_data_lake.main(["--all"]) == 0
    assert [(one["feed"], one["what"]) for one in lines(lake)] == [
        ("t", "pin: v1"), ("t", "rollback: current is v2, was v3")]
    assert all(one["at"].endswith("Z") and one["by"] for one in lines(lake))


def test_a_line_that_a_crash_swallowed_comes_with_the_next_turn(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert manage_feeds.main(["pin", "t", "v1"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(observers.ChangeLog, "committed", lambda *_: None)
        assert manage_feeds.main(["pin", "t", "v2"]) == 0
    assert len(lines(lake)) == 1
    path = lake / "logs" / "changes.jsonl"
    path.write_text(path.read_text() + '{"torn\n')
    assert export_to_data_lake.main(["--all"]) == 0
    path.write_text(path.read_text().replace('{"torn\n', ""))
    assert [one["what"] for one in lines(lake)] == ["pin: v1", "pin: v2"]


def test_metrics_follow_a_change_by_hand(lake: Path, tmp_path: Path) -> None:
    file = tmp_path / "lake.prom"
    before = file.read_text()
    assert manage_feeds.main(["retention", "t", "--max-delete", "100"]) == 0
    assert manage_feeds.main(["update", "t", "retention_versions=1"]) == 0
    assert manage_feeds.main(["retention", "t", "--max-delete", "100"]) == 0
    after = file.read_text()
    assert re.search(r"^ksql_lake_partitions\{.*\} 3$", before, re.M)
    assert re.search(r"^ksql_lake_partitions\{.*\} 1$", after, re.M)
    kept = r"^ksql_lake_export_timestamp_seconds .*$"
    assert re.findall(kept, before, re.M) == re.findall(kept, after, re.M), "the last export is still the last"
    file.write_text("somebody else's")
    assert manage_feeds.main(["unpin", "t", "v3"]) == 0 and file.read_text() == "somebody else's"
