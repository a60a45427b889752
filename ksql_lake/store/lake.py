"""Every feed that has data in the lake, whether or not it still has a feed file."""

from __future__ import annotations

import contextlib
import json
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


def traces(lake: Path) -> list[Dataset]:
    """All feeds that have any file in the lake's directory, even if only in staging, trash or quarantine."""
    found = {dataset.feed: dataset for dataset in datasets(lake)}
    for pattern in (".staging/*", ".trash/*/*", "quarantine/*"):
        for path in sorted(lake.glob(pattern)):
            if path.is_dir() and not path.is_symlink() and path.name not in found:
                found[path.name] = dataset_of(lake, path.name, _kind(lake, path.name))
    return [found[name] for name in sorted(found)]


def _kind(lake: Path, name: str) -> str:
    """Whether a feed without a directory is a stream or a table, by its feed file or by what a run left behind."""
    for state in ("active", "archived"):
        with contextlib.suppress(FeedError):
            return feeds.load(lake / "feeds" / state / f"{name}.json").type
    for left in (*lake.glob(f".staging/{name}/*/commit.json"), *lake.glob(f".trash/*/{name}/*/manifest.json")):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            known = json.loads(left.read_bytes())
            kind = known.get("type") or known.get("state", {}).get("type")
            if kind in KINDS:
                return str(kind)
    return KINDS[0]


def leads_out(top: Path, relative: str) -> bool:
    """Whether a part of the path from a directory to a file in it is a symbolic link, which may lead out of it."""
    path = top
    if top.is_symlink():
        return True
    for part in Path(relative).parts:
        path /= part
        if path.is_symlink():
            return True
    return False


def find(lake: Path, name: str) -> Dataset:
    """A feed's place by its name, from what is in the lake or else from its feed file.

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
    """A feed's place with the access from its file; without a usable file, with the present modes of its directory."""
    for state in ("active", "archived"):
        path = lake / "feeds" / state / f"{name}.json"
        if path.exists():
            with contextlib.suppress(FeedError):
                return Dataset(lake, name, kind, feeds.load(path).access == "restricted")
    directory = lake / f"{kind}s" / name
    restricted = kind == "stream" and not directory.exists() or not directory.stat().st_mode & 0o005
    return Dataset(lake, name, kind, restricted)
