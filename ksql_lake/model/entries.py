"""The files of a feed as the metadata list them, and its partitions, which are sums over files."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

Json = dict[str, Any]


AHEAD = 86_400  # seconds that an event may be ahead of the clock of the machine


@dataclass(frozen=True)
class Remote:
    """That a file is in the lake's remote, under the same path: since when, and in which tier of the store
    ("": the store's usual one)."""

    at: str
    tier: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Remote:
        return cls(value["at"], value.get("tier", ""))


@dataclass(frozen=True)
class Leaving:
    """A file that was removed from the feed and whose object must be deleted from the remote.

    It may never have been recorded as pushed: an upload may have ended just before a crash. `purge`: at once, because
    a person's rows are in it; else when the file is removed from the trash as well.
    """

    path: str
    at: str
    purge: bool = False


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One Parquet file of a feed, in its directory or in quarantine.

    Attributes:
        path: relative to the feed's directory; of a file in quarantine relative to the lake.
        partition: `year=2025/month=01/day=15` or `version=v3`.
        offsets: Kafka partition -> lowest offset, highest offset, rows; None for a table.
        rowtime_min, rowtime_max: epoch ms; None for a table.
        reasons: of a file in quarantine: check -> rows that failed it.
        remote: set once the file is in the lake's remote too.
        local: whether it is on this disk; if not, it is only in the remote.
        extra: what this version does not know.
    """

    path: str
    partition: str
    rows: int
    bytes: int
    crc32: int
    run: str
    origin: str
    schema_version: str
    exported_at: str
    compression: str | None = None
    compression_level: int | None = None
    rowtime_min: int | None = None
    rowtime_max: int | None = None
    offsets: Mapping[int, tuple[int, int, int]] | None = None
    generation: int | None = None
    reasons: Mapping[str, int] | None = None
    remote: Remote | None = None
    local: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FileEntry:
        """Reads an entry; those of the first versions lack fields that later ones have."""
        offsets = value.get("offsets")
        spans = None if offsets is None else {int(p): _span(span) for p, span in offsets.items()}
        extra = {key: item for key, item in value.items() if key not in _FILE_KEYS}
        return cls(
            value["path"], value["partition"], value["rows"], value["bytes"], value.get("crc32", 0),
            value.get("run", ""), value.get("origin", "export"), value.get("schema_version", "1.0"),
            value.get("exported_at", ""), value.get("compression"), value.get("compression_level"),
            value.get("rowtime_min"), value.get("rowtime_max"), spans, value.get("generation"), value.get("reasons"),
            Remote.from_json(value["remote"]) if value.get("remote") else None, value.get("local", True), extra,
        )

    def to_json(self) -> Json:
        made: Json = {
            "path": self.path, "partition": self.partition, "rows": self.rows, "bytes": self.bytes, "crc32": self.crc32
        }
        if self.compression is not None:
            made["compression"] = self.compression
        if self.compression_level is not None:
            made["compression_level"] = self.compression_level
        if self.offsets is not None:
            made["rowtime_min"], made["rowtime_max"] = self.rowtime_min, self.rowtime_max
            made["offsets"] = {str(p): list(self.offsets[p]) for p in sorted(self.offsets)}
            made["generation"] = self.generation
        made |= {
            "run": self.run, "origin": self.origin, "schema_version": self.schema_version,
            "exported_at": self.exported_at,
        }
        if self.reasons is not None:
            made["reasons"] = dict(self.reasons)
        if self.remote is not None:
            made["remote"] = dict(vars(self.remote))
        if not self.local:
            made["local"] = False
        return made | dict(self.extra)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def spans(self) -> Mapping[int, tuple[int, int, int]]:
        """The offsets by Kafka partition; none for a table."""
        return self.offsets or {}


_FILE_KEYS = frozenset(f.name for f in fields(FileEntry)) - {"extra"}


def _span(value: Sequence[int]) -> tuple[int, int, int]:
    """Lowest offset, highest offset, rows; the first versions did not count the rows."""
    low, high = value[0], value[1]
    return low, high, value[2] if len(value) > 2 else high - low + 1


@dataclass(frozen=True)
class Manifest:
    """A file of older file entries, `_manifests/<name>` in the feed's directory, so that a commit need not write them.
    """

    name: str
    files: int


@dataclass(frozen=True)
class Partition:
    """A day or a version at a glance. `names` is the sum of the CRC-32 of its file names, modulo 2^32."""

    path: str
    records: int = 0
    bytes: int = 0
    exported_at: str = ""
    files: int = 0
    rowtime_max: int | None = None
    names: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Partition:
        return cls(
            value["path"], value["records"], round(value["size_mb"] * 1_000_000), value["exported_at"],
            value.get("files", 0), value.get("rowtime_max"), value.get("names", 0),
        )

    def to_json(self, counted: bool) -> Json:
        """The user's own fields; with `counted` also what is known of files that only a manifest lists."""
        made: Json = {
            "path": self.path, "records": self.records, "exported_at": self.exported_at,
            "size_mb": megabytes(self.bytes),
        }
        return made | ({"files": self.files, "rowtime_max": self.rowtime_max, "names": self.names} if counted else {})

    def plus(self, file: FileEntry) -> Partition:
        times = [time for time in (self.rowtime_max, file.rowtime_max) if time is not None]
        return Partition(
            self.path, self.records + file.rows, self.bytes + file.bytes, max(self.exported_at, file.exported_at),
            self.files + 1, max(times, default=None), self.names + zlib.crc32(file.name.encode()) & 0xFFFFFFFF,
        )


class FileSet:
    """The files of a feed: entries in memory, and manifests that are read only when every file is needed.

    Remembers what was added and removed since the last commit.
    """

    def __init__(
        self, entries: Iterable[FileEntry] = (), manifests: Sequence[Manifest] = (),
        read: Callable[[Manifest], list[FileEntry]] | None = None, partitions: Iterable[Partition] = (),
    ) -> None:
        self.recent = list(entries)
        self.manifests = list(manifests)
        self._read = read
        self._old: dict[str, list[FileEntry]] = {}
        self.added: list[FileEntry] = []
        self.removed: list[FileEntry] = []
        if manifests:
            self._partitions = {partition.path: partition for partition in partitions}
        else:
            self._partitions = summarised(self.recent)

    def __len__(self) -> int:
        return len(self.recent) + sum(manifest.files for manifest in self.manifests)

    def __iter__(self) -> Iterator[FileEntry]:
        for manifest in self.manifests:
            yield from self._entries(manifest)
        yield from self.recent

    def _entries(self, manifest: Manifest) -> list[FileEntry]:
        if manifest.name not in self._old:
            assert self._read is not None, "manifests without a reader"
            self._old[manifest.name] = self._read(manifest)
        return self._old[manifest.name]

    @property
    def partitions(self) -> list[Partition]:
        """Days in order, versions by number."""
        return sorted(self.unordered, key=lambda partition: _partition_order(partition.path))

    @property
    def unordered(self) -> Collection[Partition]:
        return self._partitions.values()

    @property
    def rows(self) -> int:
        return sum(partition.records for partition in self.unordered)

    @property
    def bytes(self) -> int:
        return sum(partition.bytes for partition in self.unordered)

    def of(self, partition: str) -> list[FileEntry]:
        return [file for file in self if file.partition == partition]

    def add(self, entries: Iterable[FileEntry]) -> None:
        for entry in entries:
            self.recent.append(entry)
            self.added.append(entry)
            before = self._partitions.get(entry.partition, Partition(entry.partition))
            self._partitions[entry.partition] = before.plus(entry)

    def remove(self, paths: Collection[str]) -> list[FileEntry]:
        """Remove files by their paths; returns their entries."""
        wanted = set(paths)
        gone = [file for file in self.recent if file.path in wanted]
        self.recent = [file for file in self.recent if file.path not in wanted]
        for manifest in list(self.manifests) if len(gone) < len(wanted) else ():
            entries = self._entries(manifest)
            hit = [file for file in entries if file.path in wanted]
            if hit:  # the rest of the manifest is written again, with the next one
                self.manifests.remove(manifest)
                self.recent = [*(file for file in entries if file.path not in wanted), *self.recent]
                gone += hit
        new = {file.path for file in self.added}
        self.removed += [file for file in gone if file.path not in new]
        self.added = [file for file in self.added if file.path not in wanted]
        touched = {file.partition for file in gone}
        left = summarised(file for file in self if file.partition in touched) if touched else {}
        self._partitions = {path: one for path, one in self._partitions.items() if path not in touched} | left
        return gone

    def replace(self, gone: Collection[str], new: Iterable[FileEntry]) -> None:
        self.remove(gone)
        self.add(new)

    def mark(self, entries: Iterable[FileEntry]) -> None:
        """Replace the entries of files that are unchanged, for example because they are in the remote by now."""
        new = {entry.path: entry for entry in entries}
        left = set(new) - {file.path for file in self.recent}
        for manifest in list(self.manifests) if left else ():
            held = self._entries(manifest)
            if any(file.path in left for file in held):  # written again, with the next manifest
                self.manifests.remove(manifest)
                self.recent = [*held, *self.recent]
        self.recent = [new.get(file.path, file) for file in self.recent]

    def seal(self, name: str) -> list[FileEntry]:
        """Move the entries in memory to a manifest of this name; returns them, to be written."""
        entries, self.recent = self.recent, []
        self._old[name] = entries
        self.manifests.append(Manifest(name, len(entries)))
        return entries

    def committed(self) -> None:
        """Forget what was added and removed, after a commit."""
        self.added, self.removed = [], []


def summarised(files: Iterable[FileEntry]) -> dict[str, Partition]:
    """The partitions that these files make."""
    found: dict[str, Partition] = {}
    for file in files:
        found[file.partition] = found.get(file.partition, Partition(file.partition)).plus(file)
    return found


def _partition_order(path: str) -> tuple[int, str]:
    """v10 comes after v9; days sort as text."""
    number = path.removeprefix("version=v")
    return (int(number), "") if number.isdigit() else (0, path)


def megabytes(size: int) -> float:
    return round(size / 1_000_000, 6)
