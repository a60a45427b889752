"""The rows of a person: those with a value in a column, or in a field at any depth, in any spelling of its type."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksql_lake.model.values import Unfit, meanings

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Test = Callable[[pa.Array], Mask]  # which values of a leaf column are meant


class Meant(Protocol):
    """Which rows to find: those with one value, or those that any of several rules matches."""

    def columns(self, schema: pa.Schema) -> list[str]:
        """The top-level columns of a file that must be read to tell."""

    def rows_of(self, table: pa.RecordBatch) -> Mask:
        """Which rows they are."""


@dataclass(frozen=True)
class Target:
    """Rows that hold a value in a column, or in a field of that name at any depth.

    `customer.ip_address` stands for that field of a STRUCT, or for the entry `ip_address` of a MAP; the name of a
    MAP or an ARRAY for its keys, values and items.

    Attributes:
        names: name on disk -> the source's name, where the two differ: both are understood.
    """

    column: str
    value: str
    names: Mapping[str, str] = field(default_factory=dict)

    def columns(self, schema: pa.Schema) -> list[str]:
        """The top-level columns of a file that may hold it: that are so called, or hold MAPs, whose keys are names."""
        return [one.name for one in schema if any(_reaches(path, one.type, self._wanted) for path in self._paths(one))]

    def declared(self, schema: pa.Schema) -> list[pa.DataType]:
        """The types of all columns and fields of that name; none where only keys of a MAP could have it."""
        return [kind for one in schema for path in self._paths(one) for kind in _kinds(path, one.type, self._wanted)]

    def rows_of(self, table: pa.RecordBatch) -> Mask:
        """Which rows hold the value."""
        return self.rows_where(table, self.equals)

    def rows_where(self, table: pa.RecordBatch, test: Test) -> Mask:
        """Which rows hold, where this column is meant, a value that a test chooses."""
        mask = np.zeros(table.num_rows, bool)
        for one in table.schema:
            for path in self._paths(one):
                if _reaches(path, one.type, self._wanted):
                    mask |= _matches(table.column(one.name), path, self._wanted, test)
        return mask

    def equals(self, leaf: pa.Array) -> Mask:
        """Which values of a column are the one that is meant."""
        try:
            wanted = meanings(self.value, leaf.type)
        except Unfit:
            return np.zeros(len(leaf), bool)
        mask = np.zeros(len(leaf), bool)
        for one in wanted:
            is_nan = pa.types.is_floating(leaf.type) and math.isnan(one.as_py())
            mask |= as_mask(pc.is_nan(leaf) if is_nan else pc.equal(leaf, one))
        return mask

    @property
    def _wanted(self) -> str:
        return f".{self.column.upper()}"

    def _paths(self, one: pa.Field) -> list[str]:
        own = self.names.get(one.name, one.name)
        return [f".{name.upper()}" for name in dict.fromkeys((one.name, own))]


def as_mask(array: pa.Array) -> Mask:
    """An Arrow mask; null is no."""
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), bool)


def _kinds(path: str, kind: pa.DataType, wanted: str) -> Iterator[pa.DataType]:
    """The leaf types at the end of a path."""
    if pa.types.is_struct(kind):
        for inner in kind:
            yield from _kinds(f"{path}.{inner.name.upper()}", inner.type, wanted)
    elif pa.types.is_map(kind):
        yield from _kinds(path, kind.key_type, wanted)
        yield from _kinds(path, kind.item_type, wanted)
    elif pa.types.is_list(kind):
        yield from _kinds(path, kind.value_type, wanted)
    elif path.endswith(wanted):
        yield kind


def _reaches(path: str, kind: pa.DataType, wanted: str) -> bool:
    """Whether a value inside can be meant."""
    if pa.types.is_struct(kind):
        return any(_reaches(f"{path}.{inner.name.upper()}", inner.type, wanted) for inner in kind)
    if pa.types.is_map(kind):
        return pa.types.is_string(kind.key_type) or _reaches(path, kind.item_type, wanted)
    if pa.types.is_list(kind):
        return _reaches(path, kind.value_type, wanted)
    return path.endswith(wanted)


def _matches(array: pa.Array, path: str, wanted: str, test: Test) -> Mask:
    kind = array.type
    mask = np.zeros(len(array), bool)
    if pa.types.is_struct(kind):
        for inner in kind:
            below = f"{path}.{inner.name.upper()}"
            if _reaches(below, inner.type, wanted):
                mask |= _matches(pc.struct_field(array, inner.name), below, wanted, test)
        return mask
    if pa.types.is_map(kind):
        entries = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        found = _entries(pc.list_flatten(entries), path, wanted, test)
        mask[pc.list_parent_indices(entries).to_numpy()[found]] = True
        return mask
    if pa.types.is_list(kind):
        found = _matches(pc.list_flatten(array), path, wanted, test)
        mask[pc.list_parent_indices(array).to_numpy()[found]] = True
        return mask
    return test(array) if path.endswith(wanted) else mask


def _entries(pairs: pa.Array, path: str, wanted: str, test: Test) -> Mask:
    """The entries of a MAP: its keys and values where it is called so itself, else those of the key called so."""
    keys, values = pc.struct_field(pairs, "key"), pc.struct_field(pairs, "value")
    mask = np.zeros(len(pairs), bool)
    if path.endswith(wanted):
        mask |= test(keys)
    if _reaches(path, values.type, wanted):
        mask |= _matches(values, path, wanted, test)
    if pa.types.is_string(keys.type):
        for key in keys.unique().to_pylist():
            if key is not None and f"{key.upper()}." in f"{wanted}.":
                chosen = np.flatnonzero(as_mask(pc.equal(keys, key)))
                found = _matches(values.take(pa.array(chosen)), f"{path}.{key.upper()}", wanted, test)
                mask[chosen[found]] = True
    return mask
