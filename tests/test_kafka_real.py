"""What the mock broker cannot show, on a real one: transactions, deleted records, recreation, restarts. Marked slow."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from ksql_lake.sources.kafka.connection import Connection
from ksql_lake.sources.kafka.topic import Bounds, Broker
from tests import real_broker
from tests.real_broker import RealBroker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker]:
    with real_broker.running(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def reader(kafka: RealBroker) -> Broker:
    return Broker(Connection({"bootstrap.servers": kafka.bootstrap}, timeout=30))


def offsets(broker: Broker, topic: str, spans: dict[int, tuple[int, int]]) -> dict[int, list[int]]:
    reading, batches = broker.read(topic, spans, duration=60)
    found: dict[int, list[int]] = {partition: [] for partition in spans}
    for batch in batches:
        for record in batch:
            found[record.partition].append(record.offset)
    assert reading.stopped is None and not reading.open and not reading.expired
    return found


def produce(kafka: RealBroker, topic: str, count: int, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for i in range(count):
        producer.produce(topic, b"%d" % i, partition=partition)
    assert producer.flush(30) == 0


def test_aborted_and_open_transactions(kafka: RealBroker) -> None:
    kafka.create("tx", 1)
    settings = {"bootstrap.servers": kafka.bootstrap, "transactional.id": "t", "log_level": 0}
    producer = Producer(settings)
    producer.init_transactions(30)

    def transaction(count: int) -> None:
        producer.begin_transaction()
        for i in range(count):
            producer.produce("tx", b"%d" % i, partition=0)
        producer.flush(30)

    transaction(5)
    producer.commit_transaction(30)  # 0-4, its mark at 5
    transaction(3)
    producer.abort_transaction(30)  # 6-8, its mark at 9
    transaction(2)
    producer.commit_transaction(30)  # 10-11, its mark at 12
    with reader(kafka) as broker:
        time.sleep(0.5)
        assert broker.describe("tx").bounds == {0: Bounds(0, 13)}
        started = time.monotonic()
        assert offsets(broker, "tx", {0: (0, 13)}) == {0: [0, 1, 2, 3, 4, 10, 11]}
        assert offsets(broker, "tx", {0: (12, 13)}) == {0: []}, "a control record keeps nobody waiting"
        assert time.monotonic() - started < 20
        transaction(4)  # stays open
        plain = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
        plain.produce("tx", b"later", partition=0)
        plain.flush(30)
        assert broker.describe("tx").bounds == {0: Bounds(0, 13)}, "an open transaction holds the end"
        producer.commit_transaction(30)
        time.sleep(0.5)
        end = broker.describe("tx").bounds[0].end
        assert offsets(broker, "tx", {0: (13, end)}) == {0: [13, 14, 15, 16, 17]}


def test_deleted_records_and_added_partitions(kafka: RealBroker) -> None:
    kafka.create("deleted", 1)
    produce(kafka, "deleted", 20)
    with reader(kafka) as broker:
        before = broker.describe("deleted")
        kafka.forget("deleted", 0, 7)
        kafka.grow("deleted", 3)
        state = broker.describe("deleted")
        assert state.bounds == {0: Bounds(7, 20), 1: Bounds(0, 0), 2: Bounds(0, 0)} and state.id == before.id
        assert offsets(broker, "deleted", {0: (7, 20), 1: (0, 0)})[0] == list(range(7, 20))
        reading, batches = broker.read("deleted", {0: (3, 20)}, duration=30)
        assert sum(map(len, batches)) == 0 and [e.offset for e in reading.expired] == [3]


def test_a_recreated_topic_has_another_id(kafka: RealBroker) -> None:
    kafka.create("again", 1)
    produce(kafka, "again", 5)
    with reader(kafka) as broker:
        first = broker.describe("again")
        kafka.delete("again")
        kafka.create("again", 1)
        produce(kafka, "again", 5)
        second = broker.describe("again")
        assert first.bounds == second.bounds and first.id and second.id and first.id != second.id


def test_compaction_holes(kafka: RealBroker) -> None:
    config = {"cleanup_policy": "compact", "segment_ms": "100", "min_cleanable_dirty_ratio": "0.01",
              "min_compaction_lag_ms": "0", "max_compaction_lag_ms": "100"}
    kafka.create("compacted", 1, **config)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for i in range(50):
        producer.produce("compacted", b"%d" % i, b"k%d" % (i % 5), partition=0)
        producer.flush(10)
        time.sleep(0.3 if i % 10 == 0 else 0)  # a segment is over, which may be compacted
    with reader(kafka) as broker:
        until = time.monotonic() + 60
        while len(found := offsets(broker, "compacted", {0: (0, 50)})[0]) > 20:
            assert time.monotonic() < until, "the broker does not compact"
            time.sleep(0.5)
        assert found[-1] == 49 and found == sorted(set(found)), "holes keep nobody waiting"
        assert offsets(broker, "compacted", {0: (found[0] + 1, 50)})[0] == found[1:]


def test_a_broker_that_restarts(kafka: RealBroker) -> None:
    kafka.create("restart", 1)
    produce(kafka, "restart", 1000)
    with reader(kafka) as broker:
        first = broker.describe("restart")
        kafka.stop()
        kafka.start()
        assert broker.describe("restart") == first
        assert offsets(broker, "restart", {0: (0, 1000)}) == {0: list(range(1000))}
