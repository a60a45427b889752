"""Converts numbers and masks between Arrow and NumPy without a copy.

pyarrow's own functions import pandas if it is installed, which would cost a small export a quarter of a second and 40
MB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]
DAY_MS = 86_400_000
MILLISECOND = {"ms": 1, "us": 1000}  # unit -> how many of it make a millisecond


def numbers(array: pa.Array) -> Array:
    """The values of an array of whole numbers or times (as integers) in which none is null.

    Raises:
        ValueError: a value is null: a bug of the caller.
    """
    if array.null_count:
        raise ValueError(f"{array.null_count} values are null")
    if not len(array):
        return np.empty(0, np.int64)
    values = np.frombuffer(array.buffers()[1], np.dtype(f"int{array.type.bit_width}"))
    return values[array.offset : array.offset + len(array)]


def whole(values: Array, kind: pa.DataType, there: Array | None = None) -> pa.Array:
    """NumPy numbers as an Arrow array of a type of the same width; `there` is False where one is null."""
    valid = None if there is None or there.all() else mask(there).buffers()[1]
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(np.ascontiguousarray(values))])


def milliseconds(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Timestamps of any unit as whole milliseconds since 1970, which is also what numbers are taken for."""
    if pa.types.is_timestamp(array.type) and array.type.unit != "ms":
        array = array.cast(pa.timestamp("ms", array.type.tz), safe=False)
    return array.cast(pa.int64())


def mask(chosen: Array) -> pa.Array:
    """An Arrow mask of NumPy booleans."""
    bits = np.packbits(np.asarray(chosen, bool), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(chosen), [None, pa.py_buffer(bits)])


def indices(count: int) -> pa.Array:
    """0 to count - 1: taking all rows copies them."""
    return pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(np.arange(count, dtype=np.int64))])


def pylist(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values as Python objects, also times that Python's datetime cannot hold: those as ISO 8601 text.

    datetime knows the years 1 to 9999, and Arrow's own `to_pylist` raises beyond.
    """
    try:
        return list(array.to_pylist())
    except (ValueError, OverflowError):
        return [python(value) for value in array]


def python(value: pa.Scalar) -> Any:
    """One value as a Python object, as `pylist` has it."""
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        pass
    if pa.types.is_struct(value.type):
        return {value.type.field(i).name: python(value[i]) for i in range(value.type.num_fields)}
    if pa.types.is_map(value.type):
        return [(python(entry[0]), python(entry[1])) for entry in value.values]
    if pa.types.is_list(value.type):
        return [python(item) for item in value.values]
    return iso_text(value)


def iso_text(value: pa.Scalar) -> str:
    """A date, or a time to the millisecond, of any year: "+57011-01-23T12:00:00.000Z", "-0001-12-31"."""
    if pa.types.is_date(value.type):
        return _date(value.value)
    day, within = divmod(value.value // MILLISECOND[value.type.unit], DAY_MS)
    seconds, milli = divmod(within, 1000)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{milli:03d}"
    return f"{_date(day)}T{clock}Z" if pa.types.is_timestamp(value.type) else clock


def _date(days: int) -> str:
    """A day since 1970-01-01 in the Gregorian calendar; years before 1 and after 9999 have a sign."""
    cycle, day = divmod(days + 719_468, 146_097)  # of 400 years, which begin in March
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    year += 400 * cycle + (month >= 10)
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    return f"{sign}{abs(year):04d}-{month + (3 if month < 10 else -9):02d}-{day - (153 * month + 2) // 5 + 1:02d}"


def texts(array: pa.Array) -> pa.Array:
    """The values as text; Arrow's own cast writes years beyond 32,767 wrongly."""
    if beyond_datetime(array):
        return pa.array([None if value is None else str(value) for value in pylist(array)], pa.string())
    return array.cast(pa.string())


def beyond_datetime(array: pa.Array | pa.ChunkedArray) -> bool:
    """Whether a value is a date or time that Python's datetime, and so much of pandas, cannot hold."""
    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        return any(beyond_datetime(chunk) for chunk in array.chunks)
    if pa.types.is_timestamp(kind) or pa.types.is_date32(kind):
        timed = pa.types.is_timestamp(kind)
        least, most = (-62_135_596_800_000, 253_402_300_799_999) if timed else (-719_162, 2_932_896)
        found = milliseconds(array.drop_null()) if timed else array.drop_null().cast(pa.int32())
        return bool(len(found)) and not bool(least <= numbers(found).min() and numbers(found).max() <= most)
    if pa.types.is_struct(kind):
        return any(map(beyond_datetime, array.flatten()))
    if pa.types.is_map(kind):
        return beyond_datetime(array.keys) or beyond_datetime(array.items)
    return pa.types.is_list(kind) and beyond_datetime(array.flatten())
