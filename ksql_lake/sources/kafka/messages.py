"""Decodes blocks of records: plain ones in the native library, all others exactly, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import mask, numbers, whole
from ksql_lake.base.native import library
from ksql_lake.model.types import PSEUDO
from ksql_lake.sources.kafka.block import NO_KEY, Array, Block
from ksql_lake.sources.kafka.formats import Part, Plan
from ksql_lake.sources.kafka.kafka_format import PACKED
from ksql_lake.sources.kafka.native_values import ValueReader
from ksql_lake.sources.kafka.records import Decoded, RecordDecoder
from ksql_lake.sources.ksqldb.native_rows import Unsupported
from ksql_lake.sources.row_source import Flaw, Flawed, Rows

KINDS = {"INTEGER": pa.int32(), "BIGINT": pa.int64(), "DOUBLE": pa.float64()}
Keys: TypeAlias = Callable[[Block], pa.Array | None]


class MessageDecoder:
    """Decodes the records of a block, in their order.

    Args:
        lenient, exact, asks: see `RecordDecoder`.
        native: False does without the native reader.
    """

    def __init__(
        self, plan: Plan, *, exact: bool = False, lenient: bool = False, native: bool = True, asks: bool = False
    ) -> None:
        self._plan = plan
        self._each = RecordDecoder(plan, exact=exact, lenient=lenient, asks=asks)
        self._keys = _keys(plan.key)
        self._reader = self._native_reader(exact) if native else None
        names = [column.name for column in plan.value.columns]
        self._timed = names.index(plan.timestamp) if plan.timestamp in names else None

    def decode(self, block: Block) -> Decoded:
        """See `RecordDecoder.decode`."""
        if self._reader is None:
            return self._each.decode(block)
        keys = self._keys(block) if self._plan.key.columns else None
        if self._plan.key.columns and keys is None:
            return self._each.decode(block)
        # A value that is null or empty is for the exact path; it is never taken here.
        found, taken = self._reader.read_block(block.values, block.ends)
        times = block.times
        if found is not None and self._timed is not None:
            found, taken, times = self._own_times(found, taken, times)
        if found is not None and (early := times[taken] < 0).any():
            found = found.filter(mask(~early))
            taken[np.flatnonzero(taken)[early]] = False
        plain = self._plain(block, found, taken, keys, times)
        if taken.all() and plain is not None:
            return Decoded(plain, ())
        rest = self._each.decode(map(block.record, np.flatnonzero(~taken).tolist()))
        return replace(rest, rows=rest.rows if plain is None else in_order(plain, rest.rows, block))

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
        self, found: pa.RecordBatch, taken: Array, times: Array
    ) -> tuple[pa.RecordBatch, Array, Array]:
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
        self, block: Block, found: pa.RecordBatch | None, taken: Array, keys: pa.Array | None, times: Array
    ) -> pa.RecordBatch | None:
        if found is None or not len(found):
            return None
        every, kinds = taken.all(), self._each.schema.types
        heads = zip((times, block.partitions, block.offsets), kinds, strict=False)
        arrays = [whole(head if every else head[taken], kind) for head, kind in heads]
        if keys is not None:
            arrays.append(keys if every else keys.filter(mask(taken)))
        return pa.RecordBatch.from_arrays([*arrays, *found.columns], schema=self._each.schema)


def _keys(part: Part) -> Keys:
    """The key column of records in the KAFKA format; None where a key is for the exact path."""
    if part.format != "KAFKA":
        return lambda block: None
    base = part.columns[0].type.base
    if base in PACKED:
        return lambda block: _packed(base, block)
    kind = pa.string() if base == "STRING" else pa.binary()

    def read(block: Block) -> pa.Array | None:
        there = block.absent & NO_KEY == 0
        ends = np.concatenate((np.zeros(1, np.int32), block.key_ends.astype(np.int32)))
        valid = None if there.all() else mask(there).buffers()[1]
        try:
            buffers = [valid, pa.py_buffer(ends), pa.py_buffer(block.keys.tobytes())]
            return pa.Array.from_buffers(pa.binary(), len(block), buffers).cast(kind)
        except pa.ArrowInvalid:  # not UTF-8
            return None

    return read


def _packed(base: str, block: Block) -> pa.Array | None:
    size = 4 if base == "INTEGER" else 8
    there = block.absent & NO_KEY == 0
    if (np.diff(block.key_ends, prepend=0) != np.where(there, size, 0)).any():
        return None
    found = np.zeros(len(block), PACKED[base])
    found[there] = np.frombuffer(block.keys, PACKED[base])
    return whole(found.astype(found.dtype.newbyteorder("=")), KINDS[base], there)


def in_order(some: Rows, others: Rows, block: Block) -> Rows:
    """Rows of one block that came by two ways, in the order of their records."""
    parts = [part for part in (some, others) if len(batch_of(part))]
    if len(parts) < 2:
        return parts[0] if parts else some
    at = {place: i for i, place in enumerate(zip(block.partitions.tolist(), block.offsets.tolist(), strict=True))}
    both = pa.Table.from_batches([batch_of(part).rename_columns(batch_of(some).schema.names) for part in parts])
    places = zip(both.column(1).to_pylist(), both.column(2).to_pylist(), strict=True)
    order = np.argsort(np.array([at[place] for place in places], np.int64), kind="stable")
    [batch] = both.combine_chunks().take(whole(order, pa.int64())).combine_chunks().to_batches()
    now, flaws, before = np.argsort(order), list[Flaw](), 0
    for part in parts:
        flaws += [replace(flaw, row=int(now[before + flaw.row])) for flaw in flaws_of(part)]
        before += len(batch_of(part))
    return Flawed(batch, tuple(flaws)) if flaws else batch


def batch_of(rows: Rows) -> pa.RecordBatch:
    return rows.batch if isinstance(rows, Flawed) else rows


def flaws_of(rows: Rows) -> tuple[Flaw, ...]:
    return rows.flaws if isinstance(rows, Flawed) else ()
