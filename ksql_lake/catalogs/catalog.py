"""What a catalog is (a list of the lake's contents, kept elsewhere), and the observer that keeps one up to date."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store import layout
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.layout import storage_of


class Catalog(Protocol):
    """Somewhere else that lists the feeds' partitions or files: Glue, a Hive metastore, a file.

    Both methods are called with the feed's lock held, and raise a LakeError (`base/errors.py`) or an OSError where the
    catalog could not be written; it is then reported and tried again. Feeds are exported side by side, so a catalog
    that keeps several feeds in one file takes a lock of its own (`dataset.storage.lock`).
    Files of the lake are read and written by `dataset.storage`, at places that `store/layout.py` names.
    """

    @property
    def name(self) -> str:
        """Its name in messages and in the record of changes, such as `glue:lake`."""

    def apply(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        """Apply one change, which was just committed; after a crash the same change may be passed again.

        Args:
            dataset: where the feed is.
            state: the feed after the change.
            change: the files that were added and removed, and whether the columns changed.
        """

    def rebuild(self, dataset: Dataset, state: FeedState) -> None:
        """Write everything about a feed again, because changes were missed or the catalog is new."""


@dataclass(frozen=True)
class CatalogObserver:
    """Passes each change of a feed on to a catalog, and remembers which one it has."""

    catalog: Catalog

    @property
    def name(self) -> str:
        return self.catalog.name

    def committed(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        """Pass a change on, or all of the feed where the catalog missed the one before."""
        if _seen(dataset.lake).get(self.name, {}).get(dataset.feed) == change.sequence - 1:
            self.catalog.apply(dataset, state, change)
        else:
            self.catalog.rebuild(dataset, state)
        self._remember(dataset, state)

    def catch_up(self, dataset: Dataset, state: FeedState) -> None:
        """Write what a run that was killed, or a catalog that could not be reached, has missed."""
        if _seen(dataset.lake).get(self.name, {}).get(dataset.feed) != state.sequence:
            self.catalog.rebuild(dataset, state)
            self._remember(dataset, state)

    def _remember(self, dataset: Dataset, state: FeedState) -> None:
        lock = layout.catalog_lock(dataset.lake, "registered")
        with dataset.storage.lock(lock, "the list of registered feeds", wait=True):
            seen = _seen(dataset.lake)
            seen.setdefault(self.name, {})[dataset.feed] = state.sequence
            dataset.storage.put(layout.registered(dataset.lake), json.dumps(seen, indent=1).encode())


def _seen(lake: Path) -> dict[str, dict[str, int]]:
    try:
        return dict(json.loads(storage_of(lake).read(layout.registered(lake))))
    except (OSError, ValueError, TypeError):
        return {}
