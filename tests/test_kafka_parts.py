"""A large topic read in parts, by threads and by the workers of a cluster: the same lake as in one piece."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

import metadata_utils
from ksql_lake.base.errors import BrokerUnavailable, LakeError
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.ingest.streams import parts
from ksql_lake.ingest.streams.brought import Brought, merged
from ksql_lake.ingest.streams.parts import Piece, split
from ksql_lake.model.findings import Finding
from tests.conftest import ROOT
from tests.mock_broker import MockBroker
from tests.test_cluster import scheduler, worker
from tests.test_crash import strays
from tests.test_kafka_export import START, Place

__all__ = ["scheduler"]
ROWS = 1200


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(parts, "PART_RECORDS", 100)
    with EmbeddedKsqlDB() as db, MockBroker() as kafka:
        monkeypatch.setenv("KSQLDB_URL", db.url)
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
        monkeypatch.setenv("KSQLDB_TIMEOUT", "5")
        monkeypatch.setenv("IDLE_SECONDS", "0.4")
        made = Place(db, kafka, tmp_path / "lake", 6)
        made.feed()
        yield made


def known(place: Place) -> dict[str, Any]:
    """What the lake knows of a stream, less names, times, salts and hashes."""
    state = place.state()
    ends = {name: {p: (a["offset"], a["rowtime"]) for p, a in state[name].items()} for name in ("resume", "heads")}
    kept = {name: state[name] for name in ("generation", "coverage", "total_records", "schema_version", "columns")}
    days = {part["path"]: part.get("records") for part in state["partitions"]}
    findings = sorted(one["message"] for one in state["findings"])
    return {**ends, **kept, "next": state["topic"]["next"], "days": days, "findings": findings}


def in_one_piece(place: Place, other: Path, *arguments: str, code: int = 0, **feed: object) -> dict[str, Any]:
    """The same export into another lake, by one reader; that lake is the place's afterwards."""
    place.lake = other
    place.feed(**feed)
    return place.export("kafka", "--jobs", "1", *arguments, code=code)


def intercepted(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], Brought | None]) -> None:
    """Do something instead of, or before, the reading of one part, once and when the others are read."""
    read, others, done = parts.read_part, threading.Semaphore(0), threading.Event()

    def reads(piece: Piece) -> Brought:
        assert piece.job.part is not None
        if piece.job.part.name != f"p{number}" or done.is_set():
            try:
                return read(piece)
            finally:
                others.release()
        for _ in range(3):
            assert others.acquire(timeout=30)
        done.set()
        return act() or read(piece)

    monkeypatch.setattr(parts, "read_part", reads)


def test_parts_make_the_same_lake(place: Place, tmp_path: Path) -> None:
    place.append(ROWS)
    place.db.append("EVENTS", 3, START, None)  # a record that is no row
    place.topics.publish("EVENTS")
    result = place.export("kafka", "--jobs", "4")
    assert result["rows"] == ROWS and "in 4 parts" in result["why"] and result["passed_over"] == 1
    again = place.export("kafka", "--jobs", "4")
    assert again["rows"] == 0 and "parts" not in again["why"], "with nothing new nobody is needed"
    ours, state, lake = place.rows(), known(place), place.lake
    assert len(set(result["offsets"])) == 6 and strays(lake) == []
    assert metadata_utils.main(["--lake", str(lake), "verify", "--deep"]) == 0
    theirs = in_one_piece(place, tmp_path / "other")
    assert "parts" not in theirs["why"] and theirs["passed_over"] == 1 and theirs["offsets"] == result["offsets"]
    place.export("kafka", "--jobs", "1")
    assert ours.equals(place.rows()) and known(place) == state
    assert ds.dataset(lake / "streams" / "events", format="parquet").count_rows() == ROWS


def test_runs_in_parts_and_in_one_piece_take_turns_also_over_rest(place: Place, tmp_path: Path) -> None:
    for count, (source, jobs) in enumerate([("kafka", "4"), ("rest", "4"), ("kafka", "3"), ("kafka", "1")]):
        place.append(ROWS + count)
        assert place.export(source, "--jobs", jobs)["rows"] == ROWS + count
        assert place.export(source, "--jobs", jobs)["rows"] == 0
    ours, ends = place.rows(), known(place)["resume"]
    in_one_piece(place, tmp_path / "other")
    assert ours.equals(place.rows()) and known(place)["resume"] == ends


def test_lost_metadata_come_back_from_the_footers_of_parts(place: Place) -> None:
    place.append(ROWS)
    place.export("kafka", "--jobs", "4")
    before = known(place)
    (place.lake / "streams" / "events" / "_metadata.json").unlink()
    shutil.rmtree(place.lake / ".state")
    assert metadata_utils.main(["--lake", str(place.lake), "rebuild"]) == 0
    after = place.state()
    assert {p: (a["offset"], a["rowtime"]) for p, a in after["resume"].items()} == before["resume"]
    place.append(60)
    assert place.export("kafka", "--jobs", "4")["rows"] == 60 and place.rows().num_rows == ROWS + 60


