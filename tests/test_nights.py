"""Many nights of random events and random faults, and a checker that knows what was produced.

Events come while the export runs; rows expire, topics are recreated (after expiry, shorter, with fewer partitions),
partitions lose their leaders, runs are killed between two renames, and what the lake keeps for itself gets lost. After
every night: what the run reported lies in files, and every row there was produced, once. At the end: all that was
produced and could be read is there.

A failing seed is printed; replay it with `NIGHTS_SEED=<seed> NIGHTS=<nights> python -m pytest tests/test_nights.py`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import random
import shutil
import threading
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.base import retry
from ksql_lake.embedded import EmbeddedKsqlDB, Fault
from ksql_lake.store import journal, metadata

JAN15 = 1_736_899_200_000
HOUR = 3_600_000
WORDS = ("plain", "naïve café", "日本語テキスト", "emoji 🎉🎊", 'quote " and \\ back', "line\nbreak", "", "a,b;c|d")
ERROR = b'{"@type":"generic_error","error_code":%d,"message":"refused"}'
BODIES = (b"", b"plain words", b"<html>no</html>")
SEEDS = [int(os.environ["NIGHTS_SEED"])] if "NIGHTS_SEED" in os.environ else [11, 12, 13, 14, 15]
COUNT = int(os.environ.get("NIGHTS", "6"))

FAULTS: dict[str, Callable[[random.Random], Fault]] = {
    "reset": lambda r: Fault(reset=True),
    "cut": lambda r: Fault(cut_after=r.randrange(30), cut_where=r.choice(("between", "row", "char"))),
    "error": lambda r: Fault(error_after=r.randrange(30), error_closed=r.random() < 0.5),
    "completed early": lambda r: Fault(complete_after=r.randrange(30), complete_final=r.random() < 0.7),
    "html with 200": lambda r: Fault(status=200, body=b"<html>sign in</html>", content_type="text/html"),
    "refused": lambda r: Fault(
        status=(status := r.choice((401, 403, 404, 429, 500, 503))), body=r.choice((ERROR % (status * 100), *BODIES))
    ),
    "refused listing": lambda r: Fault(status=r.choice((429, 503)), body=r.choice(BODIES), path="/ksql"),
    "silence": lambda r: Fault(silent_after=r.randrange(30), silent_seconds=r.choice((0.1, 0.4, 1.2))),
    "delay": lambda r: Fault(delay=r.choice((0.1, 0.3, 0.9))),
    "slow": lambda r: Fault(slow=0.002, slow_bytes=r.randrange(5, 60)),
    "repeated": lambda r: Fault(repeat_after=r.randrange(1, 30), repeat_rows=r.randrange(1, 12)),
    "older framing": lambda r: Fault(legacy=True, error_after=r.choice((None, 5, 20))),
}


@dataclass
class Event:
    """One event, as it was produced; `number` is its own. `gone`: it can no longer be read at the source."""

    partition: int
    offset: int
    rowtime: int
    word: str
    number: int
    gone: bool = False


class Killed(BaseException):
    """Stands for the power cut between two renames: no handler of an export catches it."""


class History:
    """What was produced, and what the lake must therefore hold."""

    def __init__(self, database: EmbeddedKsqlDB, rng: random.Random, zone: str) -> None:
        self.database, self.rng, self.zone = database, rng, zoneinfo.ZoneInfo(zone)
        self.events: dict[int, Event] = {}
        self.topic: list[Event] = []
        self.table: dict[str, int] = {}
        self.partitions = 2
        self.lock = threading.Lock()
        database.create_stream("S", "`W` STRING, `N` BIGINT", self.partitions)
        self.same_first_rows(JAN15)
        database.create_table("T", "`K` STRING KEY, `N` BIGINT")

    def same_first_rows(self, rowtime: int) -> None:
        """Rows of equal values, which topics may begin with one after the other; they are in no list of events."""
        for partition in range(self.partitions):
            for _ in range(2):
                self.database.append("S", partition, rowtime, ["same", -1])

    def produce(self, rng: random.Random, night: int) -> None:
        hours = 24 * night + rng.randrange(24) - rng.choice((0, 0, 0, 0, 50)) + rng.choice((0, 0, 0, 0, 0, 1))
        word, rowtime = rng.choice(WORDS), JAN15 + hours * HOUR + rng.randrange(HOUR)
        with self.lock:
            partition = rng.randrange(self.partitions)
            if rng.random() < 0.03:
                self.database.skip("S", partition, rng.randrange(1, 4))
            number = len(self.events)
            offset = self.database.append("S", partition, rowtime, [word, number])
            self.events[number] = event = Event(partition, offset, rowtime, word, number)
            self.topic.append(event)

    def day(self, night: int, count: int) -> None:
        """A day's events: most of today, some late, a few ahead; holes in the offsets, now and then a new partition."""
        if self.rng.random() < 0.15:
            with self.lock:
                self.partitions += 1
                self.database.add_partition("S")
        for _ in range(count):
            self.produce(self.rng, night)
        for _ in range(self.rng.randrange(1, 8)):
            key = f"k{self.rng.randrange(40)}"
            self.table[key] = self.rng.randrange(1000)
            self.database.upsert("T", [key, self.table[key]])

    def expire(self) -> str:
        """Retention of the topic: the first rows of some partition."""
        with self.lock:
            partition = self.rng.randrange(self.partitions)
            upto = self.rng.randrange(self.database.sources["S"].topic.next[partition] + 1)
            self.database.expire("S", partition, upto)
            for event in self.topic:
                event.gone = event.gone or (event.partition == partition and event.offset < upto)
        return f"expired partition {partition} up to {upto}"

    def recreate(self) -> str:
        """The topic is recreated, with as many, fewer or more partitions; sometimes it begins with the same rows."""
        with self.lock:
            for event in self.topic:
                event.gone = True
            self.topic, self.partitions = [], self.rng.randrange(1, 5)
            self.database.recreate("S", self.partitions)
        same = self.rng.random() < 0.4
        if same:
            self.same_first_rows(JAN15 + self.rng.randrange(1, HOUR))
        return f"recreated with {self.partitions} partitions{', the same first rows' if same else ''}"

    def mute(self) -> str:
        """A partition without a leader, for this night."""
        muted = self.rng.randrange(self.partitions)
        self.database.mute("S", muted)
        return f"muted {muted}"

    @contextlib.contextmanager
    def busy(self, night: int, every: float) -> Iterator[None]:
        """Events all the time, while something else happens."""
        stop, rng = threading.Event(), random.Random(self.rng.random())

        def work() -> None:
            while not stop.wait(every):
                self.produce(rng, night)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def check(self, lake: Path, *, complete: bool) -> None:
        seen: Counter[int] = Counter()
        for path in sorted((lake / "streams" / "s").rglob("*.parquet")):
            rows = pq.ParquetFile(path).read()
            times = rows["ROWTIME"].cast(pa.int64()).to_pylist()
            for time, *rest in zip(times, *(rows[c].to_pylist() for c in rows.schema.names[1:]), strict=True):
                partition, offset, word, number = rest
                if number == -1:
                    continue
                event = self.events.get(number)
                assert event == Event(partition, offset, time, word, number, event is not None and event.gone), (
                    f"changed or never produced: {rest}"
                )
                seen[number] += 1
                day = dt.datetime.fromtimestamp(time / 1000, self.zone).date()
                assert path.parent.as_posix().endswith(f"{day:year=%Y/month=%m/day=%d}"), f"wrong day: {path} {time}"
        assert max(seen.values(), default=1) == 1, f"doubled: {[n for n, times in seen.items() if times > 1][:10]}"
        if complete:
            lost = [event for event in self.topic if not event.gone and event.number not in seen]
            assert not lost, f"lost: {lost[:10]}"

    def check_table(self, lake: Path) -> None:
        newest = max((lake / "tables" / "t").glob("version=v*"), key=lambda path: int(path.name[9:]))
        rows = [row for path in newest.glob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
        assert {row["K"]: row["N"] for row in rows} == self.table and len(rows) == len(self.table)


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    monkeypatch.setattr(retry, "FIRST", 0.02)
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.25")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "0.6")
        yield database


class Nights:
    """The nights of one seed: what happens in each, the run of the export, and the checks after it."""

    def __init__(self, database: EmbeddedKsqlDB, lake: Path, seed: int, capsys: Any, patch: pytest.MonkeyPatch) -> None:
        self.database, self.lake, self.seed, self.capsys, self.patch = database, lake, seed, capsys, patch
        self.rng = random.Random(seed)
        self.zone = self.rng.choice(("UTC", "Europe/Paris", "America/St_Johns"))
        self.history = History(database, self.rng, self.zone)
        self.metadata, self.old = lake / "streams" / "s" / "_metadata.json", b""
        self.told: list[Any] = []
        self.happened: list[str] = []

    def rows_in_files(self) -> int:
        return sum(pq.read_metadata(path).num_rows for path in (self.lake / "streams" / "s").rglob("*.parquet"))

    def export(self, *argv: str) -> int:
        """One run; what it reports must lie in files afterwards."""
        before = self.rows_in_files()
        self.capsys.readouterr()
        code = export_to_data_lake.main([*argv, "--json"])
        said = self.capsys.readouterr()
        results = [one for one in json.loads(said.out or "[]") if one["feed"] == "s"] if said.out else []
        self.told.append((argv, code, results, said.err))
        assert code in (0, 1) and "bug" not in said.err
        reported = sum(one["rows"] for one in results)
        assert self.rows_in_files() - before == reported, f"{reported} rows reported, {before} before"
        return reported

    def recover(self) -> None:
        """Finish or forget what a killed run left, before rows are counted again."""
        for kind in ("stream", "table"):
            journal.recover(metadata.Dataset(self.lake, kind[0], kind, restricted=kind == "stream"))

    def run(self, night: int) -> None:
        rng = self.rng
        names = rng.choices(sorted(FAULTS), k=rng.choice((0, 1, 1, 2, 4)))
        self.database.faults.add(*(FAULTS[name](rng) for name in names))
        self.happened += names
        day = JAN15 // 86_400_000 + rng.randrange(night + 1)
        only = ["--stream", "s", "--date", str(dt.date(1970, 1, 1) + dt.timedelta(days=day))]
        argv = only if rng.random() < 0.25 else ["--all", "--jobs", rng.choice("12")]
        with contextlib.ExitStack() as stack:
            if rng.random() < 0.4:
                stack.enter_context(self.history.busy(night, rng.choice((0.02, 0.1))))
            if rng.random() < 0.15:
                argv = [*argv, "--jobs", "1"] if "--jobs" not in argv else [*argv[:-1], "1"]
                self.killed(rng.randrange(1, 6), argv)
                return
            self.export(*argv)

    def killed(self, rename: int, argv: list[str]) -> None:
        """A run that dies at its Nth rename."""
        real, left = os.rename, [rename]

        def dying(source: Any, target: Any, **more: Any) -> None:
            left[0] -= 1
            if not left[0]:
                raise Killed
            real(source, target, **more)

        self.happened.append(f"killed at rename {rename}")
        with self.patch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(os, "rename", dying)
            export_to_data_lake.main(argv)
        if self.rng.random() < 0.4:
            self.happened.append("and lost .staging")
            shutil.rmtree(self.lake / ".staging", ignore_errors=True)
            self.rebuild()
        else:
            self.recover()

    def rebuild(self) -> None:
        """What an export advises that finds metadata it cannot build on."""
        for kind in ("stream", "table"):
            files = list((self.lake / f"{kind}s" / kind[0]).rglob("*.parquet"))
            if files or (self.lake / ".state" / f"{kind[0]}.jsonl").exists():
                assert metadata_utils.main(["--rebuild", "--feed", kind[0], "--lake", str(self.lake)]) == 0

    def before(self, night: int) -> None:
        """What happens to the source and to the lake between two runs."""
        rng, history = self.rng, self.history
        history.day(night, rng.randrange(0, 60))
        if rng.random() < 0.2:
            self.happened.append(history.expire())
        if rng.random() < 0.15 and self.known():
            self.happened.append(history.recreate())
            history.day(night, rng.randrange(0, 40))
            if rng.random() < 0.3:
                self.happened.append(history.expire())
        if rng.random() < 0.15:
            self.happened.append(history.mute())
        self.lose()

    def known(self) -> bool:
        """Whether the lake knows a row by which it can tell another topic.

        After a first export that was killed between two renames and then lost its journal, a rebuild finds files and no
        such row: that the topic is recreated before the next export as well is the one thing that is not seen.
        """
        state = json.loads(self.metadata.read_bytes()) if self.metadata.exists() else {}
        return not state.get("coverage") or bool(state["resume"] or state["heads"])

    def lose(self) -> None:
        """What the lake keeps for itself gets lost; what is said to help then helps."""
        rng, lost = self.rng, self.rng.random()
        if lost < 0.05:
            self.happened.append("lost .staging")
            shutil.rmtree(self.lake / ".staging", ignore_errors=True)
        elif lost < 0.1:
            self.happened.append("lost .state")
            shutil.rmtree(self.lake / ".state", ignore_errors=True)
        elif lost < 0.15:
            if self.metadata.exists():
                self.happened.append("lost metadata")
                self.metadata.unlink()
                self.rebuild()
        elif lost < 0.2:
            if self.old:
                self.happened.append("old metadata" + (", lost .state" if rng.random() < 0.5 else ""))
                if "lost .state" in self.happened[-1]:
                    shutil.rmtree(self.lake / ".state", ignore_errors=True)
                self.metadata.write_bytes(self.old)
                self.rebuild()
        elif lost < 0.23:
            self.another_cluster()
        elif lost < 0.28:
            self.happened.append("a restart")
            self.database.stop()
            self.database.start()
        if rng.random() < 0.05:
            (self.lake / ".staging" / "s" / "junk").mkdir(parents=True, exist_ok=True)

    def another_cluster(self) -> None:
        """KSQLDB_URL leads somewhere else for once: nothing of it comes in."""
        if not list(self.lake.rglob("*.parquet")) or not (self.lake / ".state" / "kafka_cluster.json").exists():
            return
        self.happened.append("another cluster")
        right, self.database.cluster_id = self.database.cluster_id, "another one"
        before = self.rows_in_files()
        assert export_to_data_lake.main(["--all"]) == 2
        assert self.rows_in_files() == before
        self.database.cluster_id = right

    def lose_a_file(self) -> None:
        """A file is lost, and its day read again: every row of it that the source still has is there again."""
        files = sorted((self.lake / "streams" / "s").rglob("*.parquet"))
        if not files:
            return
        path = self.rng.choice(files)
        numbers, content = pq.read_table(path, columns=["N"])["N"].to_pylist(), path.read_bytes()
        path.unlink()
        self.happened.append(f"lost {path.name}")
        if manage_feeds.main(["reload", "s", "--all-missing", "--allow-loss"]):
            self.happened[-1] += ", and it cannot be read again"  # of an earlier topic
        if metadata_utils.main(["--verify", "--lake", str(self.lake)]):
            path.write_bytes(content)
            path.chmod(0o640)
            return
        there = {n for one in sorted((self.lake / "streams" / "s").rglob("*.parquet"))
                 for n in pq.read_table(one, columns=["N"])["N"].to_pylist()}
        missing = [n for n in numbers if n >= 0 and n not in there and not self.history.events[n].gone]
        assert not missing, f"not read again: {missing}"

    def nights(self, count: int) -> None:
        for kind, more in (("stream", ["--timezone", self.zone]), ("table", [])):
            name = kind[0]
            assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name, *more]) == 0
        try:
            for night in range(count):
                self.happened.append(f"-- night {night}")
                self.before(night)
                self.run(night)
                self.database.faults.clear()
                self.database.mute("S")
                self.history.check(self.lake, complete=False)
                if self.rng.random() < 0.12:
                    self.lose_a_file()
                    self.history.check(self.lake, complete=False)
                self.old = self.metadata.read_bytes() if self.metadata.exists() else b""
                assert metadata_utils.main(["--verify", "--deep", "--lake", str(self.lake)]) == 0
            self.finish()
        except BaseException:
            print(f"replay with NIGHTS_SEED={self.seed} NIGHTS={count}", *self.happened, *self.told, sep="\n")
            raise

    def finish(self) -> None:
        """Quiet nights: all that can be read is read, and then nothing more."""
        self.happened.append("-- quiet nights")
        for _ in range(3):  # a topic that can't be told from the last one at once is, a night later
            self.export("--all", "--allow-shrink")
        self.history.check(self.lake, complete=True)
        self.history.check_table(self.lake)
        files = sorted(self.lake.rglob("data_*.parquet"))
        assert self.export("--all") == 0
        assert sorted(self.lake.rglob("data_*.parquet")) == files
        assert not list((self.lake / ".staging").glob("*/*"))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_changed(
    seed: int, ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Nights(ksqldb, tmp_path / "lake", seed, capsys, monkeypatch).nights(COUNT)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1000, 1040))
def test_many_more_nights(
    seed: int, ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Nights(ksqldb, tmp_path / "lake", seed, capsys, monkeypatch).nights(20)
