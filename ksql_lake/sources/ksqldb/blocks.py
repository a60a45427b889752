"""Blocks of plain rows, fast: about a megabyte of lines at a time through pyarrow's own C++ readers.

A row `{"row":{"columns":[1,"a",null]}},` is one `bytes.replace` away from a line of CSV, and pyarrow.csv reads CSV
with declared types without making a Python object for each value. ARRAY and STRUCT columns are cut out by position
and go through pyarrow.json. The reader answers only where it is certain to mean what `rows.Decoder` means row by row;
for anything else (another kind of element, an odd token, a value that does not fit) it answers None, and the
decoder reads those lines in its own exact way.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from ksql_lake.model.types import Column, SqlType

HEAD = b'{"row":{"columns":['
TAIL = b"]}},\n"
BETWEEN = TAIL + HEAD
QUOTED = {"STRING", "BYTES", "DATE", "TIME", "TIMESTAMP"}
JSON_ABLE = {"BOOLEAN", "INTEGER", "BIGINT", "DOUBLE", "STRING"}
GREGORIAN_MS = -12_219_292_800_000  # 1582-10-15; before it the server writes Julian dates
LEAST = 4096  # bytes; below, starting the C++ readers costs more than it saves
PATIENCE = 8  # blocks refused in a row after which a query's rows are left to the exact path
_ESCAPE = re.compile(
    rb'\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(["\\/bfnrt]))'
)
_PLAIN_ESCAPES = {
    b'"': b'""', b"\\": b"\\", b"/": b"/", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t",
}
# What decides where a column ends: quotes, brackets, commas, line ends.
_COLON, _QUOTE, _OPEN, _CLOSE, _COMMA, _LINE = 1, 2, 3, 4, 5, 6
_CLASSES = bytes(
    {ord('"'): _QUOTE, ord("["): _OPEN, ord("{"): _OPEN, ord("]"): _CLOSE, ord("}"): _CLOSE, ord(","): _COMMA,
     ord("\n"): _LINE, ord(":"): _COLON}.get(code, 0)
    for code in range(256)
)


Positions: TypeAlias = np.ndarray[Any, Any]


class _Uncertain(Exception):
    """These lines are for the exact path."""


class BlockReader:
    """Reads blocks of rows of one answer.

    Args:
        columns: of the answer's header.
        schema: their Arrow schema, with positions for names.
        exact: per column, from a JSON value (never None) to what `pa.array` takes; for nested types that pyarrow.json
            cannot read.

    Attributes:
        nested: positions of the columns that are cut out of the rows first.
    """

    def __init__(
        self, columns: Sequence[Column], schema: pa.Schema, exact: Sequence[Callable[[Any], Any]]
    ) -> None:
        self._columns, self._schema, self._exact = list(columns), schema, list(exact)
        self.nested = [i for i, column in enumerate(columns) if column.type.base in ("ARRAY", "MAP", "STRUCT")]
        self._scalar = [i for i in range(len(columns)) if i not in self.nested]
        self._by_json = [i for i in self.nested if _is_json_able(columns[i].type)]
        self._by_csv = [i for i in self.nested if _is_plain_map(columns[i].type)]
        self._runs = _runs(self._scalar)
        self._refused = 0

    def read(self, block: bytes) -> pa.RecordBatch | None:
        """The rows of whole lines, each ended by `,\\n`; None when they are not plain rows with certainty."""
        if len(block) < LEAST or self._refused >= PATIENCE or not self._scalar:
            return None
        try:
            batch = self._read(block)
        except (_Uncertain, pa.ArrowException, ValueError, OverflowError, IndexError):
            self._refused += 1
            return None
        self._refused = 0
        return batch

    def _read(self, block: bytes) -> pa.RecordBatch:
        if not block.startswith(HEAD) or not block.endswith(TAIL):
            raise _Uncertain
        rows = _count(block, b"\n")
        # In JSON text no raw line end stands inside a string, so what lies between two rows is never part of a value.
        text = block[len(HEAD) : -len(TAIL)].replace(BETWEEN, b"\n")
        if len(block) - len(text) != len(HEAD) + len(TAIL) + (rows - 1) * (len(BETWEEN) - 1):
            raise _Uncertain
        arrays: dict[int, pa.Array] = {}
        if self.nested:
            text = self._cut_out(text, rows, arrays)
        self._read_scalars(text, rows, arrays)
        return pa.RecordBatch.from_arrays([arrays[i] for i in range(len(self._columns))], schema=self._schema)

    def _read_scalars(self, text: bytes, rows: int, arrays: dict[int, pa.Array]) -> None:
        kinds = [(self._columns[i].type.base, self._schema.field(i).type) for i in self._scalar]
        arrays.update(zip(self._scalar, _read_csv(text, rows, kinds), strict=True))

    def _cut_out(self, text: bytes, rows: int, arrays: dict[int, pa.Array]) -> bytes:
        """Read the nested columns, and return the CSV of the others."""
        ends, inner = self._ends(text, rows)
        starts = np.empty_like(ends)
        starts[:, 1:] = ends[:, :-1] + 1
        starts[0, 0] = 0
        starts[1:, 0] = ends[:-1, -1] + 1
        if self._by_json:
            self._read_json(text, starts, ends, arrays)
        for i in self._by_csv:
            arrays[i] = self._read_map(text, starts[:, i], ends[:, i], inner, i)
        for i in self.nested:
            if i not in arrays:
                arrays[i] = self._read_exact(text, starts[:, i].tolist(), ends[:, i].tolist(), i)
        pieces = [
            [text[a:b] for a, b in zip(starts[:, first].tolist(), ends[:, last].tolist(), strict=True)]
            for first, last in self._runs
        ]
        return b"\n".join(pieces[0] if len(pieces) == 1 else map(b",".join, zip(*pieces, strict=True)))

    def _ends(self, text: bytes, rows: int) -> tuple[Positions, tuple[Positions, Positions]]:
        """Where each column of each row ends, (rows, columns); and the colons and commas one level down."""
        # Escaped quotes and backslashes decide nothing; replaced by as many bytes that decide nothing.
        plain = text.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in text else text
        classes = np.frombuffer(plain.translate(_CLASSES), np.uint8)
        at = np.flatnonzero(classes != 0).astype(np.int32)  # of booleans: much faster than of numbers
        kind = classes[at]
        quote = kind == _QUOTE
        outside = (np.cumsum(quote, dtype=np.int32) & 1) == 0
        if not outside[-1:].all():
            raise _Uncertain
        keep = outside & ~quote
        at, kind = at[keep], kind[keep]
        steps = (kind == _OPEN).view(np.int8) - (kind == _CLOSE).view(np.int8)
        depth = np.cumsum(steps, dtype=np.int32)
        top = (depth == 0) & (kind >= _COMMA)
        ends = np.append(at[top], len(text))
        width = len(self._columns)
        if len(ends) != rows * width or (kind[top][width - 1 :: width] != _LINE).any():
            raise _Uncertain
        colons, commas = (at[(depth == 1) & (kind == sign)] if self._by_csv else at[:0] for sign in (_COLON, _COMMA))
        return ends.reshape(rows, width), (colons, commas)

    def _read_map(
        self, text: bytes, starts: Positions, ends: Positions, inner: tuple[Positions, Positions], i: int
    ) -> pa.Array:
        """A MAP of scalars as a CSV of its keys and values: its colons become commas, its commas line ends."""
        colons, commas = inner
        changed = np.frombuffer(text, np.uint8).copy()
        null = changed[starts] == ord("n")
        if not (null | (changed[starts] == ord("{"))).all():
            raise _Uncertain
        counts = np.searchsorted(colons, ends) - np.searchsorted(colons, starts)
        between = np.searchsorted(commas, ends) - np.searchsorted(commas, starts)
        if (between != np.maximum(counts - 1, 0)).any():
            raise _Uncertain
        changed[colons], changed[commas] = ord(","), ord("\n")
        entries = changed.tobytes()
        filled = counts > 0
        spans = zip((starts[filled] + 1).tolist(), (ends[filled] - 1).tolist(), strict=True)
        lines = b"\n".join([entries[a:b] for a, b in spans])
        kind, total = self._schema.field(i).type, int(counts.sum())
        item = self._columns[i].type.element
        if item is None:
            raise _Uncertain
        kinds = [("STRING", kind.key_type), (item.base, kind.item_type)]
        keys, items = _read_csv(lines, total, kinds) if total else [pa.array([], kind) for _, kind in kinds]
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        made = pa.MapArray.from_arrays(pa.array(offsets, mask=np.append(null, False)), keys, items)
        return made.cast(kind)

    def _read_json(self, text: bytes, starts: Positions, ends: Positions, arrays: dict[int, pa.Array]) -> None:
        pieces = (
            [text[a:b] for a, b in zip(starts[:, i].tolist(), ends[:, i].tolist(), strict=True)] for i in self._by_json
        )
        line = b"{" + b",".join(b'"%d":%%b' % i for i in self._by_json) + b"}\n"
        named = b"".join([line % row for row in zip(*pieces, strict=True)])
        schema = pa.schema([self._schema.field(i) for i in self._by_json])
        table = pyarrow.json.read_json(
            pa.BufferReader(named),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(named) + 1),
            pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        if table.num_rows != len(starts) or table.schema.names != schema.names:
            raise _Uncertain
        for at, i in enumerate(self._by_json):
            arrays[i] = _whole(table.column(at))

    def _read_exact(self, text: bytes, starts: list[int], ends: list[int], i: int) -> pa.Array:
        pieces = [text[a:b] for a, b in zip(starts, ends, strict=True)]
        values = json.loads(b"[" + b",".join(pieces) + b"]", parse_float=Decimal)
        convert = self._exact[i]
        try:
            converted = [None if value is None else convert(value) for value in values]
            return pa.array(converted, self._schema.field(i).type)
        except (TypeError, KeyError, AttributeError, ArithmeticError):
            raise _Uncertain from None


def _read_csv(text: bytes, rows: int, kinds: Sequence[tuple[str, pa.DataType]]) -> list[pa.Array]:
    """Lines of scalars, with JSON's escapes in their strings; `kinds` are (ksqlDB base type, Arrow type)."""
    text, escaped, multiline = _unescape(text)
    quotes = _count(text, b'"') - 2 * escaped
    names = [str(i) for i in range(len(kinds))]
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
        pyarrow.csv.ParseOptions(newlines_in_values=multiline, ignore_empty_lines=False),
        pyarrow.csv.ConvertOptions(
            column_types={name: _csv_type(kind) for name, (_, kind) in zip(names, kinds, strict=True)},
            null_values=["null"], strings_can_be_null=True, quoted_strings_can_be_null=False,
            true_values=["true"], false_values=["false"],
        ),
    )
    if table.num_rows != rows:
        raise _Uncertain
    read = [_whole(column) for column in table.columns]
    # Quotes just where the types want them, and in values only those that were escaped: "5" is no number, and
    # neither a bare word nor ["a"] is a string.
    quoted = [array for array, (base, _) in zip(read, kinds, strict=True) if base in QUOTED]
    if quotes != 2 * sum(rows - array.null_count for array in quoted):
        raise _Uncertain
    strings = [array.buffers()[2] for array, (base, _) in zip(read, kinds, strict=True) if base == "STRING"]
    if escaped != sum(_count(buffer, b'"') for buffer in strings if buffer is not None):
        raise _Uncertain
    return [_finish(array, base, kind) for array, (base, kind) in zip(read, kinds, strict=True)]


