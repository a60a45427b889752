"""A file of SQL that is kept up to date: the script of `sql DIALECT`, written again after every change of a feed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ksql_lake.base.errors import StateError
from ksql_lake.base.outputs import write_out
from ksql_lake.catalogs.ddl import script
from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store import layout, metadata
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.lake import datasets
from ksql_lake.store.remote.places import sql_root


@dataclass(frozen=True)
class SqlText:
    """One file with the tables of every feed; a `Catalog`.

    Attributes:
        file: on a local disk, not in the lake.
        location: where queries find the lake, if not here.
    """

    dialect: str
    file: Path
    location: str | None = None

    @property
    def name(self) -> str:
        return f"sql:{self.dialect}:{self.file}"

    def apply(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        """Write the whole file: feeds that change side by side share it."""
        self.rebuild(dataset, state)

    def rebuild(self, dataset: Dataset, state: FeedState) -> None:
        lake = dataset.lake
        with dataset.storage.lock(layout.catalog_lock(lake, "sql"), str(self.file), wait=True):
            states = _others(lake, dataset.feed) | {dataset.feed: state}
            remote = sql_root(lake, self.dialect, os.environ)
            text = script(self.dialect, states, Path(lake), self.location, remote)
            write_out(self.file, text.encode(), wait=False)


def _others(lake: Path, feed: str) -> dict[str, FeedState]:
    """The other feeds; one whose metadata cannot be read has no table until it is repaired."""
    found = {}
    for dataset in datasets(lake):
        try:
            state = metadata.load(dataset)
        except StateError:
            continue
        if state is not None and dataset.feed != feed:
            found[dataset.feed] = state
    return found
