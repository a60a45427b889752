"""The state of one feed as typed values: what `_metadata.json`, Parquet footers and the state log say.

Every value has one constructor and one reader here. The JSON keeps the form it always had: fields that the user's own
tools read are where they were, and keys that this version does not know are kept. A state is a working copy, changed
by whoever prepares a commit; everything in it is frozen.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ksql_lake.model.findings import Finding

Json = dict[str, Any]
FOOTER = "ksql_lake"  # the key of a footer among the key-value metadata of a Parquet file
RESUME = "ksql_lake.resume"
TAKEN = "ksql_lake.taken"
QUARANTINE = "quarantine"
AHEAD = 86_400  # seconds that an event may be ahead of the clock of the machine


@dataclass(frozen=True)
class Anchor:
    """The last row read of one partition: offset, ROWTIME in epoch ms, and a salted hash over the named columns.

    `salt`: one for each feed, so that a table of hashes made beforehand tells no values; "" in a lake of an earlier
    version, until the row is seen again.
    `missing`: "silent" or "expired" where it did not come again, so that no run waits for it any more; else "".
    """

    offset: int
    rowtime: int
    hash: str
    columns: tuple[str, ...]
    missing: str = ""
    salt: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Anchor:
        missing, salt = str(value.get("missing", "")), value.get("salt", "")
        return cls(value["offset"], value["rowtime"], value["hash"], tuple(value["columns"]), missing, salt)

    def to_json(self) -> Json:
        made = {"offset": self.offset, "rowtime": self.rowtime, "hash": self.hash, "columns": list(self.columns)}
        return made | ({"missing": self.missing} if self.missing else {}) | ({"salt": self.salt} if self.salt else {})


def anchors_from(value: Mapping[str, Any]) -> dict[int, Anchor]:
    """Kafka partition -> anchor, from JSON whose keys are text."""
    return {int(partition): Anchor.from_json(anchor) for partition, anchor in value.items()}


def anchors_json(anchors: Mapping[int, Anchor]) -> Json:
    return {str(partition): anchors[partition].to_json() for partition in sorted(anchors)}


@dataclass(frozen=True)
class TopicMark:
    """Where a stream's Kafka topic was left, for runs that read the topic itself.

    Attributes:
        generation: the one it is about; it says nothing of another.
        id: of the topic; None where the broker does not tell it.
        next: Kafka partition -> the offset to read from, also past records that are no rows.
        proof: a hash of what decides how records are read, once that was compared with real rows.
        exact: whether values are stored as the topic has them, where ksqlDB's REST API would lose something.
    """

    generation: int
    id: str | None = None
    next: Mapping[int, int] = field(default_factory=dict)
    proof: str | None = None
    exact: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TopicMark:
        offsets = {int(partition): int(offset) for partition, offset in value.get("next", {}).items()}
        return cls(value["generation"], value.get("id"), offsets, value.get("proof"), bool(value.get("exact", False)))

    def to_json(self) -> Json:
        offsets = {str(partition): self.next[partition] for partition in sorted(self.next)}
        made: Json = {"generation": self.generation, "id": self.id, "next": offsets, "proof": self.proof}
        return {**made, "exact": True} if self.exact else made


@dataclass(frozen=True)
class Covered:
    """What is exported of one Kafka partition: offsets 0 to `upto`, and beyond that ranges and days.

    Attributes:
        beyond: ranges of offsets, both ends included; older versions wrote one for each run of rows of a day.
        days: (day as ISO text, offset): all rows of that day up to the offset are exported, both included.
    """

    upto: int = -1
    beyond: tuple[tuple[int, int], ...] = ()
    days: tuple[tuple[str, int], ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Covered:
        beyond = tuple((low, high) for low, high in value["beyond"])
        return cls(value["upto"], beyond, tuple(sorted(value.get("days", {}).items())))

    def to_json(self) -> Json:
        made: Json = {"upto": self.upto, "beyond": [list(span) for span in self.beyond]}
        return made | ({"days": dict(self.days)} if self.days else {})

    def with_days(self, days: Mapping[str, int]) -> Covered:
        """With days that are exported up to an offset."""
        known = dict(self.days)
        for day, offset in days.items():
            known[day] = max(offset, known.get(day, -1))
        return Covered(self.upto, self.beyond, tuple(sorted((d, at) for d, at in known.items() if at > self.upto)))

    def with_upto(self, offset: int, beyond: tuple[tuple[int, int], ...]) -> Covered:
        """With all offsets up to one, and ranges beyond it."""
        return Covered(offset, beyond, tuple((day, at) for day, at in self.days if at > offset))


NotSent = dict[int, dict[int, tuple[int, ...]]]  # generation -> Kafka partition -> offsets
Coverage = dict[int, dict[int, Covered]]  # generation -> Kafka partition -> what is exported


@dataclass(frozen=True)
class RecordedColumn:
    """A column as it is recorded: its name at the source and on disk, types, and the schema version it came with."""

    name: str
    disk_name: str
    ksql_type: str
    arrow_type: str
    key: bool
    since: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RecordedColumn:
        return cls(*(value[key] for key in ("name", "disk_name", "ksql_type", "arrow_type", "key", "since")))

    def to_json(self) -> Json:
        return dict(vars(self))


@dataclass(frozen=True)
class Remote:
    """That a file lies in the lake's remote home, under the same path: since when, and in which tier of the store
    ("": the store's usual one)."""

    at: str
    tier: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Remote:
        return cls(value["at"], value.get("tier", ""))


@dataclass(frozen=True)
class Leaving:
    """A file that left the feed at some time and whose object is to be deleted from the remote.

    It need not have been pushed: an upload may have ended just before a crash. `purge`: at once, because a person's
    rows are in it; else when the trash forgets the file as well.
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
        remote: set once the file is in the remote home of the lake too.
        local: whether it lies on this disk; if not, only in the remote.
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
    """A file of older file entries, `_manifests/<name>` in the feed's directory, so that a commit need not."""

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
    """The files of a feed: entries at hand, and manifests that are read only when somebody looks at every file.

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
        """Take files out by their paths; the entries that went."""
        wanted = set(paths)
        gone = [file for file in self.recent if file.path in wanted]
        self.recent = [file for file in self.recent if file.path not in wanted]
        for manifest in list(self.manifests) if len(gone) < len(wanted) else ():
            entries = self._entries(manifest)
            hit = [file for file in entries if file.path in wanted]
            if hit:  # what is left of the manifest is written anew, with the next one
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
        """Say something new of files that stay as they are, such as that they are in the remote by now."""
        new = {entry.path: entry for entry in entries}
        left = set(new) - {file.path for file in self.recent}
        for manifest in list(self.manifests) if left else ():
            held = self._entries(manifest)
            if any(file.path in left for file in held):  # written anew, with the next manifest
                self.manifests.remove(manifest)
                self.recent = [*held, *self.recent]
        self.recent = [new.get(file.path, file) for file in self.recent]

    def seal(self, name: str) -> list[FileEntry]:
        """Let a manifest of this name hold the entries at hand; returns them, to be written."""
        entries, self.recent = self.recent, []
        self._old[name] = entries
        self.manifests.append(Manifest(name, len(entries)))
        return entries

    def committed(self) -> None:
        """Forget what was added and removed: a commit has told it."""
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


@dataclass(frozen=True)
class Current:
    """The version of a table that is read."""

    version: str
    path: str


@dataclass(frozen=True)
class LastRun:
    """How the last export ended; `result` is ok or findings."""

    ended: str
    rows: int
    files: int
    result: str


@dataclass(frozen=True)
class Told:
    """A finding of the last export as the metadata keep it: `said` is `Finding.as_json`, or only a message."""

    at: str
    said: Json

    @classmethod
    def of(cls, at: str, findings: Iterable[Finding]) -> tuple[Told, ...]:
        return tuple(cls(at, finding.as_json()) for finding in findings)

    def to_json(self) -> Json:
        return {"at": self.at, **self.said}


@dataclass(frozen=True)
class Amendment:
    """A change that was no export, as the metadata keep it: when, by whom, what."""

    at: str
    by: str
    what: str


@dataclass(frozen=True)
class SchemaVersion:
    """Since when the feed has had which columns."""

    version: str
    at: str
    added: tuple[str, ...]

    def to_json(self) -> Json:
        return {"version": self.version, "at": self.at, "added": list(self.added)}


@dataclass(frozen=True)
class Erasure:
    """An erasure as the feed keeps it: enough to recognise the value again, not enough to read it."""

    receipt: str
    column: str
    salt: str
    hash: str
    later: str
    rows: int
    files: int
    equal: tuple[str, ...] | None = None  # hashes of what the value may mean in columns of other types

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Erasure:
        known = {key: value[key] for key in ("receipt", "column", "salt", "hash", "later", "rows", "files")}
        return cls(**known, equal=None if value.get("equal") is None else tuple(value["equal"]))

    def to_json(self) -> Json:
        equal = {} if self.equal is None else {"equal": list(self.equal)}
        return {key: item for key, item in vars(self).items() if key != "equal"} | equal


Removed = dict[str, dict[str, int]]  # partition -> why -> rows that went


@dataclass
class FeedState:
    """Everything the lake knows of one feed, between two commits.

    Attributes:
        sequence: the number of the last change; `run` is the name of the run that made it.
        generation: of a stream: one more for each time its topic was recreated.
        resume, heads: Kafka partition -> the last row read; the first row that comes in every query.
        not_sent: of a stream: rows that the server cannot send, and that queries leave out.
        removed: rows that retention, an erasure or a check took out of each partition.
        remote_gone: files whose objects are to be deleted from the remote.
        extra: what this version does not know; kept as it is.
    """

    source: str
    type: str
    created_at: str
    last_export: str | None = None
    schema_version: str = "1.0"
    sequence: int = 0
    run: str | None = None
    columns: tuple[RecordedColumn, ...] = ()
    findings: tuple[Told, ...] = ()
    last_run: LastRun | None = None
    files: FileSet = field(default_factory=FileSet)
    # of a stream
    timezone: str = "UTC"
    timestamp_column: str | None = None
    generation: int = 1
    resume: dict[int, Anchor] = field(default_factory=dict)
    heads: dict[int, Anchor] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=dict)
    topic: TopicMark | None = None
    not_sent: NotSent = field(default_factory=dict)
    # of a table
    current: Current | None = None
    last_version: int = 0
    pinned: tuple[str, ...] = ()
    # where there is something to say
    checks: tuple[Json, ...] | None = None
    schema_history: tuple[SchemaVersion, ...] = ()
    quarantine: tuple[FileEntry, ...] | None = None
    changes: tuple[Amendment, ...] = ()
    removed: Removed | None = None
    erasures: tuple[Erasure, ...] = ()
    remote_gone: tuple[Leaving, ...] = ()
    extra: Json = field(default_factory=dict)

    @property
    def is_table(self) -> bool:
        return self.type == "table"

    @property
    def quarantined(self) -> tuple[FileEntry, ...]:
        """The files in quarantine."""
        return self.quarantine or ()

    @property
    def rows_removed(self) -> Removed:
        """Partition -> why -> rows that were taken out of it here."""
        return self.removed or {}

    @property
    def partitions(self) -> list[Partition]:
        return self.files.partitions

    @property
    def total_records(self) -> int:
        return self.files.rows

    @property
    def total_bytes(self) -> int:
        return self.files.bytes

    @property
    def newest_rowtime(self) -> int | None:
        """Epoch ms of the newest row in the lake; None for a table."""
        return self.newest_until(None)

    def newest_until(self, latest: float | None) -> int | None:
        """The same of rows up to a time in epoch ms: what lies in the future says nothing of the others."""
        times = [partition.rowtime_max for partition in self.files.unordered if partition.rowtime_max is not None]
        return max((time for time in times if latest is None or time <= latest), default=None)

    @property
    def mark(self) -> TopicMark:
        """What is known of the present generation's topic."""
        exact = self.topic is not None and self.topic.exact
        known = self.topic is not None and self.topic.generation == self.generation
        return self.topic if known and self.topic is not None else TopicMark(self.generation, exact=exact)

    @property
    def covered(self) -> dict[int, Covered]:
        """What the present generation's coverage holds, by Kafka partition."""
        return self.coverage.get(self.generation, {})

    def changed_at(self) -> str:
        """When the change was made that led to this state."""
        times = [time for time in (self.last_export, *(change.at for change in self.changes[-1:])) if time]
        return max(times, default=self.created_at)

    def to_json(self) -> Json:
        """The whole content of `_metadata.json`."""
        made = self.described()
        counted = bool(self.files.manifests)
        made["partitions"] = [partition.to_json(counted) for partition in self.files.partitions]
        made["files"] = [file.to_json() for file in self.files.recent]
        if counted:
            made["manifests"] = [dict(vars(manifest)) for manifest in self.files.manifests]
        return made

    def described(self) -> Json:
        """All but files and partitions."""
        table = self.is_table
        made: Json = {
            "source": self.source, "type": self.type, "storage_mode": "overwrite" if table else "append",
            "format": "parquet", "partitioning": "version" if table else "date", "last_export": self.last_export,
            "total_records": self.total_records, "total_size_mb": megabytes(self.total_bytes), "partitions": [],
            "schema_version": self.schema_version, "created_at": self.created_at, "sequence": self.sequence,
            "run": self.run,
        }
        if table:
            made["current"] = None if self.current is None else dict(vars(self.current))
            made["last_version"] = self.last_version
        else:
            made |= {"timezone": self.timezone, "timestamp_column": self.timestamp_column}
        made["columns"] = [column.to_json() for column in self.columns]
        if not table:
            made |= {
                "generation": self.generation, "resume": anchors_json(self.resume), "heads": anchors_json(self.heads),
                "coverage": _coverage_json(self.coverage),
            }
        made["findings"] = [told.to_json() for told in self.findings]
        made["last_run"] = None if self.last_run is None else dict(vars(self.last_run))
        made["files"] = []
        optional: Json = {
            "topic": None if self.topic is None else self.topic.to_json(),
            "checks": None if self.checks is None else list(self.checks),
            "schema_history": [version.to_json() for version in self.schema_history] or None,
            "quarantine": None if self.quarantine is None else [file.to_json() for file in self.quarantine],
            "changes": [dict(vars(change)) for change in self.changes] or None,
            "removed": self.removed,
            "erasures": [erasure.to_json() for erasure in self.erasures] or None,
            "pinned": list(self.pinned) or None,
            "not_sent": _not_sent_json(self.not_sent) or None,
            "remote_gone": [dict(vars(gone)) for gone in self.remote_gone] or None,
        }
        return made | {key: value for key, value in optional.items() if value is not None} | self.extra

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], read: Callable[[Manifest], list[FileEntry]] | None = None
    ) -> FeedState:
        """Reads `_metadata.json`, also of a lake that an earlier version wrote.

        Args:
            read: how to read a manifest.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the value is not a feed's state.
        """
        manifests = [Manifest(one["name"], one["files"]) for one in value.get("manifests", ())]
        listed = [Partition.from_json(one) for one in value.get("partitions", ())] if manifests else ()
        files = FileSet(map(FileEntry.from_json, value.get("files", ())), manifests, read, listed)
        current, last = value.get("current"), value.get("last_run")
        checks, quarantine = value.get("checks"), value.get("quarantine")
        return cls(
            value["source"], value["type"], value.get("created_at", ""), value.get("last_export"),
            value.get("schema_version", "1.0"), value["sequence"], value.get("run"),
            tuple(map(RecordedColumn.from_json, value.get("columns", ()))),
            tuple(_told(one) for one in value.get("findings", ())),
            None if last is None else LastRun(last["ended"], last["rows"], last["files"], last["result"]),
            files, value.get("timezone") or "UTC", value.get("timestamp_column"), value.get("generation", 1),
            anchors_from(value.get("resume") or {}), anchors_from(value.get("heads") or {}),
            _coverage_from(value.get("coverage") or {}),
            TopicMark.from_json(value["topic"]) if value.get("topic") else None,
            _not_sent_from(value.get("not_sent") or {}),
            None if current is None else Current(current["version"], current["path"]), value.get("last_version", 0),
            tuple(value.get("pinned", ())), None if checks is None else tuple(checks),
            tuple(SchemaVersion(v["version"], v["at"], tuple(v["added"])) for v in value.get("schema_history", ())),
            None if quarantine is None else tuple(map(FileEntry.from_json, quarantine)),
            tuple(Amendment(c["at"], c["by"], c["what"]) for c in value.get("changes", ())),
            None if "removed" not in value else {path: dict(whys) for path, whys in value["removed"].items()},
            tuple(map(Erasure.from_json, value.get("erasures", ()))),
            tuple(Leaving(g["path"], g["at"], g.get("purge", False)) for g in value.get("remote_gone", ())),
            {key: item for key, item in value.items() if key not in _STATE_KEYS},
        )


