"""Reads records from Kafka, partition by partition, as confluent-kafka's messages: one Python object for each.

`librdkafka.NativeConsumer` does the same without objects, where the native library is there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ksql_lake.sources.kafka.block import Block
from ksql_lake.sources.kafka.records import Record

POLL = 0.1  # seconds to wait for a first message


class Event(NamedTuple):
    """Something among the messages that is not a record; `error` is a KafkaError."""

    error: Any
    partition: int
    offset: int


@dataclass(frozen=True)
class Taken:
    """The result of one poll; `positions` is the next offset of each partition, where that is known."""

    block: Block | None
    positions: Mapping[int, int]
    events: tuple[Event, ...] = ()
    heard: bool = True


class Consumer(Protocol):
    """Reads partitions of one topic at a time, each from an offset up to another one."""

    def begin(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> None:
        """Begin with partitions; `spans` is partition to (first offset, goal), which is not read."""

    def take(self, most: int) -> Taken:
        """The next records, at most this many; waits POLL seconds for the first one.

        Raises:
            KafkaException: no more will come.
        """

    def leave(self, partitions: Collection[int]) -> None:
        """These partitions are read to their goals: do not fetch what follows."""

    def end(self) -> None:
        """Stop fetching."""

    def close(self) -> None:
        """Close the connection."""


class MessageConsumer:
    """By confluent-kafka's own consumer; the only one that knows headers.

    Args:
        kafka: the module confluent_kafka.
        consumer: its Consumer.
    """

    def __init__(self, kafka: Any, consumer: Any) -> None:
        self._kafka, self._consumer = kafka, consumer
        self._topic, self._goals = "", dict[int, int]()

    def begin(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> None:
        self._topic, self._goals = topic, {partition: goal for partition, (_, goal) in spans.items()}
        wanted = [self._kafka.TopicPartition(topic, partition, first) for partition, (first, _) in spans.items()]
        self._consumer.assign(wanted)
        self._consumer.resume(wanted)  # a partition paused by an earlier reading stays so

    def take(self, most: int) -> Taken:
        heard = self._consumer.consume(most, POLL)
        records, positions, events = list[Record](), dict[int, int](), list[Event]()
        for message in heard:
            partition, offset = message.partition(), message.offset()
            if message.error() is not None:
                events.append(Event(message.error(), partition, offset))
                continue
            goal = self._goals.get(partition, 0)
            positions[partition] = min(offset + 1, goal)
            if offset < goal:
                records.append(record_of(message))
        return Taken(Block.of(records) if records else None, positions, tuple(events), bool(heard))

    def leave(self, partitions: Collection[int]) -> None:
        self._consumer.pause([self._kafka.TopicPartition(self._topic, partition) for partition in partitions])

    def end(self) -> None:
        self._consumer.unassign()

    def close(self) -> None:
        self._consumer.close()


def record_of(message: Any) -> Record:
    """A message of confluent-kafka as a record."""
    _, timestamp = message.timestamp()
    return Record(
        message.partition(), message.offset(), timestamp, message.key(), message.value(), message.headers() or ()
    )
