"""What the rows of a stream prove: which are new, and whether the topic is still the same as before.

A row's identity is (generation, ROWPARTITION, ROWOFFSET). The last exported row of a partition is its
anchor: it is read again and its columns are compared before any row after it counts.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import numbers, python
from ksql_lake.base.errors import SourceError
from ksql_lake.model.anchor import Anchor
from ksql_lake.model.canonical import canonical
from ksql_lake.model.coverage import inside
from ksql_lake.sources.row_source import PSEUDO_COLUMNS, TICK


class TopicRecreated(Exception):
    """The topic was recreated: what it holds now contradicts what was read of `partition` before."""

    def __init__(self, partition: int, why: str, offset: int | None = None) -> None:
        super().__init__(why)
        self.partition, self.offset = partition, offset


def _replaced(partition: int, offset: int) -> TopicRecreated:
    return TopicRecreated(partition, f"partition {partition} has a different row at offset {offset}", offset)


def anchor_of(batch: pa.RecordBatch, row: int, names: Sequence[str], salt: str = "") -> Anchor:
    """The anchor that one row of a batch (ROWTIME, ROWPARTITION, ROWOFFSET, columns...) would be."""
    rowtime, _, offset = (batch.column(i)[row].as_py() for i in range(PSEUDO_COLUMNS))
    values = [canonical(python(batch.column(PSEUDO_COLUMNS + i)[row])) for i in range(len(names))]
    return Anchor(offset, rowtime, _digest(values, salt), tuple(names), salt=salt)


def salt_of(known: Iterable[Anchor]) -> str:
    """The salt of a feed: that of its anchors, or a new one."""
    return next((anchor.salt for anchor in known if anchor.salt), None) or secrets.token_hex(8)


def _digest(values: Sequence[object], salt: str) -> str:
    text = salt + json.dumps(values, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def has_values(batch: pa.RecordBatch, row: int, first: int, names: Sequence[str], known: Anchor) -> bool:
    """Whether a row has the values of a known one, in the columns that there were then.

    Args:
        first: the position in the batch of the first of `names`.
    """
    where = {name: first + i for i, name in enumerate(names)}
    values = [canonical(python(batch.column(where[name])[row])) for name in known.columns]
    return _digest(values, known.salt) == known.hash


def is_row(batch: pa.RecordBatch, row: int, first: int, names: Sequence[str], known: Anchor) -> bool:
    """Whether a row, whose ROWTIME is the batch's first column, has the time and the values of a known one."""
    return bool(batch.column(0)[row].as_py() == known.rowtime) and has_values(batch, row, first, names, known)


@dataclass(frozen=True)
class Rows:
    """The rows of one partition in a batch: their positions in it and their offsets."""

    batch: pa.RecordBatch
    partition: int
    positions: np.ndarray
    offsets: np.ndarray
    names: Sequence[str]
    salt: str

    def anchor(self, index: int) -> Anchor:
        return anchor_of(self.batch, int(self.positions[index]), self.names, self.salt)

    def rowtime(self, index: int) -> int:
        return int(self.batch.column(0)[int(self.positions[index])].as_py())

    def same(self, index: int, known: Anchor) -> bool:
        """Whether a row has the values of a known one, in the columns that there were then."""
        return has_values(self.batch, int(self.positions[index]), PSEUDO_COLUMNS, self.names, known)


