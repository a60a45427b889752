"""The interface between a stream's rows and where they come from.

A `RowSource` is one stream; `open` starts one reading of it. A `Reading` returns record batches and knows when every
partition has been read to its present end, by whatever means its protocol has. Anchors, coverage, days, checks
and writing (`ingest.streams`) do not know which source they read.

The first source is the REST push query (`sources.ksqldb.push_rows`), which never ends, cannot seek and proves nothing
about the topic; a source that can do better says so by `identity`, `proven`, `starts` and `ended`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, TypeAlias

import pyarrow as pa

from ksql_lake.model.findings import Finding
from ksql_lake.model.types import Column

PSEUDO_COLUMNS = 3  # ROWTIME (int64, epoch ms), ROWPARTITION (int32), ROWOFFSET (int64) come first in every batch
TICK = 1000  # see Reading.samples


@dataclass(frozen=True)
class Flaw:
    """A value that its type cannot hold.

    Attributes:
        row: in its batch.
        column: its name at the source.
        reason: what is wrong with it, without the value: messages go where erasures do not search.
        partition, offset: where the row is, None for a table.
    """

    row: int
    column: str
    reason: str
    partition: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        where = "" if self.offset is None else f"partition {self.partition}, offset {self.offset}: "
        return f"{where}column {self.column} holds {self.reason}"


@dataclass(frozen=True)
class Flawed:
    """Rows of which some have a value that its type cannot hold; those values are null."""

    batch: pa.RecordBatch
    flaws: tuple[Flaw, ...]


Rows: TypeAlias = pa.RecordBatch | Flawed


@dataclass(frozen=True)
class Wanted:
    """Which rows a reading has to return.

    Attributes:
        after: partition -> offset of the last row known there. That row comes again, to be compared, and then all
            that follow it; unless the reading is `proven`, when it may begin one later. A partition that is not named
            is read from its start.
        next: partition -> the offset that comes next, where a source of known ends has left it: beyond records that
            are no rows. Only right for the topic that it was left at.
        whole: partitions of `after` of which every row is wanted: whether there are rows before the known one shows
            what happened to it. A source that is `proven` need not send them.
        without: partition -> offsets of rows that the source cannot send, to be left out.
        window: only rows with ROWTIME in [start, end), epoch ms, are needed; a source may bring others too.
    """

    after: Mapping[int, int] = field(default_factory=dict)
    whole: frozenset[int] = frozenset()
    window: tuple[int, int] | None = None
    without: Mapping[int, Collection[int]] = field(default_factory=dict)
    next: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PassedOver:
    """Records of a partition that ksqlDB skips: how many, the offset of the first, and why."""

    records: int
    first: int
    reason: str


class Replaced(Exception):
    """The topic is not the one that was read before: it was deleted and created again."""

    def __init__(self, partition: int, why: str) -> None:
        super().__init__(why)
        self.partition = partition


class Reading(Protocol):
    """One pass over a stream, from `Wanted` to the present end. A context manager; leaving it closes the source.

    A class that derives from this one inherits the answers of a source that knows nothing of its topic.
    """

    @property
    def columns(self) -> tuple[Column, ...]:
        """The stream's own columns, in the order in which they follow the three pseudo columns in a batch."""

    @property
    def proven(self) -> bool:
        """Whether the source itself knows that this is the topic of `Wanted`, so that no row needs to be compared."""

    @property
    def samples(self) -> bool:
        """Whether rows with ROWOFFSET % TICK < 2 come from the whole of each partition, wherever the reading begins."""

    def read(self) -> Sequence[Rows]:
        """The next rows: batches of (ROWTIME, ROWPARTITION, ROWOFFSET, columns...), offsets ascending within a
        partition unless the source repeats itself. Empty when nothing came for a moment (about POLL seconds).

        Raises:
            KsqlUnavailable, BrokerUnavailable: the source broke off and may be read again; what came before counts.
            Replaced: the topic was recreated while it was read; nothing of this reading counts.
            SchemaError: a value that its type cannot hold, from a source that does not return `Flawed`.
            LakeError: it cannot be read.
        """

    def worked(self, seconds: float) -> None:
        """Report the time that the caller spent on the rows of the last `read`, which is not silence of the source."""

    def ended(self, now: float) -> str | None:
        """Why every partition counts as read to its present end, in a few words; None to continue.

        Args:
            now: `time.monotonic()`.
        """

    def silence(self, now: float, partition: int | None = None) -> float:
        """Seconds since the last row of a partition (of all of them for None), or since the reading began."""

    def behind(self, now: float) -> Sequence[int]:
        """Partitions that are known not to be at their end yet, as far as the source can tell."""

    def starts(self) -> Mapping[int, int]:
        """Partition -> the lowest offset that still exists, where the source knows; {} when it cannot tell."""
        return {}

    def positions(self) -> Mapping[int, int]:
        """Partition -> the next offset after everything that was returned, where the source knows it; else {}."""
        return {}

    def goals(self) -> Mapping[int, int]:
        """Partition -> the offset at which it ends, where the source knows that from the beginning; else {}."""
        return {}

    def remarks(self) -> Sequence[Finding]:
        """What a person should know about this reading besides its rows, such as a partition without a leader."""
        return ()

    def passed_over(self) -> Mapping[int, PassedOver]:
        """Partition -> records of the topic that are not rows, where the source sees them."""
        return {}

    def __enter__(self) -> Reading: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RowSource(Protocol):
    """One stream at its source."""

    @property
    def name(self) -> str:
        """The stream's name as the server spells it."""

    @property
    def partitions(self) -> int:
        """How many partitions the topic has now, 0 to n - 1; 0 when it is not known."""

    @property
    def identity(self) -> str | None:
        """What changes when, and only when, the topic is deleted and created again (Kafka's topic id); None: unknown.

        The export remembers it with the rows and calls a topic recreated when it differs.
        """

    @property
    def compacted(self) -> bool:
        """Whether rows may vanish from the middle of the topic; False also when it is not known."""

    def at(self, rowtimes: Collection[int]) -> Iterator[tuple[Sequence[str], pa.RecordBatch]]:
        """Every row with one of these ROWTIMEs: the names of the stream's columns, and batches of (ROWTIME, columns).

        Raises:
            KsqlError: that cannot be told, or not to the end.
        """

    def is_empty(self) -> bool | None:
        """Whether the stream has no row at all; None when that is not known for certain."""

    def open(self, wanted: Wanted) -> Reading:
        """Start reading.

        Raises:
            LakeError: refused; KsqlUnavailable or BrokerUnavailable when it may be accepted later.
            Replaced: the topic is another one than that of `Wanted`.
        """