_STATE_KEYS = frozenset(f.name for f in fields(FeedState)) - {"extra"} | {
    "storage_mode", "format", "partitioning", "total_records", "total_size_mb", "partitions", "manifests"
}


def _told(value: Mapping[str, Any]) -> Told:
    return Told(str(value.get("at", "")), {key: item for key, item in value.items() if key != "at"})


def _coverage_from(value: Mapping[str, Any]) -> Coverage:
    return {int(g): {int(p): Covered.from_json(c) for p, c in parts.items()} for g, parts in value.items()}


def _not_sent_from(value: Mapping[str, Any]) -> NotSent:
    return {int(g): {int(p): tuple(offsets) for p, offsets in parts.items()} for g, parts in value.items()}


def _not_sent_json(value: NotSent) -> Json:
    return {str(g): {str(p): list(parts[p]) for p in sorted(parts)} for g, parts in sorted(value.items()) if parts}


def _coverage_json(coverage: Coverage) -> Json:
    return {
        str(g): {str(p): parts[p].to_json() for p in sorted(parts)} for g, parts in sorted(coverage.items())
    }


def new_stream(source: str, timezone: str, timestamp_column: str | None, now: str) -> FeedState:
    """The state of a stream that was never exported."""
    return FeedState(source, "stream", now, timezone=timezone, timestamp_column=timestamp_column)


