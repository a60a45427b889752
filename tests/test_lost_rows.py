"""Rows that were lost, doubled or stuck: a partition that goes cold, a topic that is recreated, a run of some days."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, Fault

JAN15 = 1_736_899_200_000
DAY = 86_400_000
HOUR = 3_600_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.3")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "0.5")
        database.create_stream("S", "`ID` STRING, `V` INTEGER", 2)
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        yield database


class Run:
    """One export through the script, and what it said."""

    def __init__(self, capsys: Any, *argv: str) -> None:
        capsys.readouterr()
        self.seconds = time.monotonic()
        self.code = export_to_data_lake.main([*(argv or ("--all",)), "--json"])
        self.seconds = time.monotonic() - self.seconds
        said = capsys.readouterr()
        self.err, self.result = said.err, json.loads(said.out)[0]
        self.rows = self.result["rows"]


def produce(database: EmbeddedKsqlDB, first: int, last: int, prefix: str = "e", partition: int | None = None,
            at: int = JAN15, step: int = HOUR) -> None:
    for i in range(first, last):
        database.append("S", i % 2 if partition is None else partition, at + i * step, [f"{prefix}{i}", i])


def rows(lake: Path) -> list[tuple[int, int, int, str]]:
    """(generation, partition, offset, ID) of every row that lies in a file, read with pyarrow alone."""
    found = []
    for path in sorted((lake / "streams" / "s").rglob("*.parquet")):
        file = pq.ParquetFile(path)
        generation = json.loads(file.metadata.metadata[b"ksql_lake"])["generation"]
        table = file.read(["ROWPARTITION", "ROWOFFSET", "ID"])
        found += [(generation, *row.values()) for row in table.to_pylist()]
    assert len(found) == len(set(found)), "a row lies in the lake twice"
    return sorted(found)


def ids(lake: Path) -> list[str]:
    return sorted(row[3] for row in rows(lake))


def names(*spans: tuple[str, int, int]) -> list[str]:
    return sorted(f"{prefix}{i}" for prefix, first, last in spans for i in range(first, last))


def state(lake: Path) -> dict[str, Any]:
    return dict(json.loads((lake / "streams" / "s" / "_metadata.json").read_text()))


def covered(lake: Path) -> set[tuple[int, int, int]]:
    """(generation, partition, offset) of all that the metadata call exported: of a day, its rows and the last one."""
    found = set()
    for generation, parts in state(lake)["coverage"].items():
        for partition, one in parts.items():
            spans = [(0, one["upto"]), *one["beyond"], *((last, last) for last in one.get("days", {}).values())]
            offsets = {offset for low, high in spans for offset in range(low, high + 1)}
            most = max(one.get("days", {}).values(), default=-1)
            offsets |= {o for g, p, o, _ in rows(lake) if (g, p) == (int(generation), int(partition)) and o <= most}
            found |= {(int(generation), int(partition), offset) for offset in offsets}
    return found


def verified(lake: Path) -> bool:
    return metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0


@contextlib.contextmanager
def trickle(database: EmbeddedKsqlDB, partition: int, every: float) -> Iterator[list[str]]:
    """A row in one partition all the time, at the present time; yields the names of those produced so far."""
    made: list[str] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(every):
            database.append("S", partition, int(time.time() * 1000), [f"t{len(made)}", len(made)])
            made.append(f"t{len(made)}")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()


# --- A silent partition does not hold up the others -------------------------------------------------------------------


@pytest.mark.parametrize("why", ["expired", "no leader", "cut short"])
def test_a_silent_partition_costs_a_bounded_time_once_and_holds_nobody_up(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, why: str
) -> None:
    """Partition 1 never shows its last exported row again, while partition 0 gets a row all the time."""
    monkeypatch.setenv("MAX_DURATION_SECONDS", "8")
    lake = tmp_path / "lake"
    produce(ksqldb, 0, 40, at=int(time.time() * 1000) - DAY, step=1)
    assert Run(capsys).rows == 40
    if why == "expired":
        ksqldb.expire("S", 1, 20)
    elif why == "no leader":
        ksqldb.mute("S", 1)
    else:  # expired up to a few rows before the anchor, and the leader is lost before it
        ksqldb.expire("S", 1, 15)
        ksqldb.mute("S", 1)
    with trickle(ksqldb, 0, 0.1) as made:
        first = Run(capsys)
        said = "has expired, and no row has followed it" if why == "expired" else "partition 1 was not read"
        assert first.code == 1 and said in first.err and "next time" not in first.err
        assert first.rows > 0 and "time limit" not in first.err
        second = Run(capsys)
        assert second.rows > 0 and second.seconds < 1.5, "an anchor that was given up is not waited for again"
        assert second.err == "" if why == "expired" else said in second.err
    third = Run(capsys)
    assert len(rows(lake)) == 40 + first.rows + second.rows + third.rows
    assert ids(lake) == sorted([*names(("e", 0, 40)), *made])
    assert verified(lake)
    if why == "expired":
        produce(ksqldb, 41, 42, partition=1)
        fourth = Run(capsys)
        assert (fourth.code, fourth.rows) == (0, 1), "its next row follows the expired one at once"
    else:
        ksqldb.mute("S")
        produce(ksqldb, 41, 42, partition=1)
        fourth = Run(capsys)
        assert fourth.rows == 1 and ids(lake) == sorted([*names(("e", 0, 40), ("e", 41, 42)), *made])
    assert "missing" not in json.dumps(state(lake)["resume"]) and Run(capsys).rows == 0


def test_a_partition_that_speaks_late_is_read_all_the_same(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Its leader comes back while the run still waits for it."""
    monkeypatch.setenv("KSQLDB_TIMEOUT", "3")
    produce(ksqldb, 0, 40)
    assert Run(capsys).rows == 40
    produce(ksqldb, 40, 60)
    ksqldb.mute("S", 1)
    timer = threading.Timer(1.2, ksqldb.mute, ["S"])
    timer.start()
    assert Run(capsys).rows == 20
    timer.join()
    assert ids(tmp_path / "lake") == names(("e", 0, 60))


