"""Values of a topic by the native library: JSON objects, fields found by name, straight into Arrow's layout."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ksql_lake.base import native
from ksql_lake.base.arrays import Array
from ksql_lake.model.types import Column, SqlType
from ksql_lake.sources.ksqldb.native_rows import ARROW_ARRAY, DEEPEST, KINDS, Unsupported

INSIDE, EXACT = 1, 2  # flags of native.c


class ValueReader:
    """Reads the objects of one topic.

    Args:
        schema: the Arrow schema of the value's columns.
        exact: keep what ksqlDB's REST API would lose.

    Raises:
        Unsupported: a column's type or name is not for the native reader.
    """

    def __init__(self, loaded: ctypes.CDLL, columns: Sequence[Column], schema: pa.Schema, *, exact: bool) -> None:
        self._library, self._schema = loaded, schema
        types, names = _program(SqlType("STRUCT", fields=tuple((c.name, c.type) for c in columns)), exact)
        self._reader = ctypes.c_void_p(
            loaded.ksql_new((native.Type * len(types))(*types), len(types), names, len(names))
        )
        if not self._reader:
            raise MemoryError("no memory for the native reader")
        weakref.finalize(self, loaded.ksql_free, self._reader)

    def read_block(self, block: Array, ends: Array) -> tuple[pa.RecordBatch | None, Array]:
        """The values that are plain with certainty as rows, None for none; and which ones these are.

        Args:
            block: the bytes of values, each ended by a line end.
            ends: the positions of those line ends.
        """
        taken = np.zeros(len(ends), np.bool_)
        ends = np.ascontiguousarray(ends, np.int64)
        self._library.ksql_values(self._reader, block.ctypes.data, ends.ctypes.data, len(ends), taken.ctypes.data)
        return (self._take() if taken.any() else None), taken

    def _take(self) -> pa.RecordBatch:
        array = ctypes.create_string_buffer(ARROW_ARRAY)
        if not self._library.ksql_take(self._reader, array):
            raise MemoryError("no memory for the rows of a topic")
        return pa.RecordBatch._import_from_c(ctypes.addressof(array), self._schema)


def _program(root: SqlType, exact: bool) -> tuple[list[native.Type], bytes]:
    """The nodes of the tree of types, parents before children, and the names of fields."""
    types: list[native.Type] = []
    names = bytearray()

    def add(kind: SqlType, name: bytes, depth: int, inside: bool) -> int:
        _refuse(kind, depth)
        flags = (INSIDE if inside else 0) | (EXACT if exact else 0)
        at, start = len(types), len(names)
        node = native.Type(KINDS.index(kind.base), kind.precision, kind.scale, -1, -1, start, len(name), flags)
        types.append(node)
        names.extend(name)
        fields = [(field.encode(), inner) for field, inner in kind.fields]
        children = fields or [(b"", inner) for inner in (kind.key, kind.element) if inner is not None]
        before: native.Type | None = None
        for child_name, child in children:
            position = add(child, child_name, depth + 1, inside or (kind.base == "STRUCT" and depth > 0))
            if before is None:
                node.first = position
            else:
                before.next = position
            before = types[position]
        return at

    add(root, b"", 0, False)
    return types, bytes(names)


def _refuse(kind: SqlType, depth: int) -> None:
    if kind.base not in KINDS or depth > DEEPEST or not 0 <= kind.scale <= 38 or not 0 <= kind.precision <= 38:
        raise Unsupported(str(kind))
    if kind.base == "MAP" and (kind.key is None or kind.key.base != "STRING"):
        raise Unsupported(str(kind))
    if kind.base == "STRUCT" and not kind.fields:
        raise Unsupported(str(kind))
    if len({name.upper() for name, _ in kind.fields}) < len(kind.fields):  # one name may fill two of these
        raise Unsupported(str(kind))
