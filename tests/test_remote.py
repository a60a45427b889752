"""The remote home of a lake through the scripts: what moves, what is refused, what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.store.remote.seam import Away
from tests.memory_store import MemoryStore
from tests.remote_lakes import SETTINGS, database, files_of, fill, lake_in, metadata, remote, rows, use


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = lake_in(tmp_path)
    monkeypatch.setenv("DATA_LAKE_DIR", str(made))
    return made


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = MemoryStore(tmp_path / "objects")
    use(store, monkeypatch)
    return store


def test_push_drop_and_pull(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    before, here = rows(lake), files_of(lake)
    assert remote("push") == 0
    assert sorted(key for key in memory.objects if key.startswith("streams/s/year")) == [f"streams/s/{p}" for p in here]
    for path in here:
        assert memory.objects[f"streams/s/{path}"].data == (lake / "streams" / "s" / path).read_bytes()
    calls = len(memory.calls)
    assert remote("push") == 0
    assert not [verb for verb, _ in memory.calls[calls:] if verb in ("create", "swap")], "nothing new, nothing sent"
    assert remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    assert {path[:26] for path in files_of(lake)} == {"year=2025/month=01/day=17/"}
    away = {file["path"] for file in metadata(lake)["files"] if file.get("local") is False}
    assert away == set(here) - set(files_of(lake))
    assert rows(lake) == before
    assert remote("pull", "s", "--days", "2025-01-15") == 0
    assert {path[:26] for path in files_of(lake)} == {f"year=2025/month=01/day={day}/" for day in (15, 17)}
    assert remote("pull") == 0 and files_of(lake) == here and rows(lake) == before
    assert remote("verify") == 0 and remote("verify", "--deep") == 0
    capsys.readouterr()


def test_an_export_pushes_and_drops_what_is_due(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with database() as server:
        for night in range(2):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        before = rows(lake)
        assert manage_feeds.main(["update", "s", "local_days=30"]) == 0
        monkeypatch.setenv("REMOTE_AFTER_EXPORT", "off")
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0 and not memory.objects
        monkeypatch.delenv("REMOTE_AFTER_EXPORT")
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        assert files_of(lake) == [] and rows(lake) == before, "all days of 2025 have been over for 30 days"
        assert len(files_of(lake, "tables/t")) == 4, "versions of a feed without local_days stay"
        fill(server, 2)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        assert files_of(lake) == [] and len(rows(lake)) == 36, "late rows of dropped days go where their day lies"
        assert remote("verify") == 0


def test_a_broken_remote_is_a_finding_and_the_export_stands(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def away(moment: str, verb: str, key: str) -> None:
        raise Away("s3://memory/lake: the store does not answer")

    memory.hook = away
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 1
    told = capsys.readouterr().err
    assert told.count("does not answer") == 1 and "what was exported is committed" in told
    assert len(rows(lake)) == 36
