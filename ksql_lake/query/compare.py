"""Compares two versions of a table by key: rows added, removed and changed, with the columns that changed.

Rows are matched and compared in Arrow, column by column. Memory is bounded: of a large table only the keys of one
slice and one column at a time are in memory, and differences are returned slice by slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import Array, pylist, texts
from ksql_lake.base.errors import SourceError
from ksql_lake.model.canonical import canonical
from ksql_lake.model.columns import schema_of
from ksql_lake.model.state import FeedState
from ksql_lake.query.arrays_differ import codes, differ
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.remote.places import Places

SLICE = 500_000  # rows of a version that are matched at a time
Row = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One key that is not the same in both; `changed` is column -> (before, after)."""

    kind: str
    key: Row
    changed: dict[str, tuple[Any, Any]]

    def __str__(self) -> str:
        key = ", ".join(f"{name}={value}" for name, value in self.key.items())
        columns = ", ".join(f"{name}: {a} -> {b}" for name, (a, b) in self.changed.items())
        return f"{self.kind:<8} {key}" + (f"  {columns}" if columns else "")


def compare(
    dataset: Dataset, state: FeedState, before: str, after: str, slice_rows: int = SLICE
) -> Iterator[Difference]:
    """The differences from version `before` to version `after`, in the order of the keys' text, slice by slice.

    Args:
        before, after: such as v3 or 3.
        slice_rows: rows of a version that are matched at a time.

    Raises:
        SourceError: a version is not there, or the table has no key columns.
    """
    there = [partition.path.removeprefix("version=") for partition in state.partitions]
    names = [f"v{name}" if name.isdecimal() else name for name in (before, after)]
    for name in names:
        if name not in there:
            raise SourceError(f"{dataset.feed}: has no version {name}; its versions: {', '.join(there) or 'none'}")
    keys = [column.disk_name for column in state.columns if column.key]
    if not keys:
        raise SourceError(f"{dataset.feed}: the source has no key column, so rows cannot be matched")
    old, new = (_Version(dataset, state, name) for name in names)
    slices = max(old.rows, new.rows) // slice_rows + 1
    return _compare(old, new, keys, [*schema_of(state)], slices)


class _Version:
    """The files of one version of a table."""

    def __init__(self, dataset: Dataset, state: FeedState, name: str) -> None:
        files = state.files.of(f"version={name}")
        self.files, self.places = files, Places(dataset)
        self.rows = sum(file.rows for file in files)

    def rows_of(self, field: pa.Field, chosen: Array) -> pa.Array:
        """A column of the chosen rows, in their order."""
        order = np.argsort(chosen)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return self.column(field, chosen[order]).take(pa.array(back))

    def column(self, field: pa.Field, chosen: Array | None = None) -> pa.Array:
        """A column of all files, or of the chosen rows, which ascend; null where a file is older than it."""
        parts, first = [], 0
        for file in self.files:
            with self.places.open(file) as parquet:
                there = field.name in parquet.schema_arrow.names
                for batch in parquet.iter_batches(columns=[field.name] if there else []):
                    part = batch.column(0) if there else pa.nulls(batch.num_rows, field.type)
                    last = first + batch.num_rows
                    if chosen is not None:
                        low, high = np.searchsorted(chosen, (first, last))
                        part = part.take(pa.array(chosen[low:high] - first))
                    parts.append(part)
                    first = last
        whole = pa.chunked_array(parts, field.type if not parts else parts[0].type).combine_chunks()
        return whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)

    def slices(self, fields: Sequence[pa.Field], count: int) -> list[Array]:
        """The rows of each slice: which one a row belongs to depends on its key only."""
        if count == 1:
            return [np.arange(self.rows)]
        hashes = np.zeros(self.rows, np.uint64)
        for field in fields:
            hashes = hashes * np.uint64(1_000_003) + _hashes(self.column(field))
        place = (hashes % np.uint64(count)).astype(np.int64)
        return [np.flatnonzero(place == number) for number in range(count)]


