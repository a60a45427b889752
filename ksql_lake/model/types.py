"""ksqlDB's types as text, and the Arrow type of each. An unknown type is refused with the name of its column."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ksql_lake.base.errors import SchemaError
from ksql_lake.base.limits import NESTED_TYPES
from ksql_lake.model.partitions import disk_names
from ksql_lake.model.recorded import MILLISECONDS

PSEUDO = ("ROWTIME", "ROWPARTITION", "ROWOFFSET")  # before a stream's own columns, in queries and in files
# Each scalar type of ksqlDB, and what the files hold for it: readers, catalogs and checks decide by that.
SCALARS: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time32("ms"),
    "TIMESTAMP": pa.timestamp(MILLISECONDS, "UTC"),
}
_WORD = re.compile(r"[A-Z]+")
_DECIMAL = re.compile(r"\((\d{1,4}), ?(\d{1,4})\)", re.ASCII)
MOST_DIGITS = 38  # of a DECIMAL: DuckDB, Polars and Spark read no more


@dataclass(frozen=True)
class SqlType:
    """A type of ksqlDB; `element` is the item of an ARRAY or the value of a MAP."""

    base: str
    precision: int = 0
    scale: int = 0
    element: SqlType | None = None
    key: SqlType | None = None
    fields: tuple[tuple[str, SqlType], ...] = ()

    def __str__(self) -> str:
        if self.base == "DECIMAL":
            return f"DECIMAL({self.precision}, {self.scale})"
        if self.base == "ARRAY":
            return f"ARRAY<{self.element}>"
        if self.base == "MAP":
            return f"MAP<{self.key}, {self.element}>"
        if self.base == "STRUCT":
            inner = ", ".join(f"`{name}` {kind}" for name, kind in self.fields)
            return f"STRUCT<{inner}>" if inner else "STRUCT< >"
        return self.base


@dataclass(frozen=True)
class Column:
    """A column of a query header; only the headers of table pulls mark keys."""

    name: str
    type: SqlType
    key: bool = False


def parse_schema(text: str) -> tuple[Column, ...]:
    """The columns of `header.schema`.

    Raises:
        SchemaError: the text does not follow that grammar.
    """
    scan = _Scan(text)
    columns = []
    while not scan.done():
        name = scan.name()
        kind = scan.type(name)
        key = scan.take(" KEY")
        if not key and scan.take(" HEADERS") is False and scan.take(" HEADER("):
            scan.skip_to(")")
        columns.append(Column(name, kind, key))
        scan.take(", ")
    return tuple(columns)


def parse_type(text: str) -> SqlType:
    """One type, such as "MAP<STRING, DECIMAL(4, 2)>"."""
    scan = _Scan(text)
    kind = scan.type("?")
    if not scan.done():
        raise SchemaError(f"not a ksqlDB type: {text}")
    return kind


@functools.cache
def _type_start(scalars: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("` (?:" + "|".join([*scalars, "DECIMAL", "ARRAY", "MAP", "STRUCT"]) + r")\b")


class _Scan:
    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def done(self) -> bool:
        return self.at >= len(self.text)

    def take(self, literal: str) -> bool:
        found = self.text.startswith(literal, self.at)
        self.at += len(literal) if found else 0
        return found

    def skip_to(self, literal: str) -> None:
        found = self.text.find(literal, self.at)
        self.at = found + len(literal) if found >= 0 else len(self.text)

    def name(self) -> str:
        """Backticks inside a name are not doubled: a name ends where a backtick is followed by a type."""
        end = _type_start(tuple(SCALARS)).search(self.text, self.at + 1)
        if not self.text.startswith("`", self.at) or end is None:
            raise SchemaError(f"cannot read the schema the server sent at: {self.text[self.at:self.at + 60]}")
        name = self.text[self.at + 1 : end.start()]
        self.at = end.start() + 2
        return name

    def type(self, column: str) -> SqlType:
        self.depth += 1
        if self.depth > NESTED_TYPES:
            raise SchemaError(f"column {column}: its type has more than {NESTED_TYPES} types inside each other")
        kind = self._type(column)
        self.depth -= 1
        return kind

    def _type(self, column: str) -> SqlType:
        word = _WORD.match(self.text, self.at)
        base = word.group() if word else ""
        self.at += len(base)
        if base in SCALARS:
            return SqlType(base)
        if base == "DECIMAL" and (numbers := _DECIMAL.match(self.text, self.at)):
            self.at = numbers.end()
            return SqlType(base, int(numbers[1]), int(numbers[2]))
        if base == "ARRAY" and self.take("<"):
            return self._close(SqlType(base, element=self.type(column)), column)
        if base == "MAP" and self.take("<"):
            key = self.type(column)
            self.take(", ")
            return self._close(SqlType(base, key=key, element=self.type(column)), column)
        if base == "STRUCT" and self.take("<"):
            return self._close(SqlType(base, fields=tuple(self._fields())), column)
        raise SchemaError(f"column {column}: unknown type at {self.text[self.at - len(base):][:40]!r}")

    def _fields(self) -> list[tuple[str, SqlType]]:
        fields: list[tuple[str, SqlType]] = []
        while not self.done() and self.text[self.at] not in "> ":
            name = self.name()
            fields.append((name, self.type(name)))
            self.take(", ")
        return fields

    def _close(self, kind: SqlType, column: str) -> SqlType:
        self.take(" ")
        if not self.take(">"):
            raise SchemaError(f"column {column}: its type does not end with '>'")
        return kind


def timestamp_type(unit: str) -> pa.DataType:
    """The type of ROWTIME and of TIMESTAMP columns that count in a unit."""
    return pa.timestamp(unit, "UTC")


def pseudo_fields(unit: str) -> list[pa.Field]:
    """ROWTIME, ROWPARTITION and ROWOFFSET as a stream's files have them."""
    kinds = (timestamp_type(unit), pa.int32(), pa.int64())
    return [pa.field(name, kind) for name, kind in zip(PSEUDO, kinds, strict=True)]


