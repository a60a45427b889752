"""The rows of an answer, exactly: lines of bytes in, Arrow record batches of the header's types out.

The header's types decide, never the values. Inside a STRUCT the server uses another encoding (reference
3.2): dates and times are numbers, decimals went through a double, maps with other keys are pairs.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import pyarrow as pa

from ksql_lake.base.errors import KsqlError, SchemaError
from ksql_lake.base.native import library
from ksql_lake.model.types import Column, SqlType, arrow_schema
from ksql_lake.sources.ksqldb.blocks import PATIENCE, TAIL, BlockReader
from ksql_lake.sources.ksqldb.native_rows import RowReader, Unsupported

Convert = Callable[[Any], Any]
EPOCH = dt.datetime(1970, 1, 1)
GREGORIAN = dt.datetime(1582, 10, 15)
MILLISECOND = dt.timedelta(milliseconds=1)
HALVED = 512 << 10  # bytes; a block of more, with nested columns, is read in two halves at the same time
SCATTERED = 16  # runs of plain rows in a block, of less than eight on average: tiny batches cost more than they save
OURS = ("expected ", "more than ")  # how the reasons begin that converters here give: without the value
WIDE = 60  # digits, beyond DECIMAL(38)


@dataclass(frozen=True)
class Tombstone:
    """A deleted key of a table's changelog: key columns filled, all others None."""

    columns: tuple[object, ...]


@dataclass(frozen=True)
class Final:
    """A final message; it proves an orderly end of the answer, not that the answer is complete."""

    message: str


@dataclass(frozen=True)
class ErrorRow:
    """An error after HTTP 200."""

    code: int
    message: str


@dataclass(frozen=True)
class ArrayEnd:
    """The closing bracket of the answer."""


Element: TypeAlias = pa.RecordBatch | Tombstone | Final | ErrorRow | ArrayEnd


