"""Copies the records of the embedded server's streams to a Kafka cluster, by default to librdkafka's mock broker.

That broker runs in this process and keeps 5 MB of each partition; every topic has four partitions.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .encode import encoder as shown
from .encode import string
from .engine import Engine, Record, Source
from .schema import Column, Type

_PACKED = {"INTEGER": ">i", "BIGINT": ">q", "DOUBLE": ">d"}
Encode = Callable[[object], str]


class Topics:
    """Streams copied to topics, record by record; `publish` again copies what has been appended since.

    Args:
        servers: the bootstrap servers of a cluster; by default one is started in this process.

    Attributes:
        bootstrap: for KAFKA_BOOTSTRAP_SERVERS.
    """

    def __init__(self, db: Engine, servers: str | None = None) -> None:
        from confluent_kafka import Producer

        mock = {"test.mock.num.brokers": 1, "bootstrap.servers": "embedded"}
        given = {"bootstrap.servers": servers} if servers else mock
        self._db, self._copied = db, dict[tuple[str, int], int]()
        self._producer: Any = Producer({**given, "log_level": 0, "linger.ms": 5})
        brokers = self._producer.list_topics(timeout=10).brokers.values()
        self.bootstrap = servers or ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def publish(self, name: str) -> None:
        """Copy the records of a stream that are not copied yet; RuntimeError when Kafka does not take them."""
        failed: list[str] = []
        with self._db.changed:
            source = self._db.sources[name]
            log = list(source.topic.log)
        write = _writer(source)
        for record in log:
            place = (source.topic_name, record.partition)
            at = self._copied.get(place, 0)
            if record.offset < at:
                continue
            for _ in range(at, record.offset):  # a gap of offsets: deletions, which are no rows either
                self._produce(source, record, b"gap", None, failed)
            self._produce(source, record, *write(record), failed)
            self._copied[place] = record.offset + 1
        if self._producer.flush(30) or failed:
            raise RuntimeError(f"{name}: {failed[0] if failed else 'the broker does not answer'}")

    def _produce(
        self, source: Source, record: Record, key: bytes | None, value: bytes | None, failed: list[str]
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    source.topic_name, value, key, record.partition, timestamp=record.rowtime,
                    on_delivery=lambda error, _: failed.append(str(error)) if error else None,
                )
                return
            except BufferError:
                self._producer.poll(0.1)


def _writer(source: Source) -> Callable[[Record], tuple[bytes | None, bytes | None]]:
    """From a record to its key and its value; one that is not a row becomes a deletion."""
    keys = [(i, column) for i, column in enumerate(source.columns) if column.key]
    values = [(string(c.name), i, encoder(c.type)) for i, c in enumerate(source.columns) if not c.key]

    def write(record: Record) -> tuple[bytes | None, bytes | None]:
        if record.values is None or record.aborted:
            return b"gone", None
        row = record.values
        text = ",".join(f"{name}:{encode(row[i])}" for name, i, encode in values)
        return _key(keys, row), f"{{{text}}}".encode()

    return write


def _key(keys: Sequence[tuple[int, Column]], row: Sequence[object]) -> bytes | None:
    """In the KAFKA format, which has one column."""
    if not keys or row[keys[0][0]] is None:
        return None
    value, base = row[keys[0][0]], keys[0][1].type.base
    if base in _PACKED:
        return struct.pack(_PACKED[base], value)
    return value if isinstance(value, bytes) else str(value).encode()


def encoder(kind: Type) -> Encode:
    """A value as JSON in a topic: dates and times are numbers, decimals have all their digits."""
    if kind.base == "DECIMAL":
        return shown(kind)
    if kind.base == "STRUCT":
        fields = [(name, string(name), encoder(inner)) for name, inner in kind.fields]
        return lambda value: "null" if not isinstance(value, Mapping) else (
            "{" + ",".join(f"{label}:{encode(value.get(name))}" for name, label, encode in fields) + "}"
        )
    if kind.base == "ARRAY" and kind.item:
        item = encoder(kind.item)
        return lambda value: "null" if not isinstance(value, Sequence) else f"[{','.join(map(item, value))}]"
    if kind.base == "MAP" and kind.item:
        item = encoder(kind.item)
        return lambda value: "null" if not isinstance(value, Mapping) else (
            "{" + ",".join(f"{json.dumps(name)}:{item(one)}" for name, one in value.items()) + "}"
        )
    return shown(kind, inside=True)
