"""Following: feeds that are exported again and again in small batches, each of them an ordinary export.

Each batch is a commit of its own, with the feed's lock held only for it, so that other commands get in between, a kill
loses nothing, and nightly runs and following may alternate on one lake. From Kafka the follower only asks for the ends
of the topic in between; over REST one push query stays open, and its rows wait for the next commit.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ksql_lake import __version__
from ksql_lake.base.errors import LakeError
from ksql_lake.base.retry import delay
from ksql_lake.ingest.export import FeedResult, FeedTask, dataset_of, export_feed, now
from ksql_lake.maintain import merges
from ksql_lake.maintain.compact import compact
from ksql_lake.model.state import FeedState
from ksql_lake.sources.kafka.topic import Broker, TopicState
from ksql_lake.sources.ksqldb.client import Client
from ksql_lake.sources.ksqldb.long_push import LongPush
from ksql_lake.store import metadata
from ksql_lake.store.hold import hold

log = logging.getLogger("export_to_data_lake")
LOOK = 1.0  # seconds between two requests for the ends of a topic
QUIET = 10  # intervals without a row
ASK = 10.0  # seconds for the server to say which queries it runs
USUAL_BYTES = 200  # of a row in a file, as long as no batch has been measured


@dataclass(frozen=True)
class Rhythm:
    """When a batch is committed: after so many seconds, or earlier when so many rows or bytes wait.

    Attributes:
        every, tables_every, tidy_every: seconds; the last is how often small files are merged and retention is applied.
        bytes: of files, estimated from the batches before.
    """

    every: float = 60.0
    rows: int = 200_000
    bytes: int = 64 << 20
    tables_every: float = 3600.0
    tidy_every: float = 3600.0


@dataclass
class Standing:
    """The health of one follower, for monitoring; times in seconds since 1970.

    Attributes:
        waiting: records (Kafka) or rows (REST) that are not committed yet.
        beat: when its thread last showed a sign of life.
    """

    feed: str
    road: str = ""
    commits: int = 0
    rows: int = 0
    failures: int = 0
    waiting: int = 0
    last_commit: float = 0.0
    last_success: float = 0.0
    last_error: str = ""
    beat: float = 0.0


class Follower:
    """Follows one feed until `stop` is set.

    Args:
        tell: called with the result of every export that brought rows or failed.
        clock: seconds since 1970.
    """

    def __init__(
        self, task: FeedTask, rhythm: Rhythm, stop: threading.Event, tell: Callable[[FeedResult], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.task, self.rhythm, self.stop, self.tell, self._clock = task, rhythm, stop, tell, clock
        self.standing = Standing(task.feed.name, beat=clock())
        self._push = LongPush() if task.feed.type == "stream" else None
        self._topic: _Ends | None = None
        self._tidied = time.monotonic()
        self._failing = 0
        self._row_bytes = float(USUAL_BYTES)

    def run(self) -> None:
        """Export, wait for more, export again; once more after `stop` is set."""
        try:
            while not self.stop.is_set():
                self._export()
                self._wait()
            self._export()
        finally:
            if self._push is not None:
                self._push.close()
            self._forget_topic()

    def _export(self) -> None:
        tidy = time.monotonic() - self._tidied >= self.rhythm.tidy_every
        rule = self.task.rule if tidy else None
        run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
        waiting = self._push.rows if self._push is not None else 0
        result = export_feed(replace(self.task, run=run, rule=rule, wait=True, push=self._push))
        standing, at = self.standing, self._clock()
        standing.road, standing.beat, standing.waiting = result.road, at, 0
        if result.result == "failed":
            standing.failures, self._failing = standing.failures + 1, self._failing + 1
            standing.last_error = result.messages[0] if result.messages else "failed"
            self._forget_topic()
        else:
            standing.last_success, self._failing, standing.last_error = at, 0, ""
        if result.rows:
            standing.commits, standing.last_commit = standing.commits + 1, at
            standing.rows += result.rows
            self._row_bytes = max(1.0, result.bytes / result.rows)
        if result.rows or result.findings:
            self.tell(result)
        if result.road == "kafka" and self._push is not None and (self._push.open or waiting):
            self._push.forget()  # it came from Kafka this time
        if tidy and not self._failing:
            self._tidy()

    def _wait(self) -> None:
        """Wait until there is something to commit and it is time."""
        if self._failing:
            self._sleep(min(delay(self._failing - 1), self.rhythm.every))
        elif self.task.feed.type == "table":
            self._sleep(self.rhythm.tables_every)
        elif self.standing.road == "kafka":
            self._watch_topic()
        else:
            self._listen()

    def _watch_topic(self) -> None:
        due = time.monotonic() + self.rhythm.every
        while not self.stop.is_set():
            self._sleep(min(LOOK, max(0.0, due - time.monotonic()), self.rhythm.every / 4 + 0.01))
            try:
                waiting = self._look()
            except LakeError as error:
                log.warning("%s: %s", self.task.feed.name, error)
                return  # the export reports the problem and tries again
            self.standing.waiting = waiting
            over = time.monotonic() >= due
            if waiting and (over or self._enough(waiting)):
                return
            due = time.monotonic() + self.rhythm.every if over else due

    def _look(self) -> int:
        """Records that wait in the topic, at least one if the topic was recreated."""
        if self._topic is None:
            self._topic = _Ends.of(self.task)
        return self._topic.waiting()

    def _listen(self) -> None:
        """Take rows until there is something to commit, or after QUIET intervals without a row, when an export looks
        whether stream and topic are still the same. In each interval without a row, and once at the start, the server
        is asked whether it still runs the query: a silent connection may be half dead."""
        assert self._push is not None
        began = time.monotonic()
        due = began + self.rhythm.every
        if self._push.listed is None:
            self._push.ask(self._running)
        while not self.stop.is_set():
            if not self._push.open:  # another query is needed, or there is none yet
                self._sleep(min(LOOK, self.rhythm.every) if self._push.broken else self.rhythm.every)
                return
            self._push.listen(min(0.25, self.rhythm.every / 4))
            self.standing.beat, self.standing.waiting = self._clock(), self._push.rows
            over = time.monotonic() >= due
            if self._push.rows and (over or self._enough(self._push.rows)):
                return
            if time.monotonic() >= began + QUIET * self.rhythm.every:
                return
            if over:
                self._push.ask(self._running)
                due = time.monotonic() + self.rhythm.every

    def _running(self) -> Collection[str]:
        with Client(replace(self.task.server, timeout=min(ASK, self.task.server.timeout))) as client:
            return client.running()

    def _enough(self, waiting: int) -> bool:
        return waiting >= self.rhythm.rows or waiting * self._row_bytes >= self.rhythm.bytes

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stop.is_set() and (left := until - time.monotonic()) > 0:
            self.standing.beat = self._clock()
            self.stop.wait(min(left, 5.0))

    def _forget_topic(self) -> None:
        topic, self._topic = self._topic, None
        if topic is not None:
            topic.close()

    def _tidy(self) -> None:
        """Merge the small files of the hours that are over, today's too. A plain reader never counts a row twice: the
        small files leave before the merged one comes, so that it may see rows late, never double."""
        self._tidied = time.monotonic()
        if self.task.feed.type != "stream":
            return
        dataset = dataset_of(self.task)
        try:
            with hold(dataset, wait=True):
                state = metadata.load(dataset)
                for merge in merges.plan(state, 0, dt.datetime.now(dt.UTC)) if state else ():
                    run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}c"
                    assert state is not None
                    compact(dataset, state, merge, run, tool=__version__, now=now(), by=self.task.by)
        except LakeError as error:
            log.warning("%s: the small files were not merged: %s", self.task.feed.name, error)


class _Ends:
    """How far a topic goes beyond what the lake has of it."""

    def __init__(self, task: FeedTask, broker: Broker, topic: str) -> None:
        self._task, self._broker, self._name = task, broker, topic
        self._known: FeedState | None = None
        self._read_at: str | None = None

    @classmethod
    def of(cls, task: FeedTask) -> _Ends:
        """Raises LakeError when ksqlDB or Kafka cannot be asked."""
        assert task.kafka is not None
        with Client(task.server) as client:
            topic = client.resolve(task.feed.source, "stream").topic
        return cls(task, Broker(task.kafka), topic)

    def waiting(self) -> int:
        state: TopicState = self._broker.describe(self._name)
        known = self._state()
        if known is None:
            return 1
        mark, ends = known.mark, state.bounds.items()
        if mark.id is not None and state.id is not None and mark.id != state.id:
            return 1
        anchors = {partition: anchor.offset + 1 for partition, anchor in known.resume.items()}
        following = {p: max(mark.next.get(p, 0), anchors.get(p, 0)) for p, _ in ends}
        return sum(max(0, bounds.end - max(bounds.start, following[p])) for p, bounds in ends)

    def _state(self) -> FeedState | None:
        """The feed's state, read again when it has changed."""
        dataset = dataset_of(self._task)
        there = dataset.storage.stat(dataset.metadata)
        if there is None:
            return None
        if self._read_at != there.tag:
            self._read_at, self._known = there.tag, metadata.load(dataset)
        return self._known

    def close(self) -> None:
        self._broker.close()


def follow(
    tasks: list[FeedTask], rhythm: Rhythm, stop: threading.Event, tell: Callable[[FeedResult], None]
) -> tuple[list[Follower], list[threading.Thread]]:
    """Start a follower for each feed, in a thread of its own; they end when `stop` is set."""
    followers = [Follower(task, rhythm, stop, tell) for task in tasks]
    threads = [threading.Thread(target=one.run, name=f"follow {one.task.feed.name}", daemon=True) for one in followers]
    for thread in threads:
        thread.start()
    return followers, threads


