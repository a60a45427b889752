"""Values that a person wrote as values of a column's type: one exact meaning for filters, checks and erasures."""

from __future__ import annotations

import ast
import base64
import binascii
import datetime as dt
import re
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import milliseconds
from ksql_lake.model.recorded import MILLISECONDS
from ksql_lake.model.types import SCALARS, timestamp_type

SECOND = 1_000_000_000  # nanoseconds
MILLISECOND = SECOND // 1000
NANOSECONDS = {"ms": MILLISECOND, "us": 1000}  # in each unit of a timestamp
DAY = 86_400 * SECOND
CYCLE = 146_097  # days of 400 years, after which the calendar repeats
WIDE = Context(prec=80)  # digits, more than twice those of a DECIMAL
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_YEAR = re.compile(r"([+-]?\d{4,9})(-\d\d-\d\d)(.*)", re.ASCII | re.DOTALL)


class Unfit(ValueError):
    """A value is not one of the column's type; the message says what was expected."""


def units(value: Any, kind: pa.DataType) -> Fraction:
    """A value, exactly, in the units that a type counts in: ones, 10**-scale, days, milli- or microseconds.

    Args:
        value: a number, for INTEGER, BIGINT and DECIMAL also as text; for the others a time or a date, or ISO 8601
            text (UTC where it names no zone; years beyond 1 to 9999 as +12345-01-31).

    Raises:
        Unfit: it is not a value of such a type, or not a finite number.
    """
    if pa.types.is_integer(kind):
        return Fraction(value) if isinstance(value, float) and np.isfinite(value) else _finite(value)
    if pa.types.is_decimal(kind):
        return _finite(value) * Fraction(10**kind.scale)
    if pa.types.is_time(kind):
        return Fraction(_of_day(value), MILLISECOND)
    if pa.types.is_date(kind):
        return Fraction(_of_epoch(value), DAY)
    if pa.types.is_timestamp(kind):
        return Fraction(_of_epoch(value), NANOSECONDS[kind.unit])
    raise Unfit("a number, or a date or time")


def limits(kind: pa.DataType) -> tuple[int, int]:
    """The least and the greatest value of a type, in its own units.

    Raises:
        Unfit: it does not count in units.
    """
    if pa.types.is_decimal(kind):
        most = 10**kind.precision - 1
        return -most, most
    if not (pa.types.is_integer(kind) or pa.types.is_temporal(kind)):
        raise Unfit("a number, or a date or time")
    return -(1 << (kind.bit_width - 1)), (1 << (kind.bit_width - 1)) - 1


def scalar(count: int, kind: pa.DataType) -> pa.Scalar:
    """So many units, as Arrow has them."""
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(count).scaleb(-kind.scale, WIDE), kind)
    return pa.scalar(count, pa.int64() if kind.bit_width == 64 else pa.int32()).cast(kind)


def number(value: Any) -> Decimal:
    """A number as it was written: 0.1 is a tenth.

    Raises:
        Unfit: it is not a number.
    """
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise Unfit(f"a number, found {value!r}") from None
    if found.is_snan():  # no float either
        raise Unfit(f"a number, found {value!r}")
    return found


def meanings(text: str, kind: pa.DataType) -> list[pa.Scalar]:
    """The values of a type that a text stands for: 12345 is 12345.00; of BYTES its text or what it is in Base64.

    Raises:
        Unfit: none, so no column of the type can hold it.
    """
    if pa.types.is_string(kind):
        return [pa.scalar(text, kind)]
    text = text.strip()
    if pa.types.is_boolean(kind):
        if text.lower() not in ("true", "false"):
            raise Unfit("true or false")
        return [pa.scalar(text.lower() == "true")]
    if pa.types.is_binary(kind):
        return [pa.scalar(one, kind) for one in sorted(_bytes(text))]
    if pa.types.is_floating(kind):
        return [pa.scalar(_double(text), kind)]
    if not pa.types.is_temporal(kind) and not _NUMBER.fullmatch(text):
        raise Unfit("a number")
    exact = units(text, kind)
    least, most = limits(kind)
    if exact.denominator != 1 or not least <= exact <= most:
        raise Unfit(f"a value that {kind} can hold")
    return [scalar(int(exact), kind)]


def canonical(array: pa.Array) -> list[tuple[Any, str]]:
    """Each different value of a column with the one text that all its equals share, whatever type they have.

    A number has the same text as INTEGER, BIGINT and DECIMAL; the kind of value comes first: `number:12345`.
    """
    distinct = array.drop_null().unique()
    kind = distinct.type
    if pa.types.is_temporal(kind):  # by its units: a year may be one that Python does not have
        name = "time" if pa.types.is_time(kind) else "date" if pa.types.is_date(kind) else "timestamp"
        whole = milliseconds(distinct) if pa.types.is_timestamp(kind) else distinct.view(pa.int32())
        return [(distinct[i], f"{name}:{count}") for i, count in enumerate(whole.to_pylist())]
    tell = _teller(kind)
    return [(distinct[i], tell(value)) for i, value in enumerate(distinct.to_pylist())]


