"""Finds where two Arrow arrays of one type differ, row by row, including nested types and values beyond Python's."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksql_lake.base.arrays import Array, pylist
from ksql_lake.model.canonical import canonical


def differ(before: pa.Array, after: pa.Array) -> Array:
    """A NumPy mask of the rows that are not the same. Two nulls are the same, and so are two NaN.

    The order of a MAP's entries does not matter.
    """
    found = _differ(before, after)
    if _holds_map(before.type):
        rows = np.flatnonzero(found)
        pairs = zip(pylist(before.take(pa.array(rows))), pylist(after.take(pa.array(rows))), strict=True)
        found[rows] = [repr(canonical(a)) != repr(canonical(b)) for a, b in pairs]
    return found


def _differ(before: pa.Array, after: pa.Array) -> Array:
    here, there = _valid(before), _valid(after)
    found: Array = here != there
    if pa.types.is_struct(before.type):
        for one, other in zip(before.flatten(), after.flatten(), strict=True):
            found |= _differ(one, other)
        return found
    if pa.types.is_list(before.type) or pa.types.is_map(before.type):
        return _lists_differ(before, after, found, here & there)
    same = pc.equal(_plain(before), _plain(after)).fill_null(True)
    found |= ~same.to_numpy(zero_copy_only=False)
    return found


def _valid(array: pa.Array) -> Array:
    valid: Array = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _plain(array: pa.Array) -> pa.Array:
    """Floating point numbers by their bits, so that NaN equals NaN."""
    if pa.types.is_float64(array.type):
        return array.view(pa.int64())
    return array.view(pa.int32()) if pa.types.is_float32(array.type) else array


def _lists_differ(before: pa.Array, after: pa.Array, found: Array, both: Array) -> Array:
    """Lists of another length differ; those of one length where an element differs."""
    sizes = [_lengths(array) for array in (before, after)]
    found |= both & (sizes[0] != sizes[1])
    rows = np.flatnonzero(both & ~found)
    taken = [array.take(pa.array(rows)) for array in (before, after)]
    elements = [_elements(array) for array in taken]
    changed = _differ(*elements)
    owner = np.repeat(rows, sizes[0][rows])
    found[owner[changed]] = True
    return found


def _lengths(array: pa.Array) -> Array:
    offsets = array.offsets.to_numpy(zero_copy_only=False)
    lengths: Array = np.where(_valid(array), np.diff(offsets), 0)
    return lengths


def _elements(array: pa.Array) -> pa.Array:
    """The elements of all lists, one after the other; of maps their entries. No list is null."""
    if pa.types.is_map(array.type):
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        keys, items = (part.slice(start, end - start) if len(part) != end - start else part
                       for part in (array.keys, array.items))
        return pa.StructArray.from_arrays([keys, items], ["key", "value"])
    return array.flatten()


def _holds_map(kind: pa.DataType) -> bool:
    return pa.types.is_map(kind) or any(_holds_map(kind.field(i).type) for i in range(kind.num_fields))


def codes(columns: list[pa.Array]) -> Array:
    """A number for each row that is the same for equal rows only: null equals null."""
    found: Array = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        plain = _plain(column) if not pa.types.is_nested(column.type) else pa.array(
            [None if value is None else repr(canonical(value)) for value in pylist(column)], pa.string())
        encoded = plain.dictionary_encode(null_encoding="encode")
        numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        found = np.unique(found * len(encoded.dictionary) + numbers, return_inverse=True)[1]
    return found


