"""Reads records from librdkafka without a Python object for each: through its C interface, copied by native.c.

confluent-kafka includes librdkafka; here it is called directly, as its public header declares it, with a consumer of
our own. Where something is missing (native.c is not built, another librdkafka), `consumer.MessageConsumer` is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from ctypes import c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import Any

import numpy as np

from ksql_lake.base import native
from ksql_lake.sources.kafka.block import Array, Block
from ksql_lake.sources.kafka.consumer import POLL, Event, Taken

CONSUMER = 1  # rd_kafka_type_t
ROOM, KEY_ROOM, EVENTS = 4 << 20, 1 << 20, 64  # bytes, bytes, and how many in one go
_ERROR = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_void_p)
_FUNCTIONS: tuple[tuple[str, Any, list[Any]], ...] = (
    ("version", c_int, []),
    ("conf_new", c_void_p, []),
    ("conf_destroy", None, [c_void_p]),
    ("conf_set", c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    ("conf_set_error_cb", None, [c_void_p, _ERROR]),
    ("conf_set_log_cb", None, [c_void_p, c_void_p]),
    ("new", c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    ("poll_set_consumer", c_int, [c_void_p]),
    ("queue_get_consumer", c_void_p, [c_void_p]),
    ("queue_destroy", None, [c_void_p]),
    ("consumer_close", c_int, [c_void_p]),
    ("destroy", None, [c_void_p]),
    ("assign", c_int, [c_void_p, c_void_p]),
    ("pause_partitions", c_int, [c_void_p, c_void_p]),
    ("resume_partitions", c_int, [c_void_p, c_void_p]),
    ("topic_partition_list_new", c_void_p, [c_int]),
    ("topic_partition_list_add", c_void_p, [c_void_p, c_char_p, c_int32]),
    ("topic_partition_list_set_offset", c_int, [c_void_p, c_char_p, c_int32, c_int64]),
    ("topic_partition_list_destroy", None, [c_void_p]),
    ("consume_batch_queue", None, []),  # these three are for native.c
    ("message_timestamp", None, []),
    ("message_destroy", None, []),
)


class Refused(Exception):
    """librdkafka does not accept a setting; the text is its own."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The librdkafka that confluent-kafka uses: its symbols are found through the extension that is linked with it."""
    try:
        import confluent_kafka.cimpl

        found = ctypes.CDLL(confluent_kafka.cimpl.__file__)
        for name, result, arguments in _FUNCTIONS:
            function = getattr(found, f"rd_kafka_{name}")
            function.restype, function.argtypes = result, arguments
    except (ImportError, OSError, AttributeError):
        return None
    return found if found.rd_kafka_version() >> 24 == 2 else None


