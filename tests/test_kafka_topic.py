"""Reading a topic between exact offsets, on the broker that librdkafka carries; and each way a broker can be wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ksql_lake.base import native
from ksql_lake.base.errors import BrokerError, BrokerUnavailable, ConfigError
from ksql_lake.sources.kafka import connection as connections
from ksql_lake.sources.kafka import librdkafka
from ksql_lake.sources.kafka.connection import Connection
from ksql_lake.sources.kafka.topic import Bounds, Broker
from tests.mock_broker import MockBroker


@pytest.fixture
def kafka() -> Iterator[MockBroker]:
    with MockBroker() as broker:
        yield broker


@pytest.fixture(params=["native", "messages"])
def both_consumers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records straight out of librdkafka, and by confluent-kafka's messages where that cannot be had."""
    if request.param == "messages":
        monkeypatch.setattr("ksql_lake.sources.kafka.librdkafka.library", lambda: None)
    elif librdkafka.library() is None or native.library() is None:
        pytest.skip("the native library is not built")


def to(servers: str, timeout: float = 10.0, **settings: str) -> Connection:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return Connection({"bootstrap.servers": servers, **named}, "KAFKA_CONFIG_FILE kafka.properties", timeout)


def offsets(reader: Broker, topic: str, spans: dict[int, tuple[int, int]]) -> dict[int, list[int]]:
    reading, batches = reader.read(topic, spans)
    found: dict[int, list[int]] = {partition: [] for partition in spans}
    for batch in batches:
        for record in batch:
            found[record.partition].append(record.offset)
    assert reading.stopped is None and not reading.open and not reading.expired
    return found


def test_a_topic_tells_its_id_and_bounds(kafka: MockBroker) -> None:
    kafka.create("t", 3)
    kafka.produce("t", [b"x"] * 5, partition=1)
    kafka.call("partition_delete_records", "t", 1, 2)
    with Broker(to(kafka.bootstrap)) as reader:
        state = reader.describe("t")
        assert state.bounds == {0: Bounds(0, 0), 1: Bounds(2, 5), 2: Bounds(0, 0)}
        assert state.id and state.leaderless == () and reader.topic_id("t") == state.id
        kafka.delete("t")
        kafka.create("t", 3)
        assert reader.topic_id("t") not in (state.id, None)


def test_a_broker_that_does_not_know_topic_ids_still_tells_bounds() -> None:
    with MockBroker(controller=False) as kafka:
        kafka.create("t", 1)
        with Broker(to(kafka.bootstrap)) as reader:
            started = time.monotonic()
            assert reader.describe("t").id is None and reader.topic_id("t") is None
            assert time.monotonic() - started < 5, "nobody waits for what does not come"


@pytest.mark.usefixtures("both_consumers")
def test_exactly_what_lies_between_the_offsets_is_read(kafka: MockBroker) -> None:
    kafka.create("t", 2)
    for partition in (0, 1):
        kafka.produce("t", [b"%d" % i for i in range(30_000)], partition=partition)
    with Broker(to(kafka.bootstrap)) as reader:
        spans = {0: (29_990, 30_000), 1: (5, 25_000)}
        assert offsets(reader, "t", spans) == {0: list(range(29_990, 30_000)), 1: list(range(5, 25_000))}
        assert offsets(reader, "t", {0: (7, 8), 1: (3, 3)}) == {0: [7], 1: []}
        assert offsets(reader, "t", {}) == {}


