"""Partitions: time -> `year=/month=/day=`, `version=vN`, and back; and column names that no reader confuses.

A day is a calendar day of the feed's time zone. Days are computed for whole arrays, and rightly around
changes of the clock: nothing here assumes that a day has 24 hours, or an offset whole minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from ksql_lake.base.errors import ConfigError

if TYPE_CHECKING:  # reports only parse paths, and NumPy takes longer to load than a report to make
    import numpy as np
    import numpy.typing as npt

PARTITION_KEYS = ("year", "month", "day", "version")

_DAY_PATH = re.compile(r"year=(\d{4})/month=(\d{2})/day=(\d{2})", re.ASCII)
_VERSION_PATH = re.compile(r"version=v([1-9]\d*)", re.ASCII)
_EPOCH = date(1970, 1, 1).toordinal()
_FIRST_DAY = date.min.toordinal() - _EPOCH
_LAST_DAY = date.max.toordinal() - _EPOCH
_HOUR = 3600
_DAY_SECONDS = 86_400
_DAY_MS = 86_400_000
# datetime ends at years 1 and 9999; two days of room for any offset. Beyond, the nearest known offset serves.
_FIRST_SECOND = (_FIRST_DAY + 2) * _DAY_SECONDS
_LAST_SECOND = (_LAST_DAY - 2) * _DAY_SECONDS


def day_path(day: date) -> str:
    """The partition of a day: `year=2025/month=01/day=15`."""
    return f"year={day.year:04d}/month={day.month:02d}/day={day.day:02d}"


def parse_day(path: str) -> date | None:
    """The day a partition path names, or None when it names none."""
    match = _DAY_PATH.fullmatch(path)
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None


def version_path(number: int) -> str:
    """The partition of a table's snapshot: `version=v3`."""
    return f"version=v{number}"


def parse_version(path: str) -> int | None:
    """The number a version path names, or None when it names none."""
    match = _VERSION_PATH.fullmatch(path)
    return int(match[1]) if match else None


def day_bounds(day: date, tz: str) -> tuple[int, int]:
    """The shortest half-open interval of epoch milliseconds that holds every instant of a local day.

    Where the clock is turned back across midnight (St. John's, until 2011, at 00:01) it also holds some
    instants of the neighbouring day: filter with `days_of` as well. A day the zone skipped is empty.

    Raises:
        ConfigError: no such time zone.
    """
    zone = _zone(tz)
    local = (day.toordinal() - _EPOCH) * _DAY_SECONDS
    starts, ends = [], []
    for begin, end, offset in _constant_offsets(local - 30 * _HOUR, local + 54 * _HOUR, zone):
        first, last = max(begin, local - offset), min(end, local + _DAY_SECONDS - offset)
        if first < last:
            starts.append(first)
            ends.append(last)
    if not starts:
        return local * 1000, local * 1000
    return min(starts) * 1000, max(ends) * 1000


def days_of(rowtimes: npt.NDArray[np.int64], tz: str) -> npt.NDArray[np.int32]:
    """The local day of each epoch millisecond, as days since 1970-01-01.

    Times beyond the years 1 to 9999 go to the first or last day there is: one absurd timestamp must not
    stop a feed.

    Raises:
        ConfigError: no such time zone.
    """
    import numpy as np

    zone = _zone(tz)
    times = np.asarray(rowtimes, dtype=np.int64)
    if tz != "UTC" and times.size:
        # Clipped first, so that adding an offset cannot overflow.
        times = np.clip(times, (_FIRST_DAY - 2) * _DAY_MS, (_LAST_DAY + 2) * _DAY_MS)
        times = times + _offsets_of(np.floor_divide(times, 1000), zone) * 1000
    return np.clip(np.floor_divide(times, _DAY_MS), _FIRST_DAY, _LAST_DAY).astype(np.int32)


def _offsets_of(seconds: npt.NDArray[np.int64], zone: tzinfo) -> npt.NDArray[np.int64]:
    """The zone's offset in seconds at each epoch second: one look per hour, or per second where it changes."""
    import numpy as np

    hours, inverse = np.unique(np.floor_divide(seconds, _HOUR), return_inverse=True)
    looked_up = [_hour_offset(int(hour), zone) for hour in hours]
    changing = np.array([offset is None for offset in looked_up])
    offsets = np.array([offset or 0 for offset in looked_up], dtype=np.int64)[inverse]
    if changing.any():
        rows = np.flatnonzero(changing[inverse])
        moments, where = np.unique(seconds[rows], return_inverse=True)
        offsets[rows] = np.array([_offset(int(moment), zone) for moment in moments], dtype=np.int64)[where]
    return offsets


@lru_cache(maxsize=65_536)
def _hour_offset(hour: int, zone: tzinfo) -> int | None:
    """The offset that holds throughout an hour since the epoch; None when it changes within."""
    before, after = _offset(hour * _HOUR, zone), _offset(hour * _HOUR + _HOUR - 1, zone)
    return before if before == after else None


def _offset(second: int, zone: tzinfo) -> int:
    second = min(max(second, _FIRST_SECOND), _LAST_SECOND)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    offset = moment.astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


def _constant_offsets(begin: int, end: int, zone: tzinfo) -> Iterator[tuple[int, int, int]]:
    """Cut [begin, end) epoch seconds where the offset changes: (begin, end, offset in seconds)."""
    start, offset = begin, _offset(begin, zone)
    for moment in range(begin, end, _HOUR):
        low, high = moment, min(moment + _HOUR, end)
        if _offset(high, zone) == offset:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(middle, zone) == offset else (low, middle)
        yield start, high, offset
        start, offset = high, _offset(high, zone)
    yield start, end, offset


@lru_cache(maxsize=64)
def _zone(tz: str) -> tzinfo:
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError; a directory is an OSError
        raise ConfigError(f"time zone {tz!r} is unknown; use an IANA name such as Europe/Paris") from None


def disk_names(names: Sequence[str], reserved: Sequence[str], frozen: Mapping[str, str]) -> dict[str, str]:
    """Give every column a name on disk that is unique whatever a reader does to upper and lower case.

    Args:
        names: the source's columns, in its order.
        reserved: names that are taken: pseudo columns and partition keys. Not part of the result.
        frozen: names given at earlier exports. They win, also those of columns that are gone now.

    Returns:
        name -> name on disk: itself where free, else `DAY_`, then `DAY_2`, `DAY_3`.
    """
    taken = {name.casefold() for name in (*reserved, *frozen.values())}
    result = {}
    for name in names:
        if name not in result:
            result[name] = frozen[name] if name in frozen else _free_name(name, taken)
            taken.add(result[name].casefold())
    return result


def _free_name(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate.casefold() in taken:
        candidate = f"{name}_" if number == 1 else f"{name}_{number}"
        number += 1
    return candidate
