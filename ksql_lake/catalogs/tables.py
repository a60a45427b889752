"""A feed's tables in a catalog: as they should be, as the catalog has them, and what to change. Pure functions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ksql_lake.base.errors import CatalogError
from ksql_lake.base.figures import counted
from ksql_lake.catalogs.hive import (
    KEYS,
    TEXT_KEYS,
    columns_of,
    hive_type,
    holds_time,
    partition_values,
    table_name,
    versions_name,
)
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import SqlType

OURS = "ksql_lake.feed"  # the parameter that marks a table as made by this tool
LEFT_OUT = "ksql_lake.left_out"  # the parameter that names the columns that the catalog or its engines cannot have
CURRENT = "current_version"
OWN = (CURRENT, LEFT_OUT)  # parameters that are removed when the feed no longer has them
_UNSPEAKABLE = re.compile(r"[,:;<>`\s]")  # a type's text has no way to quote these in a name
Columns = tuple[tuple[str, str], ...]
Values = tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """How a catalog shows a feed.

    Attributes:
        times: keep columns of type TIME, as milliseconds since midnight: Spark reads them, Trino and Athena fail.
        current: a table of ksqlDB is NAME, its current version, and NAME_versions; else NAME has all versions.
        text_keys: year, month and day are text.
    """

    times: bool
    current: bool
    text_keys: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it should be: names in lower case, Hive types, partition values as in the path (01)."""

    UNIT: ClassVar[str] = "partition"
    name: str
    keys: Columns
    columns: Columns
    location: str
    parameters: Mapping[str, str]
    sequence: int
    partitions: Mapping[Values, str]  # values -> fingerprint
    away: Mapping[Values, str] = field(default_factory=dict)  # values -> directory in the lake's remote

    def where(self, values: Values) -> str:
        """The directory of a partition."""
        if values in self.away:
            return self.away[values]
        path = "/".join(f"{key}={value}" for (key, _), value in zip(self.keys, values, strict=True))
        return f"{self.location}{path}/"

    @property
    def description(self) -> str:
        kind = "stream" if len(self.keys) > 1 else "table"
        return f"ksqlDB {kind}, kept by the data lake exporter"


@dataclass(frozen=True)
class Found:
    """A table as the catalog has it; `created` reveals one that was dropped and created again."""

    created: str
    columns: Columns
    location: str
    parameters: Mapping[str, str]
    keys: Columns
    partitions: Mapping[Values, str]


@dataclass(frozen=True)
class Plan:
    """What to send for one table, and why; nothing when it is up to date."""

    table: Table
    found: Found | None
    reasons: tuple[str, ...] = ()  # why the table itself is created or updated
    new: tuple[Values, ...] = ()
    changed: tuple[Values, ...] = ()
    gone: tuple[Values, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.reasons or self.new or self.changed or self.gone)

    @property
    def parameters(self) -> dict[str, str]:
        """The table's parameters; those that somebody else set stay."""
        kept = {key: value for key, value in (self.found.parameters if self.found else {}).items() if key not in OWN}
        return {**kept, **self.table.parameters, "ksql_lake.sequence": str(self.table.sequence)}

    def lines(self) -> list[str]:
        """The changes as lines for a person."""
        said = [f"{'update' if self.found else 'create'} table: {reason}" for reason in self.reasons]
        if self.found is None and LEFT_OUT in self.table.parameters:
            said.append(f"leave out what the catalog cannot hold: {self.table.parameters[LEFT_OUT]}")
        for word, values in (("add", self.new), ("update", self.changed), ("remove", self.gone)):
            if values:
                shown = ", ".join("/".join(one) for one in values[:3]) + (" ..." if len(values) > 3 else "")
                said.append(f"{word} {counted(len(values), self.table.UNIT)}: {shown}")
        return said


