"""Reads a stream's rows directly from its topic, up to the offsets where each partition ended when the run began."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import pyarrow as pa

from ksql_lake.base.errors import BrokerUnavailable
from ksql_lake.model.anchor import TopicMark
from ksql_lake.model.findings import Finding
from ksql_lake.model.types import Column
from ksql_lake.sources.kafka.asked import Asker
from ksql_lake.sources.kafka.block import Block
from ksql_lake.sources.kafka.formats import Plan
from ksql_lake.sources.kafka.messages import MessageDecoder, batch_of, in_order
from ksql_lake.sources.kafka.records import Decoded, Passed
from ksql_lake.sources.kafka.topic import Bounds, Broker, TopicState
from ksql_lake.sources.row_source import PassedOver, Replaced, Rows, RowSource, Wanted


@dataclass(frozen=True)
class Spans:
    """What to read of each partition, and what cannot be read as expected.

    Attributes:
        spans: partition to (first offset, goal).
        starts: partition to the log start, where that is beyond the next offset to read.
        cut_off: partition to (its end now, the offset that was read up to), where it ends before that.
    """

    spans: Mapping[int, tuple[int, int]]
    starts: Mapping[int, int]
    cut_off: Mapping[int, tuple[int, int]]


def spans_of(goals: Mapping[int, Bounds], bounds: Mapping[int, Bounds], wanted: Wanted, *, proven: bool) -> Spans:
    """Which offsets to read.

    Args:
        goals: the bounds when the run began.
        bounds: the bounds now.
        proven: whether the topic is known to be the one of `wanted`. Otherwise the last known row is read again, and a
            partition that does not reach it any more is read from its start, to be compared there.
    """
    spans, starts, cut_off = {}, {}, {}
    for partition, goal in goals.items():
        low = bounds[partition].start if partition in bounds else goal.start
        after = wanted.after.get(partition)
        following = max(wanted.next.get(partition, 0), -1 if after is None else after + 1) if proven else 0
        first = following if proven else after or 0
        if proven and goal.end < following:
            cut_off[partition] = goal.end, following
            continue
        if not proven and after is not None and (goal.end <= after or partition in wanted.whole):
            first = low
        if low > (following if proven or after is None else after):
            starts[partition] = low
        spans[partition] = max(first, low), max(goal.end, max(first, low))
    return Spans(spans, starts, cut_off)


class TopicReading:
    """One pass over a topic as a `Reading`."""

    samples = False

    def __init__(self, source: TopicRows, spans: Spans, *, proven: bool) -> None:
        self._source, self._spans, self.proven = source, spans, proven
        self._decoder = source.decoder
        self._progress, self._batches = source.broker.read(
            source.plan.topic, spans.spans, headers=bool(source.plan.headers), most=source.batch_size
        )
        self._handed_out = dict(self._progress.positions)
        self._passed: dict[int, PassedOver] = {}
        self._done = False

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._source.plan.columns

    def read(self) -> Sequence[Rows]:
        block = next(self._batches, None)
        if block is None:
            self._finish()
            return ()
        decoded = self._decoder.decode(block)
        self._count(decoded.passed)
        rows = self._source.asked(decoded, block, self._count)
        self._handed_out = dict(self._progress.positions)
        return [rows]

    def _finish(self) -> None:
        """Called at the end of the messages: at their goals, or because something went wrong."""
        progress = self._progress
        if progress.stopped is not None:
            raise progress.stopped
        if progress.expired:
            first = progress.expired[0]
            raise BrokerUnavailable(
                f"{self._source.name}: records of partition {first.partition} from offset {first.offset} on expired "
                "while they were read"
            )
        self._source.check_identity()
        self._handed_out = dict(progress.positions)
        self._done = True

    def _count(self, passed: Sequence[Passed]) -> None:
        for one in passed:
            known = self._passed.get(one.partition, PassedOver(0, one.offset, one.reason))
            self._passed[one.partition] = PassedOver(known.records + 1, known.first, known.reason)

    def worked(self, seconds: float) -> None:
        """Nothing depends on how long it takes here."""

    def ended(self, now: float) -> str | None:
        return "every partition is read to its last stable offset" if self._done else None

    def silence(self, now: float, partition: int | None = None) -> float:
        return float("inf") if self._done else 0.0

    def behind(self, now: float) -> Sequence[int]:
        return self._progress.open

    def starts(self) -> Mapping[int, int]:
        return self._spans.starts

    def positions(self) -> Mapping[int, int]:
        return self._handed_out

    def goals(self) -> Mapping[int, int]:
        return self._progress.goals

    def passed_over(self) -> Mapping[int, PassedOver]:
        return self._passed

    def remarks(self) -> Sequence[Finding]:
        feed = self._source.feed
        found = [
            Finding("incomplete", f"partition {p} has no leader at the moment, so nothing of it was read; the next run "
                    "continues there", feed=feed, partition=p)
            for p in self._source.leaderless
        ]
        for partition, (end, following) in self._spans.cut_off.items():
            message = (
                f"partition {partition} now ends at offset {end} but was read up to {following} before: the same topic "
                "lost records (an unclean leader election?); nothing of it is read until it has passed that offset"
            )
            found.append(Finding("gap", message, feed=feed, partition=partition, offset=end))
        return found

    def __enter__(self) -> TopicReading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batches.close()


class TopicRows:
    """A stream as a `RowSource` that reads its topic.

    Args:
        state: the topic when the run begins; its ends are the goals.
        mark: the state of the topic after an earlier run.
        rest: the same stream over REST, for what Kafka cannot answer.
        asker: asks ksqlDB for the records that are not certain; None stops at the first of them.
        lenient, exact: see `RecordDecoder`.
        only: these partitions, when others read the rest.
    """

    def __init__(
        self, broker: Broker, plan: Plan, state: TopicState, mark: TopicMark, rest: RowSource, feed: str,
        batch_size: int = 10_000, *, lenient: bool = False, exact: bool = False, asker: Asker | None = None,
        only: Collection[int] | None = None,
    ) -> None:
        self.broker, self.plan, self.feed, self.batch_size = broker, plan, feed, batch_size
        self.decoder = MessageDecoder(plan, exact=exact, lenient=lenient, asks=asker is not None)
        self.asker = asker
        self.topic, self._mark, self._rest, self._opened = state, mark, rest, False
        self._goals = {p: bounds for p, bounds in state.bounds.items() if only is None or p in only}

    @property
    def name(self) -> str:
        return self.plan.source

    @property
    def partitions(self) -> int:
        return len(self.topic.bounds) + len(self.topic.leaderless)

    @property
    def leaderless(self) -> tuple[int, ...]:
        return self.topic.leaderless

    @property
    def identity(self) -> str | None:
        return self.topic.id

    @property
    def compacted(self) -> bool:
        return self._rest.compacted

    def at(self, rowtimes: Collection[int]) -> Iterator[tuple[Sequence[str], pa.RecordBatch]]:
        return self._rest.at(rowtimes)

    def is_empty(self) -> bool | None:
        if self.topic.leaderless:
            return None
        return all(bounds.start >= bounds.end for bounds in self.topic.bounds.values())

    @property
    def known(self) -> bool:
        """Whether the topic is the one that an earlier run left, by its id."""
        return self._mark.id is not None and self._mark.id == self.topic.id

    def records(self, after: Mapping[int, int]) -> dict[int, int]:
        """Partition -> how many records there are to read at most; `after`: partition -> the last row known there."""
        spans = spans_of(self._goals, self._goals, Wanted(after, next=self._mark.next), proven=self.known).spans
        return {partition: goal - first for partition, (first, goal) in spans.items()}

    def open(self, wanted: Wanted) -> TopicReading:
        known, found = self._mark.id, self.topic.id
        if known is not None and found is not None and known != found:
            raise Replaced(0, "Kafka gives it a different id")
        now = self.broker.describe(self.plan.topic) if self._opened else self.topic
        self._opened = True
        self._same(now.id)
        spans = spans_of(self._goals, now.bounds, wanted, proven=self.known)
        return TopicReading(self, spans, proven=self.known)

    def asked(self, decoded: Decoded, block: Block, count: Callable[[Sequence[Passed]], None]) -> Rows:
        """The rows of a block and those that ksqlDB was asked for; `count` counts records that are not rows."""
        if self.asker is None or not decoded.unsure:
            return decoded.rows
        rows, places = decoded.rows, dict[int, set[int]]()
        for one in decoded.unsure:
            places.setdefault(one.partition, set()).add(one.offset)
        there = set[tuple[int, int]]()
        for more in self.asker.ask(places, decoded.unsure[0].reason):
            batch = batch_of(more)
            there |= set(zip(batch.column(1).to_pylist(), batch.column(2).to_pylist(), strict=True))
            rows = in_order(rows, more, block)
        count([one for one in decoded.unsure if (one.partition, one.offset) not in there])
        return rows

    def check_identity(self) -> None:
        """Check that it is still the same topic.

        Raises:
            Replaced: it was recreated since the run began.
        """
        if self.topic.id is not None:
            self._same(self.broker.topic_id(self.plan.topic))

    def _same(self, found: str | None) -> None:
        if found is not None and self.topic.id is not None and found != self.topic.id:
            raise Replaced(0, "it was recreated during this run")

