"""One push query that lives through many commits, so that ksqlDB reads a topic once and not at each of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import numbers
from ksql_lake.base.errors import LakeError
from ksql_lake.model.findings import Finding
from ksql_lake.model.types import Column
from ksql_lake.sources.row_source import Flawed, PassedOver, Reading, Rows, RowSource, Wanted


class LongPush:
    """The query of one stream, and the rows that came since the last commit.

    Attributes:
        rows: how many of them wait.
        broken: why the query ended, until the next one is open.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.broken: LakeError | None = None
        self._reading: Reading | None = None
        self._columns: tuple[Column, ...] = ()
        self._waiting: list[Rows] = []
        self._handed: dict[int, int] = {}

    @property
    def open(self) -> bool:
        return self._reading is not None

    def over(self, source: RowSource) -> LongSource:
        """The source of one commit: what waits, or a new query."""
        return LongSource(self, source)

    def listen(self, seconds: float) -> None:
        """Take rows for so long; they wait for the next commit."""
        until = time.monotonic() + seconds
        while self._reading is not None and time.monotonic() < until:
            try:
                for rows in self._reading.read():
                    self._waiting.append(rows)
                    self.rows += len(rows.batch if isinstance(rows, Flawed) else rows)
            except LakeError as error:
                self.broken = error
                self.close()

    def close(self) -> None:
        """End the query; what waits stays."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.__exit__(None, None, None)

    def forget(self) -> None:
        """Another query brings everything again."""
        self.close()
        self._waiting, self.rows, self._columns, self._handed = [], 0, (), {}

    def begin(self, reading: Reading) -> None:
        """A new query is open; nothing of an older one counts."""
        self.forget()
        self._reading, self._columns, self._handed, self.broken = reading, reading.columns, {}, None

    def hand(self, found: Sequence[Rows]) -> None:
        """Remember how far rows were handed out."""
        for rows in found:
            batch = rows.batch if isinstance(rows, Flawed) else rows
            partitions, offsets = numbers(batch.column(1)), numbers(batch.column(2))
            for partition in np.unique(partitions).tolist():
                last = int(offsets[partitions == partition].max())
                self._handed[partition] = max(last, self._handed.get(partition, -1))

    def follows(self, wanted: Wanted) -> bool:
        """Whether what waits begins where the lake ends; not after a reset, and not for days that are asked for."""
        known = all(wanted.after.get(partition, -1) >= last for partition, last in self._handed.items())
        return known and bool(self._columns) and wanted.window is None and (self.open or bool(self._waiting))

    def take(self) -> list[Rows]:
        taken, self._waiting, self.rows = self._waiting, [], 0
        return taken

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._columns


class LongSource:
    """A stream as a `RowSource` whose push query outlives the commit."""

    identity: str | None = None

    def __init__(self, push: LongPush, source: RowSource) -> None:
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
        if self._push.follows(wanted):
            return _Waiting(self._push)
        self._push.close()
        reading = self._source.open(wanted)
        self._push.begin(reading)
        return _First(self._push, reading)


class _Waiting:
    """The rows that came since the last commit, from the query whose earlier rows were verified."""

    proven, samples = True, False

    def __init__(self, push: LongPush) -> None:
        self._push, self._done = push, False

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._push.columns

    def read(self) -> Sequence[Rows]:
        found = self._push.take()
        self._push.hand(found)
        self._done = True
        return found

    def worked(self, seconds: float) -> None:
        """Nothing depends on how long it takes here."""

    def ended(self, now: float) -> str | None:
        return "the rows of this interval are read" if self._done else None

    def silence(self, now: float, partition: int | None = None) -> float:
        return float("inf")

    def behind(self, now: float) -> Sequence[int]:
        return ()

    def starts(self) -> Mapping[int, int]:
        return {}

    def goals(self) -> Mapping[int, int]:
        return {}  # a push query has no end

    def positions(self) -> Mapping[int, int]:
        return {}

    def remarks(self) -> Sequence[Finding]:
        return ()

    def passed_over(self) -> Mapping[int, PassedOver]:
        return {}

    def __enter__(self) -> _Waiting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # what was taken is not in the lake: another query brings it again
            self._push.forget()


class _First:
    """A new query up to the present end, as any export reads it; then it stays open."""

    def __init__(self, push: LongPush, reading: Reading) -> None:
        self._push, self._reading = push, reading

    @property
    def proven(self) -> bool:
        return self._reading.proven

    @property
    def samples(self) -> bool:
        return self._reading.samples

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._reading.columns

    def read(self) -> Sequence[Rows]:
        found = self._reading.read()
        self._push.hand(found)
        return found

    def worked(self, seconds: float) -> None:
        self._reading.worked(seconds)

    def ended(self, now: float) -> str | None:
        return self._reading.ended(now)

    def silence(self, now: float, partition: int | None = None) -> float:
        return self._reading.silence(now, partition)

    def behind(self, now: float) -> Sequence[int]:
        return self._reading.behind(now)

    def starts(self) -> Mapping[int, int]:
        return self._reading.starts()

    def goals(self) -> Mapping[int, int]:
        return {}  # a push query has no end

    def positions(self) -> Mapping[int, int]:
        return self._reading.positions()

    def remarks(self) -> Sequence[Finding]:
        return self._reading.remarks()

    def passed_over(self) -> Mapping[int, PassedOver]:
        return self._reading.passed_over()

    def __enter__(self) -> _First:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._push.close()
