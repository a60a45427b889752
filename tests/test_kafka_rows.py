"""Rows that come from Kafka are those that ksqlDB shows: also of records of which our decoding is not certain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.sources.kafka import asked
from tests.test_kafka_export import START, Place
from tests.test_kafka_export import place as place

UNCERTAIN = b'{"\xffID":1,"N":7}'  # whether Jackson takes <ff>ID for ID depends on what it read before


def uncertain(place: Place, *, row: bool) -> None:
    """A record that decoding here is not certain about, which ksqlDB shows as a row or skips."""
    place.db.append("EVENTS", 0, START, ["k", 7, None, None, None, None] if row else None)
    place.kafka.produce("EVENTS", [UNCERTAIN], timestamp=START)
    place.topics._copied["EVENTS", 0] = place.topics._copied.get(("EVENTS", 0), 0) + 1


def test_ksqldb_is_asked_for_a_record_that_is_not_certain(place: Place) -> None:
    place.append(100)
    uncertain(place, row=True)
    uncertain(place, row=False)
    uncertain(place, row=True)
    place.append(100)
    result = place.export("kafka")
    assert (result["road"], result["rows"], result["passed_over"]) == ("kafka", 202, 1)
    assert result["why"].endswith("3 records asked over REST")
    ours = place.rows()
    assert [n for n, p in zip(ours["N"].to_pylist(), ours["ROWPARTITION"].to_pylist(), strict=True) if p == 0] == [
        *range(0, 100, 2), 7, 7, *range(100, 200, 2)]
    assert place.export("kafka")["rows"] == 0
    place.lake = place.lake / "other"
    place.feed()
    assert place.export("rest")["rows"] == 202 and ours.equals(place.rows())


def test_an_uncertain_record_at_the_end_that_is_no_row(place: Place) -> None:
    place.append(10)
    place.export("kafka")
    uncertain(place, row=False)
    result = place.export("kafka")
    assert (result["rows"], result["passed_over"]) == (0, 1)
    assert place.state()["topic"]["next"] == {"0": 6, "1": 5}


def test_many_uncertain_records_are_better_read_over_rest(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "MOST_RECORDS", 3)
    place.append(10)
    assert place.export("auto")["road"] == "kafka"
    for number in range(5):
        uncertain(place, row=number % 2 == 0)
    place.append(4)
    assert "and there are many such records" in place.export("kafka", code=1)["messages"][0]
    result = place.export("auto")
    assert (result["road"], result["rows"]) == ("rest", 7)
    assert "the whole stream is read over REST this time" in result["why"]
    place.append(6)
    result = place.export("auto")
    assert (result["road"], result["rows"]) == ("kafka", 6), "what REST brought is not asked for again"


def test_exact_values_are_never_taken_from_rest(place: Place) -> None:
    place.feed(exact_values=True)
    place.append(10)
    place.export("kafka")
    uncertain(place, row=True)
    assert "partition 0, offset 5" in place.export("auto", code=1)["messages"][0]


def test_a_ksqldb_that_cannot_be_asked_costs_no_row(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.append(10)
    place.export("kafka")
    place.append(10)
    uncertain(place, row=True)
    place.append(10)
    monkeypatch.setenv("RETRY_SECONDS", "0.2")
    monkeypatch.setattr("ksql_lake.sources.kafka.asked.question", lambda source, places: "SELECT nonsense;")
    assert place.export("kafka", code=1)["rows"] == 0
    monkeypatch.undo()
    monkeypatch.setenv("KSQLDB_URL", place.db.url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", place.kafka.bootstrap)
    monkeypatch.setenv("IDLE_SECONDS", "0.4")
    assert place.export("kafka")["rows"] == 21
    assert json.loads(json.dumps(place.state()["topic"]["next"])) == {"0": 16, "1": 15}


@pytest.mark.parametrize("number", [0, 1000, 1999])
def test_rows_from_the_whole_of_a_topic_are_compared(place: Place, number: int) -> None:
    place.append(4000)
    with place.db.changed:
        record = place.db.sources["EVENTS"].topic.log[2 * number]
        assert record.values is not None
        record.values, record.cached = [*record.values[:1], 99, *record.values[2:]], None
    result = place.export("kafka", code=1)
    assert f"partition 0, offset {number}: column N differs from what ksqlDB shows" in result["messages"][0]


def test_a_definition_that_changed_is_compared_again(place: Place) -> None:
    place.append(10)
    assert "10 rows compared" in place.export("kafka")["why"]
    assert "compared" not in place.export("kafka")["why"]
    state = json.loads((place.lake / "streams" / "events" / "_metadata.json").read_text())
    state["topic"]["proof"] = "0" * 32
    (place.lake / "streams" / "events" / "_metadata.json").write_text(json.dumps(state))
    assert "10 rows compared" in place.export("kafka")["why"]


def test_a_kafka_of_another_cluster_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ksql_lake.sources.kafka.topic.MOCK", "no mock")
    place.append(10)
    message = place.export("kafka", code=1)["messages"][0]
    assert "is Kafka cluster mockCluster" in message and "but ksqlDB reads from cluster " in message
    result = place.export("auto")
    assert result["road"] == "rest" and "but ksqlDB reads from cluster" in result["why"]


def test_records_that_ksqldb_skips_are_shown(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.append(10)
    for _ in range(3):
        place.db.append("EVENTS", 1, START, None)
    place.topics.publish("EVENTS")
    metrics = place.lake.parent / "ksql_lake.prom"
    told = ["--stream", "events", "--lake", str(place.lake), "--metrics-file", str(metrics)]
    assert export_to_data_lake.main(told) == 0
    assert 'ksql_lake_skipped_records{feed="events",type="stream"} 3' in metrics.read_text()
    assert "rows compared with ksqlDB's, 3 records skipped by ksqlDB)" in capsys.readouterr().out
    assert metadata_utils.main(["--report", "--lake", str(place.lake)]) == 0
    assert "records that ksqlDB skipped, in the last run from Kafka: events 3" in capsys.readouterr().out
    [run] = [json.loads(line) for line in (place.lake / "logs" / "runs.jsonl").read_text().splitlines()]
    assert run["passed_over"] == 3
    written = "".join(path.read_text() for path in (place.lake / "logs").glob("*.log"))
    assert "partition 1: ksqlDB skips 3 records, the first at offset 5 (no value: a deletion)" in written


REFUSED = {
    "wrong servers": "127.0.0.1:1: cannot be reached",
    "no rights": ": this user may not read the topic; it needs the ACLs Describe and Read",
    "advertised": "a broker there calls itself 127.0.0.1:9, which cannot be reached from here",
    "no topic": ": no such topic on",
    "not the library": "is not a setting of librdkafka",
    "format": "VALUE_FORMAT AVRO is not read from a topic yet",
}


SLOWLY = {"advertised", "wrong servers"}  # each takes several seconds, three times


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.slow] * (c in SLOWLY)) for c in REFUSED])
def test_why_a_stream_cannot_come_from_kafka_is_told_beforehand_and_afterwards(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("KSQLDB_TIMEOUT", "3")
    place.append(10)
    if case == "wrong servers":
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    elif case == "no rights":
        place.kafka.call("topic_set_error", "EVENTS", 29)
    elif case == "advertised":
        place.kafka.call("broker_set_host_port", 1, "127.0.0.1", 9)
    elif case == "no topic":
        place.kafka.delete("EVENTS")
    elif case == "not the library":
        (tmp_path / "kafka.properties").write_text("sasl.user=x\n")
        monkeypatch.setenv("KAFKA_CONFIG_FILE", str(tmp_path / "kafka.properties"))
    else:
        source = place.db.sources["EVENTS"]
        told = {**source.description(True), "valueFormat": "AVRO"}
        monkeypatch.setattr(type(source), "description", lambda self, extended: told)
    assert manage_feeds.main(["check", "--online"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("events:")]
    assert "; by REST (" in line and REFUSED[case] in line
    result = place.export("auto")
    assert (result["road"], result["rows"]) == ("rest", 10) and REFUSED[case] in result["why"]
    message = place.export("kafka", code=1)["messages"][0]
    assert REFUSED[case] in message and "\n" not in message