class NativeConsumer:
    """A `Consumer` that copies records into arrays.

    Args:
        settings: librdkafka's properties.
        report: called with a KafkaError for each error that is reported in the background, while records are read.

    Raises:
        Refused: librdkafka does not take the settings.
    """

    def __init__(self, settings: Mapping[str, object], report: Callable[[Any], None]) -> None:
        from confluent_kafka import KafkaError

        found, mine = library(), native.library()
        assert found is not None and mine is not None
        self._kafka, self._native, self._error = found, mine, KafkaError
        # Kept as long as the consumer: librdkafka has only its address.
        self._callback = _ERROR(lambda _, code, text, __: report(self._problem(code, text or b"")))
        self._handle = self._open(settings)
        found.rd_kafka_poll_set_consumer(self._handle)
        self._queue = found.rd_kafka_queue_get_consumer(self._handle)
        address = [ctypes.cast(getattr(found, f"rd_kafka_{name}"), c_void_p) for name, *_ in _FUNCTIONS[-3:]]
        self._fetch = mine.ksql_fetch_new(*address, self._queue)
        if not self._fetch:
            raise MemoryError("no memory to read from Kafka")
        self._topic, self._partitions = b"", np.empty(0, np.int64)
        self._goals = self._positions = np.empty(0, np.int64)
        self._room, self._key_room = ROOM, KEY_ROOM
        self._events = (native.Event * EVENTS)()

    def _open(self, settings: Mapping[str, object]) -> int:
        kafka, text = self._kafka, ctypes.create_string_buffer(512)
        conf = kafka.rd_kafka_conf_new()
        for name, value in settings.items():
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            if kafka.rd_kafka_conf_set(conf, name.encode(), shown.encode(), text, len(text)):
                kafka.rd_kafka_conf_destroy(conf)
                raise Refused(text.value.decode("utf-8", "replace"))
        kafka.rd_kafka_conf_set_error_cb(conf, self._callback)
        kafka.rd_kafka_conf_set_log_cb(conf, None)
        handle = kafka.rd_kafka_new(CONSUMER, conf, text, len(text))
        if not handle:
            kafka.rd_kafka_conf_destroy(conf)
            raise Refused(text.value.decode("utf-8", "replace"))
        return int(handle)

    def _problem(self, code: int, text: bytes) -> Any:
        return self._error(code, text.decode("utf-8", "replace") or None)

    def begin(self, topic: str, spans: Mapping[int, tuple[int, int]]) -> None:
        self._native.ksql_fetch_clear(self._fetch)
        self._topic, self._partitions = topic.encode(), np.array(sorted(spans), np.int64)
        count = max(spans, default=-1) + 1
        self._goals, self._positions = np.zeros(count, np.int64), np.zeros(count, np.int64)
        for partition, (first, goal) in spans.items():
            self._positions[partition], self._goals[partition] = first, goal
        with self._list(spans) as wanted:
            for partition, (first, _) in spans.items():
                self._kafka.rd_kafka_topic_partition_list_set_offset(wanted, self._topic, partition, first)
            self._kafka.rd_kafka_assign(self._handle, wanted)
            self._kafka.rd_kafka_resume_partitions(self._handle, wanted)  # one paused by an earlier reading stays so

    def take(self, most: int) -> Taken:
        while True:
            arrays = _arrays(most, self._room, self._key_room)
            room = self._room_of(arrays, most)
            self._native.ksql_fetch(self._fetch, int(POLL * 1000), room)
            if not room.needed or room.event_count:
                break
            self._room = max(self._room, room.needed)  # for one large record
            self._key_room = max(self._key_room, room.key_needed)
        events = tuple(
            Event(self._problem(one.error, one.text), one.partition, one.offset)
            for one in self._events[: room.event_count]
        )
        positions = dict(zip(self._partitions.tolist(), self._positions[self._partitions].tolist(), strict=True))
        return Taken(_block(arrays, room) if room.count else None, positions, events, bool(room.heard))

    def _room_of(self, arrays: dict[str, Array], most: int) -> native.Room:
        room = native.Room(
            room=len(arrays["values"]), key_room=len(arrays["keys"]), most=most, partition_count=len(self._goals),
            goals=self._goals.ctypes.data, positions=self._positions.ctypes.data,
            events=ctypes.addressof(self._events), event_room=EVENTS,
        )
        for name, array in arrays.items():
            setattr(room, name, array.ctypes.data)
        return room

    def leave(self, partitions: Collection[int]) -> None:
        with self._list(partitions) as finished:
            self._kafka.rd_kafka_pause_partitions(self._handle, finished)

    def end(self) -> None:
        if not self._handle:  # a reading that is forgotten ends after its connection
            return
        self._kafka.rd_kafka_assign(self._handle, None)
        self._native.ksql_fetch_clear(self._fetch)

    def close(self) -> None:
        handle, self._handle = self._handle, 0
        if handle:
            self._native.ksql_fetch_free(self._fetch)
            self._kafka.rd_kafka_queue_destroy(self._queue)
            self._kafka.rd_kafka_consumer_close(handle)
            self._kafka.rd_kafka_destroy(handle)

    @contextlib.contextmanager
    def _list(self, partitions: Collection[int]) -> Iterator[int]:
        made = self._kafka.rd_kafka_topic_partition_list_new(len(partitions))
        try:
            for partition in partitions:
                self._kafka.rd_kafka_topic_partition_list_add(made, self._topic, partition)
            yield made
        finally:
            self._kafka.rd_kafka_topic_partition_list_destroy(made)


def _arrays(most: int, room: int, key_room: int) -> dict[str, Array]:
    """Room for the records of one call, by the names in `native.Room`."""
    return {
        "values": np.empty(room, np.uint8), "keys": np.empty(key_room, np.uint8),
        "ends": np.empty(most, np.int64), "key_ends": np.empty(most, np.int64), "offsets": np.empty(most, np.int64),
        "times": np.empty(most, np.int64), "partitions": np.empty(most, np.int32), "absent": np.empty(most, np.uint8),
    }


def _block(arrays: dict[str, Array], room: native.Room) -> Block:
    count = room.count

    def kept(name: str) -> Array:
        """These become columns: a few rows must not keep all the room alive while they wait to be written."""
        part = arrays[name][:count]
        return part.copy() if 2 * count < len(arrays[name]) else part

    return Block(
        arrays["values"][: room.size], arrays["ends"][:count], arrays["keys"][: room.key_size],
        arrays["key_ends"][:count], kept("partitions"), kept("offsets"), kept("times"), arrays["absent"][:count],
    )