class Decoder:
    """Turns the lines after an answer's header into elements, in the order of the wire.

    Plain rows go through `native_rows` where the native library is built, else in whole blocks through `blocks`;
    everything else row by row here. All mean the same.

    Args:
        batch_size: the rows that are Python objects at a time. Batches of the native reader, which makes none, are as
            long as the lines they come from.
        fast: False leaves everything to the exact path.
        native: False leaves the native reader out.
    """

    def __init__(
        self, columns: Sequence[Column], batch_size: int = 10_000, *, fast: bool = True, native: bool = True
    ) -> None:
        self.batch_size = batch_size
        self.columns = list(columns)
        self.schema = arrow_schema(columns, [str(i) for i in range(len(columns))])
        self._converters = [_converter(column.type) for column in columns]
        self._blocks = BlockReader(columns, self.schema, self._converters) if fast else None
        self._reader = self._native_reader() if fast and native else None
        self._given_up = 0
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="decoder")  # starts its thread when it is needed

    def decode(self, lines: bytes) -> list[Element]:
        """Decode whole lines (framing: reference 1.9).

        Raises:
            KsqlError: a line is no element of this answer.
            SchemaError: a value does not fit the type of its column.
        """
        found = lines.rfind(TAIL)
        cut = found + len(TAIL) if found >= 0 else 0
        if self._reader is not None:
            before = self._decode_native(self._reader, lines, cut) if cut else []
            return [*before, *self._decode_end(lines[cut:])]
        if self._blocks is None or not cut:
            return self._decode_each(lines)
        # Flat rows gain nothing from a second thread: they wait for Python's lock more than they read (measured).
        halved = cut >= HALVED and self._blocks.nested
        half = lines.find(TAIL, cut // 2) + len(TAIL) if halved else cut
        first = self._helper.submit(self._blocks.read, lines[:half]) if half < cut else None
        last = self._decode_block(lines[half:cut] if first else lines[:cut], None)
        earlier = self._decode_block(lines[:half], first) if first else []
        return [*earlier, *last, *self._decode_each(lines[cut:])]

    def _native_reader(self) -> RowReader | None:
        loaded = library()
        try:
            return RowReader(loaded, self.columns, self.schema) if loaded is not None else None
        except Unsupported:
            return None

    def _decode_native(self, reader: RowReader, lines: bytes, end: int) -> list[Element]:
        """Plain rows by the native reader, what stands between them row by row."""
        elements: list[Element] = []
        at = odd = rows = runs = 0
        while at < end:
            start = at
            batch, at = reader.read(lines, at, end)
            if batch is not None:
                elements += self._decode_each(lines[odd:start]) if odd < start else []
                elements.append(batch)
                rows, runs, odd = rows + len(batch), runs + 1, at
            if at < end:
                at = end if runs > SCATTERED + rows // 8 else lines.index(b"\n", at) + 1
        elements += self._decode_each(lines[odd:end]) if odd < end else []
        self._given_up = self._given_up + 1 if rows < 8 * runs or not rows else 0
        if self._given_up >= PATIENCE:
            self._reader = None
        return elements

    def _decode_end(self, lines: bytes) -> list[Element]:
        """What follows the last row that is ended by a comma: of a pulled table, its last row and the bracket."""
        line = lines.rstrip()
        if self._reader is not None and line.endswith(b"}}]"):
            row = line[:-1] + b",\n"
            batch, at = self._reader.read(row, 0, len(row))
            if batch is not None and at == len(row):
                return [batch, ArrayEnd()]
        return self._decode_each(lines)

    def _decode_block(self, lines: bytes, reading: Future[pa.RecordBatch | None] | None) -> list[Element]:
        assert self._blocks is not None
        batch = reading.result() if reading else self._blocks.read(lines)
        if batch is None:
            return self._decode_each(lines)
        return [batch.slice(at, self.batch_size) for at in range(0, len(batch), self.batch_size)]

    def _decode_each(self, lines: bytes) -> list[Element]:
        elements: list[Element] = []
        rows: list[list[Any]] = []
        for raw in lines.split(b"\n"):
            line = raw.strip().removesuffix(b",").rstrip()
            closed = line.endswith(b"]")
            line = line[:-1].rstrip() if closed else line
            line = line.removesuffix(b",")
            other = self._line(line, rows) if line else None
            if (other is not None or closed or len(rows) >= self.batch_size) and rows:
                elements.append(self._batch(rows))
                rows = []
            if other is not None:
                elements.append(other)
            if closed:
                elements.append(ArrayEnd())
        if rows:
            elements.append(self._batch(rows))
        return elements

    def _line(self, line: bytes, rows: list[list[Any]]) -> Element | None:
        try:
            element = json.loads(line, parse_float=Decimal)
        except (ValueError, RecursionError):
            raise KsqlError(f"the server sent a line of {len(line):,} bytes that is not JSON") from None
        if not isinstance(element, dict):
            raise KsqlError(f"the server sent an element of no known kind: {_shape(element)}")
        if "row" in element:
            row = element["row"]
            values = row.get("columns") if isinstance(row, dict) else None
            if not isinstance(values, list) or len(values) != len(self.columns):
                shown = f"{len(values)} values" if isinstance(values, list) else _shape(row)
                raise KsqlError(
                    f"the server sent a row that does not fit its header: {shown}, expected {len(self.columns)} columns"
                )
            if row.get("tombstone"):
                return Tombstone(tuple(self._convert(values)))
            rows.append(values)
            return None
        if "finalMessage" in element:
            return Final(str(element["finalMessage"]))
        error = element.get("errorMessage", element if "error_code" in element else None)
        if isinstance(error, dict):
            return ErrorRow(int(error.get("error_code", 0)), " ".join(str(error.get("message", "")).split()))
        if "continuationToken" in element or "consistencyToken" in element:
            return None
        raise KsqlError(f"the server sent an element of no known kind: {_shape(element)}")

    def _convert(self, values: Sequence[Any]) -> list[Any]:
        converted = []
        for column, convert, value in zip(self.columns, self._converters, values, strict=True):
            converted.append(None if value is None else self._value(column, convert, value))
        return converted

    def _value(self, column: Column, convert: Convert, value: Any) -> Any:
        try:
            return convert(value)
        except (ValueError, TypeError, OverflowError, KeyError, AttributeError, InvalidOperation) as error:
            why = f" ({error})" if type(error) is ValueError and str(error).startswith(OURS) else ""
            raise SchemaError(
                f"column {column.name}: {_shape(value)} is no {column.type} that can be stored{why}"
            ) from None

    def _batch(self, rows: list[list[Any]]) -> pa.RecordBatch:
        arrays = []
        for i, (column, convert) in enumerate(zip(self.columns, self._converters, strict=True)):
            values = [None if row[i] is None else self._value(column, convert, row[i]) for row in rows]
            try:
                arrays.append(pa.array(values, self.schema.field(i).type))
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                raise SchemaError(f"column {column.name}: a value does not fit {column.type}") from None
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _shape(value: Any) -> str:
    """What a value is, without the value: messages go where an erasure does not look."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, list(value)[:5])) or 'nothing in it'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    return "true or false" if isinstance(value, bool) else "null" if value is None else "a number"


def _converter(kind: SqlType) -> Convert:
    """A function from a JSON value (never None) to what `pa.array` takes for the type."""
    simple: dict[str, Convert] = {
        "BOOLEAN": _boolean,
        "INTEGER": _integer,
        "BIGINT": _integer,
        "DOUBLE": float,
        "STRING": _text,
        "BYTES": lambda value: base64.b64decode(value, validate=True),
        "DATE": _date,
        "TIME": _time,
        "TIMESTAMP": _timestamp,
    }
    if kind.base in simple:
        return simple[kind.base]
    if kind.base == "DECIMAL":
        return _decimal(kind.scale)
    inner = _nullable(_converter(kind.element)) if kind.element else None
    if kind.base == "ARRAY" and inner:
        return lambda value: [inner(item) for item in value]
    if kind.base == "MAP" and inner and kind.key:
        key = _map_key(kind.key)
        return lambda value: [(key(k), inner(v)) for k, v in (value.items() if isinstance(value, dict) else value)]
    fields = [(name, _nullable(_converter(field))) for name, field in kind.fields]
    # By position: on disk a field may have another name.
    return lambda value: tuple([convert(value.get(name)) for name, convert in fields])


def _nullable(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _map_key(kind: SqlType) -> Convert:
    """Outside a STRUCT all keys are strings, also numbers and booleans."""
    convert = _converter(kind)
    if kind.base == "BOOLEAN":
        return lambda value: value == "true" if isinstance(value, str) else convert(value)
    if kind.base in ("INTEGER", "BIGINT"):
        return int
    return convert


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _integer(value: Any) -> int:
    """A forwarded row may carry another token for the same number, a fraction is refused."""
    if isinstance(value, bool | str) or value != int(value):
        raise ValueError("expected a whole number")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


def _decimal(scale: int) -> Convert:
    import decimal

    context = decimal.Context(prec=WIDE)
    step = Decimal(1).scaleb(-scale)

    def convert(value: Any) -> Decimal:
        exact = Decimal(value)
        scaled = exact.quantize(step, context=context)
        if scaled != exact:
            raise ValueError(f"more than {scale} digits after the point")
        return scaled

    return convert


def _date(value: Any) -> Any:
    if isinstance(value, int):
        return value
    return dt.date.fromisoformat(value)


def _time(value: Any) -> int:
    """Milliseconds of the day; "10:00" when the seconds are 0 (reference 3.1)."""
    if isinstance(value, int):
        return value
    time = dt.time.fromisoformat(value)
    return ((time.hour * 60 + time.minute) * 60 + time.second) * 1000 + time.microsecond // 1000


def _timestamp(value: Any) -> int:
    """Epoch milliseconds. Before 1582-10-15 the server writes Julian dates (reference 3.1)."""
    if isinstance(value, int):
        return value
    time = dt.datetime.fromisoformat(value)
    milliseconds = (time - EPOCH) // MILLISECOND
    if time >= GREGORIAN:
        return milliseconds
    return milliseconds + _julian_days(time.year, time.month) * 86_400_000


def _julian_days(year: int, month: int) -> int:
    """How many days a Julian date is later than the same Gregorian date."""
    before = year if month > 2 else year - 1
    return before // 100 - before // 400 - 2
