"""Rows as their source has them -> as the lake keeps them: times in the unit of the feed instead of milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ksql_lake.base.errors import SchemaError
from ksql_lake.model.recorded import MILLISECONDS
from ksql_lake.model.types import PSEUDO, timestamp_type
from ksql_lake.sources.ksqldb.rows import WAY_OUT
from ksql_lake.sources.row_source import Flaw


def as_stored(
    arrays: Sequence[pa.Array], names: Sequence[str], schema: pa.Schema, keep: np.ndarray, policy: str
) -> tuple[pa.RecordBatch, list[Flaw]]:
    """The columns of a batch in the schema of the feed's files, and the values that the feed's unit cannot hold.

    Microseconds end in the year 294247, milliseconds do not: null takes the place of a later time.

    Args:
        arrays: in the order of the schema. A stream's ROWTIME comes as a number of milliseconds.
        names: of the columns at their source.
        keep: the rows that are wanted; what the others hold does not matter.
        policy: the feed's `on_bad_value`.

    Raises:
        SchemaError: there is such a value in a row that is wanted, and the policy is `fail`, or it is a ROWTIME.
    """
    made, flaws = list[pa.Array](), list[Flaw]()
    for array, name, field in zip(arrays, names, schema, strict=True):
        stored, unfit = _cast(array, field.type)
        for row in unfit:
            place = [arrays[i][row].as_py() for i in (1, 2)] if names[0] == PSEUDO[0] else [None, None]
            flaw = Flaw(row, name, "a time after the year 294247, which microseconds cannot hold", *place)
            if keep[row] and (policy == "fail" or name == PSEUDO[0]):
                helps = WAY_OUT if name != PSEUDO[0] else 'only a feed with "timestamps": "ms" can hold this row'
                raise SchemaError(f"{flaw}; {helps}").at(flaw.partition, flaw.offset)
            flaws.append(flaw)
        made.append(stored)
    return pa.RecordBatch.from_arrays(made, schema=schema), flaws


def _cast(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """The array as another type, with null for what that cannot hold; the rows of those values."""
    if array.type == kind:
        return array, []
    if pa.types.is_timestamp(kind):
        array = array.cast(timestamp_type(MILLISECONDS))
    try:
        return array.cast(kind), []
    except pa.ArrowInvalid:
        unfit = _unfit(array, kind, np.arange(len(array)))
    chosen = [None if row in unfit else row for row in range(len(array))]
    return array.take(pa.array(chosen, pa.int64())).cast(kind), sorted(unfit)


def _unfit(array: pa.Array, kind: pa.DataType, rows: np.ndarray) -> set[int]:
    """Those of some rows whose values a type cannot hold."""
    try:
        array.take(pa.array(rows)).cast(kind)
    except pa.ArrowInvalid:
        if len(rows) == 1:
            return {int(rows[0])}
        half = len(rows) // 2
        return _unfit(array, kind, rows[:half]) | _unfit(array, kind, rows[half:])
    return set()
