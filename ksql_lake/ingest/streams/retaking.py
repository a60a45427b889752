"""Reads rows again that were read before: each row once, while known rows prove that the topic is the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ksql_lake.ingest.streams.anchors import Rows, Sieve


@dataclass
class Retaking(Sieve):
    """A sieve that lets every row through once, and compares anchors and first rows as they come.

    Attributes:
        upto: per partition, the last offset seen.
    """

    upto: dict[int, int] = field(default_factory=dict)

    def _new_in_partition(self, rows: Rows) -> np.ndarray:
        partition, offsets = rows.partition, rows.offsets
        anchor = self.anchors.get(partition)
        if partition not in self._settled:
            self._look_at_start(rows)
        if anchor and partition in self.pending:
            reached = np.flatnonzero(offsets >= anchor.offset)
            if len(reached):
                self._check_anchor(rows, int(reached[0]), anchor)
                self.pending.discard(partition)
        before = np.maximum.accumulate(np.concatenate(([self.upto.get(partition, -1)], offsets[:-1])))
        self.upto[partition] = max(int(offsets.max()), int(before[-1]))
        return np.asarray(offsets > before)
