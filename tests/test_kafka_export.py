"""Streams exported from their topics through the front door, alone and in turns with REST: the same lake either way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.embedded.topics import Topics
from tests.mock_broker import MockBroker

COLUMNS = "`ID` STRING KEY, `N` BIGINT, `AMOUNT` DECIMAL(12, 2), `WHERE_` STRUCT<`CITY` STRING, `D` DECIMAL(6, 2)>, " \
          "`TAGS` MAP<STRING, STRING>, `AT_` TIME"
START = 1_736_899_200_000  # 2025-01-15
DAY = 86_400_000


class Place:
    """A ksqlDB, the Kafka behind it, and a lake."""

    def __init__(self, db: EmbeddedKsqlDB, kafka: MockBroker, lake: Path, partitions: int = 2) -> None:
        self.db, self.kafka, self.lake, self.partitions = db, kafka, lake, partitions
        self.kafka.create("EVENTS", partitions)
        self.db.create_stream("EVENTS", COLUMNS, partitions)
        self.topics = Topics(db, kafka.bootstrap)
        self.made = 0

    def append(self, count: int) -> None:
        for i in range(self.made, self.made + count):
            row = [f"k{i}", i, Decimal(i).scaleb(-2), {"CITY": "Köln", "D": Decimal(i % 100).scaleb(-2)},
                   {"a": "1", "b": str(i)}, None]
            self.db.append("EVENTS", i % self.partitions, START + i * DAY // 400, row)
        self.made += count
        self.topics.publish("EVENTS")

    def recreate(self) -> None:
        self.db.recreate("EVENTS")
        self.kafka.delete("EVENTS")
        self.kafka.create("EVENTS", self.partitions)
        self.topics = Topics(self.db, self.kafka.bootstrap)

    def feed(self, **keys: object) -> None:
        path = self.lake / "feeds" / "active" / "events.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"feed_name": "events", "feed_type": "stream", "ksqldb_source": "EVENTS", **keys}
        path.write_text(json.dumps(about))

    def export(self, source: str, *more: str, code: int = 0) -> dict[str, Any]:
        arguments = ["--stream", "events", "--lake", str(self.lake), "--source", source, "--json", *more]
        out = _main(arguments)
        assert out[0] == code, out
        return dict(json.loads(out[1])[0])

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.lake / "streams" / "events" / "_metadata.json").read_text()))

    def rows(self) -> pa.Table:
        return rows_of(self.lake)


def rows_of(lake: Path) -> pa.Table:
    files = sorted((lake / "streams" / "events").rglob("year=*/**/*.parquet"))
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return pa.concat_tables(tables).sort_by([("ROWPARTITION", "ascending"), ("ROWOFFSET", "ascending")])


def _main(arguments: list[str]) -> tuple[int, str]:
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = export_to_data_lake.main(arguments)
    return code, out.getvalue()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with EmbeddedKsqlDB() as db, MockBroker() as kafka:
        monkeypatch.setenv("KSQLDB_URL", db.url)
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
        monkeypatch.setenv("KSQLDB_TIMEOUT", "5")
        monkeypatch.setenv("IDLE_SECONDS", "0.4")
        made = Place(db, kafka, tmp_path / "lake")
        made.feed()
        yield made


def test_both_roads_bring_the_same_rows(place: Place, tmp_path: Path) -> None:
    place.append(1000)
    result = place.export("kafka")
    assert (result["road"], result["rows"]) == ("kafka", 1000) and "rows compared" in result["why"]
    ours = place.rows()
    again = place.export("auto")
    assert (again["road"], again["rows"], again["why"]) == ("kafka", 0, "topic EVENTS")
    place.lake = tmp_path / "other"
    place.feed()
    assert place.export("rest")["road"] == "rest"
    theirs = place.rows()
    assert ours.schema.equals(theirs.schema) and ours.equals(theirs)


def ends(place: Place) -> dict[str, tuple[int, int]]:
    return {p: (anchor["offset"], anchor["rowtime"]) for p, anchor in place.state()["resume"].items()}


@pytest.mark.parametrize("order", ["kafka rest kafka rest", "rest kafka rest kafka kafka rest", "auto rest rest auto"])
def test_roads_take_turns_on_one_lake(place: Place, order: str, tmp_path: Path) -> None:
    for number, source in enumerate(order.split()):
        place.append(300 + number)
        assert place.export(source)["rows"] == 300 + number
        assert place.export(source)["rows"] == 0
    mixed = place.rows()
    resume = ends(place)
    place.lake = tmp_path / "other"
    place.feed()
    place.export("rest")
    assert mixed.equals(place.rows()) and ends(place) == resume


def test_the_topic_and_where_it_was_left_are_remembered(place: Place) -> None:
    place.append(10)
    place.export("kafka")
    topic = place.state()["topic"]
    assert topic["generation"] == 1 and topic["id"] and topic["next"] == {"0": 5, "1": 5} and topic["proof"]
    place.db.append("EVENTS", 0, START, None)  # a record that is no row
    place.topics.publish("EVENTS")
    result = place.export("kafka")
    assert (result["rows"], result["passed_over"]) == (0, 1)
    assert place.state()["topic"]["next"] == {"0": 6, "1": 5} and place.state()["resume"]["0"]["offset"] == 4
    assert place.export("kafka")["passed_over"] == 0, "it is not read again"


@pytest.mark.parametrize("again", ["kafka", "rest"])
def test_a_recreated_topic_is_told_by_its_id_even_with_the_same_first_rows(place: Place, again: str) -> None:
    place.append(20)
    place.export("kafka")
    place.recreate()
    place.made = 0
    place.append(30)
    result = place.export("kafka", code=1)
    assert "the topic was recreated (Kafka gives it a different id)" in result["messages"][0]
    assert result["rows"] == 30 and place.state()["generation"] == 2 and place.rows().num_rows == 50
    assert place.state()["topic"]["generation"] == 2
    place.append(5)
    assert place.export(again)["rows"] == 5


def test_a_recreated_topic_that_is_shorter_than_it_was(place: Place) -> None:
    place.append(40)
    place.export("kafka")
    place.recreate()
    place.made = 0
    place.append(6)
    result = place.export("kafka", code=1)
    assert "the topic was recreated (Kafka gives it a different id)" in result["messages"][0]
    assert result["rows"] == 6 and place.state()["generation"] == 2 and place.export("kafka")["rows"] == 0


def test_a_lake_by_rest_over_a_topic_that_was_recreated_since(place: Place) -> None:
    place.append(20)
    place.export("rest")
    place.recreate()
    place.append(20)
    result = place.export("kafka", code=1)
    assert result["rows"] == 20 and place.state()["generation"] == 2


def test_expired_rows_are_counted_exactly(place: Place) -> None:
    place.append(20)
    place.export("kafka")
    place.append(40)
    place.kafka.call("partition_delete_records", "EVENTS", 0, 17)
    place.db.expire("EVENTS", 0, 17)
    result = place.export("kafka", code=1)
    assert "up to 7 rows of partition 0 expired before they were exported" in result["messages"][0]
    assert result["rows"] == 33
    assert place.export("kafka")["rows"] == 0


def test_expired_records_that_were_no_rows_are_not_missed(place: Place) -> None:
    place.append(20)
    for _ in range(5):
        place.db.append("EVENTS", 0, START, None)
    place.topics.publish("EVENTS")
    place.export("kafka")
    place.kafka.call("partition_delete_records", "EVENTS", 0, 15)
    place.db.expire("EVENTS", 0, 15)
    assert place.export("kafka")["findings"] == []


def test_days_asked_for_are_not_taken_twice(place: Place) -> None:
    place.append(1000)
    assert place.export("kafka", "--date", "2025-01-16")["rows"] == 400
    assert place.export("rest", "--date", "2025-01-16")["rows"] == 0
    assert place.export("kafka")["rows"] == 600
    assert place.export("rest")["rows"] == 0 and place.rows().num_rows == 1000


def test_a_partition_without_leader_holds_no_other_up(place: Place) -> None:
    place.append(100)
    place.kafka.leader("EVENTS", 1, -1)
    result = place.export("kafka", code=1)
    assert "partition 1 has no leader at the moment" in "\n".join(result["messages"]) and result["rows"] == 50
    place.kafka.leader("EVENTS", 1, 1)
    assert place.export("kafka")["rows"] == 50


def test_values_that_the_server_reads_otherwise_refuse_the_road(place: Place) -> None:
    place.append(50)
    place.db.append_text("EVENTS", 0, START, '"k","another"')  # what Kafka has there is a deletion
    with place.db.changed:
        record = place.db.sources["EVENTS"].topic.log[7]
        assert record.values is not None
        record.values, record.cached = [*record.values[:1], 99, *record.values[2:]], None
    place.db.sources["EVENTS"].topic.log.pop()
    result = place.export("auto", code=1)
    assert result["road"] == "rest" and result["rows"] == 50
    message = result["messages"][0]
    assert "partition 1, offset 3: column N differs from what ksqlDB shows; the stream is read over REST" in message
    assert "column N differs" in place.export("kafka", code=1)["messages"][0]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, "KAFKA_BOOTSTRAP_SERVERS and KAFKA_CONFIG_FILE are not set"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, "127.0.0.1:1: cannot be reached"),
    ],
)
def test_without_kafka_the_rows_come_by_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], why: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    place.append(10)
    result = place.export("auto")
    assert (result["road"], result["rows"]) == ("rest", 10) and why in result["why"]
    assert why in place.export("kafka", code=1)["messages"][0]


def test_a_feed_says_which_road_it_takes(place: Place) -> None:
    place.append(10)
    place.feed(read_from="rest")
    code, out = _main(["--stream", "events", "--lake", str(place.lake)])
    assert code == 0 and "by REST (read_from is rest)" in out
    place.append(10)
    place.feed(read_from="kafka")
    code, out = _main(["--stream", "events", "--lake", str(place.lake)])
    assert code == 0 and "by Kafka (topic EVENTS" in out


@pytest.mark.parametrize(("source", "exact"), [("kafka", False), ("auto", True)])
def test_a_topic_without_records_needs_no_comparison_yet(place: Place, source: str, exact: bool) -> None:
    place.feed(exact_values=exact)
    result = place.export(source)
    assert (result["road"], result["rows"], result["messages"]) == ("kafka", 0, [])
    assert place.state().get("topic", {}).get("proof") is None, "nothing was compared"
    place.append(10)
    result = place.export(source)
    assert result["rows"] == 10 and "10 rows compared" in result["why"] and place.state()["topic"]["proof"]
    place.kafka.call("partition_delete_records", "EVENTS", 0, 5)
    place.kafka.call("partition_delete_records", "EVENTS", 1, 5)
    assert place.export(source)["rows"] == 0


def test_an_empty_topic_is_left_to_rest_where_that_will_do(place: Place) -> None:
    assert place.export("auto")["road"] == "rest", "it may belong to another cluster"


def test_exact_values_are_for_the_first_export_on(place: Place) -> None:
    place.append(10)
    place.export("kafka")
    place.feed(exact_values=True)
    assert "exact_values was false at the first export and is now true" in place.export("kafka", code=1)["messages"][0]


def test_exact_values_keep_what_rest_loses(place: Place) -> None:
    import datetime as dt

    place.feed(exact_values=True)
    place.db.append("EVENTS", 0, START, ["k", 1, None, None, None, dt.time(1, 2, 3, 456_000)])
    place.topics.publish("EVENTS")
    assert place.export("auto")["road"] == "kafka"
    assert place.rows()["AT_"].to_pylist() == [dt.time(1, 2, 3, 456_000)]
    os.environ["KAFKA_BOOTSTRAP_SERVERS"] = ""
    assert "are not set" in place.export("auto", code=1)["messages"][0], "REST would lose it"


def test_a_broker_that_is_gone_costs_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
    place.append(100)
    place.export("kafka")
    place.append(100)
    place.kafka.down()
    result = place.export("kafka", code=1)
    assert result["rows"] == 0 and "cannot be reached" in result["messages"][0]
    result = place.export("auto")
    assert (result["road"], result["rows"]) == ("rest", 100) and "cannot be reached" in result["why"]
    place.kafka.up()
    place.append(10)
    assert place.export("kafka")["rows"] == 10


def test_check_online_says_the_road_beforehand(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.append(10)
    assert manage_feeds.main(["check", "--online"]) == 0
    assert "by Kafka (topic EVENTS, 10 rows compared with ksqlDB's)" in capsys.readouterr().out
    place.feed(read_from="rest")
    manage_feeds.main(["check", "--online"])
    assert "by REST (read_from is rest)" in capsys.readouterr().out


def test_progress_goes_by_the_known_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from ksql_lake.cli.progress import Counted

    shares: list[float] = []
    monkeypatch.setattr(Counted, "reached", lambda counted, share: shares.append(share))
    place.append(400)
    place.export("kafka")
    assert shares and shares == sorted(shares) and shares[-1] == 1.0 and all(0 <= share <= 1 for share in shares)
    shares.clear()
    place.append(10)
    place.export("rest")
    assert shares == [], "a push query has no end"
    assert place.export("kafka")["rows"] == 0 and set(shares) <= {1.0}
