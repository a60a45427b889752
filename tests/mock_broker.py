"""A Kafka broker inside this process: librdkafka's mock cluster, with what its Python binding does not show."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import confluent_kafka
from confluent_kafka import Producer

HANDLE = 16  # bytes of a Python object before its rd_kafka_t


def _library() -> ctypes.CDLL:
    [path] = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*")
    return ctypes.CDLL(str(path))


class MockBroker:
    """One broker; topics are made with the partitions that a test wants.

    Attributes:
        bootstrap: host:port.
    """

    def __init__(self, *, controller: bool = True) -> None:
        self._producer = Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 0, "linger.ms": 0}
        )
        [broker] = self._producer.list_topics(timeout=10).brokers.values()
        self.bootstrap = f"{broker.host}:{broker.port}"
        self._library = _library()
        handle = ctypes.c_void_p.from_address(id(self._producer) + HANDLE)
        function = self._library.rd_kafka_handle_mock_cluster
        function.restype = ctypes.c_void_p
        self._cluster: ctypes.c_void_p | None = ctypes.c_void_p(function(handle))
        assert self._cluster
        if controller:
            self.call("set_controller_id", 1)

    def __enter__(self) -> MockBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._producer.flush(5)
        self._cluster = None
        del self._producer

    def call(self, name: str, *arguments: object) -> int:
        """A function rd_kafka_mock_<name>(cluster, ...) of librdkafka."""
        if self._cluster is None:
            raise RuntimeError("the broker is closed: librdkafka would crash")
        native = [a.encode() if isinstance(a, str) else a for a in arguments]
        return int(getattr(self._library, f"rd_kafka_mock_{name}")(self._cluster, *native))

    def create(self, topic: str, partitions: int = 1) -> None:
        assert self.call("topic_create", topic, partitions, 1) == 0

    def delete(self, topic: str) -> None:
        assert self.call("topic_delete", topic) == 0

    def leader(self, topic: str, partition: int, broker: int) -> None:
        """Make a broker (1), or nobody (-1), the leader of a partition."""
        assert self.call("partition_set_leader", topic, partition, broker) == 0

    def produce(
        self, topic: str, values: Iterable[bytes | None], *, partition: int = 0, timestamp: int = 1_700_000_000_000,
        key: bytes | None = b"k",
    ) -> None:
        """Produce values one after the other, a millisecond apart."""
        failed: list[object] = []
        for i, value in enumerate(values):
            while True:
                try:
                    self._producer.produce(
                        topic, value, key, partition, timestamp=timestamp + i,
                        on_delivery=lambda error, _: failed.append(error) if error else None,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        assert self._producer.flush(20) == 0 and not failed, failed[:3]

    def down(self) -> None:
        self.call("broker_set_down", 1)

    def up(self) -> None:
        self.call("broker_set_up", 1)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)
