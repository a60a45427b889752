"""Converts JSON values of ksqlDB exactly to what Arrow takes; times without datetime, which ends at the year 9999.

The header's types decide, never the values. Inside a STRUCT the server uses another encoding: dates and times are
numbers, decimals went through a double, maps whose keys are not strings are pairs.
"""

from __future__ import annotations

import base64
import binascii
import decimal
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from ksql_lake.base.limits import DIGITS
from ksql_lake.model.types import SqlType

Convert = Callable[[Any], Any]
DAY_MS = 86_400_000
INT32, INT64 = 1 << 31, 1 << 63
GREGORIAN = (1582, 10, 15)  # before it the server writes TIMESTAMPs in the Julian calendar
REPLACEMENT = "\ufffd"
_DATE = re.compile(r"([+-]?\d{4,9})-(\d\d)-(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{3}))?)?", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,39}", re.ASCII)
_SURROGATES = re.compile("[\ud800-\udfff]")
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CONTEXT = decimal.Context(prec=DIGITS)


class Unfit(ValueError):
    """A value that its type cannot hold; the message says why without the value."""


def converter(kind: SqlType) -> Convert:
    """A function from a JSON value (never None) to what `pa.array` takes for the type, whatever the value.

    What it returns always fits the type, so `pa.array` never fails. It raises Unfit for a value that does not.
    """
    if kind.base in SCALARS:
        return SCALARS[kind.base]
    if kind.base == "DECIMAL":
        return _decimal(kind.precision, kind.scale)
    inner = _nullable(converter(kind.element)) if kind.element else None
    if kind.base == "ARRAY" and inner:
        return _array(inner)
    if kind.base == "MAP" and inner and kind.key:
        return _map(_map_key(kind.key), inner)
    return _struct([(name, _nullable(converter(field))) for name, field in kind.fields])


