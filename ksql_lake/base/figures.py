"""Figures in few characters: 1.2k rows, 512 kB, 3 h."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence


def count(number: float) -> str:
    """At most five characters below a quadrillion: 999, 1.2k, 34k, 5.6M."""
    return _scaled(number, ("", "k", "M", "G", "T"))


def size(number: float) -> str:
    """Bytes, decimal units: 512 B, 1.2 kB, 34 MB."""
    return _scaled(number, (" B", " kB", " MB", " GB", " TB", " PB"))


def _scaled(number: float, units: tuple[str, ...]) -> str:
    step = 0
    while step < len(units) - 1 and number >= 999.5:
        number, step = number / 1000, step + 1
    return f"{number:.1f}{units[step]}" if step and number < 9.95 else f"{number:.0f}{units[step]}"


def duration(seconds: float) -> str:
    """One unit, rounded down: 45s, 3m, 5h, 12d; 0.3s below ten seconds."""
    if seconds < 10:
        return f"{seconds:.1f}s" if seconds else "0s"
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "m"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // unit:.0f}{name}"
    return f"{seconds // 86_400:.0f}d"


def since(moment: str | None, now: dt.datetime) -> float | None:
    """Seconds from an ISO 8601 time to now, at least 0."""
    return None if moment is None else max((now - dt.datetime.fromisoformat(moment)).total_seconds(), 0.0)


def short_time(moment: str) -> str:
    """An ISO 8601 time in UTC to the minute: 2025-01-18 01:00Z."""
    return f"{moment[:16].replace('T', ' ')}Z"


def several(names: Sequence[str], most: int = 5) -> str:
    """Some names in a line: a, b, c, d, e and 3 more."""
    rest = len(names) - most
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:most])} and {rest} more"


def counted(number: int, noun: str) -> str:
    """A number and what is counted: 1 feed, 2 feeds, 1,000 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
