"""Metadata deleted or spoiled, and restored from what the Parquet files and the state log say."""

from __future__ import annotations

import json
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
DETAILS = (
    "source", "type", "storage_mode", "format", "partitioning", "schema_version", "total_records", "total_size_mb",
    "columns", "partitions", "files", "current", "last_version", "generation", "resume", "coverage", "timezone",
)


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.3")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        yield database


def produce(database: EmbeddedKsqlDB, first: int, last: int) -> None:
    for i in range(first, last):
        database.append("S", i % 2, JAN15 + i * 3_600_000, [f"e{i}", i])


@pytest.fixture
def lake(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> Path:
    """A stream with two generations, a day of --date ahead and an added column; a table with three versions."""
    ksqldb.create_stream("S", "`ID` STRING, `V` INTEGER", 2)
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER")
    for kind, name in (("stream", "s"), ("table", "t")):
        assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
    produce(ksqldb, 0, 30)
    for i in range(5):
        ksqldb.upsert("T", [f"k{i}", i])
        assert export_to_data_lake.main(["--table", "t"]) == 0
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    ksqldb.recreate("S")
    produce(ksqldb, 30, 60)
    assert export_to_data_lake.main(["--stream", "s"]) == 1
    produce(ksqldb, 60, 150)
    assert export_to_data_lake.main(["--stream", "s", "--date", "2025-01-19"]) == 0
    return tmp_path / "lake"


def spoil(directory: Path, how: str) -> None:
    path = directory / "_metadata.json"
    if how == "deleted":
        path.unlink()
    elif how == "old":
        state = json.loads(path.read_text())
        path.write_text(json.dumps({**state, "sequence": 1, "files": state["files"][:1]}))
    else:
        path.write_text(path.read_text()[:200])


@pytest.mark.parametrize(("how", "log"), [
    ("deleted", True), ("corrupt", True), ("old", True), ("deleted", False), ("corrupt", False),
])
def test_what_was_lost_comes_back(lake: Path, ksqldb: EmbeddedKsqlDB, how: str, log: bool, capsys: Any) -> None:
    lost: dict[str, dict[str, Any]] = {}
    for name in ("streams/s", "tables/t"):
        lost[name] = json.loads((lake / name / "_metadata.json").read_text())
        spoil(lake / name, how)
        if not log:
            (lake / ".state" / f"{name[-1]}.jsonl").unlink()
    spoilt = (lake / "streams" / "s" / "_metadata.json").read_bytes() if how != "deleted" else b""
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == 1
    words = capsys.readouterr().err
    assert words.count("python metadata_utils.py --rebuild --feed") == 2, words
    assert metadata_utils.main(["--rebuild", "--lake", str(lake)]) == 0
    for name, before in lost.items():
        now = json.loads((lake / name / "_metadata.json").read_text())
        for key in DETAILS:
            assert exact(now.get(key), log) == exact(before.get(key), log), (name, key)
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0
    aside = list((lake / "streams" / "s").glob("._metadata.json.*.aside"))
    assert [path.read_bytes() for path in aside] == ([spoilt] if spoilt else [])
    assert export_to_data_lake.main(["--all"]) == 0
    frame = pd.read_parquet(lake / "streams" / "s")
    assert sorted(int(name[1:]) for name in frame["ID"]) == list(range(150))
    assert json.loads((lake / "tables/t/_metadata.json").read_text())["current"]["version"] == "v6"


def exact(value: Any, log: bool) -> Any:
    """Without the log the time of an export is known as the start of its run only."""
    if log:
        return value
    if isinstance(value, list):
        return [exact(item, log) for item in value]
    if isinstance(value, dict):
        return {key: exact(item, log) for key, item in value.items() if key != "exported_at"}
    return value


def test_nothing_to_rebuild_changes_nothing(lake: Path, capsys: Any) -> None:
    before = {path: path.read_bytes() for path in lake.rglob("_metadata.json")}
    assert metadata_utils.main(["--rebuild", "--lake", str(lake)]) == 0
    assert "nothing to rebuild" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in lake.rglob("_metadata.json")} == before


def test_a_file_of_somebody_else_is_left_alone_and_reported(lake: Path, capsys: Any) -> None:
    ours = min((lake / "streams" / "s").rglob("*.parquet"))
    foreign = ours.with_name("part-0.parquet")
    pd.DataFrame({"x": [1]}).to_parquet(foreign)
    assert export_to_data_lake.main(["--stream", "s"]) == 1
    assert "part-0.parquet: not in the feed's metadata, though" in capsys.readouterr().err
    (lake / "streams" / "s" / "_metadata.json").unlink()
    assert metadata_utils.main(["--rebuild", "--lake", str(lake)]) == 0
    assert "part-0.parquet: was not written by this tool" in capsys.readouterr().out
    assert foreign.exists()
    foreign.unlink()
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0


def test_a_torn_file_stops_the_rebuild_and_nothing_is_touched(lake: Path, capsys: Any) -> None:
    path = lake / "streams" / "s" / "_metadata.json"
    path.write_text("{")
    ours = min((lake / "streams" / "s").rglob("*.parquet"))
    ours.write_bytes(ours.read_bytes()[:-9])
    assert metadata_utils.main(["--rebuild", "--lake", str(lake)]) == 1
    assert f"{ours}: torn" in capsys.readouterr().err
    assert path.read_text() == "{"


def test_a_commit_that_was_interrupted_is_finished_by_the_rebuild(lake: Path, ksqldb: EmbeddedKsqlDB,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between journal and metadata, and then the metadata are lost as well: the journal has the whole state."""
    from ksql_lake.store import journal

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_carry_out", die)
        assert export_to_data_lake.main(["--stream", "s"]) == 130
    spoil(lake / "streams" / "s", "corrupt")
    assert list((lake / ".staging" / "s").glob("*/commit.json"))
    assert metadata_utils.main(["--rebuild", "--lake", str(lake)]) == 0
    frame = pd.read_parquet(lake / "streams" / "s")
    assert sorted(int(name[1:]) for name in frame["ID"]) == list(range(150))