@dataclass
class Sieve:
    """Keeps the rows of one generation that are new, partition by partition.

    Attributes:
        anchors: per partition, the last row read so far.
        skip: per partition, offset ranges (both ends included) beyond the anchors that are exported already.
        pending: partitions whose anchor has not been seen in this query; none of their rows are kept until then.
        gaps: (partition, rows at most lost) where the first row came after the anchor.
        heads: per partition, the first row of an earlier query: the first one that every query returns (a tick), or
            the very first where there was no tick. No tick below it existed then.
        new_heads: the same of this query.
        before: partitions with rows in this query that come before an anchor not yet seen.
        matched: partitions with a row in this query that was known before and is unchanged.
        evidence: those of `matched`, and those with new rows.
        doubts: partitions that look like another topic's, and why; only a matching anchor clears the doubt.
        salt: of the hashes of new anchors.
    """

    source: str
    anchors: dict[int, Anchor]
    skip: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    heads: Mapping[int, Anchor] = field(default_factory=dict)
    new_heads: dict[int, Anchor] = field(default_factory=dict)
    before: set[int] = field(default_factory=set)
    matched: set[int] = field(default_factory=set)
    evidence: set[int] = field(default_factory=set)
    doubts: dict[int, str] = field(default_factory=dict)
    samples: bool = True
    proven: bool = False
    salt: str = ""
    _settled: set[int] = field(default_factory=set)
    _resumed: frozenset[int] = frozenset()

    def start_query(self, *, proven: bool = False, samples: bool = True) -> None:
        """A new query begins, from the anchors.

        Args:
            proven: the source knows that the topic is the same, so no anchor is compared.
            samples: rows with ROWOFFSET % TICK < 2 come from the whole of each partition.
        """
        self.heads = self.known_heads
        self.pending = set() if proven else set(self.anchors)
        self.new_heads, self.doubts = {}, {}
        self.before, self.matched, self.evidence, self._settled = set(), set(), set(), set()
        self.proven, self.samples, self._resumed = proven, samples, frozenset(self.anchors)

    def new_rows(self, batch: pa.RecordBatch, names: Sequence[str]) -> np.ndarray:
        """A boolean mask of the rows of this batch that were neither exported nor read before.

        Raises:
            TopicRecreated: a known row has other columns now, or lies below where its partition began.
            SourceError: an anchor's columns are equal, but its ROWTIME is not.
        """
        partitions, offsets = numbers(batch.column(1)), numbers(batch.column(2))
        keep = np.zeros(len(offsets), dtype=bool)
        for partition in np.unique(partitions).tolist():
            positions = np.flatnonzero(partitions == partition)
            rows = Rows(batch, partition, positions, offsets[positions], names, self.salt)
            keep[positions] = self._new_in_partition(rows)
        return keep

    def log_starts(self, starts: Mapping[int, int], following: Mapping[int, int]) -> None:
        """Take the lowest offsets that exist from the source: an anchor below them is not waited for.

        Args:
            following: partition -> the offset to read from, where the source had left one.
        """
        for partition, start in starts.items():
            anchor = self.anchors.get(partition)
            wanted = max(following.get(partition, 0), anchor.offset + 1 if anchor else 0)
            if anchor is not None and start > anchor.offset:
                self.pending.discard(partition)
            if start > wanted and (anchor is not None or partition in following):
                self.gaps.append((partition, start - wanted))

    @property
    def known_heads(self) -> dict[int, Anchor]:
        """The first rows known so far; not of partitions whose anchor did not come, which may be another topic's."""
        fresh = {p: head for p, head in self.new_heads.items() if p not in self.pending}
        return {**self.heads, **fresh}

    def _match(self, partition: int) -> None:
        self.matched.add(partition)
        self.evidence.add(partition)

    def _new_in_partition(self, rows: Rows) -> np.ndarray:
        partition, offsets = rows.partition, rows.offsets
        anchor = self.anchors.get(partition)
        last = anchor.offset if anchor else -1
        if partition not in self._settled:
            self._look_at_start(rows)
        if anchor and partition in self.pending:
            reached = np.flatnonzero(offsets >= anchor.offset)
            if not len(reached):
                self.before.add(partition)
                return np.zeros(len(offsets), dtype=bool)
            self._check_anchor(rows, int(reached[0]), anchor)
            self.pending.discard(partition)
        before = np.maximum.accumulate(np.concatenate(([last], offsets[:-1])))
        new = offsets > np.maximum(before, last)
        if new.any():
            self.anchors[partition] = rows.anchor(int(np.flatnonzero(new)[-1]))
            self.evidence.add(partition)
        if partition in self.skip:
            new &= ~inside(self.skip[partition], offsets)
        return np.asarray(new)

    def _look_at_start(self, rows: Rows) -> None:
        """Remember a first row of the partition, and compare it with the one that an earlier query saw.

        A topic that was recreated with fewer rows never reaches the anchor, but it has a different row at the start,
        or one below what had expired: Kafka's log start never moves back.
        """
        partition, offsets = rows.partition, rows.offsets
        ticks = np.flatnonzero(offsets % TICK < 2)
        head = self.new_heads.get(partition)
        better = head is None or (head.offset % TICK >= 2 and len(ticks))
        if better and (self.samples or partition not in self._resumed):
            head = self.new_heads[partition] = rows.anchor(int(ticks[0]) if len(ticks) else 0)
        known = self.heads.get(partition)
        if known is not None and not self.proven:
            self._compare_head(rows, known, ticks)
        passed = known is None or int(offsets.max()) >= known.offset
        if passed and (head is not None and head.offset % TICK < 2 or not self.samples):
            self._settled.add(partition)

    def _compare_head(self, rows: Rows, known: Anchor, ticks: np.ndarray) -> None:
        partition = rows.partition
        for index in np.flatnonzero(rows.offsets == known.offset)[:1].tolist():
            if not rows.same(index, known):
                raise _replaced(partition, known.offset)
            if rows.rowtime(index) == known.rowtime:
                self._match(partition)
            elif partition not in self.pending:
                raise self._redefined(partition, known.offset)
            else:
                self._doubt(partition, f"the row at offset {known.offset} of partition {partition} has another ROWTIME")
        below = rows.offsets[ticks][rows.offsets[ticks] < known.offset]
        if len(below):
            was = f"and partition {partition} used to begin at {known.offset}"
            self._doubt(partition, f"there is a row at offset {int(below[0])}, {was}")

    def _doubt(self, partition: int, why: str) -> None:
        """It looks like another topic. Where an anchor may still come, the anchor decides."""
        if partition not in self.pending:
            raise TopicRecreated(partition, why)
        self.doubts.setdefault(partition, why)

    def _redefined(self, partition: int, offset: int) -> SourceError:
        return SourceError(
            f"{self.source}: the row at partition {partition}, offset {offset} now has another ROWTIME with the "
            "same columns: the stream was redefined over the same topic (another timestamp column?); archive "
            "this feed and add a new one under another name"
        )

    def _check_anchor(self, rows: Rows, index: int, anchor: Anchor) -> None:
        partition, offset = rows.partition, int(rows.offsets[index])
        if offset > anchor.offset:
            if partition in self.doubts:
                raise TopicRecreated(partition, self.doubts[partition])
            if offset > anchor.offset + 1:
                self.gaps.append((partition, offset - anchor.offset - 1))
            return
        if not rows.same(index, anchor):
            raise _replaced(partition, offset)
        if rows.rowtime(index) != anchor.rowtime:
            raise self._redefined(partition, offset)
        self.doubts.pop(partition, None)
        self._match(partition)
        self.anchors[partition] = rows.anchor(index)  # not missing any more, and salted
