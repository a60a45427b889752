"""What a lake's remote knows of a feed whose metadata is lost: the files that are only there, and a state."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ksql_lake.base.errors import RemoteError
from ksql_lake.base.figures import counted
from ksql_lake.maintain.found_files import Found
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.footer import Footer
from ksql_lake.model.state import FeedState
from ksql_lake.remote import mirror
from ksql_lake.store import state_log
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.remote import binding, connect
from ksql_lake.store.remote.address import parse
from ksql_lake.store.state_log import Logged


def remote_state(dataset: Dataset) -> FeedState | None:
    """The feed's metadata in the lake's remote; None for a lake without one, or a feed that was never pushed.

    Raises:
        RemoteError: the store did not return it: without it, the days that are only there are not known.
    """
    bound = binding.load(dataset.lake)
    if bound is None:
        return None
    store = connect.connect(parse(bound.url, "the remote of this lake"), os.environ)
    try:
        found, _ = mirror.read(store, mirror.key_of(dataset))
    except RemoteError as error:
        raise RemoteError(
            f"{dataset.feed}: some of its days may be only in the remote, and {error}. If the remote is lost for "
            "good, give it up with: python manage_feeds.py remote forget"
        ) from None
    if found is None:
        return None
    found.pop(mirror.LAKE, None)
    return FeedState.from_json(found)


def as_logged(state: FeedState) -> Logged:
    """Metadata of the remote as a line of the state log, which may be lost too."""
    return Logged(state.sequence, state_log.described(state))


def add_away(
    dataset: Dataset, found: Sequence[Found], state: FeedState, log: Sequence[Logged]
) -> tuple[list[Found], list[str]]:
    """The files on this disk and those that are only in the remote, and a line with the number of the latter.

    Nothing is counted that left the lake and waits to be deleted there.

    Args:
        state: the feed's metadata in the remote.
    """
    gone = {one.path for one in log[-1].typed().remote_gone} if log else set()
    there = {file.path: file for file in state.files}
    here = [_marked(file, there) for file in found]
    known = {file.entry.path for file in here} | gone
    away = [_away(dataset, file, state) for path, file in there.items() if path not in known]
    lines = [f"{counted(len(away), 'file')} only in the remote"] if away else []
    return [*away, *here], lines


def _marked(found: Found, there: Mapping[str, FileEntry]) -> Found:
    """A file here, with what the metadata of the remote say of its object."""
    same = there.get(found.entry.path)
    if same is None or (same.bytes, same.crc32) != (found.entry.bytes, found.entry.crc32):
        return found
    return replace(found, entry=replace(found.entry, remote=same.remote, exported_at=same.exported_at))


def _away(dataset: Dataset, file: FileEntry, state: FeedState) -> Found:
    """A file of the remote. Its footer is not read: the remote's metadata says the same."""
    table = state.is_table
    footer = Footer(
        "", dataset.feed, state.source, state.created_at, file.run, file.origin, 0, file.schema_version, state.columns,
        file.generation, None if table else state.timezone, None if table else state.timestamp_column,
        file.partition.removeprefix("version=") if table else None, timestamps=state.timestamps,
    )
    return Found(replace(file, local=False), footer, {})
