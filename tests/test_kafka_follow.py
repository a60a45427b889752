"""Following, as a service does: batches from Kafka and over REST, kills, restarts, other commands in between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.proxies import ForgetfulProxy
from tests.test_kafka_export import Place, place, rows_of

assert place


class Follower:
    """The script, following one feed of a place, in a process of its own."""

    def __init__(self, place: Place, *arguments: str, **environment: str) -> None:
        command = [sys.executable, str(ROOT / "export_to_data_lake.py"), "--follow", "--stream", "events", "--every",
                   "0.3s", "--lake", str(place.lake), "--listen", "127.0.0.1:0", *arguments]
        self.log = place.lake.parent / f"follower_{time.monotonic_ns()}.txt"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **environment})

    def said(self) -> str:
        return self.log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        wait_for(lambda: "listening on " in self.said(), self)
        base = self.said().split("listening on ")[1].split("/healthz")[0]
        try:
            with urllib.request.urlopen(base + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def following(place: Place, *arguments: str, **environment: str) -> Iterator[Follower]:
    follower = Follower(place, *arguments, **environment)
    try:
        yield follower
    finally:
        follower.kill()


def wait_for(true: Callable[[], bool], follower: Follower, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until and follower.process.poll() is None, follower.said()
        time.sleep(0.05)


def count(place: Place) -> int:
    with contextlib.suppress(Exception):
        return rows_of(place.lake).num_rows
    return 0


def offsets(place: Place) -> list[tuple[int, int]]:
    table = place.rows()
    return list(zip(table["ROWPARTITION"].to_pylist(), table["ROWOFFSET"].to_pylist(), strict=True))


def test_batches_from_kafka_until_it_is_told_to_stop(place: Place) -> None:
    place.append(100)
    with following(place) as follower:
        wait_for(lambda: count(place) == 100, follower)
        for total in (110, 130, 160):
            place.append(total - place.made)
            wait_for(lambda: count(place) == total, follower)  # noqa: B023
        assert follower.get("/healthz") == (200, "ok\n")
        told = 'ksql_lake_follow_rows_total{feed="events",source="kafka"} 160'
        wait_for(lambda: told in follower.get("/metrics")[1], follower)
        assert follower.get("/other")[0] == 404
        place.append(5)
        assert follower.stop() == 0, follower.said()
    assert count(place) == 165, "what was there when it was told to stop is committed"
    assert place.export("kafka")["rows"] == 0 and place.export("rest")["rows"] == 0


def test_nothing_is_committed_when_nothing_is_new(place: Place) -> None:
    place.append(10)
    with following(place) as follower:
        wait_for(lambda: count(place) == 10, follower)
        sequence = place.state()["sequence"]
        time.sleep(1.5)
        assert place.state()["sequence"] <= sequence + 1
        assert follower.stop() == 0


def test_a_kill_loses_nothing_and_doubles_nothing(place: Place) -> None:
    for _ in range(3):
        place.append(200)
        with following(place) as follower:
            before = count(place)
            wait_for(lambda: count(place) > before, follower)  # noqa: B023
            place.append(300)
            time.sleep(0.3)
            follower.kill()
    place.export("auto", code=place.export("auto")["exit_code"] and 1)
    found = offsets(place)
    assert len(found) == len(set(found)) == place.made


def test_other_runs_get_in_between(place: Place) -> None:
    with following(place) as follower:
        for total in range(50, 250, 50):
            place.append(50)
            place.export("rest" if total % 100 else "kafka", "--wait")
        wait_for(lambda: count(place) == 200, follower)
        assert follower.stop() == 0
    assert len(set(offsets(place))) == 200


def test_a_topic_that_is_recreated_while_it_is_followed(place: Place) -> None:
    place.append(40)
    with following(place) as follower:
        wait_for(lambda: count(place) == 40, follower)
        place.recreate()
        place.made = 0
        place.append(60)
        wait_for(lambda: count(place) == 100, follower)
        assert follower.stop() == 0
        assert "the topic was recreated" in follower.said()
    assert place.state()["generation"] == 2


def test_a_broker_that_is_away_for_a_while(place: Place) -> None:
    place.append(40)
    with following(place, KSQLDB_TIMEOUT="1", KSQL_LAKE_TEST="1") as follower:
        wait_for(lambda: count(place) == 40, follower)
        place.kafka.down()
        time.sleep(2)
        place.kafka.up()
        place.append(60)
        wait_for(lambda: count(place) == 100, follower)
        assert follower.stop() == 0
    assert len(set(offsets(place))) == 100


def files(place: Place) -> int:
    return len(list((place.lake / "streams" / "events").rglob("year=*/**/*.parquet")))


def test_small_files_are_merged_while_it_follows(place: Place) -> None:
    with following(place, "--tidy-every", "1s") as follower:
        for total in range(10, 90, 10):
            place.append(10)
            wait_for(lambda: count(place) == total, follower)  # noqa: B023
        wait_for(lambda: place.append(1) or files(place) <= 4, follower)  # type: ignore[func-returns-value]
        assert follower.stop() == 0
    found = offsets(place)
    assert len(found) == len(set(found)) == place.made


LATER = 4_000  # number of the first event of the topic that is created again: ten days later


class Day:
    """A day of following, as fast as it goes: a batch of events, its commit, the next one."""

    def __init__(self, place: Place, nightly: Path) -> None:
        self.place, self.nightly = place, nightly
        self.commits, self.memory = 0, list[int]()

    def batches(self, number: int, follower: Follower) -> None:
        for _ in range(number):
            before = self.sequence()
            self.place.append(3)
            wait_for(lambda: self.sequence() > before, follower)  # noqa: B023
            self.commits += 1
        self.memory.append(resident(follower.process.pid))

    def whole(self, follower: Follower) -> None:
        """Wait until all that was produced is in the lake."""
        wait_for(lambda: total(self.place) >= self.made(), follower)

    def made(self) -> int:
        return self.place.made + self.earlier

    earlier = 0  # events of the topic that was deleted, less LATER

    def sequence(self) -> int:
        with contextlib.suppress(Exception):
            return int(self.place.state()["sequence"])
        return 0

    def nightly_run(self) -> None:
        """The same topic by one ordinary export into another lake."""
        lake, self.place.lake = self.place.lake, self.nightly
        if not lake.with_name("nightly").exists():
            self.place.feed()
        self.place.export("rest", code=1 if self.earlier else 0)
        self.place.lake = lake

    def recreate(self) -> None:
        self.earlier, self.place.made = self.place.made - LATER, LATER
        self.place.recreate()


def total(place: Place) -> int:
    with contextlib.suppress(Exception):
        return int(place.state()["total_records"])
    return 0


def resident(pid: int) -> int:
    """MB of memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def day(place: Place, tmp_path: Path, batches: int, source: str) -> Day:
    """Eight parts: a kill, a broker that goes away, a stop, an export and a compaction by others, a recreation ..."""
    one = Day(place, tmp_path / "nightly")
    part = batches // 8
    arguments = ("--every", "0.05s", "--tidy-every", "3s", "--source", source)
    with following(place, *arguments) as follower:
        one.batches(part, follower)
        place.append(40)
        follower.kill()
    with following(place, *arguments) as follower:
        one.batches(part, follower)
        place.kafka.down()
        time.sleep(1.5)
        place.kafka.up()
        one.batches(part, follower)
        assert follower.stop() == 0, follower.said()
    place.append(20)
    place.export("auto", "--wait")
    with following(place, *arguments) as follower:
        one.batches(part, follower)
        place.append(5)
        one.whole(follower)
        one.nightly_run()
        one.recreate()
        place.append(50)
        one.whole(follower)
        one.batches(part, follower)
        place.append(30)
        follower.kill()
    place.export("rest", "--wait")
    with following(place, *arguments) as follower:
        one.batches(part, follower)
        place.export("auto", "--wait")
        one.batches(part, follower)
        compacted = _manage(["compact", "events", "--older-than", "1d", "--lake", str(place.lake)])
        assert compacted in (0, 3)
        one.batches(batches - 7 * part, follower)
        one.whole(follower)
        wait_for(lambda: files(place) < 2 * days_of(place) + 10, follower)
        assert follower.stop() == 0, follower.said()
    one.nightly_run()
    return one


