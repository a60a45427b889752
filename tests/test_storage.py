"""The Storage seam: what its local disk promises, and that a whole lake can lie in another storage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.errors import LinkError
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState, new_stream
from ksql_lake.store import journal, layout, metadata
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.local_disk import LocalDisk
from ksql_lake.store.storage import OPEN, PRIVATE, Changed, Stat

JAN15 = 1_736_899_200_000
DAY = 86_400_000
DISK = LocalDisk()


def test_a_swap_replaces_only_what_is_as_expected(tmp_path: Path) -> None:
    place = tmp_path / "state.json"
    DISK.swap(place, b"one", None, 0o640)
    assert place.read_bytes() == b"one" and place.stat().st_mode & 0o777 == 0o640
    with pytest.raises(Changed, match="state.json"):
        DISK.swap(place, b"two", None)
    with pytest.raises(Changed):
        DISK.swap(place, b"two", b"another")
    assert place.read_bytes() == b"one"
    DISK.swap(place, b"two", b"one", 0o644)
    assert place.read_bytes() == b"two" and place.stat().st_mode & 0o777 == 0o644
    place.unlink()
    with pytest.raises(Changed):
        DISK.swap(place, b"three", b"two")
    assert list(tmp_path.iterdir()) == [], "nothing is left of a swap that was refused"


def test_of_many_processes_that_add_a_file_one_does(tmp_path: Path) -> None:
    place = tmp_path / "00000000000000000000.json"
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                DISK.swap(place, str(os.getpid()).encode(), None)
            except Changed:
                os._exit(1)
            os._exit(0)
        children.append(child)
    codes = {child: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
    winners = [child for child, code in codes.items() if code == 0]
    assert sorted(codes.values()) == [0] + [1] * 7 and place.read_bytes() == str(winners[0]).encode()
    assert list(tmp_path.iterdir()) == [place]


def test_nothing_goes_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "link").symlink_to(outside)
    with pytest.raises(LinkError):
        DISK.delete(lake / "link")
    with pytest.raises(LinkError):
        DISK.guard(lake, [lake / "link" / "kept"])
    (lake / "file").symlink_to(outside / "kept")
    with pytest.raises(LinkError):
        DISK.append(lake / "file", b"line")
    DISK.put(lake / "file", b"new")
    DISK.delete(lake / "file")
    assert (outside / "kept").read_bytes() == b"kept" and not (lake / "file").exists()
    DISK.delete(lake / "nothing")
    assert layout.leads_out(lake, lake / "link" / "kept") and not layout.leads_out(lake, lake / "streams" / "s")


def test_metadata_that_changed_under_a_commit_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody without the lock writes between the reading of the metadata and their swap: nothing of his is lost."""
    dataset = Dataset(tmp_path / "lake", "s", "stream")
    _commit(dataset, 1)
    theirs = json.dumps({**json.loads(Path(dataset.metadata).read_bytes()), "note": "theirs"}).encode()
    publish = journal._publish

    def meanwhile(*args: Any) -> None:
        publish(*args)
        Path(dataset.metadata).write_bytes(theirs)

    monkeypatch.setattr(journal, "_publish", meanwhile)
    with pytest.raises(Changed, match=r"_metadata\.json: was changed by somebody else"):
        _commit(dataset, 2)
    assert Path(dataset.metadata).read_bytes() == theirs
    monkeypatch.setattr(journal, "_publish", publish)
    assert journal.recover(dataset) == ["finished the interrupted commit of run r2"]
    state = metadata.load(dataset)
    assert state is not None and state.sequence == 2


def _commit(dataset: Dataset, number: int) -> FeedState:
    state = metadata.load(dataset) or new_stream("S", "UTC", None, "2025-01-15T00:00:00Z")
    state.sequence, state.run = number, f"r{number}"
    change = Change("export", number, f"r{number}", "2025-01-15T02:00:00Z")
    journal.commit(dataset, f"r{number}", number - 1, (), state, change)
    return state


