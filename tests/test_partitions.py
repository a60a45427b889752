"""Days, versions and names on disk; days of an array against zoneinfo, value by value."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksql_lake.base.errors import ConfigError
from ksql_lake.model.partitions import (
    PARTITION_KEYS,
    day_bounds,
    day_path,
    days_of,
    disk_names,
    parse_day,
    parse_version,
    version_path,
)

ZONES = ["UTC", "Europe/Paris", "America/Santiago", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECONDS = st.integers(-3_000_000_000_000, 4_000_000_000_000)


def local_day(millisecond: int, tz: str) -> date:
    return (EPOCH + timedelta(milliseconds=millisecond)).astimezone(ZoneInfo(tz)).date()


def as_date(days: int) -> date:
    return date(1970, 1, 1) + timedelta(days=days)


@given(st.lists(MILLISECONDS, max_size=30), st.sampled_from(ZONES))
@settings(max_examples=150, deadline=None)
def test_days_are_zoneinfos(times: list[int], tz: str) -> None:
    days = days_of(np.array(times, dtype=np.int64), tz)
    assert days.dtype == np.int32
    assert [as_date(int(day)) for day in days] == [local_day(time, tz) for time in times]


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("year", [1969, 2010])
def test_days_through_a_whole_year_of_clock_changes(tz: str, year: int) -> None:
    start = int((datetime(year, 1, 1, tzinfo=UTC) - EPOCH).total_seconds()) * 1000
    times = start - 1 + np.arange(0, 366 * 24 * 2, dtype=np.int64) * 1_800_000
    days = days_of(times, tz).tolist()
    assert all(as_date(day) == local_day(int(time), tz) for day, time in zip(days, times, strict=True))


@given(st.dates(date(1960, 1, 1), date(2035, 1, 1)), st.sampled_from(ZONES))
@settings(max_examples=100, deadline=None)
def test_bounds_hold_the_day_and_are_tight(day: date, tz: str) -> None:
    start, end = day_bounds(day, tz)
    if start == end:
        return
    assert local_day(start, tz) == day == local_day(end - 1, tz)
    assert local_day(start - 1, tz) != day != local_day(end, tz)


def test_bounds_of_special_days() -> None:
    hour = 3_600_000
    assert day_bounds(date(1970, 1, 1), "UTC") == (0, 24 * hour)
    for tz, day, hours in [
        ("Europe/Paris", date(2025, 3, 30), 23),
        ("Europe/Paris", date(2025, 10, 26), 25),
        ("Australia/Lord_Howe", date(2025, 10, 5), 23.5),
        ("America/Santiago", date(2025, 9, 7), 23),  # its midnight does not exist
        ("Pacific/Apia", date(2011, 12, 30), 0),  # nor does this day
    ]:
        start, end = day_bounds(day, tz)
        assert (end - start) / hour == hours, (tz, day)


def test_absurd_times_go_to_the_ends() -> None:
    limits = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max], dtype=np.int64)
    for tz in ZONES:
        assert [as_date(int(day)) for day in days_of(limits, tz)] == [date.min, date.max]
    assert days_of(np.array([], dtype=np.int64), "Europe/Paris").size == 0


@pytest.mark.parametrize("tz", ["Mars/Olympus", "", "../etc/passwd"])
def test_an_unknown_zone_is_named(tz: str) -> None:
    with pytest.raises(ConfigError, match="IANA"):
        days_of(np.array([0]), tz)


@given(st.dates(), st.integers(1, 10**9))
def test_paths_there_and_back(day: date, number: int) -> None:
    assert parse_day(day_path(day)) == day
    assert parse_version(version_path(number)) == number


def test_paths_that_are_none() -> None:
    assert day_path(date(2025, 1, 15)) == "year=2025/month=01/day=15"
    for path in ["year=2025/month=1/day=15", "year=2025/month=02/day=30", "year=2025", "version=v1", ""]:
        assert parse_day(path) is None
    for path in ["version=v0", "version=v01", "version=3", "v3", "version=v3/x"]:
        assert parse_version(path) is None


def test_names_that_collide() -> None:
    names = disk_names(["id", "ID", "DAY", "DAY_", "rowtime", "A"], ["ROWTIME", *PARTITION_KEYS], {})
    expected = {"id": "id", "ID": "ID_", "DAY": "DAY_", "DAY_": "DAY__", "rowtime": "rowtime_", "A": "A"}
    assert names == expected
    assert disk_names(["day", "DAY", "Day"], ["day"], {}) == {"day": "day_", "DAY": "DAY_2", "Day": "Day_3"}


@given(st.lists(st.sampled_from(["a", "A", "DAY", "day", "day_", "Day_2", "ß", "SS", "b"]), unique=True))
def test_names_are_unique_stable_and_frozen(names: list[str]) -> None:
    half = disk_names(names[: len(names) // 2], PARTITION_KEYS, {})
    whole = disk_names(names, PARTITION_KEYS, half)
    assert half.items() <= whole.items()
    assert disk_names(names, PARTITION_KEYS, whole) == whole
    folded = [name.casefold() for name in (*whole.values(), *PARTITION_KEYS)]
    assert len(set(folded)) == len(folded)