def days_of(place: Place) -> int:
    return len(list((place.lake / "streams" / "events").glob("year=*/month=*/day=*")))


def _manage(arguments: list[str]) -> int:
    import manage_feeds

    return manage_feeds.main(arguments)


def content(lake: Path) -> pa.Table:
    keys = [("N", "ascending"), ("ROWPARTITION", "ascending"), ("ROWOFFSET", "ascending")]
    found = rows_of(lake).sort_by(keys)
    return found.select(["ROWTIME", *(name for name in found.column_names if name != "ROWTIME")])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("source", "batches"), [("kafka", 1440), ("rest", 320)])
def test_a_day_of_following_ends_as_nightly_runs(place: Place, tmp_path: Path, source: str, batches: int) -> None:
    """1,440 commits with kills, a broker that restarts, a recreation and other commands: the rows of nightly runs."""
    one = day(place, tmp_path, batches, source)
    assert one.commits == batches
    assert content(place.lake).equals(content(one.nightly))
    assert total(place) == one.made() == len(content(place.lake))
    assert max(one.memory) < min(one.memory) + 80, one.memory
    log = place.lake / ".state" / "events.jsonl"
    assert len(json.dumps(place.state())) < 100_000 and log.stat().st_size < 3_000 * batches


def queries(place: Place) -> int:
    return sum("EMIT CHANGES" in sql and "LIMIT" not in sql for sql, _ in place.db.statements)