def _hashes(column: pa.Array) -> Array:
    from pandas.util import hash_array  # a quarter of a second that a small table is spared

    if pa.types.is_nested(column.type):
        plain = pa.array([repr(canonical(value)) for value in pylist(column)], pa.string())
    elif pa.types.is_floating(column.type) or pa.types.is_temporal(column.type):
        plain = column.view(pa.int64() if column.type.bit_width == 64 else pa.int32())
    else:
        plain = column if pa.types.is_integer(column.type) else texts(column)
    filled = plain.fill_null("" if pa.types.is_string(plain.type) else 0)
    found: Array = hash_array(filled.to_numpy(zero_copy_only=False), categorize=False)
    return found


def _compare(
    old: _Version, new: _Version, keys: Sequence[str], fields: Sequence[pa.Field], slices: int
) -> Iterator[Difference]:
    key_fields = [field for field in fields if field.name in keys]
    others = [field for field in fields if field.name not in keys]
    parts = zip(old.slices(key_fields, slices), new.slices(key_fields, slices), strict=True)
    for chosen in parts:
        yield from _slice((old, new), chosen, key_fields, others)


def _slice(
    versions: tuple[_Version, _Version], chosen: tuple[Array, Array], keys: Sequence[pa.Field],
    others: Sequence[pa.Field],
) -> Iterator[Difference]:
    """The differences of one slice: keys are matched, then column after column of the matched rows is compared."""
    columns = [
        tuple(version.column(field, rows) for version, rows in zip(versions, chosen, strict=True)) for field in keys
    ]
    rows, only = _matched([pa.concat_arrays(_alike(*pair)) for pair in columns], len(chosen[0]))
    changed: dict[int, dict[str, tuple[Any, Any]]] = {}
    for field in others:
        pair = _alike(*(
            version.rows_of(field, mine[place])
            for version, mine, place in zip(versions, chosen, rows, strict=True)
        ))
        for place, values in _changes(*pair):
            changed.setdefault(place, {})[field.name] = values
    found = [("changed", 0, rows[0][np.array([*changed], np.int64)], [*changed.values()])]
    found += [(kind, side, only[side], [{}] * len(only[side])) for kind, side in (("removed", 0), ("added", 1))]
    lines = [
        Difference(kind, key, differences)
        for kind, side, places, what in found
        for key, differences in zip(_keys([pair[side] for pair in columns], keys, places), what, strict=True)
    ]
    yield from sorted(lines, key=lambda one: repr([*one.key.values()]))


def _matched(keys: list[pa.Array], old: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Places of the rows that are in both (in the order of the first), and of those that are in one only.

    Args:
        keys: the key columns of the first version's `old` rows, and after them those of the second.
    """
    numbers = codes(keys)
    count = int(numbers.max()) + 1 if len(numbers) else 0
    sides = numbers[:old], numbers[old:]
    where = []
    for side in sides:
        place = np.full(count, -1, np.int64)
        place[side] = np.arange(len(side))
        where.append(place)
    both = np.flatnonzero((where[0] >= 0) & (where[1] >= 0))
    order = np.argsort(where[0][both])
    matched = where[0][both][order], where[1][both][order]
    only = tuple(np.sort(mine[(mine >= 0) & (other < 0)]) for mine, other in (where, where[::-1]))
    return matched, (only[0], only[1])


def _alike(before: pa.Array, after: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Both of one type, where a version wrote another one for the column."""
    return (before, after) if before.type == after.type else (before.cast(after.type), after)


def _changes(before: pa.Array, after: pa.Array) -> Iterator[tuple[int, tuple[Any, Any]]]:
    places = np.flatnonzero(differ(before, after))
    values = [pylist(array.take(pa.array(places))) for array in (before, after)]
    for place, one, other in zip(places.tolist(), *values, strict=True):
        yield place, (canonical(one), canonical(other))


def _keys(columns: Sequence[pa.Array], fields: Sequence[pa.Field], places: Array) -> list[Row]:
    values = [map(canonical, pylist(column.take(pa.array(places)))) for column in columns]
    names = [field.name for field in fields]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


