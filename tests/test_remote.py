"""The remote home of a lake through the scripts: what moves, what is refused, what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.memory_store import MemoryStore
from tests.remote_lakes import files_of, lake_in, metadata, remote, rows, use


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