def test_checks_see_all_parts(place: Place, tmp_path: Path) -> None:
    """A value that comes twice does so in partitions of two parts; bad rows of each part are quarantined."""
    checks = [
        {"check": "unique", "columns": ["N"], "level": "warn"},
        {"check": "range", "column": "AMOUNT", "max": 11, "level": "quarantine"},
        {"check": "regex", "column": "ID", "pattern": "k[0-9]+", "level": "warn"},
    ]
    place.feed(checks=checks)
    place.append(ROWS)
    for i in range(12):  # twice, the second time in another partition
        place.db.append("EVENTS", (i + 3) % 6, START, [f"k{i}", i, Decimal("0.01"), None, None, None])
    place.topics.publish("EVENTS")
    result = place.export("kafka", "--jobs", "4", code=1)
    assert "in 4 parts" in result["why"]
    unique, quarantined, matched = result["checks"]
    assert (unique["failed"], quarantined["failed"], matched["failed"]) == (12, 99, 0)
    assert result["quarantined"] == 99 and result["rows"] == ROWS + 12 - 99
    ours, state = place.rows(), known(place)
    theirs = in_one_piece(place, tmp_path / "other", code=1, checks=checks)
    assert theirs["checks"] == result["checks"] and theirs["quarantined"] == 99
    assert ours.equals(place.rows()) and known(place) == state
    assert len(list((tmp_path / "lake" / "quarantine" / "events").glob("*.parquet"))) > 1


def test_a_check_that_fails_publishes_nothing_of_any_part(place: Place) -> None:
    place.feed(checks=[{"check": "range", "column": "AMOUNT", "max": 11, "level": "fail"}])
    place.append(ROWS)
    result = place.export("kafka", "--jobs", "4", code=1)
    assert result["rows"] == 0 and "99 of 1,200 rows are above 11" in result["messages"][0]
    assert strays(place.lake) == [] and not list(place.lake.rglob("*.parquet"))


def test_days_asked_for(place: Place, tmp_path: Path) -> None:
    place.append(ROWS)
    result = place.export("kafka", "--jobs", "4", "--date", "2025-01-16")
    assert result["rows"] == 400 and "in 4 parts" in result["why"]
    assert place.export("rest", "--date", "2025-01-16")["rows"] == 0
    days = place.state()["coverage"]
    assert place.export("kafka", "--jobs", "4")["rows"] == ROWS - 400
    assert place.rows().num_rows == ROWS and place.export("rest")["rows"] == 0
    in_one_piece(place, tmp_path / "other", "--date", "2025-01-16")
    assert place.state()["coverage"] == days


def test_a_partition_without_leader_is_told_once_and_read_by_the_next_run(place: Place) -> None:
    place.append(ROWS)
    place.kafka.leader("EVENTS", 2, -1)
    result = place.export("kafka", "--jobs", "4", code=1)
    assert "in 4 parts" in result["why"] and result["rows"] == ROWS * 5 // 6
    assert [message for message in result["messages"] if "has no leader" in message] == result["messages"]
    assert len(result["messages"]) == 1
    place.kafka.leader("EVENTS", 2, 1)  # librdkafka's mock crashes when one produces to a partition without a leader
    place.append(ROWS)
    place.kafka.leader("EVENTS", 2, -1)
    assert place.export("kafka", "--jobs", "4", code=1)["rows"] == ROWS * 5 // 6
    place.kafka.leader("EVENTS", 2, 1)
    assert place.export("kafka", "--jobs", "4")["rows"] == ROWS // 3 and place.rows().num_rows == 2 * ROWS


