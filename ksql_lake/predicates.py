"""Which columns and rows of a feed are asked for: names resolved, filters as typed Arrow expressions."""

from __future__ import annotations

import datetime as dt
import difflib
import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ksql_lake.errors import ConfigError
from ksql_lake.partitions import PARTITION_KEYS

Condition: TypeAlias = tuple[str, str, Any]
Filters: TypeAlias = pc.Expression | Sequence[Condition] | Sequence[Sequence[Condition]]
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}


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
    """Filters as pandas and pyarrow take them, each value in the type of its column.

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
    return reduce(operator.or_, [reduce(operator.and_, [_one(c, names, schema) for c in all_of]) for all_of in several])


def _one(condition: Any, names: Names, schema: pa.Schema) -> pc.Expression:
    if not (isinstance(condition, tuple | list) and len(condition) == 3):
        raise ConfigError(f'{names.feed}: {condition!r} is no filter; expected such as ("year", "=", 2025)')
    name, how, value = condition
    column = names.resolve(name)
    kind = schema.field(column).type
    field = pc.field(column)
    try:
        if how in ("in", "not in"):
            chosen = field.isin(pa.array([_value(one, column in names.keys, kind) for one in value], kind))
            return chosen if how == "in" else ~chosen
        if how in COMPARISONS:
            return COMPARISONS[how](field, _scalar(_value(value, column in names.keys, kind), kind))
    except (ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
        raise ConfigError(f"{names.feed}: {name} {how} {value!r}: does not fit {column}, which is {kind} ({error})"
                          ) from None
    raise ConfigError(f"{names.feed}: {how!r} is no comparison; there are {', '.join(COMPARISONS)}, in, not in")


def _value(value: Any, is_key: bool, kind: pa.DataType) -> Any:
    """A value as a person writes it, in the Python type that stands for the column's: text, naive times, v3."""
    if value is None:
        raise ValueError("a comparison with null holds for no row; use an Arrow expression with is_null()")
    if is_key:
        return int(str(value).removeprefix("v"))
    if pa.types.is_timestamp(kind):
        return utc(value) if isinstance(value, str | dt.date) else value
    if pa.types.is_date(kind) and isinstance(value, str):
        return dt.date.fromisoformat(value)
    if pa.types.is_time(kind) and isinstance(value, str):
        return dt.time.fromisoformat(value)
    if pa.types.is_decimal(kind) and isinstance(value, int | float | str):
        return Decimal(str(value))
    return value


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    """In the column's type; a number that has no place there (1.5 for an integer) is compared in its own."""
    try:
        return pa.scalar(value, kind)
    except (pa.ArrowException, OverflowError):
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
            return pa.scalar(value)
        raise


def utc(value: str | dt.date) -> dt.datetime:
    """A moment from ISO 8601 text, a date (its first instant) or a time; without a zone it is UTC."""
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    elif not isinstance(value, dt.datetime):
        value = dt.datetime.combine(value, dt.time())
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
