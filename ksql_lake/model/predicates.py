"""Which columns and rows of a feed are asked for: names resolved, filters as typed Arrow expressions."""

from __future__ import annotations

import datetime as dt
import difflib
import math
import numbers
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksql_lake.base.errors import ConfigError
from ksql_lake.model.partitions import PARTITION_KEYS

Condition: TypeAlias = tuple[str, str, Any]
Filters: TypeAlias = pc.Expression | Sequence[Condition] | Sequence[Sequence[Condition]]
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}
SECOND = 1_000_000_000  # nanoseconds
WIDE = Context(prec=80)  # digits, more than twice those of a DECIMAL


class Names:
    """The columns of a feed, found by the name on disk or by the source's own, in any case.

    What is spelled exactly wins: `DAY` is the source's column DAY (on disk DAY_), `day` the partition key.
    """

    def __init__(self, feed: str, on_disk: Sequence[str], own: Mapping[str, str]) -> None:
        self.feed = feed
        self.keys = set(PARTITION_KEYS) - set(own.values())
        self._exact = {**own, **{name: name for name in on_disk}}
        self._folded = {name.casefold(): disk for name, disk in own.items()}
        self._folded |= {name.casefold(): name for name in on_disk}

    def resolve(self, name: str) -> str:
        """The name on disk.

        Raises:
            ConfigError: no such column; names the nearest ones.
        """
        found = self._exact.get(name) or self._folded.get(str(name).casefold())
        if found is None:
            near = difflib.get_close_matches(str(name).casefold(), self._folded, 3)
            there = [self._folded[one] for one in near] or sorted(set(self._folded.values()))
            raise ConfigError(f"{self.feed}: no column {name}; {'did you mean' if near else 'there are'} "
                              f"{', '.join(there)}")
        return found


def expression(filters: Filters | None, names: Names, schema: pa.Schema) -> pc.Expression | None:
    """Filters as pandas and pyarrow take them, each value compared as it is, also where its column cannot hold it.

    Args:
        filters: conditions that must all hold, such as [("year", "=", 2025), ("AMOUNT", ">", 10)]; or several
            such lists, of which one must hold; or an Arrow expression, which is taken as it is.

    Raises:
        ConfigError: no such column or operator, or a value that does not fit the column's type.
    """
    if filters is None or isinstance(filters, pc.Expression):
        return filters
    if not filters:
        return None
    several = filters if all(isinstance(one, list) for one in filters) else [filters]
    if not all(several):
        return None  # an empty list holds for every row
    return reduce(operator.or_, [reduce(operator.and_, [_one(c, names, schema) for c in all_of]) for all_of in several])


def _one(condition: Any, names: Names, schema: pa.Schema) -> pc.Expression:
    if not (isinstance(condition, tuple | list) and len(condition) == 3):
        raise ConfigError(f'{names.feed}: {condition!r} is no filter; expected such as ("year", "=", 2025)')
    name, how, value = condition
    if how not in (*COMPARISONS, "in", "not in"):
        raise ConfigError(f"{names.feed}: {how!r} is no comparison; there are {', '.join(COMPARISONS)}, in, not in")
    column = names.resolve(name)
    kind, is_key = schema.field(column).type, column in names.keys
    try:
        if how in COMPARISONS:
            return _compare(pc.field(column), how, _place(value, is_key, kind), kind)
        places = [_place(one, is_key, kind) for one in value]
        chosen = pc.field(column).isin(pa.array([one.floor for one in places if one.exact], kind))
        return chosen if how == "in" else ~chosen & pc.field(column).is_valid()
    except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
        raise ConfigError(f"{names.feed}: {name} {how} {value!r}: does not fit {column}, which is {kind} ({error})"
                          ) from None


@dataclass(frozen=True)
class _Place:
    """Where a value is among those a column can hold: half a millisecond is between two of a TIMESTAMP's."""

    floor: Any  # the nearest that is not above it
    exact: bool = True
    beyond: int = 0  # 1: it is above all of them, -1: below


def _compare(field: pc.Expression, how: str, place: _Place, kind: pa.DataType) -> pc.Expression:
    """A comparison that cuts nothing off the value: `< 1.5` is `<= 1` for whole numbers."""
    if place.exact:
        return COMPARISONS[how](field, pa.scalar(place.floor, kind))
    if how == "!=" or (place.beyond and how[0] == "><"[place.beyond > 0]):
        return field.is_valid()
    if how in ("=", "==") or place.beyond:
        return pc.scalar(False)
    floor = pa.scalar(place.floor, kind)
    return field <= floor if how[0] == "<" else field > floor


def _place(value: Any, is_key: bool, kind: pa.DataType) -> _Place:
    """A value as a person writes it (text, naive times, v3), as the column's type has it."""
    if value is None:
        raise ValueError("a comparison with null holds for no row; use an Arrow expression with is_null()")
    if isinstance(value, np.number):
        value = value.item()  # in NumPy's types Python's functions round
    if is_key:
        value = int(str(value).removeprefix("v"))
    if pa.types.is_integer(kind):
        if not isinstance(value, numbers.Number):
            raise TypeError("expected a number")
        return _number(value, 2 ** (kind.bit_width - 1) - 1, -(2 ** (kind.bit_width - 1)), 0)
    if pa.types.is_decimal(kind):
        most = Decimal(10**kind.precision - 1).scaleb(-kind.scale, WIDE)
        return _number(value if isinstance(value, Decimal) else Decimal(str(value)), most, -most, kind.scale)
    if pa.types.is_temporal(kind) and not isinstance(value, int):
        unit = 86_400 * SECOND if pa.types.is_date(kind) else SECOND // 1000
        floor, rest = divmod(_of_day(value) if pa.types.is_time(kind) else _of_epoch(value), unit)
        return _Place(floor, not rest)
    return _Place(value)


def _number(value: Any, most: Any, least: Any, scale: int) -> _Place:
    if value > most or value < least:
        return _Place(None, False, 1 if value > most else -1)
    if isinstance(most, Decimal):
        floor: Any = value.quantize(Decimal(1).scaleb(-scale), ROUND_FLOOR, WIDE)
    else:
        floor = math.floor(value)
    return _Place(floor, floor == value)


def _of_epoch(value: Any) -> int:
    """Nanoseconds since 1970 of a time, a date, or ISO text; pandas and NumPy count so fine."""
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return int(value.astype("datetime64[ns]").astype(np.int64))
    if not isinstance(value, str | dt.date):
        raise TypeError("expected a time")
    since = utc(_fine(value)) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return int(since // dt.timedelta(microseconds=1)) * 1000 + int(getattr(since, "nanoseconds", 0))


def _of_day(value: Any) -> int:
    """Nanoseconds since midnight."""
    time = dt.time.fromisoformat(_fine(value)) if isinstance(value, str) else value
    if not isinstance(time, dt.time) or time.tzinfo is not None:
        raise TypeError("expected a time of day, without a zone")
    return ((time.hour * 60 + time.minute) * 60 + time.second) * SECOND + time.microsecond * 1000


def _fine(value: Any) -> Any:
    """Text that Python reads whole: it drops digits from the seventh on."""
    if isinstance(value, str) and re.search(r"[.,]\d{6}0*[1-9]", value):
        raise ValueError("finer than a microsecond")
    return value


def utc(value: str | dt.date) -> dt.datetime:
    """A moment from ISO 8601 text, a date (its first instant) or a time; without a zone it is UTC."""
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    elif not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time())
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
