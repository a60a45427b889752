"""Did a key come twice? 64-bit hashes of the keys of a whole table, a few bytes for each row."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

Hashes: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]


class KeyHashes:
    """Collects the keys of one answer. Equal keys are found with certainty, different ones all but never confused.

    Each byte of a key's text is multiplied by a random number that belongs to its place, and the products are summed:
    whole columns at a time, and with other numbers for each answer, so that bad luck does not repeat.

    Args:
        positions: of the key columns in the batches.
    """

    def __init__(self, positions: Sequence[int]) -> None:
        self._positions = list(positions)
        self._random = np.random.default_rng(secrets.randbits(128))
        self._factors = self._more(256)
        self._column_factors = self._more(len(self._positions))
        self._hashes: list[Hashes] = []

    def _more(self, count: int) -> Hashes:
        return self._random.integers(0, 1 << 64, count, np.uint64) | np.uint64(1)

    def add(self, batch: pa.RecordBatch) -> None:
        """The next rows of the answer."""
        if self._positions:
            self._hashes.append(self.of([batch.column(i) for i in self._positions]))

    def of(self, columns: Sequence[pa.Array]) -> Hashes:
        """The hashes of the rows of these key columns; comparable with all that this object makes."""
        parts = [self._of_text(_text(column)) for column in columns]
        mixed = [part * factor for part, factor in zip(parts, self._column_factors, strict=True)]
        hashes: Hashes = np.add.reduce(mixed)
        return hashes

    def twice(self) -> bool:
        """Whether any key came more than once."""
        return repeats(self._hashes) > 0

    def _of_text(self, array: pa.Array) -> Hashes:
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
        lengths = np.diff(offsets)
        if not offsets[-1] - offsets[0]:
            return lengths.astype(np.uint64)
        data = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        longest = int(lengths.max())
        if longest > len(self._factors):
            self._factors = np.concatenate([self._factors, self._more(longest - len(self._factors))])
        ends = offsets[1:] - offsets[0]
        places = np.arange(len(data)) - np.repeat(ends - lengths, lengths)
        products = (data.astype(np.uint64) + np.uint64(1)) * self._factors[places]
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(products, dtype=np.uint64)])
        hashes: Hashes = sums[ends] - sums[ends - lengths] + lengths.astype(np.uint64)
        return hashes ^ (hashes >> np.uint64(29))


def repeats(parts: Sequence[Hashes]) -> int:
    """How many rows have a key that another row before them has."""
    if not parts:
        return 0
    every = np.sort(np.concatenate(parts))
    return int((every[1:] == every[:-1]).sum())


def _text(column: pa.Array) -> pa.Array:
    """The keys as text; null is one more text, that no key has."""
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return pa.array([repr(value) for value in column.to_pylist()], pa.large_string())
    return column.cast(pa.large_string()).fill_null("\0null")
