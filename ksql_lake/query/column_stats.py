"""Statistics of a feed's columns: nulls, least and greatest value, and about how many different values.

Nulls, least and greatest come from the statistics in the Parquet footers where every row group has them, else from
reading. The distinct values are estimated by reading each column once, a batch at a time, into a sketch that keeps the
1,024 smallest of their 64-bit hashes (KMV): exact below that many, within some 6 % above, whatever the size of the
lake; memory is one batch and one sketch for each column. Nested columns have their nulls counted only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksql_lake.base.arrays import python
from ksql_lake.model.state import FeedState
from ksql_lake.store.remote.places import Places

KEPT = 1024
BATCH = 65_536  # rows decoded at a time


@dataclass(frozen=True)
class ColumnStats:
    """One column over all files that are read; `distinct` is None for nested columns, `exact` says whether it is."""

    name: str
    type: str
    rows: int
    nulls: int
    least: Any
    greatest: Any
    distinct: int | None
    exact: bool


@dataclass
class _Sketch:
    """The KEPT smallest hashes seen; the greatest of them shows how dense they are."""

    hashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, values: pa.Array) -> None:
        plain = values if pa.types.is_primitive(values.type) and not pa.types.is_decimal(values.type) else (
            values if pa.types.is_binary(values.type) else values.cast(pa.string())
        )
        found = pd.util.hash_array(plain.to_numpy(zero_copy_only=False), categorize=False)
        self.hashes = np.unique(np.concatenate([self.hashes, found]))[:KEPT]

    def estimate(self) -> tuple[int, bool]:
        if len(self.hashes) < KEPT:
            return len(self.hashes), True
        return round((KEPT - 1) / ((float(self.hashes[-1]) + 1) / 2.0**64)), False


@dataclass
class _Column:
    name: str
    type: pa.DataType
    rows: int = 0
    nulls: int = 0
    least: Any = None
    greatest: Any = None
    sketch: _Sketch = field(default_factory=_Sketch)

    def span(self, least: Any, greatest: Any) -> None:
        """Take a least and a greatest value into account; dates and times as numbers, which have no first or last year.
        """
        if least is not None:
            self.least = least if self.least is None else min(self.least, least)
            self.greatest = greatest if self.greatest is None else max(self.greatest, greatest)

    def result(self) -> ColumnStats:
        distinct, exact = (None, True) if pa.types.is_nested(self.type) else self.sketch.estimate()
        return ColumnStats(
            self.name, str(self.type), self.rows, self.nulls, self._value(self.least), self._value(self.greatest),
            distinct, exact,
        )

    def _value(self, number: Any) -> Any:
        return python(pa.scalar(number, self.type)) if pa.types.is_temporal(self.type) else number


def column_stats(
    places: Places, state: FeedState, partitions: Sequence[str]
) -> list[ColumnStats]:
    """Statistics of each column over some partitions of a feed, in the order of the files' columns.

    Args:
        places: where the feed's files lie.

    Raises:
        OSError, ArrowInvalid: a file is missing or not Parquet.
    """
    columns: dict[str, _Column] = {}
    rows = 0
    for file in state.files:
        if file.partition in partitions:
            with places.open(file) as parquet:
                _add(columns, parquet)
                rows += parquet.metadata.num_rows
    for column in columns.values():
        column.nulls += rows - column.rows  # files older than the column read as null
        column.rows = rows
    return [column.result() for column in columns.values()]


def _add(columns: dict[str, _Column], parquet: pq.ParquetFile) -> None:
    leaves = {parquet.metadata.schema.column(i).path: i for i in range(parquet.metadata.num_columns)}
    for schema_field in parquet.schema_arrow:
        column = columns.setdefault(schema_field.name, _Column(schema_field.name, schema_field.type))
        column.rows += parquet.metadata.num_rows
        from_footer = _from_footer(column, parquet.metadata, leaves.get(schema_field.name))
        for batch in parquet.iter_batches(BATCH, columns=[schema_field.name]):
            _read(column, batch.column(0), from_footer)


def _from_footer(column: _Column, footer: pq.FileMetaData, leaf: int | None) -> bool:
    """Nulls, least and greatest of a file, when every row group has them."""
    if leaf is None or pa.types.is_nested(column.type):
        return False
    chunks = [footer.row_group(i).column(leaf).statistics for i in range(footer.num_row_groups)]
    if not all(s is not None and s.has_null_count and (s.has_min_max or s.null_count == s.num_values + s.null_count)
               for s in chunks):
        return False
    for statistics in chunks:
        column.nulls += statistics.null_count
        if statistics.has_min_max:
            raw = pa.types.is_temporal(column.type)
            column.span(*(statistics.min_raw, statistics.max_raw) if raw else (statistics.min, statistics.max))
    return True


def _read(column: _Column, values: pa.Array, from_footer: bool) -> None:
    if not from_footer:
        column.nulls += values.null_count
    if pa.types.is_nested(column.type):
        return
    present = values.drop_null()
    if len(present) == 0:
        return
    different = present.unique()
    column.sketch.add(different)
    if not from_footer:
        extremes = pc.min_max(different)
        raw = pa.types.is_temporal(column.type)
        column.span(*(extremes[end].value if raw else extremes[end].as_py() for end in ("min", "max")))