def _count(data: Any, byte: bytes) -> int:
    """How often a byte occurs in bytes or a buffer; several times as fast as `bytes.count`."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == byte[0]))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _finish(array: pa.Array, base: str, kind: pa.DataType) -> pa.Array:
    if base == "TIMESTAMP":
        lowest = pc.min(array.cast(pa.int64())).as_py()
        if lowest is not None and lowest < GREGORIAN_MS:
            raise _Uncertain
        return array.cast(kind)
    if base == "BYTES":
        return pa.array([v and base64.b64decode(v, validate=True) for v in array.to_pylist()], kind)
    return array


def _is_plain_map(kind: SqlType) -> bool:
    """A MAP at the top whose keys are strings and whose values are scalars."""
    inner = kind.element
    return (
        kind.base == "MAP" and kind.key is not None and kind.key.base == "STRING" and inner is not None
        and inner.base not in ("ARRAY", "MAP", "STRUCT")
    )


def _is_json_able(kind: SqlType) -> bool:
    if kind.base == "ARRAY" and kind.element:
        return _is_json_able(kind.element)
    if kind.base == "STRUCT":
        names = [name.casefold() for name, _ in kind.fields]
        return len(set(names)) == len(names) and all(_is_json_able(inner) for _, inner in kind.fields)
    return kind.base in JSON_ABLE


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring positions as (first, last)."""
    runs: list[tuple[int, int]] = []
    for i in positions:
        if runs and runs[-1][1] == i - 1:
            runs[-1] = (runs[-1][0], i)
        else:
            runs.append((i, i))
    return runs


