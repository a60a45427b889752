"""Sources of the embedded server: streams as logs of records, tables as a keyed state plus a changelog."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .encode import RowEncoder
from .schema import Column, Type, name_text, parse_columns

Row = Sequence[object]
_BIGINT = Type("BIGINT")


class Record:
    """One record of a topic; `values` None: nothing the server can show (null or undecodable): an offset gap."""

    __slots__ = ("partition", "offset", "rowtime", "values", "tombstone", "aborted", "cached")

    def __init__(self, partition: int, offset: int, rowtime: int, values: Row | None, tombstone: bool = False,
                 aborted: bool = False) -> None:
        self.partition, self.offset, self.rowtime = partition, offset, rowtime
        self.values, self.tombstone, self.aborted = values, tombstone, aborted
        self.cached: str | None = None


@dataclass
class Topic:
    """The records in order of arrival, the next offset and the first kept offset of each partition.

    `followed_by`: the topic of the same name in which running queries go on.
    """

    partitions: int
    log: list[Record] = field(default_factory=list)
    next: list[int] = field(default_factory=list)
    base: list[int] = field(default_factory=list)
    followed_by: Topic | None = None

    def __post_init__(self) -> None:
        self.grow(self.partitions)

    def grow(self, partitions: int) -> None:
        """Add partitions, up to that many."""
        self.next += [0] * (partitions - len(self.next))
        self.base += [0] * (partitions - len(self.base))
        self.partitions = len(self.next)


@dataclass
class Source:
    """A stream or a table. `columns` are those of `SELECT *`, the window columns of a windowed table included."""

    name: str
    kind: Literal["STREAM", "TABLE"]
    columns: tuple[Column, ...]
    topic_name: str
    topic: Topic
    window: str | None = None
    queryable: bool = True
    source_table: bool = False
    key_format: str = "KAFKA"
    state: dict[tuple[object, ...], Record] = field(default_factory=dict)
    muted: set[int] = field(default_factory=set)
    compacted: bool = False

    def __post_init__(self) -> None:
        self.encoder = RowEncoder(self.columns)
        self.keys = [i for i, c in enumerate(self.columns) if c.key]

    def text(self, record: Record) -> str:
        """The encoded columns of a record, kept for the next query."""
        if record.cached is None:
            record.cached = self.encoder.all(record.values or ())
        return record.cached

    def declared(self) -> list[Column]:
        """The columns as declared: without the window's."""
        if self.window is None:
            return list(self.columns)
        return [c for c in self.columns if c.name not in ("WINDOWSTART", "WINDOWEND")]

    def statement(self) -> str:
        """A CREATE statement in the server's wording."""
        key = " PRIMARY KEY" if self.kind == "TABLE" else " KEY"
        columns = ", ".join(f"{name_text(c.name, False)} {c.type.text(False)}{key if c.key else ''}"
                            for c in self.declared())
        policy = "delete" if self.kind == "STREAM" and not self.compacted else "compact"
        count = "" if self.source_table else f", PARTITIONS={self.topic.partitions}"
        kind = "SOURCE TABLE" if self.source_table else self.kind
        return (f"CREATE {kind} {name_text(self.name, False)} ({columns}) WITH (CLEANUP_POLICY='{policy}', "
                f"KAFKA_TOPIC='{self.topic_name}', KEY_FORMAT='{self.key_format}'{count}, VALUE_FORMAT='JSON');")

    def listing(self) -> dict[str, object]:
        """The entry of LIST STREAMS or LIST TABLES."""
        return {"type": self.kind, "name": self.name, "topic": self.topic_name, "keyFormat": self.key_format,
                "valueFormat": "JSON", "isWindowed": self.window is not None}

    def description(self, extended: bool) -> dict[str, object]:
        """The `sourceDescription` of DESCRIBE."""
        query: dict[str, object] = {"queryString": self.statement(), "sinks": [self.name],
                                    "sinkKafkaTopics": [self.topic_name],
                                    "id": f"CTAS_{self.name}_1", "statusCount": {"RUNNING": 1},
                                    "queryType": "PERSISTENT", "state": "RUNNING"}
        reads: list[dict[str, object]] = []
        writes: list[dict[str, object]] = [query] if self.kind == "TABLE" and self.queryable else []
        if self.source_table:
            reads, writes = [{**query, "sinks": [], "sinkKafkaTopics": [], "id": f"CST_{self.name}_1"}], []
        fields: list[dict[str, object]] = [
            {"name": c.name, "schema": c.type.describe(), **({"type": "KEY"} if c.key else {})}
            for c in self.declared()]
        return {"name": self.name, "windowType": self.window, "readQueries": reads, "writeQueries": writes,
                "fields": fields, "type": self.kind, "timestamp": "", "statistics": "", "errorStats": "",
                "extended": extended, "keyFormat": self.key_format, "valueFormat": "JSON",
                "topic": self.topic_name, "partitions": self.topic.partitions, "replication": 1,
                "statement": self.statement(), "queryOffsetSummaries": [], "sourceConstraints": [],
                "clusterStatistics": [], "clusterErrorStats": []}


