"""The lines of a version of a Delta log, as far as this tool writes them, and the table that they make."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
APP = "ksql_lake"  # whose transaction number is the feed's sequence number
LOCK = "ksqlLakeOnly"  # a writer refuses a feature it does not know; readers never look at writer features
READER, WRITER = 1, 7
CONFIGURATION = {  # for writers that ignore LOCK: keep the files of older versions, and the log
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
}


@dataclass(frozen=True, slots=True)
class Add:
    """A file that is part of the table.

    Attributes:
        path: relative to the table, URL-quoted.
        values: partition column -> value as text, numbers without leading zeros.
        stats: JSON text; "" for none.
    """

    path: str
    values: Mapping[str, str]
    size: int
    modified: int  # epoch ms
    data_change: bool
    stats: str = ""

    def to_json(self) -> Json:
        made: Json = {
            "path": self.path, "partitionValues": dict(self.values), "size": self.size,
            "modificationTime": self.modified, "dataChange": self.data_change,
        }
        return {"add": made | ({"stats": self.stats} if self.stats else {})}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Add:
        return cls(
            value["path"], value.get("partitionValues") or {}, value["size"], value["modificationTime"],
            value["dataChange"], value.get("stats") or "",
        )


@dataclass(frozen=True, slots=True)
class Remove:
    """A file that was removed from the table; readers of earlier versions may open it as long as it exists."""

    path: str
    values: Mapping[str, str]
    size: int
    deleted: int  # epoch ms
    data_change: bool

    @classmethod
    def of(cls, added: Add, deleted: int, data_change: bool) -> Remove:
        return cls(added.path, added.values, added.size, deleted, data_change)

    def to_json(self) -> Json:
        return {"remove": {
            "path": self.path, "deletionTimestamp": self.deleted, "dataChange": self.data_change,
            "extendedFileMetadata": True, "partitionValues": dict(self.values), "size": self.size,
        }}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Remove:
        return cls(
            value["path"], value.get("partitionValues") or {}, value.get("size") or 0,
            value.get("deletionTimestamp") or 0, value["dataChange"],
        )


@dataclass(frozen=True)
class MetaData:
    """What the table is: `schema` is the JSON text of its columns, partition columns included."""

    id: str
    name: str
    description: str
    schema: str
    keys: tuple[str, ...]
    created: int  # epoch ms
    configuration: Mapping[str, str] = field(default_factory=lambda: CONFIGURATION)

    def to_json(self) -> Json:
        return {"metaData": {
            "id": self.id, "name": self.name, "description": self.description,
            "format": {"provider": "parquet", "options": {}}, "schemaString": self.schema,
            "partitionColumns": list(self.keys), "configuration": dict(self.configuration),
            "createdTime": self.created,
        }}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MetaData:
        return cls(
            value["id"], value.get("name") or "", value.get("description") or "", value["schemaString"],
            tuple(value.get("partitionColumns") or ()), value.get("createdTime") or 0, value.get("configuration") or {},
        )


@dataclass(frozen=True)
class Protocol:
    """What readers and writers must know to use the table."""

    reader: int = READER
    writer: int = WRITER
    features: tuple[str, ...] = (LOCK,)

    def to_json(self) -> Json:
        return {"protocol": {
            "minReaderVersion": self.reader, "minWriterVersion": self.writer, "writerFeatures": list(self.features)
        }}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Protocol:
        return cls(value["minReaderVersion"], value["minWriterVersion"], tuple(value.get("writerFeatures") or ()))


@dataclass(frozen=True)
class Commit:
    """Who wrote a version and why; `sequence` is the feed's, which the version brings the table to."""

    engine: str
    operation: str
    run: str
    sequence: int
    at: int  # epoch ms

    def to_json(self) -> Json:
        return {"commitInfo": {
            "timestamp": self.at, "operation": self.operation, "engineInfo": self.engine,
            "operationParameters": {"run": self.run, "sequence": str(self.sequence)},
        }}

    def transaction(self) -> Json:
        return {"txn": {"appId": APP, "version": self.sequence, "lastUpdated": self.at}}


@dataclass(frozen=True)
class Version:
    """One version of the table: everything that its file says."""

    commit: Commit
    adds: tuple[Add, ...] = ()
    removes: tuple[Remove, ...] = ()
    metadata: MetaData | None = None
    protocol: Protocol | None = None

    def text(self) -> bytes:
        """The file's content: one action per line, removes before adds, since a file may be both."""
        lines: list[Json] = [self.commit.to_json()]
        if self.protocol:
            lines.append(self.protocol.to_json())
        if self.metadata:
            lines.append(self.metadata.to_json())
        lines.append(self.commit.transaction())
        lines += [removed.to_json() for removed in self.removes]
        lines += [added.to_json() for added in self.adds]
        return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines).encode()


@dataclass
class Snapshot:
    """The table after some versions of its log.

    Attributes:
        version: the last one; -1 for none.
        sequence: the feed's sequence number that our last version brought the table to; None for never.
        foreign: versions that were not written by this tool.
    """

    version: int = -1
    sequence: int | None = None
    metadata: MetaData | None = None
    protocol: Protocol | None = None
    active: dict[str, Add] = field(default_factory=dict)
    removed: dict[str, Remove] = field(default_factory=dict)
    foreign: list[int] = field(default_factory=list)

    def apply(self, number: int, lines: Iterable[bytes]) -> None:
        """Follow one more version.

        Raises:
            ValueError, KeyError, TypeError: a line is not an action.
        """
        ours = False
        actions: Sequence[Json] = [json.loads(line) for line in lines if line.strip()]
        for action in actions:
            if "remove" in action:
                gone = Remove.from_json(action["remove"])
                self.active.pop(gone.path, None)
                self.removed[gone.path] = gone
        for action in actions:
            if "add" in action:
                added = Add.from_json(action["add"])
                self.active[added.path] = added
                self.removed.pop(added.path, None)
            elif "metaData" in action:
                self.metadata = MetaData.from_json(action["metaData"])
            elif "protocol" in action:
                self.protocol = Protocol.from_json(action["protocol"])
            elif "txn" in action and action["txn"]["appId"] == APP:
                self.sequence = action["txn"]["version"]
            elif "commitInfo" in action:
                ours = str(action["commitInfo"].get("engineInfo", "")).startswith(f"{APP}/")
        if not ours:
            self.foreign.append(number)
        self.version = number
