"""Feeds of many files: manifests list what `_metadata.json` does not, and nobody sees a difference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model.entries import FileEntry, FileSet, summarised
from ksql_lake.store import manifests as manifest_files
from ksql_lake.store import metadata, state_log
from ksql_lake.store.metadata import Dataset

JAN15 = 1_736_899_200_000
DAY = 86_400_000


def entry(number: int) -> FileEntry:
    partition = f"year=2025/month=01/day={number % 9 + 1:02d}"
    return FileEntry(
        f"{partition}/f{number}.parquet", partition, number, number * 10, 0, "r", "export", "1.0", f"t{number:04d}",
        rowtime_max=number, rowtime_min=0, offsets={0: (number, number, 1)}, generation=1,
    )


@given(st.lists(st.one_of(
    st.tuples(st.just("add"), st.integers(0, 60)), st.tuples(st.just("remove"), st.integers(0, 60)),
    st.tuples(st.just("seal"), st.just(0)), st.tuples(st.just("reload"), st.just(0)),
), max_size=40))
@settings(max_examples=150, deadline=None)
def test_a_file_set_is_a_set_of_files_whatever_is_sealed(steps: list[tuple[str, int]]) -> None:
    kept: dict[str, list[FileEntry]] = {}
    files, model, name = FileSet(), dict[str, FileEntry](), 0
    for what, number in steps:
        one = entry(number)
        if what == "add" and one.path not in model:
            files.add([one])
            model[one.path] = one
        elif what == "remove":
            gone = files.remove([one.path])
            assert gone == ([model.pop(one.path)] if one.path in model else [])
        elif what == "seal" and files.recent:
            name += 1
            kept[str(name)] = files.seal(str(name))
        elif what == "reload":
            files = FileSet(files.recent, files.manifests, lambda m: list(kept[m.name]), files.partitions)
        assert len(files) == len(model)
        assert {p.path: p for p in files.partitions} == summarised(sorted(model.values(), key=lambda f: f.exported_at))
    assert sorted(files, key=lambda f: f.path) == sorted(model.values(), key=lambda f: f.path)


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2"),
                            ("RETENTION", "off")):
            monkeypatch.setenv(name, value)
        database.create_stream("S", "`ID` STRING, `N` INTEGER", 2)
        yield database


def state_of(lake: Path) -> Any:
    loaded = metadata.load(Dataset(lake, "s", "stream"))
    assert loaded is not None
    return loaded


@pytest.mark.parametrize("seal", [2, 500])
def test_a_life_with_manifests_and_without(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seal: int
) -> None:
    """Exports, a rebuild, an erasure, a compaction, retention and undo: the same rows, and no manifest left over."""
    monkeypatch.setattr(manifest_files, "SEAL", seal)
    lake = tmp_path / "lake"
    assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S", "--retention-days", "1"]) == 0
    for night in range(4):
        for i in range(12):
            ksqldb.append("S", i % 2, JAN15 + i % 6 * DAY, [f"n{night}e{i}", i])
        assert export_to_data_lake.main(["--stream", "s"]) == 0
    manifests = lake / "streams" / "s" / "_manifests"
    listed = json.loads((lake / "streams" / "s" / "_metadata.json").read_text())
    assert (len(listed["files"]) <= seal) and manifests.is_dir() == (seal == 2)
    assert len(state_of(lake).files) == 24 == len(list((lake / "streams" / "s").rglob("*.parquet")))
    assert len(ksql_lake.read("s", lake=lake)) == 48 == len(pd.read_parquet(lake / "streams" / "s"))
    assert metadata_utils.main(["--verify", "--deep"]) == 0 and export_to_data_lake.main(["--stream", "s"]) == 0
    before = state_of(lake)
    paths = {file.path for file in before.files}
    (lake / "streams" / "s" / "_metadata.json").unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    after = state_of(lake)
    assert {f.path for f in after.files} == paths and after.resume == before.resume
    assert manage_feeds.main(["erase", "--where", "id=n1e3", "--later", "keep"]) == 0
    assert manage_feeds.main(["compact", "s", "--older-than", "1d"]) == 0
    assert len(state_of(lake).files) == 6 and len(ksql_lake.read("s", lake=lake)) == 47
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    lifted = ["retention", "s", "--max-delete", "100", "--allow", "stale", "--allow", "clock"]
    assert manage_feeds.main(lifted) in (0, 1)
    assert len(ksql_lake.read("s", lake=lake)) == 0
    assert manage_feeds.main(["undo", "s"]) == 0 and len(ksql_lake.read("s", lake=lake)) == 47
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    kept = {manifest.name for manifest in state_of(lake).files.manifests}
    assert kept == ({path.name for path in manifests.iterdir()} if manifests.is_dir() else set())
    folded = list(state_log.states(lake / ".state" / "s.jsonl"))
    without = ("files", "partitions", "manifests", "total_records", "total_size_mb")
    logged, now = folded[-1].typed().described(), state_of(lake).described()
    assert {k: v for k, v in logged.items() if k not in without} == {k: v for k, v in now.items() if k not in without}


def test_unknown_files_are_found_beside_manifests(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """One that was added, and one that took the place of another: the number of files is the same then."""
    monkeypatch.setattr(manifest_files, "SEAL", 1)
    lake = tmp_path / "lake"
    assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S"]) == 0
    for i in range(6):
        ksqldb.append("S", 0, JAN15 + i * DAY, [f"e{i}", i])
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    files = sorted((lake / "streams" / "s").rglob("*.parquet"))
    stranger = files[0].with_name("stranger.parquet")
    stranger.write_bytes(files[0].read_bytes())
    files[1].rename(files[1].with_name("renamed.parquet"))
    capsys.readouterr()
    assert export_to_data_lake.main(["--stream", "s"]) == 1
    told = capsys.readouterr().err
    assert told.count("not in the feed's metadata, though") == 2 and "stranger" in told and "renamed" in told


def test_a_damaged_or_lost_manifest_is_one_clear_line(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(manifest_files, "SEAL", 1)
    lake = tmp_path / "lake"
    assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S"]) == 0
    for i in range(3):
        ksqldb.append("S", 0, JAN15 + i * DAY, [f"e{i}", i])
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    (manifest,) = (lake / "streams" / "s" / "_manifests").iterdir()
    whole = manifest.read_text()
    for damaged in ("{torn", "", whole.splitlines()[0] + "\n", "[]\n" * 3):
        manifest.write_text(damaged)
        capsys.readouterr()
        assert manage_feeds.main(["erase", "--where", "id=e1", "--later", "keep"]) == 1
        assert "metadata_utils.py --rebuild" in capsys.readouterr().err
    manifest.unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    assert len(ksql_lake.read("s", lake=lake)) == 3 and metadata_utils.main(["--verify", "--deep"]) == 0


def test_the_state_of_a_small_table_stays_small(tmp_path: Path) -> None:
    from benchmarks.age import _table

    assert _table(tmp_path / "lake") < 2_000_000