def _csv_type(kind: pa.DataType) -> pa.DataType:
    """What pyarrow.csv is asked for: a time zone would have to stand in the text, Base64 is decoded afterwards."""
    return pa.timestamp("ms") if pa.types.is_timestamp(kind) else kind


def _unescape(text: bytes) -> tuple[bytes, int, bool]:
    """JSON's escapes as CSV has them, line by line where they are; (text, quotes doubled, whether line ends came in).

    Only lines with a backslash are touched: replacing in the whole block costs more than all the rest.
    """
    at = text.find(b"\\")
    if at < 0:
        return text, 0, False
    parts, done, escaped = [], 0, 0
    while at >= 0:
        end = text.find(b"\n", at)
        end = len(text) if end < 0 else end
        line, count = _unescape_line(text[at:end])
        parts += [text[done:at], line]
        done, escaped = end, escaped + count
        at = text.find(b"\\", end)
    parts.append(text[done:])
    return b"".join(parts), escaped, True


def _unescape_line(line: bytes) -> tuple[bytes, int]:
    quotes = 0

    def plain(match: re.Match[bytes]) -> bytes:
        nonlocal quotes
        high, low, unit, short = match.groups()
        if short is not None:
            quotes += short == b'"'
            return _PLAIN_ESCAPES[short]
        code = 0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00 if high else int(unit, 16)
        quotes += code == 0x22
        if 0xD800 <= code <= 0xDFFF:
            raise _Uncertain
        return b'""' if code == 0x22 else chr(code).encode()

    replaced = _ESCAPE.sub(plain, line)
    return replaced, quotes
