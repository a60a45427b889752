"""One push query that stays open over many commits, so that ksqlDB reads a topic once and not for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import pyarrow as pa

from ksql_lake.base.errors import KsqlUnavailable, LakeError
from ksql_lake.model.types import Column
from ksql_lake.sources.ksqldb.push_rows import PushRows, PushSource
from ksql_lake.sources.row_source import Flawed, Reading, Rows, RowSource, Wanted


class LongPush:
    """The query of one stream, and the rows that came since the last commit.

    Attributes:
        rows: how many of them wait.
        broken: why the query ended, until the next one is open.
        first: the topic's first row when the query was verified, and as it was last seen.
        listed: whether the server named the query among those it runs, when it was first asked; None before.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.broken: LakeError | None = None
        self.listed: bool | None = None
        self.first: First | None = None
        self._reading: PushRows | None = None
        self._columns: tuple[Column, ...] = ()
        self._waiting: list[Rows] = []
        self._handed: dict[int, int] = {}

    @property
    def open(self) -> bool:
        return self._reading is not None

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._columns

    def over(self, source: PushSource) -> RowSource:
        """The source of one commit: what waits, or a new query."""
        return LongSource(self, source)

    def listen(self, seconds: float) -> None:
        """Take rows for this long; they wait for the next commit."""
        until = time.monotonic() + seconds
        while self._reading is not None and time.monotonic() < until:
            try:
                for rows in self._reading.read():
                    self._waiting.append(rows)
                    self.rows += len(rows.batch if isinstance(rows, Flawed) else rows)
            except LakeError as error:
                self.broken = error
                self.close()

    def ask(self, running: Callable[[], Collection[str]]) -> None:
        """End the query when the server no longer runs it, although the connection looks alive.

        That happens behind a proxy which lost the server and keeps its clients. A query that the server has never
        listed proves nothing by being absent.

        Args:
            running: the ids of the queries that the server runs; LakeError when it cannot be asked.
        """
        if self._reading is None:
            return
        try:
            there = self._reading.query_id in running()
        except LakeError:
            return  # whether the server is there shows on the connection, or at the next time
        if self.listed is None:
            self.listed = there
        elif self.listed and not there:
            self.broken = KsqlUnavailable("the server no longer runs the query, though the connection is open")
            self.close()

    def close(self) -> None:
        """End the query; what waits stays."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.close()

    def forget(self) -> None:
        """Another query brings everything again."""
        self.close()
        self._waiting, self.rows, self._columns, self._handed = [], 0, (), {}

    def begin(self, reading: PushRows, first: First | None) -> None:
        """A new query is open; nothing of an older one counts."""
        self.forget()
        self.first = first
        self._reading, self._columns, self.broken, self.listed = reading, reading.columns, None, None
        reading.stays = self._left

    def _left(self, error: BaseException | None) -> bool:
        """Whether the query stays open after the export that opened it, which it does unless that failed."""
        if error is not None or self._reading is None:
            self.close()
            return False
        self._handed = dict(self._reading.sent)
        return True

    def follows(self, wanted: Wanted) -> bool:
        """Whether what waits begins where the lake ends; not after a reset, and not for days that are asked for."""
        known = all(wanted.after.get(partition, -1) >= last for partition, last in self._handed.items())
        return known and bool(self._columns) and wanted.window is None and (self.open or bool(self._waiting))

    def take(self) -> list[Rows]:
        """What waits; it counts as handed out."""
        taken, self._waiting, self.rows = self._waiting, [], 0
        if self._reading is not None:
            self._handed = dict(self._reading.sent)
        return taken


@dataclass(frozen=True)
class First:
    """The first row of a partition: offset and ROWTIME; None of both when there is none."""

    partition: int
    offset: int | None
    rowtime: int | None


def moved(before: First | None, now: First | None) -> bool:
    """Whether a topic's first row says that it is not the topic of before: rows expire, but none comes before them."""
    if before is None or now is None or before.offset is None:
        return False
    if now.offset is None:
        return True  # a new topic without rows; when all expired instead, another query costs nothing
    return now.offset < before.offset or (now.offset == before.offset and now.rowtime != before.rowtime)


class LongSource:
    """A stream as a `RowSource` whose push query outlives the commit."""

    identity: str | None = None

    def __init__(self, push: LongPush, source: PushSource) -> None:
        self._push, self._source = push, source

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def partitions(self) -> int:
        return self._source.partitions

    @property
    def compacted(self) -> bool:
        return self._source.compacted

    def at(self, rowtimes: Collection[int]) -> Iterator[tuple[Sequence[str], pa.RecordBatch]]:
        return self._source.at(rowtimes)

    def is_empty(self) -> bool | None:
        return None  # also an empty stream is listened to

    def open(self, wanted: Wanted) -> Reading:
        """What waits, if it is of the topic that was verified when the query began; else a new query.

        The query of a topic that is deleted and created again silently continues at the same offset of the new one.
        So the topic's first row is checked after the rows came and before they are committed.
        """
        first = self._first(wanted)
        if self._push.follows(wanted) and not moved(self._push.first, first):
            self._push.first = first or self._push.first
            return _Waiting(self._push)
        self._push.close()
        reading = self._source.open(wanted)
        self._push.begin(reading, first)
        return reading

    def _first(self, wanted: Wanted) -> First | None:
        partition = self._push.first.partition if self._push.first else min(wanted.after, default=None)
        if partition is None:
            return None
        found = self._source.first_row(partition)
        return First(partition, *found) if found else First(partition, None, None)


class _Waiting(Reading):
    """The rows that came since the last commit, from the query whose earlier rows were verified."""

    proven, samples = True, False

    def __init__(self, push: LongPush) -> None:
        self._push, self._done = push, False

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._push.columns

    def read(self) -> Sequence[Rows]:
        self._done = True
        return self._push.take()

    def worked(self, seconds: float) -> None:
        """Nothing depends on how long it takes here."""

    def ended(self, now: float) -> str | None:
        return "the rows of this interval are read" if self._done else None

    def silence(self, now: float, partition: int | None = None) -> float:
        return float("inf")

    def behind(self, now: float) -> Sequence[int]:
        return ()

    def __enter__(self) -> _Waiting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # what was taken is not in the lake: another query brings it again
            self._push.forget()
