"""Decides what the next version of a feed's Delta log holds, by comparing the metadata with the log."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ksql_lake.catalogs.delta.actions import Add, Commit, MetaData, Protocol, Remove, Snapshot, Version
from ksql_lake.catalogs.delta.schema import KEYS, left_out, schema_text
from ksql_lake.catalogs.hive import columns_of
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.state import FeedState

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Wanted:
    """The table according to the feed's metadata; `files` by their path in the log."""

    feed: str
    sequence: int
    run: str
    kind: str
    schema: str
    description: str
    files: Mapping[str, FileEntry]


def wanted(feed: str, state: FeedState, remote: str | None = None) -> Wanted:
    """The table of a feed: all files of a stream, those of a table's current version.

    Args:
        remote: the place of files that are not on the lake's disk, in Spark's form.

    Raises:
        SchemaError: a column has a type that no file can hold.
    """
    columns = tuple(columns_of(state).items())
    absent = left_out(columns)
    description = f"Left out, since Delta has no TIME: {', '.join(absent)}" if absent else ""
    away = f"{remote}/{state.type}s/{feed}/" if remote else ""
    files = {file_path(file, away): file for file in state.files if is_active(state, file)}
    return Wanted(
        feed, state.sequence, state.run or "", state.type, schema_text(state.type, columns), description, files
    )


def is_active(state: FeedState, file: FileEntry) -> bool:
    return not state.is_table or state.current is not None and file.partition == state.current.path


def file_path(file: FileEntry, away: str = "") -> str:
    """Relative to the table; absolute for a file that is only in the lake's remote, below `away`."""
    path = quote(file.path, safe="/=")
    return path if file.local else away + path


def next_version(table: Wanted, now: Snapshot, commit: Commit) -> Version | None:
    """The version that brings the log to the feed's sequence number; None when it is up to date.

    One version covers everything since the last one. A file that is listed with its old path is left alone.
    """
    if now.version >= 0 and now.sequence == table.sequence:
        return None
    gone = [added for path, added in now.active.items() if path not in table.files]
    come = {path: file for path, file in table.files.items() if path not in now.active}
    new = list(come.values())
    change = not (is_compaction(gone, new) or is_move(gone, come))
    return Version(
        commit,
        adds=tuple(add(file, change, path) for path, file in come.items()),
        removes=tuple(Remove.of(added, commit.at, change) for added in gone),
        metadata=_metadata(table, now.metadata, commit.at),
        protocol=None if now.protocol else Protocol(),
    )


def is_compaction(gone: Iterable[Add], new: Iterable[FileEntry]) -> bool:
    """Whether the new files hold exactly the rows of those that went, so that readers of changes may skip them."""
    files = list(new)
    return (
        bool(files) and all(file.origin == "compact" for file in files)
        and sum(file.rows for file in files) == sum(_rows(added) for added in gone)
    )


def is_move(gone: Iterable[Add], come: Iterable[str]) -> bool:
    """Whether the same files only moved: to the lake's remote, or back here."""
    names = sorted(path.rpartition("/")[2] for path in come)
    return bool(names) and names == sorted(added.path.rpartition("/")[2] for added in gone)


def _rows(added: Add) -> int:
    return int(json.loads(added.stats or "{}").get("numRecords", -1))


def _metadata(table: Wanted, before: MetaData | None, at: int) -> MetaData | None:
    """The table's description where it changed; its id never changes within a log."""
    if before and (before.schema, before.description) == (table.schema, table.description):
        return None
    id_, created = (before.id, before.created) if before else (str(uuid.uuid4()), at)
    return MetaData(id_, table.feed, table.description, table.schema, tuple(k for k, _ in KEYS[table.kind]), created)


def add(file: FileEntry, data_change: bool, path: str | None = None) -> Add:
    """A file as the log lists it."""
    return Add(
        path or file_path(file), partition_values(file.partition), file.bytes, _milliseconds(file.exported_at),
        data_change, json.dumps(_stats(file), separators=(",", ":")),
    )


def partition_values(path: str) -> dict[str, str]:
    """`year=2025/month=01/day=15` as {"year": "2025", "month": "1", "day": "15"}; `version=v3` as it is."""
    pairs = (part.partition("=") for part in path.split("/"))
    return {key: str(int(value)) if value.isdecimal() else value for key, _, value in pairs}


def _stats(file: FileEntry) -> dict[str, object]:
    stats: dict[str, object] = {"numRecords": file.rows}
    if file.rowtime_min is None or file.rowtime_max is None:
        return stats
    first, last = timestamp(file.rowtime_min), timestamp(file.rowtime_max)
    if first and last:
        stats |= {"minValues": {"ROWTIME": first}, "maxValues": {"ROWTIME": last}, "nullCount": {"ROWTIME": 0}}
    return stats


def timestamp(milliseconds: int) -> str | None:
    """ISO 8601 in UTC with milliseconds; None beyond the years 1 to 9999."""
    try:
        moment = _EPOCH + dt.timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _milliseconds(at: str) -> int:
    try:
        return int(dt.datetime.fromisoformat(at).timestamp() * 1000)
    except ValueError:  # an entry of an early version that does not say when
        return 0
