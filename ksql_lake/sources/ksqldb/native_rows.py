"""Lines of plain rows, by the native library: the tree of types it follows, and its Arrow arrays as record batches."""

from __future__ import annotations

import ctypes
import json
import weakref
from collections.abc import Iterator, Sequence

import pyarrow as pa

from ksql_lake.base import native
from ksql_lake.model.types import Column, SqlType

KINDS = ("BOOLEAN", "INTEGER", "BIGINT", "DOUBLE", "DECIMAL", "STRING", "BYTES", "DATE", "TIME", "TIMESTAMP", "ARRAY",
         "MAP", "STRUCT")  # in the order of native.c
DEEPEST = 32  # levels of types: the native reader recurses over them
ARROW_ARRAY = 80  # bytes of a `struct ArrowArray`


class Unsupported(Exception):
    """A type that the native reader does not know."""


class RowReader:
    """Reads the rows of one answer.

    Args:
        schema: the Arrow schema of the columns.

    Raises:
        Unsupported: a column's type is not for the native reader.
    """

    def __init__(self, loaded: ctypes.CDLL, columns: Sequence[Column], schema: pa.Schema) -> None:
        self._library, self._schema = loaded, schema
        types, names = _program(SqlType("STRUCT", fields=tuple((str(i), c.type) for i, c in enumerate(columns))))
        self._reader = ctypes.c_void_p(
            loaded.ksql_new((native.Type * len(types))(*types), len(types), names, len(names))
        )
        if not self._reader:
            raise MemoryError("no memory for the native reader")
        weakref.finalize(self, loaded.ksql_free, self._reader)
        self._rows = ctypes.c_int64()

    def read(self, lines: bytes, start: int, end: int) -> tuple[pa.RecordBatch | None, int]:
        """Rows of the lines from `start` on, and where the first line begins that is not plain with certainty."""
        at = self._library.ksql_read(self._reader, lines, start, end, self._rows)
        return (self._take() if self._rows.value else None), at

    def _take(self) -> pa.RecordBatch:
        array = ctypes.create_string_buffer(ARROW_ARRAY)
        if not self._library.ksql_take(self._reader, array):
            raise MemoryError("no memory for the rows of an answer")
        return pa.RecordBatch._import_from_c(ctypes.addressof(array), self._schema)


def _program(root: SqlType) -> tuple[list[native.Type], bytes]:
    """The nodes of the tree of types, parents before children, and the names of fields as JSON has them."""
    types: list[native.Type] = []
    names = bytearray()

    def add(kind: SqlType, name: bytes, depth: int) -> int:
        if kind.base not in KINDS or depth > DEEPEST or not 0 <= kind.scale <= 38 or not 0 <= kind.precision <= 38:
            raise Unsupported(str(kind))
        if kind.base == "MAP" and (kind.key is None or kind.key.base != "STRING"):
            raise Unsupported(str(kind))
        at = len(types)
        node = native.Type(KINDS.index(kind.base), kind.precision, kind.scale, -1, -1, len(names), len(name))
        types.append(node)
        names.extend(name)
        before: native.Type | None = None
        for child_name, child in _children(kind):
            position = add(child, child_name, depth + 1)
            if before is None:
                node.first = position
            else:
                before.next = position
            before = types[position]
        return at

    add(root, b"", 0)
    return types, bytes(names)


def _children(kind: SqlType) -> Iterator[tuple[bytes, SqlType]]:
    if len({name for name, _ in kind.fields}) < len(kind.fields):
        raise Unsupported(str(kind))
    for i, (name, field) in enumerate(kind.fields):
        yield b"%b%b:" % (b"," if i else b"{", json.dumps(name, ensure_ascii=False).encode()), field
    for inner in (kind.key, kind.element):
        if inner is not None:
            yield b"", inner
