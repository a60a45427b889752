"""The part of an erasure in the remote: files that are only there and hold a person's rows are downloaded, rewritten
like any other file and uploaded under new names, and the old objects are deleted with every version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from ksql_lake.base.errors import RemoteError
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.state import FeedState
from ksql_lake.remote import mirror, plans, turn
from ksql_lake.remote.plans import Part, Plan
from ksql_lake.remote.turn import Turn
from ksql_lake.store import trash
from ksql_lake.store.remote.address import ARCHIVES
from ksql_lake.store.remote.places import Places
from ksql_lake.store.remote.transfer import fetch
from ksql_lake.store.trash import Bundle

Columns = Callable[[pa.Schema], list[str]]  # those that may hold the value
Rows = Callable[[pa.RecordBatch], int]  # how many rows of a batch hold it


class Search:
    """Searches files that are only in the remote; `unseen` says which ones could not be read, and why.

    Args:
        wake: ask for archived files.
    """

    def __init__(self, one: Turn, columns: Columns, rows: Rows, wake: bool) -> None:
        self.turn, self.columns, self.rows, self.wake = one, columns, rows, wake
        self.places = Places(one.dataset)
        self.unseen: list[str] = []

    def files(self) -> Iterator[tuple[FileEntry, int]]:
        """Files of the feed, and how many such rows each has."""
        for file in self.turn.state.files:
            if not file.local and (rows := self._count(file)):
                yield file, rows

    def bundles(self) -> Iterator[tuple[Bundle, FileEntry, int]]:
        """The same for files in the trash, whose objects stay in the remote until the trash is emptied."""
        for bundle in trash.bundles(self.turn.dataset.lake, self.turn.dataset.feed):
            for file in bundle.files:
                if not file.local and (rows := self._count(file)):
                    yield bundle, file, rows

    def _count(self, file: FileEntry) -> int:
        try:
            self._wake(file)
            with self.places.open(replace(file, remote=None)) as parquet:
                return self._rows(parquet)
        except (RemoteError, OSError) as error:
            self.unseen.append(f"{self.places.url(file)}: not searched: {error}")
            return 0

    def _wake(self, file: FileEntry) -> None:
        """Ask for an archived file, and say so."""
        if file.remote is None or file.remote.tier not in ARCHIVES:
            return
        key = self.turn.key(file)
        there = self.turn.store.stat(key)
        if there.archived and not there.restoring and self.wake:
            self.turn.store.restore(key, turn.RESTORED_DAYS)
            there = self.turn.store.stat(key)
        if there.archived:
            asked = " and was asked for" if self.wake else ""
            raise RemoteError(f"it is archived in {file.remote.tier}{asked}; run the same command again in some hours")

    def _rows(self, parquet: pq.ParquetFile) -> int:
        names = self.columns(parquet.schema_arrow)
        return sum(self.rows(batch) for batch in parquet.iter_batches(columns=names)) if names else 0


def bring_here(search: Search) -> set[str]:
    """Bring files that hold such rows to this disk, so that an erasure finds them; returns their partitions.

    Raises:
        RemoteError: a file could not be brought; those before it are here.
    """
    one = search.turn
    found = [file for file, _ in search.files()]
    parts: dict[str, list[FileEntry]] = {}
    for file in found:
        parts.setdefault(file.partition, []).append(file)
    turn.pull(one, Plan(one.dataset.feed, "pull", tuple(Part(p, tuple(files), "erase") for p, files in parts.items())))
    for bundle, file, _ in list(search.bundles()):
        _into_bundle(one, bundle, file)
    return set(parts)


def _into_bundle(one: Turn, bundle: Bundle, file: FileEntry) -> None:
    fetch(one.store, one.key(file), file, bundle.local(file))
    manifest = bundle.read_manifest()
    for entry in manifest["files"]:
        if entry["path"] == file.path:
            entry.pop("local", None)
    one.dataset.storage.put(bundle.manifest, trash.as_text(manifest), one.dataset.file_mode)


def is_needed(state: FeedState, before: int) -> bool:
    """Whether an erasure, or one that was interrupted, left something to do in the remote.

    Args:
        before: the number of the feed's last change before the erasure.
    """
    return state.sequence != before or bool(state.remote_gone) or any(not file.local for file in state.files)


def settle(one: Turn, away: set[str]) -> list[str]:
    """Push what an erasure wrote, delete what it replaced, and remove days from this disk that were not here before.

    Args:
        away: partitions that were only in the remote before.

    Returns:
        A line for each object of which something stays in the remote.
    """
    turn.push(one, plans.push(one.dataset.feed, one.state))
    _hurry(one)
    kept = turn.finish(one)
    parts = []
    mixed = {file.partition for file in one.state.files if not file.local}  # of a run that was interrupted
    for partition in sorted(away | mixed):
        here = tuple(file for file in one.state.files.of(partition) if file.local)
        if here:
            parts.append(Part(partition, here, "was away before"))
    if parts:
        kept += turn.drop(one, Plan(one.dataset.feed, "drop", tuple(parts)))
        mirror.bring_up(one.dataset, one.state, one.store, one.binding)
    return kept


def _hurry(one: Turn) -> None:
    """Files that were removed earlier and are no longer in the trash were not searched: delete them now."""
    held = {file.path for bundle in trash.bundles(one.dataset.lake, one.dataset.feed) for file in bundle.every}
    hurried = tuple(gone if gone.path in held else replace(gone, purge=True) for gone in one.state.remote_gone)
    one.state.remote_gone = hurried  # in memory: `finish` deletes by it and commits what is left
