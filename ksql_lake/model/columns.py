"""The columns of a feed over time: compares what the source has now with what the lake holds."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ksql_lake.base.errors import SchemaError
from ksql_lake.model.partitions import disk_names
from ksql_lake.model.recorded import MILLISECONDS, RecordedColumn
from ksql_lake.model.state import FeedState, SchemaVersion
from ksql_lake.model.types import Column, SqlType, arrow_schema, parse_type, pseudo_fields


def evolve(feed: str, recorded: Sequence[RecordedColumn], now: Sequence[Column], reserved: Sequence[str],
           version: str, unit: str = MILLISECONDS) -> tuple[tuple[RecordedColumn, ...], str]:
    """The recorded columns extended by new ones, and the schema version they make.

    Args:
        recorded: the columns of the metadata, oldest first; empty for a new feed.
        now: the columns of the query header.
        reserved: partition keys and pseudo columns, which win over a column of that name in any case.
        version: the schema version so far, such as "1.0".
        unit: what the feed's timestamps count.

    Raises:
        SchemaError: a column is gone or has another type; names it and the way out.
    """
    present = {column.name: column for column in now}
    for old in recorded:
        column = present.get(old.name)
        if column is None:
            raise SchemaError(f"{feed}: column {old.name} is gone from the source; {_way_out(feed)}")
        if str(column.type) != old.ksql_type:
            raise SchemaError(
                f"{feed}: column {old.name} was {old.ksql_type} and is now {column.type}, which plain readers "
                f"of a mixed directory cannot follow; {_way_out(feed)}"
            )
    known = {old.name for old in recorded}
    added = [column for column in now if column.name not in known]
    if recorded and added:
        major, minor = version.split(".")
        version = f"{major}.{int(minor) + 1}"
    frozen = {old.name: old.disk_name for old in recorded}
    names = disk_names([*frozen, *(column.name for column in added)], reserved, frozen)
    types = arrow_schema(added, unit=unit)
    new = (
        RecordedColumn(
            column.name, names[column.name], str(column.type), str(types.field(i).type), column.key, version
        )
        for i, column in enumerate(added)
    )
    return (*recorded, *new), version


def _way_out(feed: str) -> str:
    return (f"change it back, or keep the data as they are and begin anew: python manage_feeds.py archive {feed}, then "
            "add the source under another name: python manage_feeds.py add --source SOURCE --name NAME")


def record_schema(state: FeedState, now: str) -> bool:
    """Record in the state since when each column exists, once for each schema version; True when it is new."""
    history, version = state.schema_history, state.schema_version
    if not state.columns or (history and history[-1].version == version):
        return False
    added = tuple(f"{c.disk_name} {c.ksql_type}" for c in state.columns if c.since == version)
    state.schema_history = (*history, SchemaVersion(version, now, added))
    return True


def refuse_forbidden(feed: str, columns: Sequence[Column], forbidden: Sequence[str]) -> None:
    """Stop before anything is read when the source carries a column that this feed must never hold.

    Args:
        forbidden: names in any case; `ip_address` stands for every field of that name at any depth,
            `customer.ip_address` for the one in that STRUCT.

    Raises:
        SchemaError: names the columns.
    """
    carried = {path for column in columns for path in _paths(column.name, column.type)}
    found = [name for name in forbidden if any(f".{path}".endswith(f".{name.upper()}") for path in carried)]
    if found:
        raise SchemaError(
            f"{feed}: the source carries {', '.join(found)}, which the feed's forbidden_columns excludes; nothing "
            "was read. Remove it from the source, or from forbidden_columns"
        )


def _paths(name: str, kind: SqlType) -> list[str]:
    """The dotted upper-case names of a column and of the fields inside it."""
    found = [name.upper()]
    for inner, type_ in kind.fields:
        found += _paths(f"{name}.{inner}", type_)
    return found + (_paths(name, kind.element)[1:] if kind.element else [])


def schema_of(state: FeedState) -> pa.Schema:
    """The Arrow schema of a feed's recorded columns, under their names on disk and in its unit of time."""
    columns = [Column(c.name, parse_type(c.ksql_type), c.key) for c in state.columns]
    return arrow_schema(columns, [c.disk_name for c in state.columns], state.timestamps)


def rows_schema(state: FeedState) -> pa.Schema:
    """The same with a stream's ROWTIME, ROWPARTITION and ROWOFFSET before them: the schema of its files."""
    return pa.schema([*pseudo_fields(state.timestamps), *schema_of(state)])


def as_schema(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Older rows in the full current schema: a column that was added later is null, an unknown one is dropped."""
    arrays = [
        batch.column(field.name).cast(field.type) if field.name in batch.schema.names
        else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
