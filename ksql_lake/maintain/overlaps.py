"""Files that hold the same rows: offsets of one Kafka partition and generation that are in more than one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ksql_lake.base.errors import StateError
from ksql_lake.maintain.found_files import Found

Key = tuple[int, int]  # generation, Kafka partition


def repeated(files: Sequence[Found]) -> list[Found]:
    """Files all of whose rows are in other files as well; without them no row is there twice.

    Raises:
        StateError: two files share only some of their rows, so that neither can be left out.
    """
    if not _overlap(files):
        return []
    held: dict[Key, list[tuple[int, int, Found]]] = defaultdict(list)
    gone = []
    for file in sorted(files, key=lambda one: (-one.entry.rows, one.footer.run not in one.entry.path, *one.order)):
        shared, other = _shared(file, held)
        if shared and shared == sum(high - low + 1 for spans in file.ranges.values() for low, high in spans):
            gone.append(file)
            continue
        if other is not None:
            raise StateError(_conflict(file, other))
        for partition, spans in file.ranges.items():
            held[(file.generation, partition)] += [(low, high, file) for low, high in spans]
    return gone


def _overlap(files: Sequence[Found]) -> bool:
    """Whether any offset is in two files."""
    spans: dict[Key, list[tuple[int, int]]] = defaultdict(list)
    for file in files:
        for partition, ranges in file.ranges.items():
            spans[(file.generation, partition)] += ranges
    for ranges in spans.values():
        bounds = np.asarray(sorted(ranges), np.int64)
        if (bounds[1:, 0] <= np.maximum.accumulate(bounds[:-1, 1])).any():
            return True
    return False


def _shared(file: Found, held: dict[Key, list[tuple[int, int, Found]]]) -> tuple[int, Found | None]:
    """How many offsets of a file others hold, which do not overlap among themselves; and one of those others."""
    shared, other = 0, None
    for partition, spans in file.ranges.items():
        known = sorted(held[(file.generation, partition)], key=lambda one: one[0])
        ends = np.asarray([high for _, high, _ in known], np.int64)
        for low, high in spans:
            at = int(np.searchsorted(ends, low))
            while at < len(known) and known[at][0] <= high:
                shared += min(high, known[at][1]) - max(low, known[at][0]) + 1
                other = known[at][2]
                at += 1
    return shared, other


def _conflict(file: Found, other: Found) -> str:
    for partition, spans in file.ranges.items():
        for low, high in spans:
            for first, last in other.ranges.get(partition, ()):
                if low <= last and first <= high:
                    where = f"offsets {max(low, first)} to {min(high, last)} of partition {partition}"
                    return (
                        f"{other.entry.path} and {file.entry.path} both hold {where}, and each has rows that the "
                        "other does not; move one of them out of the lake and rebuild again, and the next export "
                        "reads what is missing"
                    )
    raise AssertionError("they share no offset")
