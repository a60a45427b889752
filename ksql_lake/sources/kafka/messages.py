"""Messages of confluent-kafka as rows: plain ones natively, by the thousand; all else record by record, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import mask, numbers
from ksql_lake.base.native import library
from ksql_lake.model.types import PSEUDO
from ksql_lake.sources.kafka.formats import Part, Plan
from ksql_lake.sources.kafka.kafka_format import PACKED
from ksql_lake.sources.kafka.native_values import ValueReader
from ksql_lake.sources.kafka.records import Decoded, RecordDecoder
from ksql_lake.sources.kafka.topic import record_of
from ksql_lake.sources.ksqldb.native_rows import Unsupported
from ksql_lake.sources.row_source import Flawed

Keys: TypeAlias = Callable[[list[bytes | None]], pa.Array | None]


class MessageDecoder:
    """Decodes messages, in their order.

    Args:
        lenient, exact: see `RecordDecoder`.
        native: False leaves the native reader out.
    """

    def __init__(self, plan: Plan, *, exact: bool = False, lenient: bool = False, native: bool = True) -> None:
        self._plan = plan
        self._each = RecordDecoder(plan, exact=exact, lenient=lenient)
        self._keys = _keys(plan.key)
        self._reader = self._native_reader(exact) if native else None
        names = [column.name for column in plan.value.columns]
        self._timed = names.index(plan.timestamp) if plan.timestamp in names else None

    def decode(self, messages: Sequence[Any]) -> Decoded:
        """See `RecordDecoder.decode`."""
        if self._reader is None:
            return self._each.decode(map(record_of, messages))
        values = [message.value() or b"" for message in messages]  # no value and an empty one are for the exact path
        keys = self._keys([message.key() for message in messages]) if self._plan.key.columns else None
        if self._plan.key.columns and keys is None:
            return self._each.decode(map(record_of, messages))
        found, taken = self._reader.read(values)
        times = np.array([message.timestamp()[1] for message in messages], np.int64)
        if found is not None and self._timed is not None:
            found, taken, times = self._own_times(found, taken, times)
        if found is not None and (early := times[taken] < 0).any():
            found = found.filter(mask(~early))
            taken[np.flatnonzero(taken)[early]] = False
        plain = self._plain(messages, found, taken, keys, times)
        if taken.all() and plain is not None:
            return Decoded(plain, ())
        rest = self._each.decode(record_of(messages[i]) for i in np.flatnonzero(~taken).tolist())
        return _merged(plain, np.flatnonzero(taken), rest, messages)

    def _native_reader(self, exact: bool) -> ValueReader | None:
        plan, loaded = self._plan, library()
        fits = plan.value.format == "JSON" and plan.value.wrapped and not plan.headers and not plan.window
        in_key = plan.timestamp is not None and plan.timestamp in [column.name for column in plan.key.columns]
        if loaded is None or not fits or in_key or plan.timestamp_format or plan.key.format not in ("NONE", "KAFKA"):
            return None
        start = len(PSEUDO) + len(plan.key.columns)
        schema = pa.schema([self._each.schema.field(i) for i in range(start, len(self._each.schema))])
        try:
            return ValueReader(loaded, plan.value.columns, schema, exact=exact)
        except Unsupported:
            return None

    def _own_times(
        self, found: pa.RecordBatch, taken: np.ndarray, times: np.ndarray
    ) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
        """ROWTIME from a column; a row in which it is null is for the exact path."""
        assert self._timed is not None
        column = found.column(self._timed).cast(pa.int64())
        there = column.is_valid().to_numpy(zero_copy_only=False)
        if not there.all():
            found, column = found.filter(mask(there)), column.filter(mask(there))
            taken[np.flatnonzero(taken)[~there]] = False
        times = times.copy()
        times[taken] = numbers(column)
        return found, taken, times

    def _plain(
        self, messages: Sequence[Any], found: pa.RecordBatch | None, taken: np.ndarray, keys: pa.Array | None,
        times: np.ndarray,
    ) -> pa.RecordBatch | None:
        if found is None or not len(found):
            return None
        partitions = np.array([message.partition() for message in messages], np.int32)
        offsets = np.array([message.offset() for message in messages], np.int64)
        chosen = mask(taken)
        heads = [pa.array(times[taken]), pa.array(partitions[taken]), pa.array(offsets[taken])]
        if keys is not None:
            heads.append(keys if taken.all() else keys.filter(chosen))
        return pa.RecordBatch.from_arrays([*heads, *found.columns], schema=self._each.schema)


def _keys(part: Part) -> Keys:
    """The key column of messages in the KAFKA format; None where a key is for the exact path."""
    if part.format != "KAFKA":
        return lambda keys: None
    base = part.columns[0].type.base
    if base in PACKED:
        return lambda keys: _packed(base, keys)
    kind = pa.string() if base == "STRING" else pa.binary()

    def read(keys: list[bytes | None]) -> pa.Array | None:
        try:
            return pa.array(keys, pa.binary()).cast(kind)
        except pa.ArrowInvalid:  # not UTF-8
            return None

    return read


def _packed(base: str, keys: list[bytes | None]) -> pa.Array | None:
    size = 4 if base == "INTEGER" else 8
    if any(key is not None and len(key) != size for key in keys):
        return None
    zeros = bytes(size)
    found = np.frombuffer(b"".join(zeros if key is None else key for key in keys), PACKED[base])
    return pa.array(found.astype(found.dtype.newbyteorder("=")), mask=np.array([key is None for key in keys]))


def _merged(plain: pa.RecordBatch | None, places: np.ndarray, rest: Decoded, messages: Sequence[Any]) -> Decoded:
    """Rows of both paths in the order of their messages."""
    exact = rest.rows.batch if isinstance(rest.rows, Flawed) else rest.rows
    if plain is None:
        return rest
    if not len(exact):
        return Decoded(plain, rest.passed)
    at = {(message.partition(), message.offset()): i for i, message in enumerate(messages)}
    others = [at[place] for place in zip(exact.column(1).to_pylist(), exact.column(2).to_pylist(), strict=True)]
    order = np.argsort(np.concatenate((places, np.array(others, np.int64))), kind="stable")
    [batch] = pa.Table.from_batches([plain, exact]).combine_chunks().take(pa.array(order)).combine_chunks().to_batches()
    if not isinstance(rest.rows, Flawed):
        return Decoded(batch, rest.passed)
    now = np.argsort(order)
    flaws = tuple(replace(flaw, row=int(now[len(plain) + flaw.row])) for flaw in rest.rows.flaws)
    return Decoded(Flawed(batch, flaws), rest.passed)
