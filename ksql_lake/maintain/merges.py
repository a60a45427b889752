"""Decides which small files of days that are over to merge: from metadata alone, without opening a file."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from ksql_lake.model.entries import FileEntry
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import FeedState

TARGET = 64 << 20  # about the bytes of a merged file; as much is held in memory, uncompressed, at a time


@dataclass(frozen=True)
class Merge:
    """Files of one day and one generation that become one."""

    partition: str
    generation: int
    files: tuple[FileEntry, ...]

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


def plan(state: FeedState, older_than: int, today: dt.datetime, target: int = TARGET) -> list[Merge]:
    """Which files to merge: several small ones of a day that ended at least `older_than` days ago.

    Days of which a file is only in the remote are left alone. Files of rows that were in quarantine stay as they
    are: each records since when the lake has had its rows.

    Args:
        today: the present time, with a time zone.
        target: bytes; a file of half of it or more is left alone.
    """
    last = today.astimezone(ZoneInfo(state.timezone)).date() - dt.timedelta(days=older_than)
    groups: dict[tuple[str, int], list[FileEntry]] = defaultdict(list)
    away = {file.partition for file in state.files if not file.local}
    for file in state.files:
        day = None if file.partition in away else parse_day(file.partition)
        small = file.bytes < target // 2 and file.origin != "quarantine"
        if day is not None and day <= last and small:
            groups[(file.partition, file.generation or 1)].append(file)
    merges = []
    for (partition, generation), files in sorted(groups.items(), key=lambda group: group[0]):
        for some in _up_to(files, target):
            if len(some) > 1:
                merges.append(Merge(partition, generation, tuple(some)))
    return merges


def small_files(state: FeedState, older_than: int, today: dt.datetime, target: int = TARGET) -> tuple[int, int]:
    """About how many files could be merged, and on how many days: from partitions alone, also of a very large lake.

    Args:
        older_than, today, target: as for `plan`.
    """
    last = today.astimezone(ZoneInfo(state.timezone)).date() - dt.timedelta(days=older_than)
    many = [
        one.files for one in state.partitions
        if (day := parse_day(one.path)) is not None and day <= last and one.files > 1
        and one.bytes < one.files * target // 2
    ]
    return sum(many), len(many)


def _up_to(files: Sequence[FileEntry], target: int) -> list[list[FileEntry]]:
    bins: list[list[FileEntry]] = [[]]
    for file in files:
        if bins[-1] and sum(f.bytes for f in bins[-1]) + file.bytes > target:
            bins.append([])
        bins[-1].append(file)
    return bins
