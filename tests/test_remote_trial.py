"""Stopped before and after every call of the store: the same command finishes, and no reader in between is wrong.

Over the store in memory in `make test`; over versitygw and Azurite in `make test-all`.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import manage_feeds
from ksql_lake.store.remote import binding
from ksql_lake.store.remote.address import parse
from ksql_lake.store.remote.connect import connect
from ksql_lake.store.remote.seam import ObjectStore, Taken
from tests.memory_store import MemoryStore
from tests.remote_lakes import files_of, lake_in, metadata, quarantine_two, remote, rows, use
from tests.stores import Server

LEAVING = binding.leaving
WRITES = ("create", "swap", "get", "stat", "list", "purge", "retier", "restore", "abort_stale")
Command = tuple[str, ...]
Made = tuple[ObjectStore, Callable[[], list[str]]]  # a store, and its keys
Maker = Callable[[Path], Made]


class Stopped(BaseException):
    """The process ended here."""


@dataclass
class Stopping:
    """A store whose Nth call never begins, or takes effect and never ends; the process is gone after it."""

    inner: ObjectStore
    stop_at: int = -1  # 2 * number of the call, + 1 for after it
    count: int = 0
    calls: list[str] = field(default_factory=list)
    dead: bool = False

    @property
    def url(self) -> str:
        return self.inner.url

    def __getattr__(self, name: str) -> Any:
        if name not in WRITES:
            return getattr(self.inner, name)

        def call(*args: Any, **more: Any) -> Any:
            number, self.count = self.count, self.count + 1
            self.calls.append(name)
            if self.dead or self.stop_at == 2 * number:
                self.dead = True
                raise Stopped
            try:
                return getattr(self.inner, name)(*args, **more)
            finally:
                if self.stop_at == 2 * number + 1:
                    self.dead = True
                    raise Stopped

        return call


STEPS: list[tuple[str, list[Command], Command]] = [
    # name, what was done before, the command that is stopped
    ("push", [], ("remote", "push")),
    ("drop", [("remote", "push")], ("remote", "drop", "s", "--days", "2025-01-15..2025-01-16")),
    ("drop a version", [("remote", "push")], ("remote", "drop", "t", "--versions", "v1")),
    ("pull", [("remote", "push"), ("remote", "drop", "s", "--days", "2025-01-15..2025-01-16")],
     ("remote", "pull", "s")),
    ("pull a version", [("remote", "push"), ("remote", "drop", "t", "--versions", "v1")], ("remote", "pull", "t")),
    ("compact", [("remote", "push"), ("compact", "--older-than", "2d"), ("age",)], ("remote", "push")),
    ("retention",
     [("remote", "push"), ("update", "s", "retention_days=1"), ("remote", "drop", "s", "--days", "2025-01-15"),
      ("retention", "s", "--max-delete", "100", "--allow", "stale"), ("age",)], ("remote", "push")),
    ("erase", [("remote", "push")], ("erase", "--where", "USER_ID=user_1", "--later", "drop")),
    ("erase dropped", [("remote", "push"), ("remote", "drop", "s", "--days", "2025-01-15..2025-01-16")],
     ("erase", "--where", "USER_ID=user_1", "--later", "drop")),
]


def outcome(lake: Path, keys: list[str], erased: bool) -> Any:
    """What must be the same however often a command was stopped: rows, files here, data objects there.

    Of days that were away, an interrupted erasure may leave those on this disk that it rewrote; whole days.
    """
    known = {name: metadata(lake, name) for name in ("streams/s", "tables/t")}
    marks = {
        name: sorted((_plain(file["path"]), "remote" in file, file.get("local", True)) for file in state["files"])
        for name, state in known.items()
    }
    if erased:
        places = {(f["partition"], f.get("local", True)) for f in known["streams/s"]["files"]}
        assert len(places) == len({partition for partition, _ in places}), "a day lies in one place"
        marks["streams/s"] = [mark[:2] for mark in marks["streams/s"]]  # type: ignore[misc]
    objects = sorted(_plain(key) for key in keys if key.endswith(".parquet"))
    here = [[_plain(path) for path in files_of(lake, name)] for name in known]
    left = [state.get("remote_gone", []) for state in known.values()]
    return rows(lake), rows(lake, "t"), marks, objects, [] if erased else here, left


def _plain(path: str) -> str:
    """Without the run in it, which differs from try to try."""
    directory, _, name = path.rpartition("/")
    return f"{directory}/{name[:13]}"


@dataclass
class World:
    """A lake and its store, before the command that is stopped."""

    lake: Path
    store: ObjectStore
    keys: Callable[[], list[str]]

    def copy(self, directory: Path, make: Maker) -> World:
        """Another one just like it, in a store of its own."""
        shutil.copytree(self.lake, directory / "lake", symlinks=True)
        store, keys = make(directory)
        assert isinstance(self.store, MemoryStore)
        if isinstance(store, MemoryStore):
            store.objects, store.writes = dict(self.store.objects), self.store.writes
            if self.store.directory.exists():
                shutil.copytree(self.store.directory, store.directory)
            return World(directory / "lake", store, keys)
        for key, there in self.store.objects.items():
            if there.crc32 is None:
                store.swap(key, there.data, None)
            else:
                store.create(key, self.store.directory / key, there.crc32)
        known = directory / "lake" / ".state" / "remote.json"
        if known.exists():
            known.write_text(known.read_text().replace(self.store.url, store.url))
        return World(directory / "lake", store, keys)


def _world(directory: Path, patch: pytest.MonkeyPatch, before: list[Command]) -> World:
    """Made in memory, once for each command."""
    directory.mkdir()
    lake = lake_in(directory)
    patch.setenv("DATA_LAKE_DIR", str(lake))
    patch.setenv("TRASH_DAYS", "7")
    store, keys = _memory(directory)
    use(store, patch, store.url)
    for one in before:
        if one == ("age",):
            _age(lake)
        else:
            assert manage_feeds.main([*one]) == 0, one
    return World(lake, store, keys)


def _trial(
    directory: Path, patch: pytest.MonkeyPatch, make: Maker, before: list[Command], command: Command
) -> int:
    """Every stop of one command; returns how many there were."""
    first = _world(directory / "first", patch, before)

    def world(name: str) -> World:
        (directory / name).mkdir()
        return first.copy(directory / name, make)

    undisturbed = _one(world("calm"), patch, command, -1)[1]
    for number in range(1000):
        stopped, got = _one(world(f"stop{number}"), patch, command, number)
        shutil.rmtree(directory / f"stop{number}")
        if stopped is None:
            return number
        assert got == undisturbed, f"stopped {'after' if number % 2 else 'before'} call {number // 2} ({stopped})"
    raise AssertionError("there was no end")


def _one(world: World, patch: pytest.MonkeyPatch, command: Command, stop_at: int) -> tuple[str | None, Any]:
    """(the call that was stopped or None, the outcome after the command ran once more)."""
    lake, store = world.lake, world.store
    patch.setenv("DATA_LAKE_DIR", str(lake))
    use(store, patch, store.url)
    seen = [rows(lake), rows(lake, "t")]
    stopping = Stopping(store, stop_at)
    use(stopping, patch, store.url)  # type: ignore[arg-type]
    stopped = None
    try:
        manage_feeds.main([*command])
    except Stopped:
        stopped = stopping.calls[stop_at // 2]
        use(store, patch, store.url)
        for found, before in zip([rows(lake), rows(lake, "t")], seen, strict=True):
            left = [row for row in before if "user_1" not in row] if command[0] == "erase" else before
            assert found in (before, left), f"a reader after {stopped}"
    use(store, patch, store.url)
    assert manage_feeds.main([*command]) == 0
    assert remote("push") == 0
    return stopped, outcome(lake, world.keys(), command[0] == "erase")


def _age(lake: Path) -> None:
    """As if the trash had been emptied and TRASH_DAYS were over."""
    shutil.rmtree(lake / ".trash", ignore_errors=True)
    for name in ("streams/s", "tables/t"):
        path = lake / name / "_metadata.json"
        text = path.read_text()
        state = metadata(lake, name)
        for gone in state.get("remote_gone", ()):
            text = text.replace(gone["at"], "2025-01-01T00:00:00Z") if gone["at"] not in _moments(state) else text
        path.write_text(text)


def _moments(state: dict[str, Any]) -> set[str]:
    return {str(state["last_export"])}


def _memory(directory: Path) -> Made:
    store = MemoryStore(directory / "objects", versioned=True)

    def keys() -> list[str]:
        assert not any(key.endswith(".parquet") for key in store.older), "no version of what left stays"
        return list(store.objects)

    return store, keys


QUICK = ("push", "drop")
SOME = [
    pytest.param(*step[1:], id=step[0], marks=[] if step[0] in QUICK else [pytest.mark.slow]) for step in STEPS
]


@pytest.mark.parametrize(("before", "command"), SOME)
def test_every_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[Command], command: Command) -> None:
    stops = _trial(tmp_path, monkeypatch, _memory, before, command)
    print(f"{stops} stops")
    assert stops >= 6


def _served(server: Server, patch: pytest.MonkeyPatch) -> Maker:
    """Stores of a server, each in a bucket of its own."""
    for name, value in server.environment.items():
        patch.setenv(name, value)

    def make(directory: Path) -> Made:
        store = connect(parse(server.url(versioned=server.scheme == "s3")), os.environ)
        return store, lambda: [found.key for found in store.list()]

    return make


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("server", ["versitygw", "azurite"], indirect=True)
@pytest.mark.parametrize(("before", "command"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
def test_every_stop_on_a_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[Command], command: Command
) -> None:
    assert _trial(tmp_path, monkeypatch, _served(server, monkeypatch), before, command) >= 6


def _every_stop_of_a_restore(directory: Path, patch: pytest.MonkeyPatch, make: Maker) -> int:
    """A lake with a dropped day and rows in quarantine, on a new machine: each feed is there whole or not at all."""
    old = lake_in(directory)
    patch.setenv("DATA_LAKE_DIR", str(old))
    quarantine_two(old, patch)
    store, _ = make(directory)
    use(store, patch, store.url)
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    wanted, aside = [rows(old), rows(old, "t")], sorted((old / "quarantine").rglob("*.parquet"))
    held = [(path.relative_to(old), path.read_bytes()) for path in aside]
    assert len(held) == 2
    for number in range(1000):
        new = directory / f"new{number}"
        patch.setenv("DATA_LAKE_DIR", str(new))
        stopping = Stopping(store, number)
        use(stopping, patch, store.url)  # type: ignore[arg-type]
        try:
            assert remote("restore") == 0
        except Stopped:
            pass
        use(store, patch, store.url)
        for name, expected in zip(("streams/s", "tables/t"), wanted, strict=True):
            if (new / name / "_metadata.json").exists():
                assert rows(new, name[-1]) == expected, f"a reader after stop {number}"
        if not stopping.dead:
            return number
        assert remote("restore") == 0, f"stop {number}"
        assert [rows(new), rows(new, "t")] == wanted and len(files_of(new)) == len(metadata(old)["files"])
        assert [(path, (new / path).read_bytes()) for path, _ in held] == held
        assert remote("verify") == 0
        shutil.rmtree(new)
    raise AssertionError("there was no end")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stop_of_a_restore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _every_stop_of_a_restore(tmp_path, monkeypatch, _memory) > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("server", ["versitygw", "azurite"], indirect=True)
def test_every_stop_of_a_restore_on_a_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _every_stop_of_a_restore(tmp_path, monkeypatch, _served(server, monkeypatch)) > 20


# Negative controls: without one of the protections the trial must fail.


class Forgetful(MemoryStore):
    """Takes an object that is its own for somebody else's: what the trial must notice."""

    def create(self, key: str, path: Path, crc32: int, tier: str | None = None) -> None:
        if key in self.objects:
            raise Taken(f"{key}: there is a different object")
        super().create(key, path, crc32, tier)


