"""What else belongs to a lake and must come back from its remote, and the lake whose remote is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.files import exclusive_lock
from ksql_lake.store.remote.seam import Away
from tests.memory_store import MemoryStore
from tests.remote_lakes import SETTINGS, database, fill, lake_in, metadata, quarantine_two, remote, rows, use


def away(moment: str, verb: str, key: str) -> None:
    raise Away("s3://memory/lake: the store does not answer")


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


@pytest.fixture
def checked(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lake after a third night, of which two rows are in quarantine, in two files."""
    quarantine_two(lake, monkeypatch)
    assert len(aside_here(lake)) == 2
    return lake


def aside_here(lake: Path) -> list[str]:
    return sorted(path.relative_to(lake).as_posix() for path in (lake / "quarantine").rglob("*.parquet"))


def aside_there(memory: MemoryStore) -> list[str]:
    return sorted(key for key in memory.objects if key.startswith("quarantine/"))


def test_a_new_machine_has_the_quarantine_too(
    checked: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push", "--dry-run") == 0 and "quarantine  2 files" in capsys.readouterr().out
    assert remote("push") == 0 and aside_there(memory) == aside_here(checked) and remote("verify", "--deep") == 0
    before, held = rows(checked), {path: (checked / path).read_bytes() for path in aside_here(checked)}
    calls = len(memory.calls)
    assert remote("push") == 0 and "create" not in [verb for verb, _ in memory.calls[calls:]]
    new = tmp_path / "new"
    monkeypatch.setenv("DATA_LAKE_DIR", str(new))
    cut = 0

    def stops(moment: str, verb: str, key: str) -> None:
        nonlocal cut
        cut += moment == "before" and verb == "get" and key.startswith("quarantine/")
        if cut == 2:
            away(moment, verb, key)

    memory.hook = stops
    assert remote("restore") == 1 and not (new / "streams" / "s" / "_metadata.json").exists()
    memory.hook = lambda moment, verb, key: None
    capsys.readouterr()
    assert remote("restore") == 0 and "2 rows in quarantine fetched" in capsys.readouterr().out
    assert {path: (new / path).read_bytes() for path in aside_here(new)} == held and rows(new) == before
    assert metadata_utils.main(["--verify", "--deep"]) == 0 and remote("verify", "--deep") == 0
    cluster = Path(".state") / "kafka_cluster.json"
    assert (new / cluster).read_bytes() == (checked / cluster).read_bytes(), "rows of another one are refused still"
    assert manage_feeds.main(["quarantine", "s", "--import", "--force"]) == 0
    assert len(rows(new)) == len(before) + 2 and remote("push") == 0 and remote("verify") == 0


def test_what_leaves_the_quarantine_leaves_the_remote(
    checked: Path, memory: MemoryStore, tmp_path: Path, capsys: Any
) -> None:
    memory.versioned = True
    assert remote("push") == 0
    first = aside_there(memory)
    assert manage_feeds.main(["erase", "--where", "USER_ID=user_4", "--later", "drop"]) == 0
    assert len(aside_there(memory)) == 1 and aside_there(memory) == aside_here(checked), "the row was the only one"
    assert not [key for key in memory.older if key.startswith("quarantine/")]
    assert manage_feeds.main(["quarantine", "s", "--import", "--force"]) == 0 and remote("push") == 0
    assert set(aside_there(memory)) < set(first), "as long as the trash keeps what left the lake"
    assert [gone["path"] for gone in metadata(checked)["remote_gone"]] == aside_there(memory)
    text = (checked / "streams" / "s" / "_metadata.json").read_text()
    gone_at = metadata(checked)["remote_gone"][0]["at"]
    (checked / "streams" / "s" / "_metadata.json").write_text(
        text.replace(f'"at": "{gone_at}",\n      "purge"', '"at": "2025-01-01T00:00:00Z",\n      "purge"'))
    assert remote("purge") == 0 and aside_there(memory) == [] and "remote_gone" not in metadata(checked)


def test_quarantine_comes_back_from_the_trash_as_the_remote_has_it(
    checked: Path, memory: MemoryStore, capsys: Any
) -> None:
    assert remote("push") == 0
    assert manage_feeds.main(["update", "s", "retention_days=1"]) == 0
    assert manage_feeds.main(["retention", "s", "--max-delete", "100"]) == 0
    assert aside_here(checked) == [] and remote("push") == 0 and len(aside_there(memory)) == 2
    assert manage_feeds.main(["undo", "s"]) == 0 and remote("push") == 0 and remote("verify") == 0
    assert aside_here(checked) == aside_there(memory) != []


def test_damage_in_the_quarantine_is_found_and_repaired(checked: Path, memory: MemoryStore, capsys: Any) -> None:
    assert remote("push") == 0
    one, other = aside_there(memory)
    del memory.objects[one]
    memory.put("quarantine/s/stray.parquet", b"stray", None, "STANDARD")
    assert remote("verify") == 1
    told = capsys.readouterr().out
    assert f"{one}: missing, but it is on this disk" in told and "stray.parquet: unknown" in told and other not in told
    assert remote("push", "--repair") == 0 and remote("purge", "--unknown") == 0 and remote("verify") == 0


def test_a_remote_that_is_lost_for_good(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    assert remote("drop", "t", "--versions", "v1") == 0
    memory.hook = away
    monkeypatch.delenv("REMOTE")
    assert remote("forget") == 2
    told = capsys.readouterr()
    assert "s: 8 rows of 2025-01-15 are only in the remote; bring them here with: " in told.out
    assert "manage_feeds.py remote pull s\n" in told.out
    assert "t: 5 rows of v1 are" in told.out and "nothing was changed" in told.err and "--give-up-rows" in told.err
    assert (lake / ".state" / "remote.json").exists() and remote("forget", "--dry-run") == 0
    assert remote("forget", "--give-up-rows") == 0
    told = capsys.readouterr().out
    assert "8 rows of 2025-01-15 are no longer in the lake" in told and "the lake has no remote any more" in told
    assert not (lake / ".state" / "remote.json").exists()
    assert not (lake / "streams" / "s" / "_REMOTE.txt").exists()
    assert len(rows(lake)) == 16 and len(rows(lake, "t")) == 5
    assert not any("remote" in file or "local" in file for file in metadata(lake)["files"])
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert len(rows(lake)) == 28, "what was lost is not read again by itself"
    assert remote("forget") == 0 and "has no remote; nothing to forget" in capsys.readouterr().out


def test_a_lake_moves_to_another_remote(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    before = rows(lake)
    assert remote("push") == 0
    use(MemoryStore(tmp_path / "other", url="s3://memory/other"), monkeypatch, "s3://memory/other")
    assert remote("push") == 2
    assert "REMOTE is s3://memory/other, but this lake's remote is s3://memory/lake" in capsys.readouterr().err
    use(memory, monkeypatch)
    assert remote("forget") == 0
    assert "REMOTE is still set to s3://memory/lake: unset it" in capsys.readouterr().out
    assert remote("push") == 1 and "belongs to another lake" in capsys.readouterr().err
    other = MemoryStore(tmp_path / "other", url="s3://memory/other")
    use(other, monkeypatch, other.url)
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0 and remote("verify") == 0
    assert rows(lake) == before


def test_metadata_and_remote_lost_together(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    (lake / "streams" / "s" / "_metadata.json").write_text("{")
    memory.hook = away
    assert metadata_utils.main(["--rebuild"]) == 1
    assert "manage_feeds.py remote forget\n" in capsys.readouterr().err
    monkeypatch.delenv("REMOTE")
    assert remote("forget", "--give-up-rows") == 1
    assert "--rebuild" in capsys.readouterr().err, "the feed whose metadata cannot be read is named with what helps"
    assert metadata_utils.main(["--rebuild"]) == 0
    assert len(rows(lake)) == 16 and metadata_utils.main(["--verify", "--deep"]) == 0


def test_a_restored_lake_without_its_files_can_be_given_up(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push") == 0
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "new"))
    assert remote("restore", "--metadata-only") == 0 and len(rows(tmp_path / "new", "t")) == 5
    assert remote("forget", "--give-up-rows") == 0
    assert rows(tmp_path / "new") == [] and metadata(tmp_path / "new", "tables/t")["current"] is None
    monkeypatch.delenv("REMOTE")
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert metadata(tmp_path / "new", "tables/t")["current"]["version"] == "v3"
    assert len(rows(tmp_path / "new", "t")) == 5


def test_the_lake_may_be_named_behind_each_verb(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "elsewhere"))
    at = ["--lake", str(lake)]
    for command in (["push"], ["drop", "s", "--days", "2025-01-15"], ["pull"], ["tier"], ["purge"], ["status"],
                    ["verify"], ["check"], ["policy"], ["forget", "--dry-run"]):
        for argv in (["remote", *command, *at], ["remote", *at, *command], [*at, "remote", *command]):
            assert manage_feeds.main(argv) == 0, argv
    assert "s: 2 files," in capsys.readouterr().out
    new = tmp_path / "new"
    assert manage_feeds.main(["remote", "restore", "--lake", str(new)]) == 0
    assert rows(new) == rows(lake) and not (tmp_path / "elsewhere").exists()


def test_an_export_from_python_pushes_as_all_does(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with database() as server:
        for night in range(3):
            fill(server, night)
        given = {**SETTINGS, "KSQLDB_URL": server.url}
        assert [one["feed"] for one in ksql_lake.export("s", lake=lake, settings=given)] == ["s"] and not memory.objects
        off = {**given, "REMOTE_AFTER_EXPORT": "off"}
        assert [one["result"] for one in ksql_lake.export(lake=lake, settings=off)] == ["ok", "ok"]
        assert not memory.objects
        assert [one["result"] for one in ksql_lake.export(lake=lake, settings=given)] == ["ok", "ok"]
        assert {key.split("/")[1] for key in memory.objects if key.endswith(".parquet")} == {"s", "t"}
        memory.hook = away
        results = ksql_lake.export(lake=lake, settings=given)
        assert [(one["feed"], one["exit_code"]) for one in results] == [("", 1), ("s", 0), ("t", 0)]
        assert results[0]["findings"][0]["kind"] == "remote" and "does not answer" in results[0]["messages"][0]
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        assert export_to_data_lake.main(["--all", "--json"]) == 1
        shown = capsys.readouterr()
        assert [one["feed"] for one in json.loads(shown.out)] == ["", "s", "t"]
        assert shown.err.count("does not answer") == 1


def test_a_feed_that_fails_does_not_hold_up_the_others(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    path = lake / "streams" / "s" / "_metadata.json"
    whole = path.read_text()
    path.write_text("{")
    assert remote("push") == 1
    told = capsys.readouterr()
    assert "--rebuild --feed s" in told.err and "t: 2 files" in told.out
    assert {key.split("/")[1] for key in memory.objects if key.endswith(".parquet")} == {"t"}
    path.write_text(whole)
    with exclusive_lock(lake / ".state" / "s.lock", "s"):
        assert remote("drop", "--days", "2025-01-15") == 3 and "s" in capsys.readouterr().err
    calls = len(memory.calls)
    memory.hook = away
    assert remote("push") == 1
    assert capsys.readouterr().err.count("does not answer") == 1 and len(memory.calls) == calls + 1, "asked once"
