"""Records of a topic, as the rows that ksqlDB makes of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from ksql_lake.base.errors import SchemaError
from ksql_lake.model.types import PSEUDO, Column, SqlType, arrow_schema
from ksql_lake.sources.kafka import json_text, json_values, kafka_format, rest_view, rowtime
from ksql_lake.sources.kafka.delimited import DelimitedReader
from ksql_lake.sources.kafka.formats import Header, Part, Plan
from ksql_lake.sources.kafka.verdicts import Skipped, Unsure
from ksql_lake.sources.ksqldb.rows import WAY_OUT
from ksql_lake.sources.ksqldb.values import Unfit
from ksql_lake.sources.row_source import Flaw, Flawed, Rows

Read: TypeAlias = Callable[[bytes], Sequence[Any]]
BOUND = 8  # bytes of a window's bound behind the key


class Record(NamedTuple):
    """A record as Kafka has it; `timestamp` in epoch milliseconds."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


@dataclass(frozen=True)
class Passed:
    """A record that ksqlDB skips, and why."""

    partition: int
    offset: int
    reason: str


@dataclass(frozen=True)
class Decoded:
    """The rows of records (ROWTIME, ROWPARTITION, ROWOFFSET, then the plan's columns), and the records without one.

    Attributes:
        unsure: records of which ksqlDB has to be asked what it makes; not among the rows.
    """

    rows: Rows
    passed: tuple[Passed, ...]
    unsure: tuple[Passed, ...] = ()