class Elsewhere:
    """A storage that keeps a lake's files in another directory than their places say; staging stays where it is."""

    def __init__(self, lake: Path, there: Path) -> None:
        self.lake, self.there = lake, there
        self.swaps: list[str] = []

    def at(self, place: PurePath) -> Path:
        if not place.is_relative_to(self.lake) or place.is_relative_to(self.lake / ".staging"):
            return Path(place)
        return self.there / place.relative_to(self.lake)

    def back(self, path: PurePath) -> PurePath:
        return self.lake / path.relative_to(self.there) if path.is_relative_to(self.there) else path

    def read(self, place: PurePath) -> bytes:
        return DISK.read(self.at(place))

    def open(self, place: PurePath) -> BinaryIO:
        return DISK.open(self.at(place))

    def parquet(self, place: PurePath) -> pq.ParquetFile:
        return DISK.parquet(self.at(place))

    def arrow(self, place: PurePath) -> tuple[Any, str]:
        return DISK.arrow(self.at(place))

    def stat(self, place: PurePath) -> Stat | None:
        return DISK.stat(self.at(place))

    def walk(self, directory: PurePath) -> Iterator[tuple[str, Any]]:
        return DISK.walk(self.at(directory))

    def list(self, directory: PurePath, pattern: str = "*") -> Any:
        top = self.at(directory / pattern.partition("*")[0].rpartition("/")[0])
        rest = pattern[len(pattern.partition("*")[0].rpartition("/")[0]) :].lstrip("/")
        return [self.back(path) for path in DISK.list(top, rest)]

    def put(self, place: PurePath, data: bytes, mode: int = OPEN) -> None:
        DISK.put(self.at(place), data, mode)

    def swap(self, place: PurePath, data: bytes, expected: bytes | None, mode: int = OPEN) -> None:
        self.swaps.append(place.name)
        DISK.swap(self.at(place), data, expected, mode)

    def append(self, place: PurePath, line: bytes, mode: int = OPEN) -> None:
        DISK.append(self.at(place), line, mode)

    def make(self, directory: PurePath, mode: int = 0o755) -> None:
        DISK.make(self.at(directory), mode)

    def close(self, directory: PurePath, mode: int = PRIVATE) -> None:
        DISK.close(self.at(directory), mode)

    def move(self, source: PurePath, target: PurePath, mode: int = OPEN) -> None:
        DISK.move(self.at(source), self.at(target), mode)

    def delete(self, place: PurePath) -> None:
        DISK.delete(self.at(place))

    def prune(self, directory: PurePath, top: PurePath) -> None:
        DISK.prune(self.at(directory), self.at(top))

    def lock(self, place: PurePath, what: str, *, wait: bool = False) -> AbstractContextManager[None]:
        return DISK.lock(self.at(place), what, wait=wait)

    def guard(self, lake: PurePath, places: Any) -> None:
        DISK.guard(self.there, [place.relative_to(lake) if isinstance(place, PurePath) else place for place in places])


def test_a_lake_in_another_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """Every command works, and none touches the lake's own directory but for what is of this machine."""
    lake, there = tmp_path / "lake", tmp_path / "there"
    lake.mkdir()
    storage = Elsewhere(lake, there)
    monkeypatch.setattr(layout, "_DISK", storage)
    monkeypatch.setenv("DATA_LAKE_DIR", str(lake))
    monkeypatch.setenv("IDLE_SECONDS", "0.2")
    monkeypatch.setenv("RETENTION", "off")
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        database.create_stream("S", "`ID` STRING, `USER_ID` STRING", 1)
        database.create_table("T", "`ID` STRING KEY, `V` INTEGER")
        for i in range(20):
            database.append("S", 0, JAN15 + i * DAY // 4, [f"e{i}", f"u{i % 2}"])
            database.upsert("T", [f"k{i}", i])
        for name, kind in (("s", "stream"), ("t", "table")):
            assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name.upper()]) == 0
        monkeypatch.setenv("DELTA", "on")
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        database.append("S", 0, JAN15, ["e20", "u0"])
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    for command in (
        ["compact", "--older-than", "1d"], ["erase", "--where", "USER_ID=u1", "--later", "drop"], ["pin", "t", "v1"],
        ["rollback", "t", "v1"], ["reset", "t", "--yes"], ["undo", "t"],
    ):
        assert manage_feeds.main(command) == 0, (command, capsys.readouterr())
    for command in (["--verify", "--deep"], ["--rebuild", "--feed", "s"], ["--report"], ["--stats"], ["history"],
                    ["delta", "verify"]):
        assert metadata_utils.main(command) == 0, (command, capsys.readouterr())
    assert len(ksql_lake.read("s", lake=lake)) == 11 and len(ksql_lake.read("t", lake=lake, version="v2")) == 20
    assert storage.swaps.count("_metadata.json") >= 8 and "00000000000000000000.json" in storage.swaps
    mine = {path.relative_to(lake).as_posix() for path in lake.rglob("*") if path.is_file()}
    strange = {path for path in mine if not path.startswith((".state/running/", ".staging/", "feeds/", "logs/export_"))}
    assert strange == set()
    assert list((there / "streams/s").rglob("*.parquet")) and not list((there / ".staging").glob("*"))
