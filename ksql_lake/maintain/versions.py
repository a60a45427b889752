"""The versions of a table: which ones exist, which one is read, which ones must stay."""

from __future__ import annotations

from dataclasses import dataclass

from ksql_lake.base.errors import SourceError
from ksql_lake.model.entries import megabytes
from ksql_lake.model.partitions import parse_version, version_path
from ksql_lake.model.state import Current, FeedState
from ksql_lake.store import journal
from ksql_lake.store.dataset import Dataset


@dataclass(frozen=True)
class Version:
    """One snapshot of a table."""

    name: str
    rows: int
    size_mb: float
    exported_at: str
    current: bool
    pinned: bool


def versions(state: FeedState) -> list[Version]:
    """The versions that are in the lake, oldest first."""
    current = state.current.version if state.current else None
    return [
        Version(name, p.records, megabytes(p.bytes), p.exported_at, name == current, name in state.pinned)
        for p in state.partitions
        if (name := f"v{parse_version(p.path)}")
    ]


def rollback(dataset: Dataset, state: FeedState, version: str, run: str, *, now: str, by: str) -> bool:
    """Make another version the current one; False when it already is. Call with the feed's lock held.

    Raises:
        SourceError: there is no such version; names those there are.
    """
    _existing(dataset, state, version)
    before = state.current.version if state.current else "none"
    if before == version:
        return False
    state.current = Current(version, version_path(int(version[1:])))
    what = f"rollback: current is {version}, was {before}"
    journal.amend(dataset, run, state, (), kind="rollback", now=now, by=by, what=what)
    return True


def pin(dataset: Dataset, state: FeedState, version: str, run: str, *, pinned: bool, now: str, by: str) -> bool:
    """Protect a version from retention, or stop that; False when nothing changes. Call with the lock held.

    Raises:
        SourceError: there is no such version; names those there are.
    """
    _existing(dataset, state, version)
    before = set(state.pinned)
    after = before | {version} if pinned else before - {version}
    if after == before:
        return False
    state.pinned = tuple(sorted(after, key=lambda name: int(name[1:])))
    word = "pin" if pinned else "unpin"
    journal.amend(dataset, run, state, (), kind="pin", now=now, by=by, what=f"{word}: {version}")
    return True


def _existing(dataset: Dataset, state: FeedState, version: str) -> None:
    there = [known.name for known in versions(state)]
    if version not in there:
        raise SourceError(f"{dataset.feed}: has no version {version}; its versions: {', '.join(there) or 'none'}")
