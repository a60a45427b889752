"""Exports from a real broker through the front door, beside the same stream over REST: what no mock broker does."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation

import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.embedded.topics import Topics
from tests import real_broker
from tests.real_broker import CLUSTER, PASSWORD, RealBroker
from tests.test_kafka_export import DAY, START, Place, ends
from tests.test_kafka_follow import count, following, offsets, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker]:
    with real_broker.running(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


class RealPlace(Place):
    """A ksqlDB beside a real broker."""

    kafka: RealBroker  # type: ignore[assignment]

    def copied(self) -> None:
        """What the ksqlDB has is in the topic already, produced otherwise."""
        topic = self.db.sources["EVENTS"].topic
        self.topics._copied = {("EVENTS", partition): offset for partition, offset in enumerate(topic.next)}

    def grow(self) -> int:
        """One more partition; returns its number."""
        added = self.db.add_partition("EVENTS")
        self.kafka.grow("EVENTS", added + 1)
        self.topics = Topics(self.db, self.kafka.bootstrap)  # whose producer knows of it
        self.copied()
        return added

    def begin(self, producer: Producer, count: int) -> list[tuple[int, int, list[object]]]:
        """Produce rows in a transaction that stays open; they are not in the ksqlDB yet."""
        rows = []
        producer.begin_transaction()
        for i in range(self.made, self.made + count):
            text = b'{"N":%d,"AMOUNT":%s,"WHERE_":{"CITY":"K\xc3\xb6ln","D":0.5},"TAGS":{}}' % (i, b"%d.25" % i)
            at = START + i * DAY // 400
            producer.produce("EVENTS", text, f"k{i}", i % 2, timestamp=at)
            row = [f"k{i}", i, Decimal(i) + Decimal("0.25"), {"CITY": "Köln", "D": Decimal("0.50")}, {}, None]
            rows.append((i % 2, at, row))
        assert producer.flush(30) == 0
        self.made += count
        return rows

    def finish(self, producer: Producer, rows: list[tuple[int, int, list[object]]], *, commit: bool = True) -> None:
        """Commit or abort the transaction; each partition in it gets a record that says so."""
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
        for partition, at, row in rows:
            self.db.append("EVENTS", partition, at, row, aborted=not commit)
        for partition in {partition for partition, _, _ in rows}:
            self.db.skip("EVENTS", partition, 1)
        self.copied()

    def equals_rest(self, other: Path) -> None:
        """The lake has what one export over REST into another lake brings."""
        ours, where, lake = self.rows(), ends(self), self.lake
        self.lake = other
        self.feed()
        self.export("rest")
        assert ours.equals(self.rows()) and ends(self) == where
        self.lake = lake


@pytest.fixture
def place(kafka: RealBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealPlace]:
    with EmbeddedKsqlDB() as db:
        db.cluster_id = CLUSTER
        monkeypatch.setenv("KSQLDB_URL", db.url)
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
        monkeypatch.setenv("KSQLDB_TIMEOUT", "15")
        monkeypatch.setenv("IDLE_SECONDS", "0.6")
        made = RealPlace(db, kafka, tmp_path / "lake")  # type: ignore[arg-type]
        made.feed()
        yield made
        kafka.delete("EVENTS")


@pytest.fixture
def producer(kafka: RealBroker) -> Producer:
    made = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": "events", "log_level": 0})
    made.init_transactions(30)
    return made


def test_transactions_committed_aborted_and_open(place: RealPlace, producer: Producer, tmp_path: Path) -> None:
    place.append(100)
    place.finish(producer, place.begin(producer, 20))
    place.finish(producer, place.begin(producer, 30), commit=False)
    result = place.export("kafka")
    assert (result["road"], result["rows"]) == ("kafka", 120)
    assert place.state()["topic"]["next"] == {"0": 77, "1": 77}, "beyond the aborted records and both marks"
    opened = place.begin(producer, 10)
    assert place.export("kafka")["rows"] == 0, "an open transaction holds the end, and keeps nobody waiting"
    place.finish(producer, opened)
    assert place.export("kafka")["rows"] == 10 and place.export("rest")["rows"] == 0
    place.finish(producer, place.begin(producer, 4))
    place.finish(producer, place.begin(producer, 6), commit=False)
    assert place.export("rest")["rows"] == 4 and place.export("kafka")["rows"] == 0
    place.equals_rest(tmp_path / "other")


@pytest.mark.parametrize("source", ["kafka", "rest"])
def test_deleted_records(place: RealPlace, source: str) -> None:
    place.append(20)
    place.export("kafka")
    place.append(40)
    place.kafka.forget("EVENTS", 0, 17)
    place.db.expire("EVENTS", 0, 17)
    result = place.export(source, code=1)
    assert "up to 7 rows of partition 0 expired before they were exported" in "\n".join(result["messages"])
    assert result["rows"] == 33
    place.kafka.forget("EVENTS", 1, 30)  # all there is
    place.db.expire("EVENTS", 1, 30)
    assert place.export("kafka")["rows"] == 0
    place.append(4)
    assert place.export("kafka")["rows"] == 4 and len(set(offsets(place))) == 57


def test_recreation_and_added_partitions(place: RealPlace, tmp_path: Path) -> None:
    place.append(20)
    place.export("kafka")
    added = place.grow()
    for i in range(5):
        place.db.append("EVENTS", added, START + i, [f"new{i}", i, None, None, None, None])
    place.append(4)
    assert place.export("kafka")["rows"] == 9 and place.export("rest")["rows"] == 0
    assert place.state()["topic"]["next"] == {"0": 12, "1": 12, "2": 5}
    place.equals_rest(tmp_path / "other")
    place.recreate()
    place.made = 0
    place.append(30)  # the same first rows, and more of them than before
    result = place.export("kafka", code=1)
    assert "the topic was recreated (it has 2 partitions now, and partition 2 was exported)" in result["messages"][0]
    assert result["rows"] == 30
    assert place.state()["generation"] == 2 and place.export("kafka")["rows"] == 0


def test_a_broker_that_is_stopped_and_started_again(place: RealPlace, tmp_path: Path) -> None:
    place.append(100)
    place.export("kafka")
    place.append(50)
    place.kafka.stop()
    try:
        result = place.export("kafka", code=1)
        assert result["rows"] == 0 and "cannot be reached" in result["messages"][0]
        result = place.export("auto")
        assert (result["road"], result["rows"]) == ("rest", 50) and "cannot be reached" in result["why"]
    finally:
        place.kafka.start()
    place.append(10)
    result = place.export("auto")
    assert (result["road"], result["rows"]) == ("kafka", 10)
    place.equals_rest(tmp_path / "other")


def secured(place: RealPlace, file: Path, user: str, password: str = PASSWORD) -> dict[str, str]:
    """Settings of an export that reaches the broker as this user, by TLS and SCRAM."""
    place.kafka.user(user)
    lines = {
        "bootstrap.servers": place.kafka.address("SASL_SSL"), "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": user, "sasl.password": password,
        "ssl.ca.location": str(place.kafka.certificates / "ca.pem"),
    }
    file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    file.chmod(0o600)
    return {"KAFKA_CONFIG_FILE": str(file), "KAFKA_BOOTSTRAP_SERVERS": ""}


def test_the_least_rights_are_enough_and_fewer_are_said(
    place: RealPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place.append(60)
    for user, operation in (("describer", AclOperation.DESCRIBE), ("exporter", AclOperation.READ)):
        place.kafka.allow(user, "EVENTS", operation)
    rights = "this user may not read the topic; it needs the ACLs Describe and Read"
    wanted = [
        ("stranger", PASSWORD, rights),
        ("describer", PASSWORD, rights),
        ("exporter", "hidden-word", "refuses these credentials"),
    ]
    for user, password, why in wanted:
        for name, value in secured(place, tmp_path / "kafka.properties", user, password).items():
            monkeypatch.setenv(name, value)
        result = place.export("kafka", code=1)
        assert result["rows"] == 0 and why in result["messages"][0] and "\n" not in result["messages"][0]
        result = place.export("auto")
        assert result["road"] == "rest" and why in result["why"]
        assert manage_feeds.main(["check", "--online"]) == 0
        assert "by REST (" in (said := capfd.readouterr().out) and why in said
    for name, value in secured(place, tmp_path / "kafka.properties", "exporter").items():
        monkeypatch.setenv(name, value)
    place.append(12)
    manage_feeds.main(["check", "--online"])
    assert "by Kafka (topic EVENTS" in capfd.readouterr().out
    result = place.export("auto")
    assert (result["road"], result["rows"]) == ("kafka", 12)
    written = [path.read_bytes() for path in place.lake.rglob("*") if path.is_file()]
    assert not any(word in text for text in written for word in (PASSWORD.encode(), b"hidden-word"))


def test_a_follower_lives_through_what_happens_to_a_cluster(
    place: RealPlace, producer: Producer, tmp_path: Path
) -> None:
    place.append(40)
    with following(place) as follower:
        wait_for(lambda: count(place) == 40, follower)
        place.finish(producer, place.begin(producer, 10))
        place.finish(producer, place.begin(producer, 10), commit=False)
        wait_for(lambda: count(place) == 50, follower)
        place.kafka.stop()
        place.kafka.start()
        place.append(20)
        wait_for(lambda: count(place) == 70, follower)
        added = place.grow()
        place.db.append("EVENTS", added, START, ["new", 1, None, None, None, None])
        place.append(1)
        wait_for(lambda: count(place) == 72, follower)
        follower.kill()
    place.equals_rest(tmp_path / "other")
    place.append(7)
    with following(place) as follower:
        wait_for(lambda: count(place) == 79, follower)
        place.recreate()
        place.made = 0
        place.append(60)
        wait_for(lambda: count(place) == 139, follower)
        assert follower.stop() == 0
        assert "the topic was recreated" in follower.said()
    assert place.state()["generation"] == 2 and place.export("kafka")["rows"] == 0
