"""A feed as an Iceberg table: its columns in Iceberg's types, and its files by their full paths. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import unquote

import pyarrow as pa

from ksql_lake.base.errors import SchemaError
from ksql_lake.catalogs.hive import columns_of, holds_time, table_name
from ksql_lake.catalogs.tables import OURS, Table, Values, place
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.partitions import disk_names
from ksql_lake.model.recorded import MICROSECONDS
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import SCALARS, SqlType

LOCATION = "ksql_lake.location"  # the table property for the place of the files: the Iceberg table itself is elsewhere
BY_DAY = (("ROWTIME", "day"),)  # the keys of a stream whose days are those of ROWTIME in UTC
_ICEBERG: dict[pa.DataType, str] = {  # by the Arrow type, which says what is in the files, but for the unit of times
    pa.bool_(): "boolean", pa.int32(): "int", pa.int64(): "long", pa.float64(): "double", pa.string(): "string",
    pa.binary(): "binary", pa.date32(): "date", pa.timestamp("ms", "UTC"): "timestamptz",
}


@dataclass(frozen=True)
class FileTable(Table):
    """A table whose parts are files: `partitions` has the whole path of each, cut at its slashes.

    Attributes:
        types: the columns by their names.
        files: what the metadata say of each.
    """

    UNIT: ClassVar[str] = "file"
    types: Mapping[str, SqlType] = field(default_factory=dict)
    files: Mapping[Values, FileEntry] = field(default_factory=dict)


def wanted_files(feed: str, state: FeedState, root: str, remote: str | None = None) -> list[FileTable]:
    """The table of one feed: all files of a stream, those of a table's current version.

    Args:
        root: where queries find the lake, such as s3://bucket/lake.
        remote: the place of files that are not on the lake's disk.

    Raises:
        SchemaError: the feed counts milliseconds, or a column has a type that Iceberg does not have.
    """
    if state.timestamps != MICROSECONDS:
        raise SchemaError(
            "its files count milliseconds, and Iceberg only knows microseconds (Spark would find no rows); add a feed "
            'with "timestamps": "us" under another name'
        )
    types = columns_of(state)
    if timed := [name for name, kind in types.items() if holds_time(kind)]:
        raise SchemaError(
            f"column {', '.join(timed)} is a TIME, with which pyiceberg cannot read the files and Spark not the "
            "table; export a stream of your own without it"
        )
    location = place(unquote(root) if root.startswith("file:") else root)
    parameters = {OURS: feed, LOCATION: location}
    daily = not state.is_table and state.timezone == "UTC" and state.timestamp_column is None
    below = f"{state.type}s/{feed}"
    files = {
        tuple(f"{location if file.local else f'{remote}/'}{below}/{file.path}".split("/")): file
        for file in state.files
        if not state.is_table or (state.current is not None and file.partition == state.current.path)
    }
    texts = tuple((name, type_text(kind)) for name, kind in types.items())
    table = FileTable(
        table_name(feed).lower(), BY_DAY if daily else (), texts, location, parameters, state.sequence,
        dict.fromkeys(files, ""), types=types, files=files,
    )
    return [table]


def type_text(kind: SqlType) -> str:
    """Iceberg's name of a type, without the ids of its fields.

    Raises:
        SchemaError: Iceberg has no such type.
    """
    if (stored := SCALARS.get(kind.base)) in _ICEBERG:
        return _ICEBERG[stored]
    if kind.base == "DECIMAL":
        return f"decimal({kind.precision}, {kind.scale})"
    if kind.base == "ARRAY" and kind.element:
        return f"list<{type_text(kind.element)}>"
    if kind.base == "MAP" and kind.key and kind.element:
        return f"map<{type_text(kind.key)}, {type_text(kind.element)}>"
    if kind.base == "STRUCT" and kind.fields:
        return f"struct<{', '.join(f'{name}: {type_text(inner)}' for name, inner in fields_of(kind))}>"
    raise SchemaError(f"type {kind} cannot be stored in Iceberg")


def fields_of(kind: SqlType) -> list[tuple[str, SqlType]]:
    """The fields of a STRUCT under their names in the files."""
    names = disk_names([name for name, _ in kind.fields], (), {})
    return [(names[name], inner) for name, inner in kind.fields]
