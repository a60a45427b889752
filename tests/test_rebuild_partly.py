"""Lost besides the metadata: parts of a commit, files, the state log; no row is lost for good, none comes twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB

DAY = 86_400_000
JAN15 = 1_736_899_200_000
STREAM = ["--stream", "s", "--quiet"]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def ksqldb(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2")):
            monkeypatch.setenv(name, value)
        database.create_stream("S", "`N` INTEGER", 2)
        database.create_table("T", "`K` STRING KEY, `N` INTEGER")
        for name, kind in (("s", "stream"), ("t", "table")):
            assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
        yield database


def produce(database: EmbeddedKsqlDB, first: int, last: int, days: int = 3) -> None:
    for n in range(first, last):
        database.append("S", n % 2, JAN15 + n % days * DAY, [n])


def numbers(lake: Path) -> list[int]:
    """The rows as a plain reader sees them."""
    return sorted(pd.read_parquet(lake / "streams" / "s", columns=["N"])["N"].tolist())


def files(lake: Path) -> list[Path]:
    return sorted((lake / "streams" / "s").glob("year=*/*/*/*.parquet"))


def rebuilt(lake: Path, *, verify: int = 0) -> None:
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    assert metadata_utils.main(["--verify", "--deep"]) == verify


def metadata(lake: Path) -> Path:
    return lake / "streams" / "s" / "_metadata.json"


def state(lake: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(metadata(lake).read_text())
    return known


@pytest.mark.parametrize(("lost", "earlier"), [
    (0, "no run before"), (2, "no run before"), (0, "a run before"), (1, "its log gone"),
])
def test_a_commit_that_was_published_in_part(lost: int, earlier: str, ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    """Killed between two renames, and then staging is lost: footers promise rows that lie nowhere."""
    before = before_log = b""
    if earlier != "no run before":
        produce(ksqldb, 0, 100)
        assert export_to_data_lake.main(STREAM) == 0
        before, before_log = metadata(lake).read_bytes(), (lake / ".state" / "s.jsonl").read_bytes()
    old = set(files(lake))
    produce(ksqldb, 100, 400)
    assert export_to_data_lake.main(STREAM) == 0
    (sorted(set(files(lake)) - old))[lost].unlink()
    metadata(lake).unlink()
    (lake / ".state" / "s.jsonl").unlink()
    if before:
        metadata(lake).write_bytes(before)
        if earlier == "a run before":
            (lake / ".state" / "s.jsonl").write_bytes(before_log)
    rebuilt(lake)
    assert export_to_data_lake.main(STREAM) == 0
    wanted = list(range(0 if before else 100, 400))
    assert numbers(lake) == wanted and metadata_utils.main(["--verify", "--deep"]) == 0
    assert export_to_data_lake.main(STREAM) == 0 and numbers(lake) == wanted


def test_several_readings_and_quarantine_in_one_run(
    ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Rows that checks put into quarantine count as there; with all files there the resume points are as they were."""
    feed = lake / "feeds" / "active" / "s.json"
    checks = [{"check": "range", "column": "N", "max": 90, "level": "quarantine"}]
    feed.write_text(json.dumps({**json.loads(feed.read_text()), "checks": checks}))
    produce(ksqldb, 0, 100)
    assert export_to_data_lake.main(STREAM) == 1
    resume = state(lake)["resume"]
    metadata(lake).unlink()
    (lake / ".state" / "s.jsonl").unlink()
    rebuilt(lake)
    assert state(lake)["resume"] == resume and numbers(lake) == list(range(91))
    next((lake / "quarantine" / "s").glob("*.parquet")).unlink()
    metadata(lake).unlink()
    (lake / ".state" / "s.jsonl").unlink()
    capsys.readouterr()
    rebuilt(lake)
    assert "are read again" in capsys.readouterr().out
    assert export_to_data_lake.main(STREAM) == 1
    assert sum(entry["rows"] for entry in state(lake)["quarantine"]) == 9 and numbers(lake) == list(range(91))


