"""Changes values as ksqlDB's REST API does, so that rows from both sources are equal.

Outside a STRUCT a TIME loses its milliseconds, and a TIMESTAMP before the year 1 comes with its year as a positive
number; inside one a DECIMAL goes through a double. Everything else is unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, TypeAlias

from ksql_lake.model.types import SqlType
from ksql_lake.sources.kafka.verdicts import Unreadable
from ksql_lake.sources.ksqldb import values
from ksql_lake.sources.ksqldb.values import DAY_MS, GREGORIAN, INT32, Unfit

View: TypeAlias = Callable[[Any], Any]
JULIAN_BEFORE = values.days(*GREGORIAN, julian=False) * DAY_MS
DOUBLE_DIGITS = 15  # this many digits survive a double unchanged
_WIDE = Context(prec=400)


def view(kind: SqlType, *, exact: bool = False, inside: bool = False) -> View | None:
    """The function from a value (never None) to the stored value; None where they are the same.

    It raises `Unfit` for a value that the type cannot hold.

    Args:
        exact: keep what the REST API would lose.
        inside: whether the value is in a STRUCT.
    """
    if kind.base == "STRUCT":
        return _fields([view(field, exact=exact, inside=True) for _, field in kind.fields])
    if kind.base in ("ARRAY", "MAP") and kind.element:
        item = view(kind.element, exact=exact, inside=inside)
        return _entries(item) if kind.base == "MAP" else item and _items(item)
    if kind.base == "DECIMAL":
        return _through_double(kind.scale) if inside and not exact else None
    if kind.base == "TIMESTAMP":
        return None if inside or exact else _era
    if kind.base == "TIME":
        return _time if inside or exact else _seconds
    return {"STRING": values.text, "DATE": _date}.get(kind.base)


def _fields(views: list[View | None]) -> View | None:
    if not any(views):
        return None
    return lambda value: tuple(
        [field if field is None or look is None else look(field) for look, field in zip(views, value, strict=True)]
    )


def _items(item: View) -> View:
    return lambda value: [None if one is None else item(one) for one in value]


def _entries(item: View | None) -> View:
    return lambda value: [(values.text(key), item(one) if item and one is not None else one) for key, one in value]


def _date(days: int) -> int:
    if not -INT32 <= days < INT32:
        raise Unfit("the date is too far away")
    return days


def _time(milliseconds: int) -> int:
    if milliseconds == DAY_MS:
        raise Unfit("a day has 86,400,000 milliseconds")
    return milliseconds


def _seconds(milliseconds: int) -> int:
    if milliseconds == DAY_MS:
        raise Unreadable("24:00, which ksqlDB cannot show: its REST answer breaks off there")
    return milliseconds // 1000 * 1000


def _era(milliseconds: int) -> int:
    """ksqlDB writes the year within its era but not the era: 44 BC comes as the year 44."""
    if milliseconds >= JULIAN_BEFORE:
        return milliseconds
    days, clock = divmod(milliseconds, DAY_MS)
    year, month, day = _julian(days)
    if year >= 1:
        return milliseconds
    shown = 1 - year, month, day
    return values.days(*shown, julian=shown < GREGORIAN) * DAY_MS + clock


def _julian(days: int) -> tuple[int, int, int]:
    """The Julian date of a day since 1970-01-01; years begin in March here, so that the leap day comes last."""
    cycle, day = divmod(days + 719_470, 1461)
    year = (day - day // 1460) // 365
    in_year = day - 365 * year
    month = (5 * in_year + 2) // 153
    return 4 * cycle + year + (month >= 10), month + (-9 if month >= 10 else 3), in_year - (153 * month + 2) // 5 + 1


def _through_double(scale: int) -> View:
    step = Decimal(1).scaleb(-scale)

    def look(value: Decimal) -> Decimal:
        if len(value.as_tuple().digits) <= DOUBLE_DIGITS:
            return value
        shown = Decimal(repr(float(value)))
        scaled = shown.quantize(step, context=_WIDE)
        if scaled != shown:
            raise Unfit(f"more than {scale} digits after the point")
        return scaled

    return look
