"""An object store in memory: conditions, versions, archived objects, calls that are stopped or whose answer is lost."""

from __future__ import annotations

import datetime as dt
import functools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.fs

from ksql_lake.store.remote.address import ARCHIVES
from ksql_lake.store.remote.seam import Archived, Gone, Refused, Stat, Taken

Hook = Callable[[str, str, str], None]  # moment ("before" or "after"), verb, key


@dataclass(frozen=True)
class Object:
    data: bytes
    crc32: int | None
    tier: str
    etag: str
    restoring: bool = False
    restored: bool = False

    @property
    def archived(self) -> bool:
        return self.tier in ARCHIVES and not self.restored


def _verb(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: MemoryStore, *args: Any, **more: Any) -> Any:
        key = str(args[0]) if args else ""
        self.calls.append((method.__name__, key))
        self.hook("before", method.__name__, key)
        try:
            return method(self, *args, **more)
        finally:
            self.hook("after", method.__name__, key)

    return call


@dataclass
class MemoryStore:
    """All verbs of the seam. `directory` mirrors what can be read, for `arrow`; it is nobody's truth."""

    directory: Path
    url: str = "s3://memory/lake"
    versioned: bool = False
    objects: dict[str, Object] = field(default_factory=dict)
    older: dict[str, list[Object]] = field(default_factory=dict)  # hidden by a later put or delete
    locked: set[str] = field(default_factory=set)  # keys whose older versions cannot be deleted
    uploads: dict[str, dt.datetime] = field(default_factory=dict)  # parts that were never completed
    calls: list[tuple[str, str]] = field(default_factory=list)
    hook: Hook = lambda moment, verb, key: None
    writes: int = 0

    @_verb
    def create(self, key: str, path: Path, crc32: int, tier: str | None = None) -> None:
        data = path.read_bytes()
        there = self.objects.get(key)
        if there is not None:
            if (len(there.data), there.crc32) == (len(data), crc32):
                return
            raise Taken(f"{self.url}/{key}: there is a different object")
        if zlib.crc32(data) != crc32:
            raise Refused(f"{self.url}/{key}: the content does not have the checksum on record")
        self.put(key, data, crc32, tier or "STANDARD")

    @_verb
    def swap(self, key: str, data: bytes, etag: str | None) -> str:
        there = self.objects.get(key)
        if (there.etag if there else None) != etag:
            if there is not None and there.data == data:
                return there.etag
            raise Taken(f"{self.url}/{key}: somebody else changed it meanwhile")
        return self.put(key, data, None, "STANDARD")

    @_verb
    def get(self, key: str, sink: BinaryIO) -> str:
        there = self._there(key)
        if there.archived:
            raise Archived(f"{self.url}/{key}: is archived")
        sink.write(there.data)
        return there.etag

    @_verb
    def stat(self, key: str) -> Stat:
        there = self._there(key)
        return Stat(key, len(there.data), there.etag, there.crc32, None, there.tier, there.archived, there.restoring)

    @_verb
    def list(self, prefix: str = "") -> Iterator[Stat]:
        found = sorted((key, there) for key, there in self.objects.items() if key.startswith(prefix))
        return iter([
            Stat(key, len(there.data), there.etag, None, None, there.tier, there.archived) for key, there in found
        ])

    @_verb
    def purge(self, key: str, versions: bool = False) -> tuple[str, ...]:
        self._hide(key)
        if not versions:
            return ()
        if key in self.locked:
            return tuple(f"{self.url}/{key} version {old.etag} stays: locked" for old in self.older.get(key, ()))
        self.older.pop(key, None)
        return ()

    @_verb
    def retier(self, key: str, tier: str) -> None:
        there = self._there(key)
        if there.tier == tier:
            return
        if there.archived:
            raise Archived(f"{self.url}/{key}: is archived")
        self.objects[key] = replace(there, tier=tier, restored=False)
        self._mirror(key)

    @_verb
    def restore(self, key: str, days: int) -> None:
        there = self._there(key)
        if there.archived:
            self.objects[key] = replace(there, restoring=True)

    @_verb
    def abort_stale(self, before: dt.datetime) -> int:
        stale = [key for key, begun in self.uploads.items() if begun < before]
        for key in stale:
            del self.uploads[key]
        return len(stale)

    def arrow(self) -> tuple[pyarrow.fs.FileSystem, str]:
        self.calls.append(("arrow", ""))
        return pyarrow.fs.LocalFileSystem(), str(self.directory)

    def put(self, key: str, data: bytes, crc32: int | None, tier: str) -> str:
        self._hide(key)
        self.writes += 1
        self.objects[key] = Object(data, crc32, tier, f'"{self.writes}"')
        self._mirror(key)
        return self.objects[key].etag

    def finish_restores(self) -> None:
        """What takes a real store some hours."""
        for key, there in self.objects.items():
            if there.restoring:
                self.objects[key] = replace(there, restoring=False, restored=True)
                self._mirror(key)

    def _there(self, key: str) -> Object:
        if key not in self.objects:
            raise Gone(f"{self.url}/{key}: there is no such object")
        return self.objects[key]

    def _hide(self, key: str) -> None:
        gone = self.objects.pop(key, None)
        if gone is not None and self.versioned:
            self.older.setdefault(key, []).append(gone)
        self._mirror(key)

    def _mirror(self, key: str) -> None:
        path, there = self.directory / key, self.objects.get(key)
        if there is None or there.archived:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(there.data)