def new_table(source: str, now: str) -> FeedState:
    """The state of a table that was never exported."""
    return FeedState(source, "table", now)


@dataclass(frozen=True)
class Footer:
    """What each Parquet file says of itself in its key-value metadata, so that lost metadata can be made again.

    Attributes:
        sequence: the number of the change that published the file.
        generation, timezone, timestamp_column: of a stream.
        version: of a table, such as "v3".
        resume: Kafka partition -> the last row that the run had read when this file was closed; None when not said.
        reading: the name of the reading of the source that brought the rows; a run may need several.
        taken: Kafka partition (None for a table) -> rows that the reading put into files, quarantine included; None
            when not said. As `resume`, it is in the files that were closed last.
        merged: of a merged file: reading -> Kafka partition -> rows, of the files it was made of.
        days: of a merged file: Kafka partition -> how far its day was covered beyond the resume point.
    """

    tool: str
    feed: str
    source: str
    created_at: str
    run: str
    origin: str
    sequence: int
    schema_version: str
    columns: tuple[RecordedColumn, ...]
    generation: int | None = None
    timezone: str | None = None
    timestamp_column: str | None = None
    version: str | None = None
    resume: Mapping[int, Anchor] | None = None
    reading: str | None = None
    taken: Mapping[int | None, int] | None = None
    merged: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    days: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, state: FeedState, feed: str, *, tool: str, run: str, origin: str, generation: int | None = None,
        version: str | None = None, reading: str | None = None,
    ) -> Footer:
        """The footer of files that the next change of a feed publishes."""
        table = state.is_table
        return cls(
            tool, feed, state.source, state.created_at, run, origin, state.sequence + 1, state.schema_version,
            state.columns, None if table else generation or state.generation, None if table else state.timezone,
            None if table else state.timestamp_column, version, reading=reading,
        )

    def pairs(self) -> dict[str, str]:
        """As key-value metadata of a Parquet file."""
        made: Json = {
            "tool": self.tool, "feed": self.feed, "source": self.source, "created_at": self.created_at,
            "run": self.run, "origin": self.origin, "sequence": self.sequence, "schema_version": self.schema_version,
            "columns": [column.to_json() for column in self.columns],
        }
        if self.generation is not None:
            made |= {
                "generation": self.generation, "timezone": self.timezone, "timestamp_column": self.timestamp_column
            }
        if self.version is not None:
            made["version"] = self.version
        if self.reading is not None:
            made["reading"] = self.reading
        if self.merged:
            made["merged"] = {reading: _counts_json(counts) for reading, counts in self.merged.items()}
        if self.days:
            made["days"] = _counts_json(self.days)
        return {FOOTER: json.dumps(made, ensure_ascii=False), **(resume_pair(self.resume) if self.resume else {})}

    @classmethod
    def read(cls, pairs: Mapping[bytes, bytes]) -> Footer | None:
        """The footer among a file's key-value metadata; None when the file is not ours.

        Raises:
            KeyError, TypeError, ValueError: it claims to be ours and is not.
        """
        text = pairs.get(FOOTER.encode())
        if text is None:
            return None
        value = json.loads(text)
        resume, taken = pairs.get(RESUME.encode()), pairs.get(TAKEN.encode())
        return cls(
            value.get("tool", ""), value["feed"], value["source"], value["created_at"], value["run"],
            value.get("origin", "export"), value["sequence"], value["schema_version"],
            tuple(map(RecordedColumn.from_json, value["columns"])), value.get("generation"), value.get("timezone"),
            value.get("timestamp_column"), value.get("version"),
            None if resume is None else anchors_from(json.loads(resume)), value.get("reading"),
            None if taken is None else {int(p) if p else None: rows for p, rows in json.loads(taken).items()},
            {reading: {int(p): n for p, n in counts.items()} for reading, counts in value.get("merged", {}).items()},
            {int(p): offset for p, offset in value.get("days", {}).items()},
        )


