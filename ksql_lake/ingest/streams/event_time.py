"""Which time decides the day of a row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import milliseconds
from ksql_lake.base.errors import SourceError

EPOCH = dt.date(1970, 1, 1)


def event_times(
    batch: pa.RecordBatch, first: int, names: Sequence[str], rowtimes: np.ndarray, wanted: str | None, feed: str
) -> np.ndarray:
    """Epoch milliseconds that decide a row's day: its ROWTIME, or the feed's timestamp column where that is not null.

    Args:
        first: the position in the batch of the first of `names`.

    Raises:
        SourceError: there is no such column, or it does not hold times.
    """
    if wanted is None:
        return rowtimes
    matches = [i for i, name in enumerate(names) if name == wanted] or [
        i for i, name in enumerate(names) if name.upper() == wanted.upper()
    ]
    if not matches:
        raise SourceError(f"{feed}: timestamp_column {wanted} is not a column of the source")
    column = batch.column(first + matches[0])
    if not (pa.types.is_int64(column.type) or pa.types.is_timestamp(column.type)):
        raise SourceError(
            f"{feed}: timestamp_column {wanted} is {column.type}; expected BIGINT (epoch milliseconds) or TIMESTAMP"
        )
    times = milliseconds(column)
    missing = times.is_null().to_numpy(zero_copy_only=False)
    return np.where(missing, rowtimes, times.fill_null(0).to_numpy(zero_copy_only=False))