def test_merged_files_are_no_loss(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    """The small files of several runs are one now; their footers are gone, and nothing is read again."""
    for first in range(0, 300, 100):
        produce(ksqldb, first, first + 100)
        assert export_to_data_lake.main(STREAM) == 0
    assert manage_feeds.main(["compact", "s", "--older-than", "1d"]) == 0
    assert len(files(lake)) == 3
    produce(ksqldb, 300, 310, days=1)
    assert export_to_data_lake.main(STREAM) == 0
    before = state(lake)
    metadata(lake).unlink()
    (lake / ".state" / "s.jsonl").unlink()
    rebuilt(lake)
    assert state(lake)["resume"] == before["resume"] and state(lake)["coverage"] == before["coverage"]


def test_erased_rows_do_not_come_back_with_a_rebuild(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    produce(ksqldb, 0, 100)
    assert export_to_data_lake.main(STREAM) == 0
    for n in (7, 8):
        assert manage_feeds.main(["erase", "--where", f"n={n}", "--later", "keep"]) == 0
    metadata(lake).unlink()
    (lake / ".state" / "s.jsonl").unlink()
    rebuilt(lake)
    assert export_to_data_lake.main(STREAM) == 0
    assert numbers(lake) == [n for n in range(100) if n not in (7, 8)]


def test_metadata_and_a_file_are_lost(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """The state log still knows the file: what is gone is told, with the command that reads it again."""
    produce(ksqldb, 0, 100)
    assert export_to_data_lake.main(STREAM) == 0
    gone = files(lake)[1]
    rows = len(pd.read_parquet(gone))
    gone.unlink()
    metadata(lake).unlink()
    capsys.readouterr()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    told = capsys.readouterr().out
    assert str(gone) in told and f"{rows} rows" in told and "manage_feeds.py reload s" in told


@pytest.mark.parametrize(("log", "command"), [
    ("gone", "export"), ("equally old", "export"), ("torn", "export"), ("gone", "retention"), ("torn", "compact"),
    ("equally old", "erase"),
])
def test_metadata_older_than_the_files_stop_the_feed(
    log: str, command: str, ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any
) -> None:
    path = lake / ".state" / "s.jsonl"
    produce(ksqldb, 0, 100)
    assert export_to_data_lake.main(STREAM) == 0
    old, old_log = metadata(lake).read_bytes(), path.read_bytes()
    produce(ksqldb, 100, 300)
    assert export_to_data_lake.main(STREAM) == 0
    metadata(lake).write_bytes(old)
    if log == "gone":
        shutil.rmtree(lake / ".state")
    elif log == "equally old":
        path.write_bytes(old_log)
    else:
        path.write_bytes(path.read_bytes()[:-40])
    before = files(lake)
    argv = {"retention": ["retention", "s"], "compact": ["compact", "s", "--older-than", "1d"],
            "erase": ["erase", "--where", "n=7", "--later", "keep"]}.get(command)
    capsys.readouterr()
    assert (manage_feeds.main(argv) if argv else export_to_data_lake.main(STREAM)) == 1
    said = capsys.readouterr().err
    assert "is an old copy" in said and "--rebuild --feed s" in said, said
    assert files(lake) == before and metadata(lake).read_bytes() == old
    rebuilt(lake)
    assert export_to_data_lake.main(STREAM) == 0
    assert numbers(lake) == list(range(300)) and metadata_utils.main(["--verify", "--deep"]) == 0


@pytest.mark.parametrize("what", ["a copy", "a superset"])
def test_a_rebuild_never_lets_two_files_hold_the_same_rows(
    what: str, ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any
) -> None:
    """A lake that an earlier version doubled: what others hold as well goes into the trash."""
    produce(ksqldb, 0, 50, days=1)
    assert export_to_data_lake.main(STREAM) == 0
    (first,) = files(lake)
    if what == "a copy":
        shutil.copy(first, first.with_name("data_20250115_copy_0001.parquet"))
    else:
        kept = first.read_bytes()
        shutil.rmtree(lake / "streams" / "s")
        shutil.rmtree(lake / ".state")
        produce(ksqldb, 50, 80, days=1)
        assert export_to_data_lake.main(STREAM) == 0
        first.write_bytes(kept)
    assert len(files(lake)) == 2 and len(numbers(lake)) > 80 - 1 - (what == "a copy") * 30
    metadata(lake).unlink()
    capsys.readouterr()
    rebuilt(lake)
    assert "rows that are in other files as well" in capsys.readouterr().out
    wanted = list(range(50 if what == "a copy" else 80))
    assert numbers(lake) == wanted
    assert len(list((lake / ".trash").rglob("*.parquet"))) == 1
    assert manage_feeds.main(["undo", "s"]) == 1, "they do not come back by accident"
    assert export_to_data_lake.main(STREAM) == 0 and numbers(lake) == wanted


def test_files_that_share_some_rows_stop_the_rebuild(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    produce(ksqldb, 0, 50, days=1)
    assert export_to_data_lake.main(STREAM) == 0
    (first,) = files(lake)
    kept = first.read_bytes()
    shutil.rmtree(lake / "streams" / "s")
    shutil.rmtree(lake / ".state")
    produce(ksqldb, 50, 80, days=1)
    assert manage_feeds.main(["erase", "--where", "n=3", "--later", "keep"]) == 1
    assert export_to_data_lake.main(STREAM) == 0
    assert manage_feeds.main(["erase", "--where", "n=3", "--later", "keep"]) == 0
    first.write_bytes(kept)
    known = metadata(lake).read_bytes()
    capsys.readouterr()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 1
    said = capsys.readouterr().err
    assert first.name in said and "both hold" in said and "partition 0" in said
    assert metadata(lake).read_bytes() == known and not list(metadata(lake).parent.glob("*.aside"))


def test_a_version_directory_that_is_there_already(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """Restored from a backup: the next free number is taken, and it is told."""
    ksqldb.upsert("T", ["a", 1])
    assert export_to_data_lake.main(["--table", "t", "--quiet"]) == 0
    there = lake / "tables" / "t" / "version=v2"
    shutil.copytree(lake / "tables" / "t" / "version=v1", there)
    for number in (3, 4):
        assert export_to_data_lake.main(["--table", "t", "--quiet"]) == 1
        assert "version=v2" in capsys.readouterr().err
        current = json.loads((lake / "tables" / "t" / "_metadata.json").read_text())["current"]
        assert current == {"version": f"v{number}", "path": f"version=v{number}"}
    shutil.rmtree(there)
    assert export_to_data_lake.main(["--table", "t", "--quiet"]) == 0


def test_a_change_that_is_stuck_keeps_the_metadata(
    ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of that name turned up meanwhile: one clear line, from the rebuild as well; nothing is lost."""
    from ksql_lake.store import journal as store

    ksqldb.upsert("T", ["a", 1])
    assert export_to_data_lake.main(["--table", "t", "--quiet"]) == 0

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "_carry_out", die)
        assert export_to_data_lake.main(["--table", "t", "--quiet"]) == 130
    directory = lake / "tables" / "t"
    there = directory / "version=v2"
    shutil.copytree(directory / "version=v1", there)
    known = (directory / "_metadata.json").read_bytes()
    for run in (lambda: export_to_data_lake.main(["--table", "t", "--quiet"]),
                lambda: metadata_utils.main(["--rebuild", "--feed", "t"])):
        capsys.readouterr()
        assert run() == 1
        said = capsys.readouterr().err
        assert "version=v2: is already there" in said and "move it" in said, said
        assert (directory / "_metadata.json").read_bytes() == known
    shutil.rmtree(there)
    assert metadata_utils.main(["--rebuild", "--feed", "t"]) == 0
    assert json.loads((directory / "_metadata.json").read_text())["current"]["version"] == "v2"


def test_a_snapshot_that_lost_a_file(ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: Any, capsys: Any) -> None:
    """A rebuild does not make a part of a table its current version."""
    for i in range(50):
        ksqldb.upsert("T", [f"k{i}", i])
    monkeypatch.setenv("FILE_ROWS", "20")
    for _ in range(2):
        assert export_to_data_lake.main(["--table", "t", "--quiet"]) == 0
    directory = lake / "tables" / "t"
    parts = sorted((directory / "version=v2").glob("*.parquet"))
    assert len(parts) == 3
    parts[0].unlink()
    (directory / "_metadata.json").unlink()
    (lake / ".state" / "t.jsonl").unlink()
    capsys.readouterr()
    assert metadata_utils.main(["--rebuild", "--feed", "t"]) == 0
    assert "v2" in capsys.readouterr().out
    known = json.loads((directory / "_metadata.json").read_text())
    assert known["current"]["version"] == "v1" and known["last_version"] == 2
    assert export_to_data_lake.main(["--table", "t", "--quiet"]) == 0
    assert json.loads((directory / "_metadata.json").read_text())["current"]["version"] == "v3"
