"""Brokers that ask who is there, on a real one: SASL, TLS, client certificates, ACLs, and each way to be refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation

from ksql_lake.base.errors import BrokerError
from ksql_lake.sources.kafka.connection import Connection
from ksql_lake.sources.kafka.topic import Broker
from tests import real_broker
from tests.real_broker import PASSWORD, RealBroker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COUNT = 500


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker]:
    with real_broker.running(tmp_path_factory.mktemp("kafka")) as broker:
        broker.create("open", 2)
        broker.create("described", 1)
        broker.user("reader")
        broker.user("stranger")
        for user in ("reader", "CN=reader"):
            broker.allow(user, "open", AclOperation.READ)  # which lets the user describe the topic too
            broker.allow(user, "described", AclOperation.DESCRIBE)
        producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        for topic in ("open", "described"):
            for i in range(COUNT):
                producer.produce(topic, b"%d" % i, partition=0)
        assert producer.flush(30) == 0
        yield broker


def settings(kafka: RealBroker, listener: str, user: str = "reader", **changed: str) -> dict[str, str]:
    """What KAFKA_CONFIG_FILE would hold for a listener; `changed` replaces settings."""
    found = {"bootstrap.servers": kafka.address(listener), "security.protocol": listener}
    if listener.startswith("SASL"):
        mechanism = "PLAIN" if listener == "SASL_PLAINTEXT" else "SCRAM-SHA-512"
        found |= {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": PASSWORD}
    if listener.endswith("SSL"):
        found["ssl.ca.location"] = str(kafka.certificates / "ca.pem")
    if listener == "SSL":
        for kind, name in (("certificate", f"{user}.pem"), ("key", f"{user}.key")):
            found[f"ssl.{kind}.location"] = str(kafka.certificates / name)
    return found | {name.replace("_", "."): value for name, value in changed.items()}


def to(settings: dict[str, str], timeout: float = 15.0) -> Connection:
    return Connection(settings, "KAFKA_CONFIG_FILE kafka.properties", timeout)


def read(connection: Connection, topic: str) -> int:
    """How many records come; raises what a run would raise."""
    with Broker(connection) as broker:
        state = broker.describe(topic)
        assert state.id is not None, "its id is told without further rights"
        reading, blocks = broker.read(topic, {p: (b.start, b.end) for p, b in state.bounds.items()}, duration=60)
        count = sum(map(len, blocks))
        if reading.stopped:
            raise reading.stopped
        return count


@pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL", "SSL"])
def test_each_kind_of_security_reads_the_topic(kafka: RealBroker, listener: str) -> None:
    assert read(to(settings(kafka, listener)), "open") == COUNT


def test_a_user_of_plain_may_also_come_by_scram(kafka: RealBroker) -> None:
    assert read(to(settings(kafka, "SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-512")), "open") == COUNT


def refused(connection: Connection, topic: str = "open", within: float = 12.0) -> str:
    """The one line that says why the topic cannot be read; it comes soon and shows no secret."""
    started = time.monotonic()
    with pytest.raises(BrokerError) as error:
        read(connection, topic)
    text = str(error.value)
    assert time.monotonic() - started < within, text
    assert "\n" not in text and PASSWORD not in text and "hidden-word" not in text, text
    return text


@pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_wrong_password(kafka: RealBroker, listener: str) -> None:
    text = refused(to(settings(kafka, listener, sasl_password="hidden-word")))
    assert f"{kafka.address(listener)}: the broker refuses these credentials (" in text
    assert "check sasl.mechanism" in text


def test_a_mechanism_that_the_broker_does_not_offer(kafka: RealBroker) -> None:
    text = refused(to(settings(kafka, "SASL_PLAINTEXT", sasl_mechanism="SCRAM-SHA-256")))
    assert "refuses these credentials (" in text and "PLAIN" in text


@pytest.mark.parametrize("listener", ["SASL_SSL", "SSL"])
def test_an_authority_that_did_not_sign_the_broker(kafka: RealBroker, listener: str) -> None:
    other = str(kafka.certificates / "other.pem")
    text = refused(to(settings(kafka, listener, ssl_ca_location=other)))
    assert f"{kafka.address(listener)}: TLS failed (" in text and "ssl.ca.location" in text


def test_a_client_certificate_that_the_broker_does_not_trust(kafka: RealBroker) -> None:
    assert "does not accept this client's certificate (" in refused(to(settings(kafka, "SSL", user="other")))


def test_without_the_client_certificate_that_is_asked_for(kafka: RealBroker) -> None:
    without = {k: v for k, v in settings(kafka, "SSL").items() if not k.startswith(("ssl.cert", "ssl.key"))}
    text = refused(to(without))
    assert "certificate (" in text and "check ssl.certificate.location and ssl.key.location" in text


@pytest.mark.parametrize(
    ("listener", "protocol"),
    [
        ("PLAINTEXT", "SSL"),
        ("SASL_PLAINTEXT", "PLAINTEXT"),
        ("SASL_SSL", "PLAINTEXT"),
        ("SASL_SSL", "SASL_PLAINTEXT"),
        ("SSL", "PLAINTEXT"),
        ("PLAINTEXT", "SASL_PLAINTEXT"),
        ("SASL_PLAINTEXT", "SASL_SSL"),
    ],
)
def test_a_security_protocol_that_the_listener_does_not_have(
    kafka: RealBroker, listener: str, protocol: str
) -> None:
    given = settings(kafka, protocol) | {"bootstrap.servers": kafka.address(listener)}
    text = refused(to(given, 30.0))
    assert kafka.address(listener) in text and "security.protocol" in text, text


def test_a_user_without_any_right(kafka: RealBroker) -> None:
    text = refused(to(settings(kafka, "SASL_PLAINTEXT", user="stranger")))
    assert text.startswith("open: this user may not read the topic; it needs the ACLs Describe and Read")


@pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL", "SSL"])
def test_a_user_who_may_only_describe(kafka: RealBroker, listener: str) -> None:
    text = refused(to(settings(kafka, listener)), "described")
    assert text.startswith("described: this user may not read the topic; it needs the ACLs Describe and Read")


def test_a_right_that_is_given_meanwhile_is_enough(kafka: RealBroker) -> None:
    kafka.create("later", 1)
    Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0}).flush(5)
    connection = to(settings(kafka, "SASL_SSL"))
    assert "later: " in refused(connection, "later")
    kafka.allow("reader", "later", AclOperation.READ)
    until = time.monotonic() + 20
    while True:
        try:
            assert read(connection, "later") == 0
            return
        except BrokerError:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_an_advertised_address_that_nobody_can_reach(kafka: RealBroker) -> None:
    lost = kafka.address("LOST")
    text = refused(to({"bootstrap.servers": lost}, 30.0))
    assert f"{lost} answers, but a broker there calls itself 127.0.0.1:9, which cannot be reached" in text


def test_a_file_of_settings_is_enough(kafka: RealBroker, tmp_path: Path) -> None:
    from ksql_lake.sources.kafka.connection import connection

    file = tmp_path / "kafka.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings(kafka, "SASL_SSL").items()))
    found = connection(None, file)
    assert found is not None and read(found, "open") == COUNT