def spellings(text: str) -> list[str]:
    """The canonical texts, but for STRING, of all that a text may mean in a column of one type or another."""
    found = set()
    for kind in (pa.bool_(), pa.binary(), pa.float64(), pa.date32(), pa.time32("ms"), timestamp_type(MILLISECONDS)):
        try:
            for value in meanings(text, kind):
                found.add(canonical(pa.array([value], kind))[0][1])
        except (Unfit, pa.ArrowException):
            continue
    if _NUMBER.fullmatch(text.strip()):
        found.add(f"number:{_plain(Decimal(text.strip()))}")
    return sorted(found)


def type_name(kind: pa.DataType) -> str:
    """What ksqlDB calls the type of a column."""
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP"
    return next((name for name, arrow in SCALARS.items() if arrow == kind), str(kind))


def _teller(kind: pa.DataType) -> Callable[[Any], str]:
    if pa.types.is_string(kind):
        return lambda value: f"text:{value}"
    if pa.types.is_boolean(kind):
        return lambda value: f"boolean:{str(value).lower()}"
    if pa.types.is_binary(kind):
        return lambda value: f"bytes:{value.hex()}"
    if pa.types.is_floating(kind):
        return lambda value: f"double:{value + 0.0!r}"  # without the sign of a zero
    return lambda value: f"number:{_plain(Decimal(value))}"


def _plain(value: Decimal) -> str:
    """12345.00, 12345 and 1.2345E+4 in one spelling; as long as its digits, whatever the exponent."""
    return str(value.normalize(Context(prec=max(len(value.as_tuple().digits), 1)))) if value else "0"


def _finite(value: Any) -> Fraction:
    """For types that have neither NaN nor infinity."""
    found = number(value)
    if not found.is_finite() or abs(found.adjusted()) > 9999:
        raise Unfit(f"a number, found {value!r}")
    return Fraction(found)


def _double(text: str) -> float:
    try:
        return float(text.replace("_", "?")) + 0.0
    except ValueError:
        raise Unfit("a number") from None


def _bytes(text: str) -> set[bytes]:
    """Text as it is, `0x...` and Python's `b'...'` as what they say, and Base64, which ksqlDB shows."""
    found = {text.encode("utf-8", "surrogateescape")}
    try:
        found.add(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        pass
    try:
        if text.lower().startswith("0x"):
            found.add(bytes.fromhex(text[2:]))
        elif text[:2] in ("b'", 'b"'):
            found.add(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        pass
    return {one for one in found if isinstance(one, bytes)}


def _of_epoch(value: Any) -> int:
    """Nanoseconds since 1970 of a time, a date, or ISO text; pandas and NumPy count so fine."""
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return int(value.astype("datetime64[ns]").astype(np.int64))
    if not isinstance(value, str | dt.date):
        raise Unfit("a time as ISO 8601 text, such as 2025-01-31T08:30:00Z")
    cycles = 0
    if isinstance(value, str):
        value, cycles = _near(_fine(value.strip()))
    try:
        since = utc(value) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        raise Unfit("a time as ISO 8601 text, such as 2025-01-31T08:30:00Z") from None
    fine = int(getattr(since, "nanoseconds", 0))
    return int(since // dt.timedelta(microseconds=1)) * 1000 + fine + cycles * CYCLE * DAY


def _near(text: str) -> tuple[str, int]:
    """The same day of the calendar in the years 2000 to 2399, and how many times 400 years it was moved."""
    match = _YEAR.fullmatch(text)
    if not match:
        return text, 0
    cycles, year = divmod(int(match[1]) - 2000, 400)
    return f"{2000 + year}{match[2]}{match[3]}", cycles


def _of_day(value: Any) -> int:
    """Nanoseconds since midnight."""
    try:
        time = dt.time.fromisoformat(_fine(value.strip())) if isinstance(value, str) else value
    except ValueError:
        time = None
    if not isinstance(time, dt.time) or time.tzinfo is not None:
        raise Unfit("a time of day without a zone, such as 08:30:00")
    return ((time.hour * 60 + time.minute) * 60 + time.second) * SECOND + time.microsecond * 1000


def _fine(text: str) -> str:
    """Text that Python reads whole: it drops digits from the seventh on."""
    if re.search(r"[.,]\d{6}0*[1-9]", text):
        raise Unfit("a time no finer than a microsecond")
    return text


def utc(value: str | dt.date) -> dt.datetime:
    """A moment from ISO 8601 text, a date (its first instant) or a time; without a zone it is UTC."""
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    elif not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time())
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
