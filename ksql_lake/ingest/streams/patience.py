"""How long a run waits for anchors that do not come: partition by partition, and never for ever.

A partition can be silent because its rows expired, because nothing was written to it for long, or because its leader
is lost. That is its own affair: the others are read and published, and this one is given up after a bounded time. An
anchor that was given up once is not waited for again; when it does come, it is compared as any other.
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
            rest_done: whether everything that did come has been read to its present end.
        """
        if rest_done and self._rest_done is None:
            self._rest_done = now
        waited = now - self._rest_done if self._rest_done is not None else 0.0
        if max(waited, reading.silence(now)) >= self.limit:
            self.given_up |= {p for p in pending if reading.silence(now, p) >= self.limit}
        return set(pending) - self.given_up
