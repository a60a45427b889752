"""ksqlDB's types as pyiceberg has them, and its types as text. All columns are optional: older files lack some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from ksql_lake.catalogs.iceberg.plan import fields_of, type_text
from ksql_lake.model.types import SqlType


def iceberg_schema(columns: Mapping[str, SqlType]) -> Any:
    """The schema of a new table, its fields numbered in order; a catalog may number them again."""
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    numbers = count(1)
    fields = [
        NestedField(next(numbers), name, iceberg_type(kind, numbers), required=False) for name, kind in columns.items()
    ]
    return Schema(*fields)


def iceberg_type(kind: SqlType, numbers: Iterator[int]) -> Any:
    """One type.

    Args:
        numbers: of the fields inside it.

    Raises:
        SchemaError: Iceberg has no such type.
    """
    from pyiceberg import types

    if kind.base == "DECIMAL":
        return types.DecimalType(kind.precision, kind.scale)
    if kind.base == "ARRAY" and kind.element:
        number = next(numbers)
        return types.ListType(number, iceberg_type(kind.element, numbers), element_required=False)
    if kind.base == "MAP" and kind.key and kind.element:
        key, value = next(numbers), next(numbers)
        inner = (iceberg_type(one, numbers) for one in (kind.key, kind.element))
        return types.MapType(key, next(inner), value, next(inner), value_required=False)
    if kind.base == "STRUCT" and kind.fields:
        fields = [
            types.NestedField(next(numbers), name, iceberg_type(inner, numbers), required=False)
            for name, inner in fields_of(kind)
        ]
        return types.StructType(*fields)
    scalars = (
        types.BooleanType, types.IntegerType, types.LongType, types.DoubleType, types.StringType, types.BinaryType,
        types.DateType, types.TimestamptzType,
    )
    text = type_text(kind)
    return next(one for one in (scalar() for scalar in scalars) if str(one) == text)


def text_of(kind: Any) -> str:
    """A type of a table that is there, as `plan.type_text` writes it."""
    from pyiceberg import types

    if isinstance(kind, types.StructType):
        return f"struct<{', '.join(f'{field.name}: {text_of(field.field_type)}' for field in kind.fields)}>"
    if isinstance(kind, types.ListType):
        return f"list<{text_of(kind.element_type)}>"
    if isinstance(kind, types.MapType):
        return f"map<{text_of(kind.key_type)}, {text_of(kind.value_type)}>"
    return str(kind)
