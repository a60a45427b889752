"""Checks a state read from a file: it may have been edited, or written by another program."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from pathlib import PurePosixPath
from zoneinfo import ZoneInfo

from ksql_lake.model.entries import FileEntry, Partition
from ksql_lake.model.shapes import problem
from ksql_lake.model.state import FeedState


def refuse_other_shapes(state: FeedState, kind: str) -> None:
    """Check every field of a state.

    Args:
        kind: stream or table.

    Raises:
        ValueError: says which field is not what it should be.
    """
    wrong = problem(state, FeedState) or problem(tuple(state.partitions), tuple[Partition, ...], "partitions")
    if wrong is None and state.type != kind:
        wrong = f'type: expected "{kind}", found {state.type!r}'
    if wrong:
        raise ValueError(wrong)
    try:
        ZoneInfo(state.timezone)
    except (LookupError, ValueError, OSError):
        raise ValueError(f"timezone: {state.timezone[:40]!r} is not known here") from None
    times = [("last_export", state.last_export), ("created_at", state.created_at)]
    times += [("schema_history.at", entry.at) for entry in state.schema_history]
    times += [("changes.at", entry.at) for entry in state.changes]
    for name, text in times:
        if text and _is_no_time(text):
            raise ValueError(f"{name}: expected a time such as 2025-01-15T02:00:00Z, found {text[:40]!r}")
    refuse_other_entries((*state.files.recent, *state.quarantined))


def refuse_other_entries(entries: Iterable[FileEntry]) -> None:
    """Check the entries of files; raises as `refuse_other_shapes`."""
    for entry in entries:
        wrong = problem(entry, FileEntry, "files")
        if wrong is None and (entry.rows < 0 or entry.bytes < 0):
            wrong = f"files: {entry.path}: a negative size"
        if wrong is None and not all(map(_is_inside, (entry.path, entry.partition))):
            wrong = f"files: {entry.path}: leads out of its directory"
        if wrong:
            raise ValueError(wrong)


def _is_no_time(text: str) -> bool:
    try:
        return dt.datetime.fromisoformat(text).tzinfo is None
    except ValueError:
        return True


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in path
