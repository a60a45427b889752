"""Decodes the rows of an answer exactly: lines of bytes in, Arrow record batches of the header's types out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import pyarrow as pa

from ksql_lake.base import limits
from ksql_lake.base.arrays import pylist
from ksql_lake.base.errors import KsqlError, SchemaError
from ksql_lake.base.native import library
from ksql_lake.model.types import PSEUDO, Column, arrow_schema
from ksql_lake.sources.ksqldb.http import excerpt
from ksql_lake.sources.ksqldb.native_rows import RowReader, Unsupported
from ksql_lake.sources.ksqldb.values import Unfit, converter
from ksql_lake.sources.row_source import Flaw as Flaw
from ksql_lake.sources.row_source import Flawed as Flawed

TAIL = b"]}},\n"  # how a row ends that another element follows
PATIENCE = 8  # blocks of which the native reader read next to nothing, after which Python reads the rest of a query
WAY_OUT = 'to export the other rows, set "on_bad_value" to "null" or "quarantine" in the feed file'
SCATTERED = 16  # runs of plain rows in a block, of less than eight on average: tiny batches cost more than they save


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


Element: TypeAlias = pa.RecordBatch | Flawed | Tombstone | Final | ErrorRow | ArrayEnd


class Decoder:
    """Turns the lines after an answer's header into elements, in the order of the wire.

    Plain rows go through `native_rows` where the native library is built; everything else row by row here. Both mean
    the same.

    Args:
        batch_size: the rows that are Python objects at a time. Batches of the native reader, which makes none, are as
            long as the lines they come from.
        native: False does without the native reader.
        lenient: return rows with a value that its type cannot hold as `Flawed`, instead of raising SchemaError.
    """

    def __init__(
        self, columns: Sequence[Column], batch_size: int = 10_000, *, native: bool = True, lenient: bool = False
    ) -> None:
        self.batch_size = batch_size
        self.columns = list(columns)
        self.schema = arrow_schema(columns, [str(i) for i in range(len(columns))])
        self._lenient = lenient
        self._converters = [converter(column.type) for column in columns]
        names = [column.name for column in columns]
        self._place = [names.index(name) if name in names else None for name in PSEUDO[1:]]
        self._reader = self._native_reader() if native else None
        self._given_up = 0

    def decode(self, lines: bytes) -> list[Element]:
        """Decode whole lines.

        Raises:
            KsqlError: a line is not an element of this answer.
            SchemaError: a value does not fit the type of its column, and the decoder is not lenient.
        """
        if self._reader is None:
            return self._decode_each(lines)
        cut = lines.rfind(TAIL) + len(TAIL) if TAIL in lines else 0
        before = self._decode_native(self._reader, lines, cut) if cut else []
        return [*before, *self._decode_end(lines[cut:])]

    def _native_reader(self) -> RowReader | None:
        loaded = library()
        try:
            return RowReader(loaded, self.columns, self.schema) if loaded is not None else None
        except Unsupported:
            return None

    def _decode_native(self, reader: RowReader, lines: bytes, end: int) -> list[Element]:
        """Read plain rows by the native reader, and what is between them row by row."""
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
        """Read what follows the last row that ends with a comma: of a pulled table, its last row and the bracket."""
        line = lines.rstrip()
        if self._reader is not None and line.endswith(b"}}]"):
            row = line[:-1] + b",\n"
            batch, at = self._reader.read(row, 0, len(row))
            if batch is not None and at == len(row):
                return [batch, ArrayEnd()]
        return self._decode_each(lines)

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
        element = parse(line)
        if not isinstance(element, dict):
            raise KsqlError(f"the answer is not what ksqlDB sends: an element of no known kind: {shape(element)}")
        if "row" in element:
            row = element["row"]
            values = row.get("columns") if isinstance(row, dict) else None
            if not isinstance(values, list) or len(values) != len(self.columns):
                shown = f"{len(values)} values" if isinstance(values, list) else shape(row)
                raise KsqlError(
                    f"the answer is not what ksqlDB sends: a row does not fit its header: {shown}, expected "
                    f"{len(self.columns)} columns"
                )
            if row.get("tombstone"):
                return self._tombstone(values)
            rows.append(values)
            return None
        if "finalMessage" in element:
            return Final(str(element["finalMessage"]))
        error = element.get("errorMessage", element if "error_code" in element else None)
        if isinstance(error, dict):
            code = error.get("error_code", 0)
            words = excerpt(str(error.get("message", "")), limits.WORDS)
            return ErrorRow(code if isinstance(code, int) else 0, words)
        if "continuationToken" in element or "consistencyToken" in element:
            return None
        raise KsqlError(f"the answer is not what ksqlDB sends: an element of no known kind: {shape(element)}")

    def _tombstone(self, values: Sequence[Any]) -> Tombstone:
        flaws: list[Flaw] = []
        found = [self._column([list(values)], i, flaws)[0] for i in range(len(values))]
        if flaws:
            raise SchemaError(f"a deleted key cannot be read: {flaws[0]}")
        arrays = [pa.array([value], field.type) for value, field in zip(found, self.schema, strict=True)]
        return Tombstone(tuple(pylist(array)[0] for array in arrays))  # as the rows of a batch have it

    def _batch(self, rows: list[list[Any]]) -> pa.RecordBatch | Flawed:
        flaws: list[Flaw] = []
        columns = [self._column(rows, i, flaws) for i in range(len(self.columns))]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self.schema, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return Flawed(batch, tuple(flaws)) if flaws else batch

    def _column(self, rows: Sequence[list[Any]], i: int, flaws: list[Flaw]) -> list[Any]:
        """The values of one column as Arrow takes them; what does not fit becomes None and a flaw."""
        convert = self._converters[i]
        try:
            return [None if row[i] is None else convert(row[i]) for row in rows]
        except Unfit:
            return [self._value(row, number, i, convert, flaws) for number, row in enumerate(rows)]

    def _value(self, row: list[Any], number: int, i: int, convert: Callable[[Any], Any], flaws: list[Flaw]) -> Any:
        if row[i] is None:
            return None
        try:
            return convert(row[i])
        except Unfit as error:
            column = self.columns[i]
            reason = f"{shape(row[i])} that does not fit {column.type} ({error})"
            places = [row[at] if at is not None and type(row[at]) is int else None for at in self._place]
            flaw = Flaw(number, column.name, reason, *places)
            if not self._lenient or column.name in PSEUDO:
                raise SchemaError(f"{flaw}; {WAY_OUT}").at(flaw.partition, flaw.offset) from None
            flaws.append(flaw)
            return None


def parse(text: bytes) -> Any:
    """JSON with exact numbers.

    Raises:
        KsqlError: it is not JSON.
    """
    try:
        return _DECODER.decode(text.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise KsqlError(f"the answer is not what ksqlDB sends: a line of {len(text):,} bytes is not JSON") from None


class _TooLong:
    """A number with more digits than any type has, which no converter accepts."""


def _whole(token: str) -> int | _TooLong:
    return int(token) if len(token) <= limits.DIGITS else _TooLong()


def _real(token: str) -> Decimal | _TooLong:
    try:
        return Decimal(token) if len(token) <= limits.DIGITS else _TooLong()
    except InvalidOperation:  # an exponent of twenty digits
        return _TooLong()


def _constant(token: str) -> object:
    raise ValueError(token)


_DECODER = json.JSONDecoder(parse_int=_whole, parse_float=_real, parse_constant=_constant)


def shape(value: Any) -> str:
    """A description of a value without the value: messages go where erasures do not search."""
    if isinstance(value, dict):
        return f"an object with {', '.join(str(key)[:40] for key in list(value)[:5]) or 'nothing in it'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    return "true or false" if isinstance(value, bool) else "null" if value is None else "a number"
