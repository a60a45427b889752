"""ROWTIME of a record: Kafka's timestamp, or the column that WITH (TIMESTAMP=...) names."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Callable
from typing import Any

from ksql_lake.sources.kafka.verdicts import Skipped

# The patterns of Java's DateTimeFormatter that are known here: all have a zone, since a text without one is read in
# the time zone of ksqlDB's machine, which no statement shows.
_PIECES = {
    "yyyy-MM-dd": r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)",
    "'T'": "[Tt]",
    " ": " ",
    "HH:mm:ss": r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)",
    ".SSS": r"\.(?P<milli>\d{3})",
    "X": r"(?P<zone>[Zz]|[+-]\d\d(?:\d\d)?)",
    "XX": r"(?P<zone>[Zz]|[+-]\d{4})",
    "XXX": r"(?P<zone>[Zz]|[+-]\d\d:\d\d)",
}
_KNOWN = re.compile(r"(yyyy-MM-dd)('T'| )(HH:mm:ss)(\.SSS)?(X{1,3})")
_EPOCH = dt.datetime(1970, 1, 1)


def checked(milliseconds: int | None) -> int:
    """A time that ksqlDB accepts: not null and not negative."""
    if milliseconds is None:
        raise Skipped("no time in the TIMESTAMP column")
    if milliseconds < 0:
        raise Skipped("a time before 1970")
    return milliseconds


def reader(pattern: str) -> Callable[[Any], int | None] | None:
    """The parser of a TIMESTAMP_FORMAT, from text to epoch milliseconds; None for a pattern that is not known here."""
    known = _KNOWN.fullmatch(pattern)
    if known is None:
        return None
    form = re.compile("".join(_PIECES[piece] for piece in known.groups() if piece), re.ASCII)

    def read(text: Any) -> int | None:
        if text is None:
            return None
        found = form.fullmatch(text)
        if not found:
            raise Skipped("a time that does not follow TIMESTAMP_FORMAT")
        return _milliseconds(found)

    return read


def _milliseconds(found: re.Match[str]) -> int:
    year, month, day, hour, minute, second = (
        int(found[name]) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    if not (year and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        raise Skipped("no such time")
    day = min(day, calendar.monthrange(year, month)[1])  # Java's SMART resolver: 30 February is its last day
    moment = dt.datetime(year, month, day, hour, minute, second)
    milli = int(found["milli"]) if "milli" in found.re.groupindex else 0
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1) + milli - _offset(found["zone"])


def _offset(zone: str) -> int:
    """Milliseconds east of Greenwich."""
    if zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if minutes > 59 or hours * 60 + minutes > 18 * 60:
        raise Skipped("no such time zone")
    return (hours * 60 + minutes) * 60_000 * (-1 if zone[0] == "-" else 1)