def test_at_the_time_limit_what_is_verified_is_published(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Partition 0 never falls silent and its rows carry old times; partition 1 has no leader."""
    lake = tmp_path / "lake"
    produce(ksqldb, 0, 40)
    assert Run(capsys).rows == 40
    monkeypatch.setenv("MAX_DURATION_SECONDS", "2")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "5")
    ksqldb.mute("S", 1)
    stop = threading.Event()
    count = [40]

    def work() -> None:
        while not stop.wait(0.005):
            ksqldb.append("S", 0, JAN15, [f"o{count[0]}", 0])
            count[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        run = Run(capsys)
    finally:
        stop.set()
        thread.join()
    assert run.code == 1 and run.rows > 0 and len(rows(lake)) == 40 + run.rows
    assert "stopped at the time limit of 2 s (MAX_DURATION_SECONDS); the rest of partition 0 is read next" in run.err
    assert "before anything new of partition 1 had come" in run.err
    ksqldb.mute("S")
    monkeypatch.setenv("MAX_DURATION_SECONDS", "60")
    after = Run(capsys)
    assert after.code == 0 and len(rows(lake)) == 40 + run.rows + after.rows == count[0] and verified(lake)


# --- What a contradiction discards is neither published nor covered -----------------------------------------------


@pytest.mark.parametrize("small_files", [True, False])
@pytest.mark.parametrize("cut", [None, 30, 40])
def test_a_topic_recreated_between_runs_of_some_days(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, small_files: bool,
    cut: int | None,
) -> None:
    """Only --date runs: no anchor, only the first row of a partition gives the new topic away, and not at once."""
    lake = tmp_path / "lake"
    if small_files:
        monkeypatch.setenv("FILE_ROWS", "5")
    produce(ksqldb, 0, 10, partition=1)
    assert Run(capsys, "--stream", "s", "--date", "2025-01-15").rows == 10
    ksqldb.recreate("S")
    produce(ksqldb, 0, 40, "n", partition=0, step=HOUR // 4)  # read first, and taken for the old topic's
    produce(ksqldb, 0, 20, "m", partition=1, step=HOUR // 4)
    pause = Fault(silent_after=40, silent_seconds=0.15)  # so that these rows are taken before the others come
    ksqldb.faults.add(*([Fault(cut_after=cut)] if cut is not None else ()), pause)
    second = Run(capsys, "--stream", "s", "--date", "2025-01-15")
    assert "the topic was recreated" in second.err and state(lake)["generation"] == 2
    assert ids(lake) == names(("e", 0, 10), ("n", 0, 40), ("m", 0, 20))
    assert len(rows(lake)) == 10 + second.rows
    assert covered(lake) == {row[:3] for row in rows(lake)}
    third = Run(capsys)
    assert (third.code, third.rows) == (0, 0) and len(rows(lake)) == 70 and verified(lake)


def test_a_crash_after_the_old_topic_was_published_forgets_nothing(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The first commit of such a run closes the old topic; the next run must still see that it is another one."""
    from ksql_lake.ingest import export

    lake = tmp_path / "lake"
    produce(ksqldb, 0, 10, partition=0)
    assert Run(capsys, "--stream", "s", "--date", "2025-01-15").rows == 10
    ksqldb.recreate("S")
    produce(ksqldb, 0, 10, "n", partition=0)
    with monkeypatch.context() as patch:
        patch.setattr(export, "publish", _publish_and_die)
        assert Run(capsys, "--stream", "s", "--date", "2025-01-15").code == 1
    assert state(lake)["generation"] == 1 and ids(lake) == names(("e", 0, 10))
    Run(capsys)
    assert ids(lake) == names(("e", 0, 10), ("n", 0, 10)) and state(lake)["generation"] == 2


def _publish_and_die(dataset: Any, staged: Any) -> Any:
    from ksql_lake.ingest import staged as real

    real.publish(dataset, staged)
    raise OSError(5, "the machine went down here")


# --- A row below where the partition began ------------------------------------------------------------------------


@pytest.mark.parametrize("upto", [20, 1000, 1500])
@pytest.mark.parametrize("days", [False, True])
def test_a_topic_recreated_after_its_first_rows_had_expired(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, upto: int, days: bool
) -> None:
    """Kafka's log start never moves back: a row below it belongs to another topic, however short that one is."""
    lake = tmp_path / "lake"
    argv = ("--stream", "s", "--date", "2025-01-15") if days else ()
    produce(ksqldb, 0, 3010, partition=0, step=1)
    ksqldb.expire("S", 0, upto)
    assert Run(capsys, *argv).rows == 3010 - upto
    ksqldb.recreate("S")
    produce(ksqldb, 0, 500, "n", partition=0, step=1)
    run = Run(capsys)
    assert run.code == 1 and "the topic was recreated" in run.err and run.rows == 500
    assert f"used to begin at {upto if upto > 1001 else 1000 if upto < 1000 else 1000}" in run.err or upto == 1500
    assert len(rows(lake)) == 3010 - upto + 500 and state(lake)["generation"] == 2
    assert Run(capsys).rows == 0 and verified(lake)


def test_a_short_topic_whose_start_had_expired(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """Fewer than 1,000 rows and the first ones gone: no row of it comes in every query but the last."""
    produce(ksqldb, 0, 120, partition=0, step=1)
    ksqldb.expire("S", 0, 20)
    assert Run(capsys).rows == 100 and Run(capsys).rows == 0
    ksqldb.recreate("S")
    produce(ksqldb, 0, 50, "n", partition=0, step=1)
    run = Run(capsys)
    assert run.code == 1 and "the topic was recreated" in run.err and run.rows == 50
    assert len(rows(tmp_path / "lake")) == 150


def test_what_expired_between_two_runs_counts_as_well(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    produce(ksqldb, 0, 2500, partition=0, step=1)
    assert Run(capsys).rows == 2500
    ksqldb.expire("S", 0, 2400)
    assert Run(capsys).rows == 0
    ksqldb.recreate("S")
    for i in range(3):  # the very rows the old topic began with, at the same offsets and times
        ksqldb.append("S", 0, JAN15 + i, [f"e{i}", i])
    run = Run(capsys)
    assert run.code == 1 and "used to begin at" in run.err and run.rows == 3
    assert len(rows(tmp_path / "lake")) == 2503


def test_equal_first_rows_of_another_time(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """A shorter topic that begins with the same values: their times differ, and the last exported row is gone."""
    produce(ksqldb, 0, 60)
    assert Run(capsys).rows == 60
    ksqldb.recreate("S")
    produce(ksqldb, 0, 20, at=JAN15 + DAY)
    run = Run(capsys)
    assert run.code == 1 and "the topic was recreated" in run.err and run.rows == 20
    assert len(rows(tmp_path / "lake")) == 80 and Run(capsys).rows == 0


def test_a_new_topic_whose_own_start_has_expired(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """No row of it comes in the query that resumes at the old one's end: all of it is asked for the night after."""
    yesterday = int(time.time() * 1000) - DAY
    produce(ksqldb, 0, 100, partition=0, at=yesterday, step=1)
    assert Run(capsys).rows == 100
    ksqldb.recreate("S")
    produce(ksqldb, 0, 50, "n", partition=0, at=yesterday, step=1)
    ksqldb.expire("S", 0, 10)
    first = Run(capsys)
    assert (first.code, first.rows) == (1, 0) and "its last exported row (offset 99) has expired" in first.err
    second = Run(capsys)
    assert second.rows == 40 and "its last exported row is gone, though rows before it are there" in second.err
    third = Run(capsys)
    assert (third.code, third.rows) == (0, 0) and len(rows(tmp_path / "lake")) == 140


def test_nothing_is_taken_of_a_topic_that_no_row_proves(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """The first rows are not known (a rebuild), the last exported one is missing, and the server says no more: rows of
    a partition that was empty so far may be another topic's."""
    lake = tmp_path / "lake"
    produce(ksqldb, 0, 60, partition=0)
    assert Run(capsys).rows == 60
    shutil.rmtree(lake / ".state")
    (lake / "streams" / "s" / "_metadata.json").unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "s", "--lake", str(lake)]) == 0
    ksqldb.recreate("S")
    produce(ksqldb, 0, 20, "n", partition=0)
    produce(ksqldb, 0, 30, "m", partition=1)
    ksqldb.faults.add(Fault(), *[Fault(reset=True)] * 4)  # the reading itself is whole, what is asked after it is not
    run = Run(capsys)
    assert (run.code, run.rows) == (1, 0) and "nothing is published" in run.err and len(rows(lake)) == 60
    ksqldb.faults.clear()
    run = Run(capsys)
    assert run.rows == 50 and "the topic was recreated" in run.err
    assert ids(lake) == names(("e", 0, 60), ("n", 0, 20), ("m", 0, 30)) and Run(capsys).rows == 0 and verified(lake)


def test_a_topic_cut_off_is_told_and_not_taken_for_another(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    """Its first rows are the same, times included, and the last exported one is gone: a person has to decide."""
    produce(ksqldb, 0, 100, partition=0)
    assert Run(capsys).rows == 100
    ksqldb.recreate("S")
    produce(ksqldb, 0, 40, partition=0)
    for _ in range(2):
        run = Run(capsys)
        assert (run.code, run.rows) == (1, 0) and state(tmp_path / "lake")["generation"] == 1
        assert "recreated with the same first rows" in run.err and "manage_feeds.py reset s" in run.err
    produce(ksqldb, 40, 100, partition=0)
    produce(ksqldb, 100, 110, partition=0)
    run = Run(capsys)
    assert (run.code, run.rows) == (0, 10), "the very rows it had before: all is well again"


def test_a_compacted_topic_may_lose_its_last_row(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    ksqldb.sources["S"].compacted = True
    produce(ksqldb, 0, 2000, partition=0, step=1)
    ksqldb.expire("S", 0, 1)
    assert Run(capsys).rows == 1999
    topic = ksqldb.sources["S"].topic
    topic.log = [record for record in topic.log if record.offset < 1000 or record.offset == 1500]
    run = Run(capsys)
    assert run.code == 1 and "the topic was recreated" not in run.err and state(tmp_path / "lake")["generation"] == 1


def test_a_log_start_that_moves_back_while_the_anchor_stands_proves_nothing(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    """After a change of leaders old rows may be there again; the last exported row decides."""
    produce(ksqldb, 0, 1100, partition=0, step=1)
    ksqldb.expire("S", 0, 500)
    assert Run(capsys).rows == 600
    ksqldb.sources["S"].topic.base[0] = 0
    produce(ksqldb, 1100, 1110, partition=0, step=1)
    run = Run(capsys)
    assert (run.code, run.rows) == (0, 10) and state(tmp_path / "lake")["generation"] == 1


# --- Fewer partitions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [False, True])
def test_fewer_partitions_are_known_from_describe_and_said_once(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, days: bool
) -> None:
    for _ in range(10):
        ksqldb.add_partition("S")
    for i in range(60):
        ksqldb.append("S", i % 12, JAN15 + i, [f"e{i}", i])
    assert Run(capsys, *(("--stream", "s", "--date", "2025-01-15") if days else ())).rows == 60
    ksqldb.recreate("S", partitions=2)
    produce(ksqldb, 0, 10, "n")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "10")  # to wait for an anchor would take 20 s
    run = Run(capsys)
    assert run.code == 1 and run.rows == 10 and run.seconds < 10
    assert run.err.count("the topic was recreated") == 1 and "2 partitions now" in run.err
    again = Run(capsys)
    assert (again.code, again.rows) == (0, 0) and again.err == ""
    assert ids(tmp_path / "lake") == names(("e", 0, 60), ("n", 0, 10))
