"""The file modes of a feed: 750 and 640 for restricted feeds, 755 and 644 for open ones, also after a change.

Only the local disk has modes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ksql_lake.store.dataset import Dataset


@dataclass(frozen=True)
class Drift:
    """A directory or file whose mode differs from what the feed's access asks for."""

    path: Path
    found: int
    wanted: int

    def __str__(self) -> str:
        hint = "fix it with: python manage_feeds.py permissions --apply"
        return f"{self.path}: mode {self.found:o}, expected {self.wanted:o}; {hint}"


def drift(dataset: Dataset) -> Iterator[Drift]:
    """Every directory and file of a feed with a different mode, in quarantine too; links are skipped."""
    for top in (Path(dataset.directory), Path(dataset.quarantine)):
        if top.is_dir():
            yield from _drift(dataset, top)


def _drift(dataset: Dataset, top: Path) -> Iterator[Drift]:
    for path in (top, *sorted(top.rglob("*"))):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            continue
        wanted = dataset.dir_mode if stat.S_ISDIR(status.st_mode) else dataset.file_mode
        found = stat.S_IMODE(status.st_mode)
        if found != wanted:
            yield Drift(path, found, wanted)


def apply(drifts: Iterator[Drift] | list[Drift]) -> int:
    """Correct the modes; returns how many were changed."""
    count = 0
    for one in drifts:
        os.chmod(one.path, one.wanted)
        count += 1
    return count