def wanted(feed: str, state: FeedState, root: str, style: Style, remote: str | None = None) -> list[Table]:
    """The tables of one feed.

    Args:
        root: where queries find the lake, such as s3://bucket/lake.
        remote: the place of days that are not on the lake's disk, in the form of the catalog's engines.

    Columns with a name that a Hive catalog cannot say, at any depth, are left out, and so are those of type TIME where
    the style says so; a parameter of the table names them.

    Raises:
        SchemaError: a column has a type that no file can hold.
    """
    typed = columns_of(state)
    left_out = [
        name for name, type_ in typed.items() if unspeakable(name, type_) or not style.times and holds_time(type_)
    ]
    columns = tuple(
        (name.lower(), hive_type(type_, quoted=False).lower()) for name, type_ in typed.items() if name not in left_out
    )
    parameters = {"EXTERNAL": "TRUE", "classification": "parquet", OURS: feed}
    if state.current:
        parameters[CURRENT] = state.current.version
    if left_out:
        parameters[LEFT_OUT] = ", ".join(left_out)
    location = place(f"{root.rstrip('/')}/{state.type}s/{feed}")
    name = table_name(feed).lower()
    every = versions_name(name) if style.current and state.is_table else name
    away = _away(state, f"{remote}/{state.type}s/{feed}") if remote else {}
    keys = (TEXT_KEYS if style.text_keys else KEYS)[state.type]
    table = Table(every, keys, columns, location, parameters, state.sequence, {}, away)
    made = [replace(table, partitions=_partitions(table, state))]
    if every != name and state.current:
        made.append(replace(table, name=name, keys=(), location=place(f"{location}{state.current.path}")))
    return made


def _away(state: FeedState, root: str) -> dict[Values, str]:
    """The partitions with a file that is only in the remote; all of their files are there, or will be."""
    paths = {file.partition for file in state.files if not file.local}
    return {tuple(value for _, value in partition_values(path)): place(f"{root}/{path}") for path in paths}


def _partitions(table: Table, state: FeedState) -> dict[Values, str]:
    found = (tuple(value for _, value in partition_values(one.path)) for one in state.partitions)
    return {values: fingerprint(table.columns, table.where(values)) for values in found}


def place(location: str) -> str:
    """A location for comparison: one slash at the end, and `file:///` however many slashes were written."""
    scheme, colon, path = location.rstrip("/").partition(":")
    if scheme == "file" and colon:
        return f"file:///{path.lstrip('/')}/"
    return location.rstrip("/") + "/"


def unspeakable(name: str, kind: SqlType) -> bool:
    """Whether a column has a name, or a field inside it, that a Hive catalog cannot say."""
    return "," in name or any(map(_UNSPEAKABLE.search, _fields(kind)))


def _fields(kind: SqlType) -> Iterator[str]:
    for name, inner in kind.fields:
        yield name
        yield from _fields(inner)
    for part in (kind.key, kind.element):
        if part:
            yield from _fields(part)


def fingerprint(columns: Columns, location: str) -> str:
    """The properties of a partition as a short text for comparison."""
    said = json.dumps([columns, place(location) if location else ""])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def plan(table: Table, found: Found | None) -> Plan:
    """What must be sent so that the catalog agrees with the metadata.

    Raises:
        CatalogError: a table of that name was not made by this tool, or has different keys.
    """
    if found is None:
        return Plan(table, None, ("it is not in the catalog",), tuple(table.partitions))
    if found.parameters.get(OURS) != table.parameters[OURS]:
        raise CatalogError(
            f"table {table.name}: was not made by --register for this feed (it has no parameter {OURS}="
            f"{table.parameters[OURS]}); drop it, or register in another database"
        )
    if found.keys != table.keys:
        keys = ", ".join(name for name, _ in table.keys) or "nothing"
        raise CatalogError(f"table {table.name}: is not partitioned by {keys}, which a catalog cannot change; drop it")
    return Plan(
        table,
        found,
        tuple(_reasons(table, found)),
        new=tuple(v for v in table.partitions if v not in found.partitions),
        changed=tuple(v for v, mark in table.partitions.items() if found.partitions.get(v, mark) != mark),
        gone=tuple(v for v in found.partitions if v not in table.partitions),
    )


def had_all_versions(table: Table, found: Found) -> bool:
    """Whether NAME is a table of an earlier version of this tool, with all versions, and is to be the current one."""
    return found.parameters.get(OURS) == table.parameters[OURS] and not table.keys and found.keys == KEYS["table"]


def _reasons(table: Table, found: Found) -> Iterator[str]:
    before = dict(found.columns)
    for name, type_ in table.columns:
        if before.pop(name, type_) != type_:
            yield f"column {name} is {type_}"
        elif name not in dict(found.columns):
            yield f"column {name} {type_} is new"
    for name in before:
        yield f"the feed has no column {name}"
    if table.location != place(found.location):
        yield f"location is {table.location}"
    for name, value in table.parameters.items():
        if found.parameters.get(name) != value:
            yield f"{name} is {value}"


def former_name(tables: Sequence[Table]) -> str | None:
    """The name that earlier versions gave a feed's table, where it is another one now (`t.totals`, now `t_totals`)."""
    former = tables[0].parameters[OURS].lower()
    return None if former in {table.name for table in tables} else former
