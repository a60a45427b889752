"""Every feed that has data in the lake, whatever became of its feed file."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ksql_lake.base.errors import FeedError
from ksql_lake.model import feeds
from ksql_lake.store.metadata import Dataset

KINDS = ("stream", "table")


def datasets(lake: Path) -> list[Dataset]:
    """All feeds with a directory under streams/ or tables/: active, archived, removed, and those with a broken file."""
    return [
        dataset_of(lake, directory.name, kind)
        for kind in KINDS
        for directory in sorted((lake / f"{kind}s").glob("*"))
        if directory.is_dir()
    ]


def find(lake: Path, name: str) -> Dataset:
    """A feed's place by its name, from what lies in the lake or else from its feed file.

    Raises:
        FeedError: there is neither data nor a feed of that name, or only a broken feed file.
    """
    for dataset in datasets(lake):
        if dataset.feed == name:
            return dataset
    archived = lake / "feeds" / "archived" / f"{name}.json"
    feed = feeds.load(archived if archived.exists() else lake / "feeds" / "active" / f"{name}.json")
    return Dataset(lake, name, feed.type, feed.access == "restricted")


def dataset_of(lake: Path, name: str, kind: str) -> Dataset:
    """A feed's place, with the access its file gives it; without a usable file, as its directory stands."""
    for state in ("active", "archived"):
        path = lake / "feeds" / state / f"{name}.json"
        if path.exists():
            with contextlib.suppress(FeedError):
                return Dataset(lake, name, kind, feeds.load(path).access == "restricted")
    directory = lake / f"{kind}s" / name
    restricted = kind == "stream" and not directory.exists() or not directory.stat().st_mode & 0o005
    return Dataset(lake, name, kind, restricted)
