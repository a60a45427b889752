"""Finds keys that came twice, by 64-bit hashes of a whole table's keys: 8 bytes a row, 16 while they are compared."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import numbers, pylist

Hashes: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
PIECE = 1 << 20  # rows that are compared at a time
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)


class KeyHashes:
    """Collects the keys of one answer. Equal keys are always found; different keys are almost never confused.

    Each eight bytes of a key's text are mixed with a random number that belongs to their position, and summed: whole
    columns at once, and with new numbers for each answer, so that a collision does not repeat.

    Args:
        positions: of the key columns in the batches.
        seed: of the random numbers; hashes of objects with the same one can be compared.
    """

    def __init__(self, positions: Sequence[int], seed: int | None = None) -> None:
        self._positions = list(positions)
        self._random = np.random.default_rng(secrets.randbits(128) if seed is None else seed)
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
        parts = [self._of(column) for column in columns]
        mixed = [part * factor for part, factor in zip(parts, self._column_factors, strict=True)]
        hashes: Hashes = np.add.reduce(mixed)
        return hashes

    def twice(self) -> bool:
        """Whether any key came more than once. Call once, at the end: the keys are released."""
        return repeats(self._hashes) > 0

    def _of(self, column: pa.Array) -> Hashes:
        if pa.types.is_integer(column.type) or pa.types.is_temporal(column.type):
            wide = column if pa.types.is_int64(column.type) else _wide(column)
            values = numbers(wide.fill_null(0) if wide.null_count else wide).view(np.uint64)
            hashes = _mixed(values ^ self._number(0))
            if column.null_count:
                hashes[np.asarray(column.is_null())] = self._number(1)
            return hashes
        return self._of_text(_text(column))

    def _of_text(self, array: pa.Array) -> Hashes:
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
        lengths, starts = np.diff(offsets), offsets[:-1] - offsets[0]
        hashes = _mixed(lengths.astype(np.uint64) ^ self._number(0))
        size = int(offsets[-1] - offsets[0])
        if not size:
            return hashes
        data = np.zeros(size + 8, np.uint8)
        data[:size] = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        words: Hashes = np.ndarray((size + 1,), np.dtype("<u8"), data, strides=(1,))  # one begins at every byte
        rows = np.arange(len(lengths))
        for place in range((int(lengths.max()) + 7) // 8):
            rows = rows[lengths[rows] > 8 * place]
            left = np.minimum(lengths[rows] - 8 * place, 8)
            word = words[starts[rows] + 8 * place] & _FIRST_BYTES[left]
            hashes[rows] += _mixed(word ^ self._number(2 * place + 1)) * self._number(2 * place + 2)
        return hashes

    def _number(self, place: int) -> np.uint64:
        """The random number of a position."""
        while place >= len(self._factors):  # in steps that do not depend on who asks for what
            self._factors = np.concatenate([self._factors, self._more(len(self._factors))])
        number: np.uint64 = self._factors[place]
        return number


def _mixed(values: Hashes) -> Hashes:
    """Mix the bits of each value, one to one, in place."""
    values ^= values >> np.uint64(33)
    values *= np.uint64(0xFF51AFD7ED558CCD)
    values ^= values >> np.uint64(29)
    values *= np.uint64(0xC4CEB9FE1A85EC53)
    values ^= values >> np.uint64(32)
    return values


def _wide(column: pa.Array) -> pa.Array:
    """Times as the numbers they are."""
    return column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64()).cast(pa.int64())


def repeats(parts: list[Hashes]) -> int:
    """How many rows have the key of an earlier row. `parts` is emptied, so that no hash is in memory twice."""
    every = np.empty(sum(len(part) for part in parts), np.uint64)
    end = len(every)
    while parts:
        part = parts.pop()
        every[end - len(part) : end] = part
        end -= len(part)
    every.sort()
    pieces = (every[at : at + PIECE + 1] for at in range(0, len(every), PIECE))
    return sum(int(np.count_nonzero(piece[1:] == piece[:-1])) for piece in pieces)


def _text(column: pa.Array) -> pa.Array:
    """The keys as text; null becomes a text that no key has."""
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return pa.array([repr(value) for value in pylist(column)], pa.large_string())
    text = column.cast(pa.large_string())
    return text.fill_null("\0null") if text.null_count else text