class RecordDecoder:
    """Decodes records one by one, exactly.

    Args:
        exact: keep the value of the topic where the REST API would lose something of it.
        lenient: return rows with a value that its type cannot hold as `Flawed`, instead of raising SchemaError.
        asks: hand records that are not certain out as `Decoded.unsure`, instead of raising Unsure.
    """

    def __init__(self, plan: Plan, *, exact: bool = False, lenient: bool = False, asks: bool = False) -> None:
        self.plan, self._asks = plan, asks
        self.columns = plan.columns
        names = [*PSEUDO, *(str(i) for i in range(len(self.columns)))]
        bases = (SqlType("BIGINT"), SqlType("INTEGER"), SqlType("BIGINT"))
        self.schema = arrow_schema([*map(Column, PSEUDO, bases), *self.columns], names)
        self._lenient = lenient
        self._key = _part_reader(plan.key)
        self._value = _part_reader(plan.value)
        self._views = [rest_view.view(column.type, exact=exact) for column in self.columns]
        self._time = self._time_reader()

    def decode(self, records: Iterable[Record]) -> Decoded:
        """Decode records, in their order.

        Raises:
            SchemaError: a value that its type cannot hold, and the decoder is not lenient.
            Unsure: a record of which it is not known what ksqlDB makes, and the decoder does not ask.
        """
        rows: list[list[Any]] = []
        passed, unsure = list[Passed](), list[Passed]()
        flaws: list[Flaw] = []
        for record in records:
            try:
                rows.append(self._row(record, len(rows), flaws))
            except Skipped as reason:
                passed.append(Passed(record.partition, record.offset, str(reason)))
            except Unsure as reason:
                if not self._asks:
                    where = f"partition {record.partition}, offset {record.offset}"
                    raise Unsure(f"{self.plan.source}: {where}: {reason}").at(record.partition, record.offset) from None
                unsure.append(Passed(record.partition, record.offset, str(reason)))
        # Without a row nothing is made of Python objects, for which pyarrow would load pandas.
        arrays = [
            pa.array([row[i] for row in rows], field.type) if rows else pa.nulls(0, field.type)
            for i, field in enumerate(self.schema)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return Decoded(Flawed(batch, tuple(flaws)) if flaws else batch, tuple(passed), tuple(unsure))

    def _row(self, record: Record, number: int, flaws: list[Flaw]) -> list[Any]:
        """ROWTIME, ROWPARTITION, ROWOFFSET and the columns of one record."""
        key = self._key_values(record.key)
        if record.value is None:
            raise Skipped("no value: a deletion")
        value = self._value(record.value)
        time = rowtime.checked(self._time(record, key, value))
        values = [*key, *value, *(_header(header, record.headers) for header in self.plan.headers)]
        shown: list[Any] = [time, record.partition, record.offset]
        for i, (look, found) in enumerate(zip(self._views, values, strict=True)):
            try:
                shown.append(found if found is None or look is None else look(found))
            except Unfit as error:
                shown.append(None)
                flaws.append(self._flaw(record, number, i, error))
        return shown

    def _flaw(self, record: Record, number: int, i: int, error: Unfit) -> Flaw:
        column = self.columns[i]
        reason = f"a value that does not fit {column.type} ({error})"
        flaw = Flaw(number, column.name, reason, record.partition, record.offset)
        if not self._lenient:
            raise SchemaError(f"{self.plan.source}: {flaw}; {WAY_OUT}").at(record.partition, record.offset)
        return flaw

    def _key_values(self, key: bytes | None) -> list[Any]:
        columns = self.plan.key.columns
        if not self.plan.window:
            return [None] * len(columns) if key is None or not columns else list(self._key(key))
        if key is None:
            raise Unsure("a windowed stream with a record without a key")
        bounds = 2 if self.plan.window == "SESSION" else 1
        if len(key) < bounds * BOUND:
            raise Skipped("the key is too short for a window")
        inner, tail = key[: len(key) - bounds * BOUND], key[len(key) - bounds * BOUND :]
        times = struct.unpack(f">{bounds}q", tail)  # of a session: its end, then its start
        start, end = (times[1], times[0]) if bounds == 2 else (times[0], times[0] + self.plan.window_ms)
        return [*(self._key(inner) if columns else ()), start, end]

    def _time_reader(self) -> Callable[[Record, Sequence[Any], Sequence[Any]], int | None]:
        plan = self.plan
        if plan.timestamp is None:
            return lambda record, key, value: record.timestamp
        names = [column.name for column in (*plan.key.columns, *plan.value.columns)]
        keys = len(plan.key.columns)
        at = names.index(plan.timestamp)
        of_text = rowtime.reader(plan.timestamp_format) if plan.timestamp_format else None

        def read(record: Record, key: Sequence[Any], value: Sequence[Any]) -> int | None:
            found = key[at] if at < keys else value[at - keys]
            milliseconds: int | None = of_text(found) if of_text else found
            return milliseconds

        return read


def _part_reader(part: Part) -> Read:
    if part.format == "DELIMITED":
        return DelimitedReader(part.columns, part.delimiter).read
    if part.format == "KAFKA":
        base = part.columns[0].type.base
        return lambda data: [kafka_format.read(base, data)]
    if part.format == "JSON":
        return _json_object(part) if part.wrapped else _json_value(part)
    return lambda data: []


def _json_object(part: Part) -> Read:
    names = [column.name for column in part.columns]
    coerce = [json_values.coercion(column.type) for column in part.columns]

    def read(data: bytes) -> list[Any]:
        node = json_text.parse(data)
        if node is None:
            raise Skipped("null: a deletion")
        found = json_values.by_name(node, names)
        return [convert(value) for convert, value in zip(coerce, found, strict=True)]

    return read


def _json_value(part: Part) -> Read:
    kind = part.columns[0].type
    coerce = json_values.coercion(kind)

    def read(data: bytes) -> list[Any]:
        node = json_text.parse(data)
        if node is json_text.MISSING:
            if kind.base != "STRING":
                raise Skipped("no value in the text")
            return [""]  # MissingNode.asText()
        return [coerce(node)]

    return read


def _header(header: Header, headers: Sequence[tuple[str, bytes | None]]) -> Any:
    if header.key is None:
        return list(headers)
    return next((value for name, value in reversed(headers) if name == header.key), None)
