"""Numbers and masks between Arrow and NumPy, without a copy.

pyarrow's own ways import pandas where it is there: a quarter of a second and 40 MB that a small export can spare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]


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


def mask(chosen: Array) -> pa.Array:
    """An Arrow mask of NumPy booleans."""
    bits = np.packbits(np.asarray(chosen, bool), bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(chosen), [None, pa.py_buffer(bits)])


def indices(count: int) -> pa.Array:
    """0 to count - 1: taking all rows copies them."""
    return pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(np.arange(count, dtype=np.int64))])
