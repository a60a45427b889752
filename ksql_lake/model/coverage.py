"""Ranges of offsets: which ones of a Kafka partition the lake holds, both ends of each range included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def ranges(offsets: np.ndarray) -> list[tuple[int, int]]:
    """Sorted offsets as runs of consecutive numbers, both ends included."""
    if not len(offsets):
        return []
    breaks = np.flatnonzero(np.diff(offsets) != 1)
    starts = np.concatenate(([offsets[0]], offsets[breaks + 1]))
    ends = np.concatenate((offsets[breaks], [offsets[-1]]))
    return [(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def merge(
    existing: Sequence[tuple[int, int]], added: Sequence[tuple[int, int]], upto: int
) -> tuple[tuple[int, int], ...]:
    """The union of two lists of ranges, less what lies at or below `upto`."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted([*existing, *added]):
        if high <= upto:
            continue
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((max(low, upto + 1), high))
    return tuple(merged)


def inside(spans: Sequence[Sequence[int]], offsets: np.ndarray) -> np.ndarray:
    """A mask of the offsets that lie in one of the ranges, which are in order and apart from each other."""
    if not len(spans):
        return np.zeros(len(offsets), bool)
    bounds = np.asarray(spans, np.int64)
    at = np.searchsorted(bounds[:, 1], offsets)
    return np.asarray((at < len(bounds)) & (bounds[np.minimum(at, len(bounds) - 1), 0] <= offsets))