def _never_mine(store: Any, key: str, size: int, crc32: int) -> bool:
    raise Taken(f"{key}: there is a different object")


def test_the_trial_notices_a_store_that_does_not_know_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(directory: Path) -> Made:
        store = Forgetful(directory / "objects")
        return store, lambda: list(store.objects)

    with pytest.raises(AssertionError):
        _trial(tmp_path, monkeypatch, make, [], ("remote", "push"))


@pytest.mark.slow
@pytest.mark.parametrize("server", ["versitygw", "azurite"], indirect=True)
def test_so_it_does_on_a_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for adapter in ("s3.S3Store", "azure.AzureStore"):
        monkeypatch.setattr(f"ksql_lake.store.remote.{adapter}._mine", _never_mine)
    with pytest.raises(AssertionError):
        _trial(tmp_path, monkeypatch, _served(server, monkeypatch), [], ("remote", "push"))


def _only_what_was_recorded(gone: Any, change: Any, *more: Any) -> Any:
    """The protection less one: files whose upload ended just before a crash are not thought of."""
    known = tuple(file for file in change.removed if file.remote is not None)
    return LEAVING(gone, replace(change, removed=known), *more)


def _left_in_the_hole(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Data objects with a person's rows that were uploaded, not recorded, then erased; for every third stop."""
    for stop in range(0, 60, 3):
        top = directory / f"hole{stop}"
        top.mkdir()
        patch.setenv("DATA_LAKE_DIR", str(lake_in(top)))
        store, keys = _memory(top)
        stopping = Stopping(store, stop)
        use(stopping, patch)  # type: ignore[arg-type]
        try:
            remote("push")
            assert stop > 6
            break
        except Stopped:
            pass
        use(store, patch)
        assert manage_feeds.main(["erase", "--where", "USER_ID=user_1", "--later", "drop"]) == 0
        assert remote("push") == 0
        keys()
        objects = store.objects.items()  # type: ignore[attr-defined]
        yield from (key for key, there in objects if key.endswith(".parquet") and _holds(there.data))
        shutil.rmtree(top)


def _holds(data: bytes) -> bool:
    return "user_1" in pq.read_table(io.BytesIO(data)).to_pydict().get("USER_ID", ())


def test_a_push_that_was_stopped_leaves_nothing_of_an_erased_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The object goes as well, whatever the metadata knew of it; an erasure that goes by these alone leaves some."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert list(_left_in_the_hole(tmp_path / "a", monkeypatch)) == []
    monkeypatch.setattr("ksql_lake.store.remote.binding.leaving", _only_what_was_recorded)
    assert next(_left_in_the_hole(tmp_path / "b", monkeypatch), None) is not None
