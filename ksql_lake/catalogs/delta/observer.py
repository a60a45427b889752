"""The observer that keeps a feed's Delta log up to date with each commit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from ksql_lake.base.errors import FeedError
from ksql_lake.catalogs.delta.log import is_kept
from ksql_lake.model import feeds
from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store.layout import STATUSES, feed_file
from ksql_lake.store.metadata import Dataset


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class DeltaLog:
    """Continues the logs that exist, and begins one for each feed that asks for it.

    Args:
        everywhere: begin one for every feed except those that say `"delta": false`.
        clock: now, in epoch ms.
    """

    everywhere: bool = False
    clock: Callable[[], int] = milliseconds
    name: str = "delta"

    def committed(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        """Write the version that the change makes; raises as `sync`."""
        if self._is_wanted(dataset):
            from ksql_lake.catalogs.delta.table import append, sync  # Arrow's types are loaded only where a log is kept

            at = self.clock()
            if not append(dataset, state, change, at):
                sync(dataset, state, at, change.kind)

    def catch_up(self, dataset: Dataset, state: FeedState) -> None:
        """Write what a run that was killed did not write; raises as `sync`."""
        if self._is_wanted(dataset):
            from ksql_lake.catalogs.delta.table import is_current, sync

            if not is_current(dataset, state):
                sync(dataset, state, self.clock())

    def _is_wanted(self, dataset: Dataset) -> bool:
        return is_kept(dataset) or wanted_by(dataset, self.everywhere)


def wanted_by(dataset: Dataset, everywhere: bool) -> bool:
    """Whether a feed should have a log: by its file, or else by the setting."""
    for status in STATUSES:
        path = feed_file(dataset.lake, dataset.feed, status)
        if dataset.storage.stat(path):
            with contextlib.suppress(FeedError):
                said = feeds.load(path, patterns=False).delta
                return everywhere if said is None else said
    return everywhere