class Engine:
    """The sources, and the calls by which tests fill them. Safe to call while queries run."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.changed = threading.Condition(threading.RLock())

    def create_stream(self, name: str, columns: str, partitions: int = 1, topic: str | None = None) -> Source:
        """A stream over a new, empty topic; `columns` like "`ID` BIGINT KEY, `V` STRING"."""
        return self._add(Source(name, "STREAM", parse_columns(columns), topic or name, Topic(partitions)))

    def stream(self, name: str, columns: str, partitions: int, rows: Iterable[tuple[int, int, Row | None]]) -> Source:
        """A stream with rows of (partition, rowtime in ms, values)."""
        source = self.create_stream(name, columns, partitions)
        for partition, rowtime, values in rows:
            self.append(name, partition, rowtime, values)
        return source

    def create_table(self, name: str, columns: str, queryable: bool = True, window: str | None = None,
                     partitions: int = 1, topic: str | None = None, source_table: bool = False,
                     key_format: str = "KAFKA") -> Source:
        """A table; the columns marked KEY are its key. `window`: TUMBLING, HOPPING or SESSION; then
        WINDOWSTART and WINDOWEND (BIGINT, ms) follow the key columns in every row given to `upsert`."""
        parsed = parse_columns(columns)
        if window:
            keys = tuple(c for c in parsed if c.key)
            parsed = (*keys, Column("WINDOWSTART", _BIGINT, True), Column("WINDOWEND", _BIGINT, True),
                      *(c for c in parsed if not c.key))
        return self._add(Source(name, "TABLE", parsed, topic or name, Topic(partitions), window, queryable,
                                source_table, key_format))

    def _add(self, source: Source) -> Source:
        with self.changed:
            if source.name in self.sources:
                raise ValueError(f"source {source.name} exists already; drop it first")
            self.sources[source.name] = source
        return source

    def append(self, name: str, partition: int, rowtime: int, values: Row | None, *, aborted: bool = False) -> int:
        """Append a record (None: one the server skips); `aborted`: of an aborted transaction. Returns its offset."""
        with self.changed:
            source = self.sources[name]
            record = self._record(source, partition, rowtime, values)
            record.aborted = aborted
            self.changed.notify_all()
        return record.offset

    def append_text(self, name: str, partition: int, rowtime: int, columns: str) -> int:
        """Append a record whose columns are this JSON, `"a",1,null`: whatever a server may send. Returns its offset."""
        with self.changed:
            source = self.sources[name]
            record = self._record(source, partition, rowtime, [None] * len(source.columns))
            record.cached = columns
            if source.kind == "TABLE":
                source.state[(columns,)] = record
            self.changed.notify_all()
        return record.offset

    @staticmethod
    def _record(source: Source, partition: int, rowtime: int, values: Row | None, tombstone: bool = False) -> Record:
        if values is not None and len(values) != len(source.columns):
            raise ValueError(f"{source.name}: {len(values)} values for {len(source.columns)} columns")
        topic = source.topic
        record = Record(partition, topic.next[partition], rowtime, values, tombstone)
        topic.next[partition] += 1
        topic.log.append(record)
        return record

    def upsert(self, name: str, values: Row, rowtime: int | None = None, partition: int = 0) -> None:
        """Set a row of a table."""
        with self.changed:
            source = self.sources[name]
            when = int(time.time() * 1000) if rowtime is None else rowtime
            source.state[tuple(values[i] for i in source.keys)] = self._record(source, partition, when, values)
            self.changed.notify_all()

    def delete(self, name: str, key: Row, rowtime: int | None = None, partition: int = 0) -> None:
        """Remove a row of a table: a tombstone in its changelog."""
        with self.changed:
            source = self.sources[name]
            values: list[object] = [None] * len(source.columns)
            for position, value in zip(source.keys, key, strict=True):
                values[position] = value
            when = int(time.time() * 1000) if rowtime is None else rowtime
            self._record(source, partition, when, values, tombstone=True)
            source.state.pop(tuple(key), None)
            self.changed.notify_all()

    def expire(self, name: str, partition: int, upto: int) -> None:
        """Retention: offsets below `upto` are gone."""
        with self.changed:
            topic = self.sources[name].topic
            topic.base[partition] = max(topic.base[partition], upto)

    def recreate(self, name: str, partitions: int | None = None, *, followed: bool = False) -> None:
        """The topic is deleted and created again, empty, offsets from 0.

        `partitions`: how many it has now; as many as before for None. `followed`: running queries go on in the new
        topic at the offsets they had reached, as consumers of a real broker do; else they see nothing of it.
        """
        with self.changed:
            source = self.sources[name]
            old = source.topic
            source.topic = Topic(old.partitions if partitions is None else partitions)
            old.followed_by = source.topic if followed else None
            source.state, source.muted = {}, set()

    def add_partition(self, name: str) -> int:
        """One more partition; returns its number."""
        with self.changed:
            topic = self.sources[name].topic
            topic.grow(topic.partitions + 1)
            return topic.partitions - 1

    def mute(self, name: str, *partitions: int) -> None:
        """Partitions that say nothing to queries (a lost leader); without numbers: none any more.

        As with a real server, a pull query on the stream does not complete meanwhile.
        """
        with self.changed:
            self.sources[name].muted = set(partitions)
            self.changed.notify_all()

    def skip(self, name: str, partition: int, offsets: int) -> None:
        """Leave a gap of that many offsets (transaction markers, compacted records)."""
        with self.changed:
            self.sources[name].topic.next[partition] += offsets

    def drop(self, name: str) -> None:
        """Remove a source."""
        with self.changed:
            del self.sources[name]
