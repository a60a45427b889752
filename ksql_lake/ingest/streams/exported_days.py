"""The rows of single days that `--date` runs exported ahead of the others."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ksql_lake.ingest.streams.event_time import EPOCH
from ksql_lake.model.anchor import Covered


@dataclass(frozen=True)
class ExportedDays:
    """Kafka partition -> day, in days since 1970 -> the offset up to which all rows of that day are exported."""

    known: Mapping[int, Mapping[int, int]]

    @classmethod
    def of(cls, covered: Mapping[int, Covered]) -> ExportedDays:
        return cls({
            partition: {(dt.date.fromisoformat(day) - EPOCH).days: offset for day, offset in one.days}
            for partition, one in covered.items() if one.days
        })

    def take_out(self, keep: np.ndarray, partitions: np.ndarray, offsets: np.ndarray, days: np.ndarray) -> None:
        """Take rows that were exported before out of `keep`."""
        for partition, known in self.known.items():
            here = np.flatnonzero(keep & (partitions == partition))
            if len(here):
                found, of = np.unique(days[here], return_inverse=True)
                upto = np.array([known.get(day, -1) for day in found.tolist()], np.int64)
                keep[here] &= offsets[here] > upto[of]