def _counts_json(counts: Mapping[Any, int]) -> Json:
    return {"" if partition is None else str(partition): rows for partition, rows in counts.items()}


def taken_pair(counts: Mapping[Any, int]) -> dict[str, str]:
    """What a reading put into files, as one more pair of a footer: a rebuild sees by it that a file is gone."""
    return {TAKEN: json.dumps(_counts_json(counts))}


def resume_pair(anchors: Mapping[int, Anchor]) -> dict[str, str]:
    """The resume points as one more pair of a footer: they are known only when a run's last files are closed."""
    return {RESUME: json.dumps(anchors_json(anchors))}


@dataclass(frozen=True)
class Change:
    """What one commit did to a feed; observers get it after the commit.

    Attributes:
        kind: export, retention, erase, compact, rollback, pin, undo, quarantine, rebuild, reload, reset.
        at: when, ISO 8601 UTC.
        schema: whether the columns changed.
    """

    kind: str
    sequence: int
    run: str
    at: str
    added: tuple[FileEntry, ...] = ()
    removed: tuple[FileEntry, ...] = ()
    schema: bool = False
    by: str = ""
    what: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Change:
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        files = {key: tuple(map(FileEntry.from_json, known.get(key, ()))) for key in ("added", "removed")}
        return cls(**{**known, **files})

    def to_json(self) -> Json:
        files = {"added": [f.to_json() for f in self.added], "removed": [f.to_json() for f in self.removed]}
        return {**vars(self), **files}


def with_files(change: Change, state: FeedState) -> Change:
    """A change with the files that a state has added and removed since its last commit."""
    return replace(change, added=tuple(state.files.added), removed=tuple(state.files.removed))