def test_over_rest_one_query_serves_many_batches(place: Place) -> None:
    place.append(100)
    with following(place, "--source", "rest") as follower:
        wait_for(lambda: count(place) == 100, follower)
        for total in (110, 130, 160):
            place.append(total - place.made)
            wait_for(lambda: count(place) == total, follower)  # noqa: B023
        assert queries(place) == 1
        place.append(5)
        time.sleep(0.2)
        assert follower.stop() == 0, follower.said()
    assert place.export("rest")["rows"] in (0, 5)
    assert len(set(offsets(place))) == 165 == len(offsets(place))


def test_over_rest_a_server_that_restarts(place: Place) -> None:
    place.append(100)
    with following(place, "--source", "rest") as follower:
        wait_for(lambda: count(place) == 100, follower)
        place.db.kill()
        place.db.start()
        place.append(50)
        wait_for(lambda: count(place) == 150, follower)
        assert follower.stop() == 0, follower.said()
    found = offsets(place)
    assert len(found) == len(set(found)) == 150


def test_over_rest_a_connection_that_is_half_dead(place: Place) -> None:
    """A proxy that lost the server and keeps its clients: no byte comes, and no error."""
    place.append(100)
    with ForgetfulProxy(urlsplit(place.db.url).port or 0) as proxy:
        with following(place, "--source", "rest", KSQLDB_URL=proxy.url) as follower:
            wait_for(lambda: count(place) == 100 and asked(place) > 0, follower)
            proxy.forget()
            place.append(50)
            wait_for(lambda: count(place) == 150, follower)
            assert follower.stop() == 0, follower.said()
    assert queries(place) == 2
    found = offsets(place)
    assert len(found) == len(set(found)) == 150


def asked(place: Place) -> int:
    return place.db.metadata_statements.count("SHOW QUERIES;")


