"""How long a run waits for missing anchors: partition by partition, and for a limited time.

A partition can be silent because its rows expired, because nothing was written to it for long, or because its leader
is lost. Other partitions do not depend on it: they are read and published, and this one is given up after a limited
time. An anchor that was given up once is not waited for again; if it does come, it is compared like any other.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ksql_lake.sources.row_source import Reading


@dataclass
class Patience:
    """Decides which anchors a reading still waits for.

    Attributes:
        limit: seconds to wait for an anchor after everything else was read.
        given_up: partitions whose anchor is not waited for any more.
    """

    limit: float
    given_up: set[int]
    _rest_done: float | None = None

    def waits_for(self, pending: Collection[int], reading: Reading, now: float, rest_done: bool) -> set[int]:
        """The partitions of `pending` that are still waited for.

        Args:
            rest_done: whether all other partitions have been read to their present end.
        """
        if rest_done and self._rest_done is None:
            self._rest_done = now
        waited = now - self._rest_done if self._rest_done is not None else 0.0
        if max(waited, reading.silence(now)) >= self.limit:
            self.given_up |= {p for p in pending if reading.silence(now, p) >= self.limit}
        return set(pending) - self.given_up
