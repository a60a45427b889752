"""Lets a lake continue without its remote, because that is lost for good or replaced by another one.

Nothing is asked of the store and nothing is deleted there. Can be repeated after an interruption: the binding goes
first, so that what is removed here is not remembered as something to delete there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ksql_lake.model.entries import FileEntry
from ksql_lake.model.state import FeedState
from ksql_lake.remote import notice
from ksql_lake.store import journal, trash
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.layout import storage_of
from ksql_lake.store.remote import binding

LOST = "remote lost"  # why rows are no longer in the lake


def only_there(state: FeedState) -> list[FileEntry]:
    """The files that the lake loses."""
    return [file for file in state.files if not file.local]


def unbind(lake: Path) -> None:
    storage_of(lake).delete(binding.path_of(lake))


def forget(dataset: Dataset, state: FeedState, run: str, *, now: str, by: str) -> list[FileEntry]:
    """Take out of the feed what is only in the remote, as one commit; the entries that went. With its lock held."""
    lost = only_there(state)
    if not _knows_a_remote(state):
        return []
    state.files.remove([file.path for file in lost])
    state.files.mark(_plain(state.files))
    state.quarantine = None if state.quarantine is None else tuple(_plain(state.quarantine))
    state.remote_gone = ()
    trash.count_removed(state, lost, LOST)
    _without_versions(state, {file.partition for file in lost})
    what = f"forget: the remote is given up, and {len(lost)} files with it"
    journal.amend(dataset, run, state, [], kind="forget", now=now, by=by, what=what)
    dataset.storage.delete(dataset.file(notice.NAME))
    return lost


def _knows_a_remote(state: FeedState) -> bool:
    entries = (*state.files, *state.quarantined)
    return bool(state.remote_gone) or any(file.remote is not None or not file.local for file in entries)


def _plain(files: Iterable[FileEntry]) -> list[FileEntry]:
    return [replace(file, remote=None) for file in files]


def _without_versions(state: FeedState, gone: set[str]) -> None:
    """A table whose current version is lost has none until its next export."""
    left = {file.partition for file in state.files}
    if state.current is not None and state.current.path in gone - left:
        state.current = None
    state.pinned = tuple(version for version in state.pinned if f"version={version}" not in gone - left)
