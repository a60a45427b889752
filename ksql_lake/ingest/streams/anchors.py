"""What the rows of a stream prove: which are new, and whether the topic is still the one we knew.

A row's identity is (generation, ROWPARTITION, ROWOFFSET). The last exported row of a partition is its
anchor: it is asked for again, and its columns are compared, before anything after it is believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import numbers
from ksql_lake.base.errors import SourceError
from ksql_lake.model.canonical import canonical
from ksql_lake.model.state import Anchor

TICK = 1000  # rows with ROWOFFSET % TICK < 2 come in every query, whatever it resumes from


class TopicRecreated(Exception):
    """At an exported offset another row stands now: the topic was made anew."""

    def __init__(self, partition: int, offset: int) -> None:
        super().__init__(f"partition {partition} holds another row at offset {offset}")


def anchor_of(batch: pa.RecordBatch, row: int, names: Sequence[str]) -> Anchor:
    """The anchor that one row of a batch (ROWTIME, ROWPARTITION, ROWOFFSET, columns...) would be."""
    rowtime, _, offset = (batch.column(i)[row].as_py() for i in range(3))
    values = [canonical(batch.column(i)[row].as_py()) for i in range(3, 3 + len(names))]
    return Anchor(offset, rowtime, _digest(values), tuple(names))


def _digest(values: Sequence[object]) -> str:
    text = json.dumps(values, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass
class Sieve:
    """Keeps the rows of one generation that are new, partition by partition.

    Attributes:
        anchors: per partition, the last row read so far.
        pending: partitions whose anchor has not been seen in this query.
        skip: per partition, offset ranges (both ends included) beyond the anchors that are exported already.
        gaps: (partition, rows at most lost) where the first row came after the anchor.
        heads: per partition, the first row of an earlier query that comes in every query (a tick).
        new_heads: the same of this query.
    """

    source: str
    anchors: dict[int, Anchor]
    skip: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    heads: Mapping[int, Anchor] = field(default_factory=dict)
    new_heads: dict[int, Anchor] = field(default_factory=dict)

    def start_query(self) -> None:
        self.pending = set(self.anchors)
        self.heads = {**self.heads, **self.new_heads}
        self.new_heads = {}

    def new_rows(self, batch: pa.RecordBatch, names: Sequence[str]) -> np.ndarray:
        """A boolean mask of the rows of this batch that were never exported nor read before.

        Raises:
            TopicRecreated: an anchor's columns differ.
            SourceError: an anchor's columns are equal, but its ROWTIME is not.
        """
        partitions = numbers(batch.column(1))
        offsets = numbers(batch.column(2))
        keep = np.zeros(len(offsets), dtype=bool)
        for partition in np.unique(partitions).tolist():
            rows = np.flatnonzero(partitions == partition)
            keep[rows] = self._new_in_partition(batch, partition, rows, offsets[rows], names)
        return keep

    def _new_in_partition(
        self, batch: pa.RecordBatch, partition: int, rows: np.ndarray, offsets: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        anchor = self.anchors.get(partition)
        last = anchor.offset if anchor else -1
        if partition not in self.new_heads:
            self._check_head(batch, partition, rows, offsets, names)
        if anchor and partition in self.pending:
            reached = np.flatnonzero(offsets >= anchor.offset)
            if not len(reached):
                return np.zeros(len(offsets), dtype=bool)
            self._check_anchor(batch, partition, int(rows[reached[0]]), int(offsets[reached[0]]), anchor, names)
            self.pending.discard(partition)
        before = np.maximum.accumulate(np.concatenate(([last], offsets[:-1])))
        new = offsets > np.maximum(before, last)
        if new.any():
            newest = int(rows[np.flatnonzero(new)[-1]])
            self.anchors[partition] = anchor_of(batch, newest, names)
        for low, high in self.skip.get(partition, ()):
            new &= (offsets < low) | (offsets > high)
        return np.asarray(new)

    def _check_head(
        self, batch: pa.RecordBatch, partition: int, rows: np.ndarray, offsets: np.ndarray, names: Sequence[str]
    ) -> None:
        """A topic recreated with fewer rows never shows its anchor, but it shows another row at the first tick."""
        ticks = np.flatnonzero(offsets % TICK < 2)
        if not len(ticks):
            return
        row, old = int(rows[ticks[0]]), self.heads.get(partition)
        head = self.new_heads[partition] = anchor_of(batch, row, names)
        if old and old.offset == head.offset and self._hash(batch, row, old, names) != old.hash:
            raise TopicRecreated(partition, head.offset)

    def _hash(self, batch: pa.RecordBatch, row: int, known: Anchor, names: Sequence[str]) -> str:
        """The hash of a row over the columns that a known row was hashed over."""
        positions = {name: 3 + i for i, name in enumerate(names)}
        return _digest([canonical(batch.column(positions[name])[row].as_py()) for name in known.columns])

    def _check_anchor(
        self, batch: pa.RecordBatch, partition: int, row: int, offset: int, anchor: Anchor, names: Sequence[str]
    ) -> None:
        if offset > anchor.offset:
            if offset > anchor.offset + 1:
                self.gaps.append((partition, offset - anchor.offset - 1))
            return
        if self._hash(batch, row, anchor, names) != anchor.hash:
            raise TopicRecreated(partition, offset)
        if batch.column(0)[row].as_py() != anchor.rowtime:
            raise SourceError(
                f"{self.source}: the row at partition {partition}, offset {offset} now has another ROWTIME with the "
                "same columns: the stream was redefined over the same topic (another timestamp column?); archive "
                "this feed and add a new one under another name"
            )

