"""The columns and rows to read: resolves names, and turns filters into typed Arrow expressions."""

from __future__ import annotations

import difflib
import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksql_lake.base.errors import ConfigError
from ksql_lake.model.partitions import PARTITION_KEYS
from ksql_lake.model.values import MILLISECOND, NANOSECONDS, limits, meanings, scalar, units

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
        raise ConfigError(f'{names.feed}: {condition!r} is not a filter; expected something like ("year", "=", 2025)')
    name, how, value = condition
    if how not in (*COMPARISONS, "in", "not in"):
        raise ConfigError(
            f"{names.feed}: {how!r} is not a comparison; expected one of {', '.join(COMPARISONS)}, in, not in"
        )
    column = names.resolve(name)
    kind, is_key = schema.field(column).type, column in names.keys
    try:
        if how in COMPARISONS:
            return _compare(pc.field(column), how, _place(value, is_key, kind), kind)
        places = [_place(one, is_key, kind) for one in value]
        chosen = pc.field(column).isin(pa.array([_scalar(one.floor, kind) for one in places if one.exact], kind))
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
    """A comparison that does not round the value: `< 1.5` is `<= 1` for whole numbers."""
    if place.exact:
        return COMPARISONS[how](field, _scalar(place.floor, kind))
    if how == "!=" or (place.beyond and how[0] == "><"[place.beyond > 0]):
        return field.is_valid()
    if how in ("=", "==") or place.beyond:
        return pc.scalar(False)
    floor = _scalar(place.floor, kind)
    return field <= floor if how[0] == "<" else field > floor


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    return value if isinstance(value, pa.Scalar) else pa.scalar(value, kind)


def _place(value: Any, is_key: bool, kind: pa.DataType) -> _Place:
    """A value as a person writes it (text, naive times, v3), as the column's type has it."""
    if value is None:
        raise ValueError("a comparison with null holds for no row; use an Arrow expression with is_null()")
    if isinstance(value, np.number):
        value = value.item()  # in NumPy's types Python's functions round
    if is_key:
        value = int(str(value).removeprefix("v"))
    if pa.types.is_boolean(kind) and isinstance(value, str):
        return _Place(meanings(value, kind)[0])
    counted = pa.types.is_integer(kind) or pa.types.is_decimal(kind)
    numbered = pa.types.is_timestamp(kind) and isinstance(value, int)  # epoch milliseconds, whatever the feed counts
    if not counted and not numbered and (not pa.types.is_temporal(kind) or isinstance(value, int)):
        return _Place(value)
    if pa.types.is_integer(kind) and not isinstance(value, numbers.Number):
        raise TypeError("expected a number")
    if counted and isinstance(value, numbers.Number) and abs(value) == math.inf:  # type: ignore[arg-type]
        return _Place(None, False, 1 if value > 0 else -1)  # type: ignore[operator]
    exact = Fraction(value * MILLISECOND, NANOSECONDS[kind.unit]) if numbered else units(value, kind)
    least, most = limits(kind)
    if not least <= exact <= most:
        return _Place(None, False, 1 if exact > most else -1)
    return _Place(scalar(math.floor(exact), kind), exact.denominator == 1)