@pytest.mark.parametrize("rows", [80, 20], ids=["longer than the old topic", "shorter"])
def test_over_rest_a_topic_that_is_recreated(place: Place, rows: int) -> None:
    """The open query goes on at the old offset of the new topic, as consumers do, and says nothing."""
    place.append(40)
    with following(place, "--source", "rest") as follower:
        wait_for(lambda: count(place) == 40, follower)
        place.append(10)
        wait_for(lambda: count(place) == 50, follower)
        place.db.recreate("EVENTS", followed=True)
        place.made = 1_000
        place.append(rows)
        wait_for(lambda: count(place) >= 50 + rows, follower)
        assert follower.stop() == 0, follower.said()
        assert "the topic was recreated" in follower.said()
    assert place.state()["generation"] == 2 and count(place) == 50 + rows
    assert sorted(place.rows()["N"].to_pylist()) == [*range(50), *range(1_000, 1_000 + rows)]


def test_over_rest_a_query_that_the_server_does_not_list_is_kept(place: Place) -> None:
    place.db.lists_push_queries = False
    place.append(10)
    with following(place, "--source", "rest") as follower:
        wait_for(lambda: count(place) == 10 and asked(place) > 3, follower)
        place.append(10)
        wait_for(lambda: count(place) == 20, follower)
        assert follower.stop() == 0, follower.said()
    assert queries(place) == 1


def test_a_supervisor_is_told(place: Place, tmp_path: Path) -> None:
    place.append(10)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "notify"))
        there.settimeout(30)
        with following(place, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000") as follower:
            heard: list[bytes] = []
            while b"READY=1" not in heard or heard[-1] != b"WATCHDOG=1":
                heard.append(there.recv(100))
            assert follower.stop() == 0
            while heard[-1] != b"STOPPING=1":
                heard.append(there.recv(100))


@pytest.mark.parametrize("source", ["kafka", "rest"])
def test_the_demo_shows_a_live_lake(tmp_path: Path, source: str) -> None:
    command = [sys.executable, str(ROOT / "export_to_data_lake.py"), "--demo", "--follow", "--for", "6s", "--every",
               "1s", "--source", source, "--events", "400", "--lake", str(tmp_path / "live")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    batches = [line for line in done.stdout.splitlines() if line.startswith("transaction_stream ")]
    assert len(batches) > 2 and f"by {'Kafka' if source == 'kafka' else 'REST'}" in batches[-1], done.stdout


def test_the_demo_runs_on_the_broker_of_the_wheel(tmp_path: Path) -> None:
    demo = ["--demo", "--start", "2025-01-15", "--events", "400", "--lake"]
    command = [sys.executable, str(ROOT / "export_to_data_lake.py"), *demo]
    for source in ("kafka", "rest"):
        done = subprocess.run([*command, str(tmp_path / source), "--source", source], capture_output=True, text=True,
                              check=False, timeout=120)
        assert done.returncode == 0 and "transaction_stream" in done.stdout, done.stderr
    for feed in ("transaction_stream", "transaction_flattened", "transaction_stream_anonymized"):
        tables = [
            pq.read_table(tmp_path / source / "streams" / feed, partitioning=None)
            .sort_by([("ROWPARTITION", "ascending"), ("ROWOFFSET", "ascending")]) for source in ("kafka", "rest")
        ]
        assert len(tables[0]) == 400 and tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--date", "2025-01-15"], "--follow cannot be combined with --date"),
        (["--every", "soon"], "'soon' is not a time; expected something like 60s, 5m or 1h"),
        (["--listen", "9464"], "'9464' is not an address; expected HOST:PORT"),
    ],
)
def test_what_does_not_go_with_following(place: Place, arguments: list[str], says: str) -> None:
    command = [sys.executable, str(ROOT / "export_to_data_lake.py"), "--follow", "--stream", "events", *arguments]
    done = subprocess.run(
        [*command, "--lake", str(place.lake)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2 and says in done.stderr
