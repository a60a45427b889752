"""Every feed that has data in the lake, whether or not it still has a feed file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from ksql_lake.base.errors import FeedError
from ksql_lake.model import feeds
from ksql_lake.store import layout
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.layout import KINDS, STATUSES, storage_of


def datasets(lake: Path) -> list[Dataset]:
    """All feeds with a directory under streams/ or tables/: active, archived, removed, and those with a broken file."""
    return [
        dataset_of(lake, directory.name, kind)
        for kind in KINDS
        for directory in directories(lake, kind)
    ]


def directories(lake: Path, kind: str) -> list[PurePath]:
    """The directories of all streams or of all tables."""
    storage = storage_of(lake)
    return [place for place in storage.list(lake, f"{kind}s/*") if (there := storage.stat(place)) and there.directory]


def traces(lake: Path) -> list[Dataset]:
    """All feeds that have any file in the lake's directory, even if only in staging, trash or quarantine."""
    found = {dataset.feed: dataset for dataset in datasets(lake)}
    storage = storage_of(lake)
    for pattern in (".staging/*", ".trash/*/*", "quarantine/*"):
        for path in storage.list(lake, pattern):
            there = storage.stat(path)
            if there and there.directory and path.name not in found and not layout.leads_out(lake, path):
                found[path.name] = dataset_of(lake, path.name, _kind(lake, path.name))
    return [found[name] for name in sorted(found)]


def _kind(lake: Path, name: str) -> str:
    """Whether a feed without a directory is a stream or a table, by its feed file or by what a run left behind."""
    for status in STATUSES:
        with contextlib.suppress(FeedError):
            return feeds.load(layout.feed_file(lake, name, status)).type
    storage = storage_of(lake)
    journals = storage.list(lake, f".staging/{name}/*/commit.json")
    for place in (*journals, *storage.list(lake, f".trash/*/{name}/*/manifest.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            known = json.loads(storage.read(place))
            kind = known.get("type") or known.get("state", {}).get("type")
            if kind in KINDS:
                return str(kind)
    return KINDS[0]


def find(lake: Path, name: str) -> Dataset:
    """A feed's place by its name, from what is in the lake or else from its feed file.

    Raises:
        FeedError: there is neither data nor a feed of that name, or only a broken feed file.
    """
    for dataset in datasets(lake):
        if dataset.feed == name:
            return dataset
    archived = layout.feed_file(lake, name, "archived")
    feed = feeds.load(archived if archived.exists() else layout.feed_file(lake, name))
    return Dataset(lake, name, feed.type, feed.access == "restricted")


def dataset_of(lake: Path, name: str, kind: str) -> Dataset:
    """A feed's place with the access from its file; without a usable file, with the present modes of its directory."""
    for status in STATUSES:
        path = layout.feed_file(lake, name, status)
        if path.exists():
            with contextlib.suppress(FeedError):
                return Dataset(lake, name, kind, feeds.load(path).access == "restricted")
    there = storage_of(lake).stat(layout.directory(lake, kind, name))
    return Dataset(lake, name, kind, there.closed if there else kind == "stream")


def everything(lake: Path) -> Iterator[tuple[PurePath, str | None]]:
    """Every file below the lake, hidden ones too, and instead of what cannot be looked at, why it cannot.

    No link is followed; one that leads to another place in the lake is passed over, as that place comes by itself.
    """
    refused: list[OSError] = []
    for top, directories, names in os.walk(lake, onerror=refused.append):
        directories.sort()
        for name in sorted([*names, *directories]):
            path = Path(top, name)
            if path.is_symlink():
                if not path.resolve().is_relative_to(lake.resolve()):
                    yield path, "a symbolic link that leads out of the lake"
            elif path.is_file():
                yield path, None
            elif not path.is_dir() and path.exists():
                yield path, "neither a file nor a directory"
    for error in refused:
        yield Path(error.filename), error.strerror or str(error)
