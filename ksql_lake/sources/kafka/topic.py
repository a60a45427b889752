"""A topic: its identity, where its partitions begin and end, and its records from one offset to another.

The end of a partition is its last stable offset when a run starts: transactions that are open then, and whatever is
produced meanwhile, belong to the next run. No consumer group is joined, and no offset is written to Kafka.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeAlias

from ksql_lake.base import native
from ksql_lake.base.errors import BrokerError, BrokerUnavailable
from ksql_lake.sources.kafka import librdkafka
from ksql_lake.sources.kafka.block import Block
from ksql_lake.sources.kafka.connection import (
    FORCED,
    Connection,
    Troubles,
    library,
    refused_settings,
    topic_refusal,
)
from ksql_lake.sources.kafka.consumer import POLL, Consumer, Event, MessageConsumer

_silent = logging.Logger("librdkafka")  # it repeats the same error many times a second; `Troubles` collects the errors
_silent.addHandler(logging.NullHandler())
MOCK = "mockCluster"  # the id that the broker inside librdkafka makes up; no ksqlDB can know it
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # what brokers before 2.8 send as a topic's id
ATTENTION = 1.0  # seconds of a wait after which the errors reported in the background are checked
GRACE = 2.0  # seconds to wait for a broker that refuses connections because it is still starting
UNREACHABLE = 5.0  # seconds that a request may still take when one of the brokers refuses connections
BATCH = 10_000  # records in a block
AHEAD = 32_768  # KiB that are fetched ahead
Offsets: TypeAlias = dict[int, int | None]  # of partitions, None for those without a leader
GONE = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID")


@dataclass(frozen=True)
class Bounds:
    """The offsets of a partition: `start` is the first one kept, `end` the last stable one, which comes next."""

    start: int
    end: int


@dataclass(frozen=True)
class TopicState:
    """A topic at one moment.

    Attributes:
        id: changes when the topic is recreated under the same name; None where the broker does not send it.
        bounds: of each partition that has a leader.
        leaderless: partitions that no broker serves at the moment.
        cluster: the id of the Kafka cluster; None where the broker does not tell.
    """

    name: str
    id: str | None
    bounds: Mapping[int, Bounds]
    leaderless: tuple[int, ...] = ()
    cluster: str | None = None


@dataclass(frozen=True)
class Expired(Exception):
    """Records vanished from a partition while it was read."""

    partition: int
    offset: int


@dataclass
class Reading:
    """How far a reading came.

    Attributes:
        positions: the next offset of each partition; `goals` when a partition was read to its end.
        stopped: why it ended before the goals, if it did.
    """

    goals: Mapping[int, int]
    positions: dict[int, int]
    stopped: BrokerError | None = None
    expired: list[Expired] = field(default_factory=list)

    @property
    def open(self) -> list[int]:
        return [partition for partition, goal in self.goals.items() if self.positions[partition] < goal]


class Broker:
    """A connection to Kafka; close it, or use it as a context manager.

    Args:
        direct: False reads through confluent-kafka's messages only.
        ahead: KiB that are fetched ahead of who reads.

    Raises:
        ConfigError: confluent-kafka is missing, or does not accept the settings.
    """

    def __init__(self, connection: Connection, *, direct: bool = True, ahead: int = AHEAD) -> None:
        self.connection, self._ahead = connection, ahead
        self._kafka = library()
        self._troubles = Troubles()
        self._admin: Any = None
        self._advertised: list[str] = []  # what the brokers call themselves
        self._direct = direct
        self._consumers: dict[bool, Consumer] = {}  # by whether they bring headers
        self._administrator()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()

    def describe(self, topic: str) -> TopicState:
        """The topic's id and the bounds of its partitions.

        Raises:
            BrokerError: Kafka refuses, or does not answer (BrokerUnavailable).
        """
        metadata = self._metadata(topic)
        partitions = metadata.topics[topic].partitions
        leaderless = tuple(sorted(p for p, about in partitions.items() if about.leader < 0))
        wanted = [p for p in sorted(partitions) if p not in leaderless]
        bounds, without = self._bounds(topic, wanted)
        identity = self._id(topic) if metadata.controller_id in metadata.brokers else None
        cluster = str(metadata.cluster_id or "")
        named = None if not cluster or cluster.startswith(MOCK) else cluster
        return TopicState(topic, identity, bounds, tuple(sorted({*leaderless, *without})), named)

    def topic_id(self, topic: str) -> str | None:
        """The topic's id, None where the broker does not send it.

        Raises:
            BrokerError: Kafka refuses, or does not answer (BrokerUnavailable).
        """
        metadata = self._metadata(topic)
        return self._id(topic) if metadata.controller_id in metadata.brokers else None

    def read(
        self, topic: str, spans: Mapping[int, tuple[int, int]], duration: float = float("inf"), *,
        headers: bool = False, most: int = BATCH,
    ) -> tuple[Reading, Generator[Block, None, None]]:
        """The records of each partition from an offset up to another one, which is not read.

        Args:
            spans: partition to (first offset, goal).
            duration: seconds after which the reading stops where it is.
            headers: whether the records' headers are needed.
            most: records in a block.

        Returns:
            How far it came, filled in as the blocks are taken; and blocks of records, in order in each partition.
        """
        reading = Reading({p: goal for p, (_, goal) in spans.items()}, {p: first for p, (first, _) in spans.items()})
        return reading, self._blocks(topic, reading, time.monotonic() + duration, headers, most)

    def _blocks(
        self, topic: str, reading: Reading, deadline: float, headers: bool, most: int
    ) -> Generator[Block, None, None]:
        waiting = set(reading.open)
        if not waiting:
            return
        self._troubles.clear()
        consumer = self._consumer(headers)
        consumer.begin(topic, {p: (reading.positions[p], reading.goals[p]) for p in reading.open})
        progress = time.monotonic()
        try:
            while waiting:
                heard, block = self._take(consumer, topic, reading, waiting, most)
                now = time.monotonic()
                progress = now if heard else progress
                if block is not None:
                    yield block
                if reading.stopped or not waiting:
                    return
                if now > deadline:
                    reading.stopped = BrokerUnavailable(
                        f"{topic}: the time for this run is over (MAX_DURATION_SECONDS); the next one continues there"
                    )
                    return
                if now - progress > self.connection.timeout or (self._troubles.final and now - progress > ATTENTION):
                    reading.stopped = self._silence(topic, reading, now - progress)
                    return
        finally:
            with contextlib.suppress(self._kafka.KafkaException, RuntimeError):  # it may be closed already
                consumer.end()

    def _consumer(self, headers: bool) -> Consumer:
        """The consumer; created when it is first needed."""
        if headers not in self._consumers:
            settings = {
                "group.id": "ksql-lake", "client.id": "ksql-lake", **self.connection.settings, **FORCED,
                "queued.max.messages.kbytes": self._ahead,
            }
            try:
                self._consumers[headers] = self._made(settings, headers)
            except (self._kafka.KafkaException, librdkafka.Refused, TypeError, ValueError) as error:
                raise refused_settings(self.connection, error) from None
        return self._consumers[headers]

    def _made(self, settings: Mapping[str, Any], headers: bool) -> Consumer:
        if self._direct and not headers and native.library() is not None and librdkafka.library() is not None:
            return librdkafka.NativeConsumer(settings, self._troubles)
        made = self._kafka.Consumer({**settings, "error_cb": self._troubles}, logger=_silent)
        return MessageConsumer(self._kafka, made)

    def _take(
        self, consumer: Consumer, topic: str, reading: Reading, waiting: set[int], most: int
    ) -> tuple[bool, Block | None]:
        """Whether anything was heard, and the next records below the goals."""
        try:
            taken = consumer.take(most)
        except self._kafka.KafkaException as error:
            reading.stopped = topic_refusal(self.connection, topic, error.args[0])
            return False, None
        for partition, position in taken.positions.items():
            reading.positions[partition] = max(reading.positions[partition], position)
        for event in taken.events:
            self._mark(topic, reading, waiting, event)
        self._leave_finished(consumer, reading, waiting)
        return taken.heard, taken.block

    def _mark(self, topic: str, reading: Reading, waiting: set[int], event: Event) -> None:
        """An event among the records: the end of a partition, or why it cannot be read."""
        error, partition, offset = event
        name = error.name()
        if name == "_PARTITION_EOF":
            if offset >= reading.goals[partition]:
                reading.positions[partition] = reading.goals[partition]
        elif name in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
            reading.expired.append(Expired(partition, reading.positions[partition]))
            waiting.discard(partition)
        elif name in GONE or name == "TOPIC_AUTHORIZATION_FAILED":
            reading.stopped = topic_refusal(self.connection, topic, error)
        else:
            self._troubles(error)

    def _leave_finished(self, consumer: Consumer, reading: Reading, waiting: set[int]) -> None:
        finished = [p for p in waiting if reading.positions[p] >= reading.goals[p]]
        waiting.difference_update(finished)
        if finished and waiting:  # what follows a goal would only be discarded
            consumer.leave(finished)

    def _silence(self, topic: str, reading: Reading, waited: float) -> BrokerError:
        partition = min(reading.open)
        error = self._troubles.explain(self.connection, waited)
        where = f"partition {partition} at offset {reading.positions[partition]} of {reading.goals[partition]}"
        return type(error)(f"{topic}: {where}: {error}")

    def _metadata(self, topic: str) -> Any:
        """The cluster's description of a topic; waits for brokers that are still starting."""
        self._troubles.clear()
        started = time.monotonic()
        while True:
            try:
                metadata = self._administrator().list_topics(topic, timeout=min(ATTENTION, self.connection.timeout))
                break
            except self._kafka.KafkaException:
                self._administrator().poll(0)  # lets the errors be reported that explain this one
                waited = time.monotonic() - started
                given_up = self._troubles.final or (self._troubles.refused and waited > GRACE)
                if given_up or waited > self.connection.timeout:
                    raise self._troubles.explain(self.connection, waited) from None
        self._advertised = [f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()]
        about = metadata.topics.get(topic)
        if about is None or (about.error is not None and about.error.name() != "LEADER_NOT_AVAILABLE"):
            error = about.error if about else self._kafka.KafkaError(self._kafka.KafkaError.UNKNOWN_TOPIC_OR_PART)
            raise topic_refusal(self.connection, topic, error)
        return metadata

    def _bounds(self, topic: str, partitions: Sequence[int]) -> tuple[dict[int, Bounds], list[int]]:
        """The bounds of partitions, and those that lost their leader meanwhile."""
        first, last = self._offsets(topic, partitions) if partitions else ({}, {})
        without = [p for p in partitions if first[p] is None or last[p] is None]
        return {p: Bounds(first[p] or 0, last[p] or 0) for p in partitions if p not in without}, without

    def _offsets(self, topic: str, partitions: Sequence[int]) -> tuple[Offsets, Offsets]:
        """The first and the last stable offset of each partition; waits for brokers that are just coming up."""
        started = time.monotonic()
        specs = self._kafka.admin.OffsetSpec
        while True:
            try:
                asked = [self._ask_offsets(topic, partitions, spec) for spec in (specs.earliest(), specs.latest())]
                first, last = (self._told_offsets(topic, futures) for futures in asked)
                return first, last
            except BrokerUnavailable:
                waited = time.monotonic() - started
                if waited > self.connection.timeout or (waited > GRACE and self._troubles.refused):
                    raise
                self._troubles.clear()
                self._admin = None  # it may have old partitions and leaders, and does not ask again
                time.sleep(POLL)

    def _ask_offsets(self, topic: str, partitions: Sequence[int], spec: Any) -> Mapping[Any, Any]:
        make = self._kafka.TopicPartition
        futures: Mapping[Any, Any] = self._administrator().list_offsets(
            {make(topic, p): spec for p in partitions},
            isolation_level=self._kafka.IsolationLevel.READ_COMMITTED, request_timeout=self.connection.timeout,
        )
        return futures

    def _told_offsets(self, topic: str, futures: Mapping[Any, Any]) -> Offsets:
        self._wait(futures)
        offsets: Offsets = {}
        for partition, future in futures.items():
            try:
                found = int(future.result().offset)
                if found < 0:  # how confluent-kafka shows that the leader did not answer in time
                    raise self._unanswered()
                offsets[partition.partition] = found
            except self._kafka.KafkaException as error:
                problem = error.args[0]
                if problem.name() not in ("LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION"):
                    raise self._failed(topic, problem) from None
                offsets[partition.partition] = None
        return offsets

    def _wait(self, futures: Mapping[Any, Any]) -> None:
        """Wait for answers, but not for those that cannot come, by the errors reported on the side."""
        started = time.monotonic()
        late = concurrent.futures.wait(futures.values(), ATTENTION).not_done
        while late:
            self._administrator().poll(0)
            waited = time.monotonic() - started
            if self._troubles.final or (self._troubles.refused and waited > UNREACHABLE):
                raise self._troubles.explain(self.connection, waited)
            late = concurrent.futures.wait(late, POLL).not_done

    def _unanswered(self) -> BrokerError:
        """A broker that should know did not answer in time."""
        self._administrator().poll(0)
        return self._troubles.explain(self.connection, self.connection.timeout, self._advertised)

    def _id(self, topic: str) -> str | None:
        futures = self._administrator().describe_topics(
            self._kafka.TopicCollection([topic]), request_timeout=self.connection.timeout
        )
        self._wait(futures)
        try:
            found = str(futures[topic].result().topic_id)
        except self._kafka.KafkaException as error:
            if error.args[0].name() == "_UNSUPPORTED_FEATURE":
                return None
            raise self._failed(topic, error.args[0]) from None
        return None if found == NO_ID else found

    def _failed(self, topic: str, problem: Any) -> BrokerError:
        """Why an admin request failed: mostly because a broker cannot be reached."""
        if problem.name() in ("_TIMED_OUT", "_TRANSPORT", "_DESTROY_BROKER", "_ALL_BROKERS_DOWN", "_NOENT"):
            return self._unanswered()
        return topic_refusal(self.connection, topic, problem)

    def _administrator(self) -> Any:
        if self._admin is None:
            settings = {"client.id": "ksql-lake", **self.connection.settings, "error_cb": self._troubles}
            ours = {name: value for name, value in settings.items() if name not in FORCED and name != "group.id"}
            ours["allow.auto.create.topics"] = False  # asking about a topic must not create it
            try:
                self._admin = self._kafka.admin.AdminClient(ours, logger=self._troubles.logger())
            except (self._kafka.KafkaException, TypeError, ValueError) as error:
                raise refused_settings(self.connection, error) from None
        return self._admin