def arrow_type(kind: SqlType, unit: str = MILLISECONDS) -> pa.DataType:
    """The one Arrow type of a ksqlDB type.

    Args:
        unit: what TIMESTAMP counts: milliseconds at the source, in the lake as the feed says. TIME counts milliseconds
            everywhere.

    Raises:
        SchemaError: common Parquet readers cannot read it (an empty STRUCT, a DECIMAL of 39 digits).
    """
    if kind.base == "TIMESTAMP":
        return timestamp_type(unit)
    if kind.base in SCALARS:
        return SCALARS[kind.base]
    if kind.base == "DECIMAL":
        if not 1 <= kind.precision <= MOST_DIGITS or kind.scale > kind.precision:
            raise SchemaError(
                f"{kind} cannot be stored: a DECIMAL has 1 to {MOST_DIGITS} digits in Parquet files that DuckDB, "
                "Polars and Spark read"
            )
        return pa.decimal128(kind.precision, kind.scale)
    if kind.base == "ARRAY" and kind.element:
        return pa.list_(arrow_type(kind.element, unit))
    if kind.base == "MAP" and kind.key and kind.element:
        return pa.map_(arrow_type(kind.key, unit), arrow_type(kind.element, unit))
    if kind.base == "STRUCT" and kind.fields:
        # DuckDB refuses a struct whose field names differ in case only, as ksqlDB allows them to.
        names = disk_names([name for name, _ in kind.fields], (), {})
        return pa.struct([pa.field(names[name], arrow_type(inner, unit)) for name, inner in kind.fields])
    raise SchemaError(f"type {kind} cannot be stored in Parquet")


def arrow_schema(
    columns: Sequence[Column], names: Sequence[str] | None = None, unit: str = MILLISECONDS
) -> pa.Schema:
    """The Arrow schema of columns, under their own or other names; `unit` as in `arrow_type`.

    Raises:
        SchemaError: names the column that cannot be stored.
    """
    fields = []
    for i, column in enumerate(columns):
        try:
            fields.append(pa.field(names[i] if names else column.name, arrow_type(column.type, unit)))
        except SchemaError as error:
            raise SchemaError(f"column {column.name}: {error}; leave it out with a stream of your own") from None
    return pa.schema(fields)