def test_a_topic_that_is_recreated_while_one_part_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.append(ROWS)

    def recreate() -> None:
        place.recreate()
        place.made = 0
        place.append(ROWS // 2)

    intercepted(monkeypatch, 1, recreate)
    result = place.export("kafka", "--jobs", "4", code=1)
    recreated = [message for message in result["messages"] if "recreated" in message]
    assert len(recreated) == 1 and "recreated during this run" in recreated[0]
    state, rows = place.state(), place.rows()
    assert state["generation"] == 2
    old = {path["path"] for path in state["files"] if path["generation"] == 1}
    assert old, "what the other parts had read of the old topic is kept"
    assert result["rows"] == rows.num_rows
    new = sum(file["rows"] for file in state["files"] if file["generation"] == 2)
    assert new == ROWS // 2 and 0 < rows.num_rows - new < ROWS
    assert place.export("kafka", "--jobs", "4")["rows"] == 0 and place.export("rest")["rows"] == 0
    assert metadata_utils.main(["--lake", str(place.lake), "verify", "--deep"]) == 0


def test_a_part_that_cannot_be_read_is_left_to_the_next_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.append(ROWS)
    intercepted(monkeypatch, 1, lambda: Brought(failure=BrokerUnavailable("127.0.0.1:1: cannot be reached")))
    result = place.export("kafka", "--jobs", "4", code=1)
    assert "cannot be reached; the other partitions are published" in result["messages"][0]
    assert 0 < result["rows"] < ROWS
    assert place.export("kafka", "--jobs", "4")["rows"] == ROWS - result["rows"]
    assert place.rows().num_rows == ROWS and strays(place.lake) == []


def test_a_part_that_fails_publishes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.append(ROWS)

    def fail() -> None:
        raise LakeError("a value that does not fit")

    intercepted(monkeypatch, 1, fail)
    assert "a value that does not fit" in place.export("kafka", "--jobs", "4", code=1)["messages"][0]
    assert not list(place.lake.rglob("*.parquet")) and strays(place.lake) == []
    assert place.export("kafka", "--jobs", "4")["rows"] == ROWS


def test_erasure_rules_hold_in_each_part(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import manage_feeds

    place.append(ROWS)
    place.export("kafka", "--jobs", "4")
    monkeypatch.setenv("DATA_LAKE_DIR", str(place.lake))
    assert manage_feeds.main(["erase", "--where", "ID=k5", "--later", "drop"]) == 0
    made, place.made = place.made, 0
    place.append(ROWS)
    place.made = made
    assert place.export("kafka", "--jobs", "4")["rows"] == ROWS - 1
    assert "k5" not in place.rows()["ID"].to_pylist()


def test_small_topics_are_read_in_one_piece() -> None:
    assert split({0: 100, 1: 100}, 4, 101) == []
    assert split({0: 100, 1: 100}, 4, 100) == [{0}, {1}]
    assert split({0: 1000, 1: 0}, 4, 100) == [], "nothing can be shared"
    assert split({}, 4, 100) == [] and split({0: 0}, 4, 0) == []
    assert split(dict.fromkeys(range(8), 1000), 1, 100) == []


def test_parts_are_of_about_the_same_size() -> None:
    sizes = {0: 900, 1: 100, 2: 500, 3: 400, 4: 0, 5: 300}
    groups = split(sizes, 3, 100)
    assert sorted(p for group in groups for p in group) == sorted(sizes)
    assert max(sum(sizes[p] for p in group) for group in groups) <= 900
    assert len(split(dict.fromkeys(range(100), 250), 64, 1000)) == 25, "not smaller than is worth it"


def test_what_each_part_says_of_the_whole_topic_is_said_once() -> None:
    one = Finding("drift", "the topic was recreated", feed="f", partition=0)
    parts_ = [Brought(recreated=True, findings=[one], notes=["ended"], positions={n: n}) for n in range(3)]
    found = merged("f", parts_)
    assert found.findings == [one] and found.notes == ["ended"] and found.positions == {0: 0, 1: 1, 2: 2}
    failure = BrokerUnavailable("gone")
    with pytest.raises(BrokerUnavailable):
        merged("f", [Brought(failure=failure), Brought()])


def export_by(place: Place, address: str) -> subprocess.Popen[str]:
    """An export by a cluster, in a process of its own."""
    code = (
        "import sys, export_to_data_lake; from ksql_lake.ingest.streams import parts; parts.PART_RECORDS = 100; "
        "sys.exit(export_to_data_lake.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--stream", "events", "--lake", str(place.lake), "--source", "kafka",
               "--json", "--cluster", address]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def test_the_workers_of_a_cluster_read_parts(scheduler: str, place: Place, tmp_path: Path) -> None:
    place.feed(checks=[{"check": "unique", "columns": ["N"], "level": "fail"}])
    place.append(ROWS)
    with worker(scheduler, "w1"), worker(scheduler, "w2"):
        out, error = export_by(place, scheduler).communicate(timeout=120)
        assert error == "", error
        [result] = json.loads(out)
        assert result["rows"] == ROWS and " parts" in result["why"] and result["result"] == "ok"
        out, error = export_by(place, scheduler).communicate(timeout=120)
        assert json.loads(out)[0]["rows"] == 0, error
    ours, state = place.rows(), known(place)
    assert strays(place.lake) == []
    in_one_piece(place, tmp_path / "other", checks=[{"check": "unique", "columns": ["N"], "level": "fail"}])
    place.export("kafka", "--jobs", "1")
    assert ours.equals(place.rows()) and known(place) == state


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_part(scheduler: str, place: Place) -> None:
    place.append(ROWS)
    with worker(scheduler, "w1") as first:
        place.kafka.call("broker_set_rtt", 1, 700)  # milliseconds: reading takes a while
        export = export_by(place, scheduler)
        for _ in range(2400):
            if list((place.lake / ".staging").glob("events/*/p*")):
                break
            assert export.poll() is None, export.communicate()
            time.sleep(0.05)
        first.send_signal(signal.SIGKILL)
        place.kafka.call("broker_set_rtt", 1, 0)
        with worker(scheduler, "w2"):
            out, error = export.communicate(timeout=120)
    assert (export.returncode, error) == (0, ""), error
    [result] = json.loads(out)
    assert result["rows"] == ROWS and " parts" in result["why"]
    assert place.rows().num_rows == ROWS and strays(place.lake) == []
    assert place.export("kafka", "--jobs", "4")["rows"] == 0
    assert metadata_utils.main(["--lake", str(place.lake), "verify", "--deep"]) == 0
