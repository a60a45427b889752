"""A feed's columns in Delta's types. All are nullable: a column that was added later is null in older files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ksql_lake.base.errors import SchemaError
from ksql_lake.catalogs.hive import holds_time
from ksql_lake.model.partitions import disk_names
from ksql_lake.model.types import SCALARS, SqlType

Json = dict[str, Any]
_DELTA: dict[pa.DataType, str] = {  # by the Arrow type, which says what is in the files
    pa.bool_(): "boolean", pa.int32(): "integer", pa.int64(): "long", pa.float64(): "double", pa.string(): "string",
    pa.binary(): "binary", pa.date32(): "date", pa.timestamp("ms", "UTC"): "timestamp",
}
KEYS = {"stream": (("year", "integer"), ("month", "integer"), ("day", "integer")), "table": (("version", "string"),)}


def schema_text(kind: str, columns: Sequence[tuple[str, SqlType]]) -> str:
    """The text of metaData.schemaString: columns by their names on disk, then the partition columns.

    Columns with a TIME at any depth are left out: Delta has no such type, and three of five readers fail when it is
    declared as a number.

    Args:
        kind: "stream" or "table".
    """
    fields = [_field(name, delta_type(type_)) for name, type_ in columns if not holds_time(type_)]
    fields += [_field(name, type_) for name, type_ in KEYS[kind]]
    return json.dumps({"type": "struct", "fields": fields}, ensure_ascii=False, separators=(",", ":"))


def left_out(columns: Sequence[tuple[str, SqlType]]) -> list[str]:
    """Names of the columns that the table lacks."""
    return [name for name, type_ in columns if holds_time(type_)]


def delta_type(kind: SqlType) -> Any:
    """A type in the form of the schema's JSON.

    Raises:
        SchemaError: Delta has no such type.
    """
    if (stored := SCALARS.get(kind.base)) in _DELTA:
        return _DELTA[stored]
    if kind.base == "DECIMAL":
        return f"decimal({kind.precision},{kind.scale})"
    if kind.base == "ARRAY" and kind.element:
        return {"type": "array", "elementType": delta_type(kind.element), "containsNull": True}
    if kind.base == "MAP" and kind.key and kind.element:
        return {
            "type": "map", "keyType": delta_type(kind.key), "valueType": delta_type(kind.element),
            "valueContainsNull": True,
        }
    if kind.base == "STRUCT" and kind.fields:
        names = disk_names([name for name, _ in kind.fields], (), {})  # as in the files
        return {"type": "struct", "fields": [_field(names[name], delta_type(inner)) for name, inner in kind.fields]}
    raise SchemaError(f"type {kind} cannot be stored in Delta")


def _field(name: str, type_: Any) -> Json:
    return {"name": name, "type": type_, "nullable": True, "metadata": {}}
