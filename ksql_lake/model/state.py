"""The state of one feed as typed values: the content of `_metadata.json`, Parquet footers and the state log.

Every value has one constructor and one reader here. The JSON keeps the form it always had: fields that the user's own
tools read are where they were, and keys that this version does not know are kept. A state is a working copy, changed
by whoever prepares a commit; everything in it is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ksql_lake.model.anchor import (
    Anchor,
    Coverage,
    Covered,
    NotSent,
    TopicMark,
    _coverage_from,
    _coverage_json,
    _not_sent_from,
    _not_sent_json,
    anchors_from,
    anchors_json,
)
from ksql_lake.model.entries import FileEntry, FileSet, Leaving, Manifest, Partition, megabytes
from ksql_lake.model.findings import Finding
from ksql_lake.model.recorded import MILLISECONDS, RecordedColumn

Json = dict[str, Any]
QUARANTINE = "quarantine"


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
class KeptFinding:
    """A finding of the last export as the metadata keep it: `said` is `Finding.as_json`, or only a message."""

    at: str
    said: Json

    @classmethod
    def of(cls, at: str, findings: Iterable[Finding]) -> tuple[KeptFinding, ...]:
        return tuple(cls(at, finding.as_json()) for finding in findings)

    def to_json(self) -> Json:
        return {"at": self.at, **self.said}


@dataclass(frozen=True)
class Amendment:
    """A change that was not an export, as the metadata keeps it: when, by whom, what."""

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
        timestamps: what ROWTIME and TIMESTAMP columns count in the files, "ms" or "us"; fixed at the first export.
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
    findings: tuple[KeptFinding, ...] = ()
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
    timestamps: str = MILLISECONDS
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
        """The same for rows up to a time in epoch ms: a time in the future says nothing about the others."""
        times = [partition.rowtime_max for partition in self.files.unordered if partition.rowtime_max is not None]
        return max((time for time in times if latest is None or time <= latest), default=None)

    @property
    def mark(self) -> TopicMark:
        """What is known about the present generation's topic."""
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
        made["findings"] = [kept.to_json() for kept in self.findings]
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
            "timestamps": None if self.timestamps == MILLISECONDS else self.timestamps,
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
            tuple(_kept_finding(one) for one in value.get("findings", ())),
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
            value.get("timestamps", MILLISECONDS),
            {key: item for key, item in value.items() if key not in _STATE_KEYS},
        )


_STATE_KEYS = frozenset(f.name for f in fields(FeedState)) - {"extra"} | {
    "storage_mode", "format", "partitioning", "total_records", "total_size_mb", "partitions", "manifests"
}


def _kept_finding(value: Mapping[str, Any]) -> KeptFinding:
    return KeptFinding(str(value.get("at", "")), {key: item for key, item in value.items() if key != "at"})


def new_stream(
    source: str, timezone: str, timestamp_column: str | None, now: str, timestamps: str = MILLISECONDS
) -> FeedState:
    """The state of a stream that was never exported."""
    return FeedState(
        source, "stream", now, timezone=timezone, timestamp_column=timestamp_column, timestamps=timestamps
    )


def new_table(source: str, now: str, timestamps: str = MILLISECONDS) -> FeedState:
    """The state of a table that was never exported."""
    return FeedState(source, "table", now, timestamps=timestamps)