@pytest.mark.usefixtures("both_consumers")
def test_what_is_produced_meanwhile_is_left_for_the_next_run(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.produce("t", [b"x"] * 1000)
    stop = threading.Event()

    def produce() -> None:
        while not stop.is_set():
            kafka.produce("t", [b"later"] * 50)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        with Broker(to(kafka.bootstrap)) as reader:
            goal = reader.describe("t").bounds[0].end
            assert offsets(reader, "t", {0: (0, goal)}) == {0: list(range(goal))}
    finally:
        stop.set()
        producer.join()


@pytest.mark.usefixtures("both_consumers")
def test_a_message_keeps_all_that_kafka_has_of_it(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.produce("t", [b"v", None], key=None)
    with Broker(to(kafka.bootstrap)) as reader:
        _, batches = reader.read("t", {0: (0, 2)})
        records = [record for batch in batches for record in batch]
    assert records[0] == (0, 0, 1_700_000_000_000, None, b"v", ())
    assert records[1].value is None and records[1].timestamp == 1_700_000_000_001


@pytest.mark.usefixtures("both_consumers")
def test_large_records_and_long_keys(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.produce("t", [b"x" * size for size in (900_000, 1, 0, 900_001)], key=b"k" * 90_000)
    with Broker(to(kafka.bootstrap)) as reader:
        _, blocks = reader.read("t", {0: (0, 4)}, most=3)
        records = [record for block in blocks for record in block]
    assert [len(record.value or b"") for record in records] == [900_000, 1, 0, 900_001]
    assert {record.key for record in records} == {b"k" * 90_000}


@pytest.mark.usefixtures("both_consumers")
def test_a_reading_that_was_left_early_leaves_nothing_to_the_next(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.produce("t", [b"%d" % i for i in range(5000)])
    with Broker(to(kafka.bootstrap)) as reader:
        _, blocks = reader.read("t", {0: (0, 5000)}, most=10)
        assert len(next(blocks)) <= 10
        blocks.close()
        assert offsets(reader, "t", {0: (4000, 4500)}) == {0: list(range(4000, 4500))}


@pytest.mark.usefixtures("both_consumers")
def test_records_that_vanish_while_they_are_read_are_told(kafka: MockBroker) -> None:
    kafka.create("t", 2)
    kafka.produce("t", [b"x"] * 10)
    kafka.produce("t", [b"x"] * 10, partition=1)
    kafka.call("partition_delete_records", "t", 0, 5)
    with Broker(to(kafka.bootstrap)) as reader:
        reading, batches = reader.read("t", {0: (2, 10), 1: (0, 10)})
        assert sum(map(len, batches)) == 10
        assert [(e.partition, e.offset) for e in reading.expired] == [(0, 2)]
        assert reading.stopped is None and reading.open == [0]


def test_a_partition_without_leader_is_reported_and_not_waited_for(kafka: MockBroker) -> None:
    kafka.create("t", 2)
    kafka.produce("t", [b"x"] * 3, partition=1)
    kafka.leader("t", 0, -1)
    with Broker(to(kafka.bootstrap)) as reader:
        started = time.monotonic()
        state = reader.describe("t")
        assert state.leaderless == (0,) and state.bounds == {1: Bounds(0, 3)}
        assert offsets(reader, "t", {1: (0, 3)}) == {1: [0, 1, 2]}
        assert time.monotonic() - started < 8


@pytest.mark.usefixtures("both_consumers")
def test_a_partition_that_loses_its_leader_stops_the_reading_in_bounded_time(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.produce("t", [b"x"] * 10)
    with Broker(to(kafka.bootstrap, timeout=2)) as reader:
        reading, batches = reader.read("t", {0: (0, 12)})  # two records that never come
        assert sum(map(len, batches)) == 10
        assert isinstance(reading.stopped, BrokerUnavailable)
        assert "t: partition 0 at offset 10 of 12" in str(reading.stopped)
        assert reading.positions == {0: 10}


def test_a_reading_ends_when_its_time_is_over(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.produce("t", [b"x"] * 10)
    with Broker(to(kafka.bootstrap)) as reader:
        reading, batches = reader.read("t", {0: (0, 99)}, duration=0.5)
        assert sum(map(len, batches)) == 10
        assert "the time for this run is over" in str(reading.stopped) and reading.open == [0]


@pytest.mark.usefixtures("both_consumers")
def test_a_broker_that_goes_away_and_comes_back_costs_no_record(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.produce("t", [b"x" * 50] * 40_000)
    slowly = {"queued_min_messages": "100", "fetch_message_max_bytes": "20000"}  # most is still to be fetched
    with Broker(to(kafka.bootstrap, timeout=20, **slowly)) as reader:
        reading, batches = reader.read("t", {0: (0, 40_000)}, most=100)
        seen = [record.offset for record in next(batches)]
        kafka.down()
        again = threading.Timer(1.0, kafka.up)
        again.start()
        try:
            for batch in batches:
                seen += [record.offset for record in batch]
            assert not again.is_alive(), "no record came while the broker was away"
        finally:
            again.join()
    assert reading.stopped is None and seen == list(range(40_000))


def refusal(connection: Connection, topic: str = "t") -> str:
    with pytest.raises(BrokerError) as error, Broker(connection) as reader:
        reader.describe(topic)
    text = str(error.value)
    assert "\n" not in text and "ms in state" not in text
    return text


def test_nobody_listens() -> None:
    text = refusal(to("127.0.0.1:1"))
    assert text.startswith("KAFKA_CONFIG_FILE kafka.properties: 127.0.0.1:1: cannot be reached (") and "refused" in text


def test_a_host_that_nobody_knows() -> None:
    assert "nobody.invalid:9092: no such host" in refusal(to("nobody.invalid:9092", timeout=4))


def test_something_that_is_not_kafka() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    there, _ = server.accept()
                except OSError:
                    return
                with there:
                    there.recv(100)
                    there.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert f"{address}: something answers there that is not Kafka" in refusal(to(address))
        server.shutdown(socket.SHUT_RDWR)


def test_something_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        assert f"{address} does not answer within" in refusal(to(address, timeout=2))
        assert time.monotonic() - started < 10


def test_a_topic_that_is_not_there(kafka: MockBroker) -> None:
    assert refusal(to(kafka.bootstrap), "nope").startswith(f"nope: no such topic on {kafka.bootstrap};")


def test_a_topic_that_may_not_be_read(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.call("topic_set_error", "t", 29)
    assert "may not read the topic; it needs the ACLs Describe and Read" in refusal(to(kafka.bootstrap))


def test_an_advertised_address_that_cannot_be_reached(kafka: MockBroker) -> None:
    kafka.create("t", 1)
    kafka.call("broker_set_host_port", 1, "127.0.0.1", 9)
    text = refusal(to(kafka.bootstrap, timeout=3))
    assert f"{kafka.bootstrap} answers, but a broker there calls itself 127.0.0.1:9, which cannot be reached" in text


def test_an_advertised_address_that_refuses_costs_seconds_not_timeouts(
    kafka: MockBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ksql_lake.sources.kafka.topic.UNREACHABLE", 1.0)
    kafka.create("t", 1)
    kafka.call("broker_set_host_port", 1, "127.0.0.1", 9)
    started = time.monotonic()
    assert "calls itself 127.0.0.1:9, which cannot be reached" in refusal(to(kafka.bootstrap, timeout=60))
    assert time.monotonic() - started < 30, "not the whole timeout, let alone several"


def test_a_leader_that_does_not_answer_is_not_taken_for_an_empty_partition() -> None:
    with MockBroker(controller=False) as kafka, socket.create_server(("127.0.0.1", 0)) as silent:
        kafka.create("t", 1)
        kafka.produce("t", [b"x"] * 3)
        port = silent.getsockname()[1]
        kafka.call("broker_set_host_port", 1, "127.0.0.1", port)
        text = refusal(to(kafka.bootstrap, timeout=3))
        assert f"calls itself 127.0.0.1:{port}, which cannot be reached from here (no answer within 3 s)" in text


def test_a_broker_that_hangs_up(kafka: MockBroker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    there, _ = server.accept()
                except OSError:
                    return
                there.recv(100)
                there.close()

        threading.Thread(target=hang_up, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        text = refusal(to(address, timeout=20))
        assert f"{address}: hangs up (" in text and "does it expect TLS or SASL (security.protocol)" in text
        server.shutdown(socket.SHUT_RDWR)


def test_tls_where_there_is_none(kafka: MockBroker) -> None:
    assert "TLS failed" in refusal(to(kafka.bootstrap, security_protocol="SSL"))


def test_refused_credentials_are_not_shown(kafka: MockBroker) -> None:
    settings = {"sasl.username": "reader", "sasl.password": "open sesame", "sasl.mechanism": "PLAIN",
                "security.protocol": "SASL_PLAINTEXT", "bootstrap.servers": kafka.bootstrap}
    connection = Connection(settings, "KAFKA_CONFIG_FILE kafka.properties", 5)
    text = refusal(connection)
    assert "refuses these credentials" in text and "sesame" not in text and "sesame" not in repr(connection)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no.such.thing=sesame", "no.such.thing is not a setting of librdkafka"),
        ("security.protocol=sesame", "security.protocol has a value that librdkafka does not accept"),
        ("sasl.jaas.config=sesame", "sasl.jaas.config is for Java clients"),
        ("security.protocol=SSL\nssl.ca.location=/sesame.pem", "ssl.ca.location failed"),
    ],
)
def test_settings_that_librdkafka_does_not_take(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text(f"# ours\nbootstrap.servers=127.0.0.1:1\n\n{line}\n")
    connection = connections.connection(None, file)
    assert connection is not None
    with pytest.raises(ConfigError) as error:
        with Broker(connection) as reader:
            reader.describe("t")
    assert message in str(error.value) and str(file) in str(error.value) and "sesame" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\xff", "is not UTF-8 text"),
        (b"bootstrap.servers=x:1\nsecret words", "line 2: expected name=value"),
        (b"client.id=x", "has no bootstrap.servers"),
    ],
)
def test_a_file_of_settings_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "kafka.properties"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        connections.connection(None, file)
    assert message in str(error.value) and "words" not in str(error.value)


def test_the_simple_setting_names_the_brokers_of_the_file_too(tmp_path: Path) -> None:
    file = tmp_path / "kafka.properties"
    file.write_text("client.id = me\n")
    assert connections.connection(None, None) is None
    for given in (None, file):
        connection = connections.connection("a:1,b:2", given)
        assert connection is not None and connection.servers == "a:1,b:2"
    assert connection is not None and connection.settings["client.id"] == "me"


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "confluent_kafka", None)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-kafka\.txt"):
        Broker(to("127.0.0.1:1"))