def _nullable(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _array(item: Convert) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not list:
            raise Unfit("expected an array")
        return [item(one) for one in value]

    return convert


def _map(key: Convert, item: Convert) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is dict:
            return [(key(k), item(v)) for k, v in value.items()]
        if type(value) is not list or not all(type(pair) is list and len(pair) == 2 for pair in value):
            raise Unfit("expected an object or pairs")
        return [(key(k), item(v)) for k, v in value]

    return convert


def _struct(fields: list[tuple[str, Convert]]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise Unfit("expected an object")
        return tuple([field(value.get(name)) for name, field in fields])  # by position: names on disk may differ

    return convert


def _map_key(kind: SqlType) -> Convert:
    """Outside a STRUCT all keys are strings, also numbers and booleans; never null."""
    convert = converter(kind)

    def key(value: Any) -> Any:
        if value is None:
            raise Unfit("expected a key")
        if type(value) is str and kind.base == "BOOLEAN":
            value = {"true": True, "false": False}.get(value, value)
        elif type(value) is str and kind.base in ("INTEGER", "BIGINT", "DOUBLE", "DECIMAL"):
            value = _number(value)
        return convert(value)

    return key


def _number(text_: str) -> Any:
    if _WHOLE.fullmatch(text_):
        return int(text_)
    try:
        return bounded(Decimal(text_)) if text_ not in ("NaN", "Infinity", "-Infinity") else text_
    except decimal.InvalidOperation:
        raise Unfit("expected a number") from None


def bounded(number: Decimal) -> Decimal:
    """A number of a size that arithmetic can deal with: 1E+999999999 as an integer would fill the memory."""
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > DIGITS:
        raise Unfit("expected a number of reasonable size")
    return number


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise Unfit("expected true or false")
    return value


def _integer(limit: int) -> Convert:
    def convert(value: Any) -> int:
        if type(value) is not int:  # a forwarded row may carry another token for the same number
            if type(value) is not Decimal or bounded(value) != int(value):
                raise Unfit("expected a whole number")
            value = int(value)
        if not -limit <= value < limit:
            raise Unfit("the number is too large")
        return int(value)

    return convert


whole = _integer(INT64)


def _double(value: Any) -> float:
    if type(value) is str:
        if value not in ("NaN", "Infinity", "-Infinity"):
            raise Unfit("expected a number")
        return float(value)
    if type(value) not in (int, Decimal):
        raise Unfit("expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if number - number != 0.0:
        raise Unfit("the number is too large")
    return number


def text(value: Any) -> str:
    """A string. Half a character (an unpaired surrogate, which UTF-8 cannot hold) becomes U+FFFD."""
    if type(value) is not str:
        raise Unfit("expected a string")
    return value if value.isascii() else _SURROGATES.sub(REPLACEMENT, value)


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Unfit("expected Base64") from None


def _decimal(precision: int, scale: int) -> Convert:
    step, limit = Decimal(1).scaleb(-scale), Decimal(1).scaleb(precision - scale)

    def convert(value: Any) -> Decimal:
        if type(value) not in (int, Decimal):
            value = _number(value) if type(value) is str else None
            if type(value) not in (int, Decimal):
                raise Unfit("expected a number")
        exact = Decimal(value)
        if exact.copy_abs() >= limit:  # abs() rounds to 28 digits
            raise Unfit(f"more than {precision - scale} digits before the point")
        scaled = exact.quantize(step, context=_CONTEXT)
        if scaled != exact:
            raise Unfit(f"more than {scale} digits after the point")
        return scaled

    return convert


def date(value: Any) -> int:
    """Days since 1970-01-01, of any year that 32 bits hold; "+10000-01-01" and "-0001-12-31" as ISO 8601 has them."""
    if type(value) is str:
        match = _DATE.fullmatch(value)
        if not match:
            raise Unfit("expected a date")
        value = days(int(match[1]), int(match[2]), int(match[3]), julian=False)
    number = whole(value)
    if not -INT32 <= number < INT32:
        raise Unfit("the date is too far away")
    return int(number)


def time(value: Any) -> int:
    """Milliseconds of the day; "10:00" when the seconds are 0."""
    if type(value) is str:
        match = _TIME.fullmatch(value)
        if not match:
            raise Unfit("expected a time")
        return _milliseconds(match)
    number = whole(value)
    if not 0 <= number < DAY_MS:
        raise Unfit("a day has 86,400,000 milliseconds")
    return int(number)


def timestamp(value: Any) -> int:
    """Epoch milliseconds, any that 64 bits hold. Before 1582-10-15 the server writes Julian dates."""
    if type(value) is not str:
        return int(whole(value))
    day, _, rest = value.partition("T")
    date_, time_ = _DATE.fullmatch(day), _TIME.fullmatch(rest)
    if not date_ or not time_:
        raise Unfit("expected a timestamp")
    parts = int(date_[1]), int(date_[2]), int(date_[3])
    julian = parts < GREGORIAN
    return int(whole(days(*parts, julian=julian) * DAY_MS + _milliseconds(time_)))


def _milliseconds(match: re.Match[str]) -> int:
    hour, minute, second, milli = (int(group or 0) for group in match.groups())
    if hour > 23 or minute > 59 or second > 59:
        raise Unfit("expected a time of the day")
    return ((hour * 60 + minute) * 60 + second) * 1000 + milli


def days(year: int, month: int, day: int, *, julian: bool) -> int:
    """Days since 1970-01-01 of a date in the Gregorian or the Julian calendar; year 0 is the one before year 1.

    Raises:
        Unfit: there is no such day.
    """
    leap = year % 4 == 0 and (julian or year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or not 1 <= day <= _LENGTHS[month - 1] + (month == 2 and leap):
        raise Unfit("there is no such day")
    shifted = year - (month <= 2)  # years begin in March: the leap day comes last
    in_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    start = 365 * shifted + shifted // 4 + in_year
    return start - 719_470 if julian else start - shifted // 100 + shifted // 400 - 719_468


# How the JSON of each scalar type is read: a function from a JSON value to what `pa.array` takes, which raises Unfit.
SCALARS: dict[str, Convert] = {
    "BOOLEAN": _boolean,
    "INTEGER": _integer(INT32),
    "BIGINT": whole,
    "DOUBLE": _double,
    "STRING": text,
    "BYTES": _bytes,
    "DATE": date,
    "TIME": time,
    "TIMESTAMP": timestamp,
}
