"""A check bound to the columns of a schema: which columns it checks, and which values fail, exactly for their type."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksql_lake.base.errors import SchemaError
from ksql_lake.model.checks import Bound, Check
from ksql_lake.model.values import Unfit, limits, number, scalar, units

Test = Callable[[pa.Array], pa.BooleanArray]


@dataclass(frozen=True)
class Rule:
    """A check bound to the columns of a schema; `test` marks the rows that fail, if the check works row by row."""

    check: Check
    paths: tuple[tuple[int, ...], ...]
    test: Test | None
    expected: str

    def columns(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """The columns it looks at, fields of a STRUCT included."""
        found = []
        for top, *inner in self.paths:
            column = batch.column(top)
            found.append(pc.struct_field(column, inner) if inner else column)
        return found


def bind(feed: str, check: Check, schema: pa.Schema, names: Mapping[str, str]) -> Rule:
    """Find the columns of a check, and the test that fits their type.

    Args:
        feed: for messages.
        names: the source's name of each column -> its name on disk.

    Raises:
        SchemaError: a column is not there, or of a type the check cannot judge.
    """
    if check.check == "row_count":
        return Rule(check, (), None, "")
    if check.check == "freshness" and not check.columns:
        return Rule(check, ((schema.get_field_index("ROWTIME"),),), None, "")
    found = [_resolve(feed, check, name, schema, names) for name in check.columns]
    check = replace(check, columns=tuple(shown for shown, _, _ in found))
    paths = tuple(path for _, path, _ in found)
    kind = found[0][2]
    where = f"{feed}: checks: {check.label}: the column is {kind}"
    if check.check == "unique":
        return Rule(check, paths, None, "")
    if check.check == "freshness":
        if not (pa.types.is_timestamp(kind) or pa.types.is_int64(kind)):
            raise SchemaError(f"{where}; expected TIMESTAMP, or BIGINT of epoch milliseconds")
        return Rule(check, paths, None, "")
    try:
        test, expected = _TESTS[check.check](check, kind)
    except Unfit as problem:
        raise SchemaError(f"{where}; expected {problem}") from None
    return Rule(check, paths, test, expected)


def _not_null(check: Check, kind: pa.DataType) -> tuple[Test, str]:
    return lambda column: column.is_null(), ""


def _regex(check: Check, kind: pa.DataType) -> tuple[Test, str]:
    if not pa.types.is_string(kind):
        raise Unfit("STRING")
    return lambda column: pc.fill_null(
        pc.invert(pc.match_substring_regex(column, check.pattern)), False
    ), f"expected {check.pattern}"


def _accepted(check: Check, kind: pa.DataType) -> tuple[Test, str]:
    values = [_value(value, kind) for value in check.values]
    allowed = pa.array([value for value in values if value is not None], kind)
    plain: Callable[[pa.Array], pa.Array] = (
        (lambda column: pc.add(column, 0.0)) if pa.types.is_floating(kind) else (lambda column: column)
    )
    shown = ", ".join(str(value) for value in check.values)
    return lambda column: pc.and_not(column.is_valid(), pc.is_in(plain(column), value_set=allowed)), f"expected {shown}"


def _value(value: Bound, kind: pa.DataType) -> object:
    """A value of the feed file as one of the column's type; None when no value of that type equals it."""
    if pa.types.is_string(kind) or pa.types.is_boolean(kind):
        wanted = str if pa.types.is_string(kind) else bool
        if not isinstance(value, wanted):
            raise Unfit(f"values of its type, found {value!r}")
        return value
    if isinstance(value, bool):
        raise Unfit(f"values of its type, found {value!r}")
    if pa.types.is_floating(kind):
        return float(number(value)) + 0.0
    units = _units(value, kind)
    least, most = limits(kind)
    return scalar(int(units), kind).as_py() if units.denominator == 1 and least <= units <= most else None


def _range(check: Check, kind: pa.DataType) -> tuple[Test, str]:
    bounds = [f"{word} {bound}" for word, bound in (("min", check.min), ("max", check.max)) if bound is not None]
    expected = ", ".join(bounds)
    low: pa.Scalar | None = None
    high: pa.Scalar | None = None
    if pa.types.is_floating(kind):
        low = None if check.min is None else pa.scalar(float(number(check.min)))
        high = None if check.max is None else pa.scalar(float(number(check.max)))
    else:
        least, most = limits(kind)
        first = least if check.min is None else math.ceil(_units(check.min, kind))
        last = most if check.max is None else math.floor(_units(check.max, kind))
        if first > min(last, most) or last < least:
            return lambda column: column.is_valid(), expected  # no value of the type lies between
        low = scalar(first, kind) if first > least else None
        high = scalar(last, kind) if last < most else None
    return lambda column: _outside(column, low, high), expected


def _outside(column: pa.Array, low: pa.Scalar | None, high: pa.Scalar | None) -> pa.BooleanArray:
    """Whether a value is out of range; NaN always is."""
    inside = None if low is None else pc.greater_equal(column, low)
    if high is not None:
        below = pc.less_equal(column, high)
        inside = below if inside is None else pc.and_(inside, below)
    if inside is None:
        return pa.array(np.zeros(len(column), bool))
    return pc.fill_null(pc.invert(inside), False)


def _units(value: Bound, kind: pa.DataType) -> Fraction:
    """A value of the feed file, exactly, in the units that the column's type counts in."""
    if not pa.types.is_temporal(kind):
        return units(number(value) if isinstance(value, float) else value, kind)  # a float as it was written
    if not isinstance(value, str):
        raise Unfit(f"a time as ISO 8601 text, found {value!r}")
    try:
        return units(value, kind)
    except Unfit:
        raise Unfit(f"values of its type, found {value!r}") from None


_TESTS: dict[str, Callable[[Check, pa.DataType], tuple[Test, str]]] = {
    "not_null": _not_null, "regex": _regex, "accepted_values": _accepted, "range": _range,
}


def _resolve(
    feed: str, check: Check, wanted: str, schema: pa.Schema, names: Mapping[str, str]
) -> tuple[str, tuple[int, ...], pa.DataType]:
    """(exact name, position and positions inside, type) of a column or of a field inside a STRUCT."""
    sources = {disk: name for name, disk in names.items()}
    there = list(_paths([(sources.get(field.name, field.name), field.type) for field in schema]))
    there += [(field.name, (i,), field.type) for i, field in enumerate(schema) if field.name in sources]
    exact = {path: found for found in there for name, path, _ in [found] if name == wanted}
    folded = {path: found for found in there for name, path, _ in [found] if name.upper() == wanted.upper()}
    matches = exact or folded
    if len(matches) == 1:
        return next(iter(matches.values()))
    if matches:
        several = ", ".join(name for name, _, _ in matches.values())
        raise SchemaError(
            f"{feed}: checks: {check.check}: column {wanted} could be any of {several}; "
            "write it exactly as the source has it"
        )
    every = list(dict.fromkeys(name for name, _, _ in there))
    close = difflib.get_close_matches(wanted.upper(), [name.upper() for name in every], 3)
    near = [name for upper in close for name in every if name.upper() == upper]
    hint = f"did you mean {' or '.join(near)}?" if near else f"its columns: {', '.join(every)}"
    raise SchemaError(f"{feed}: checks: {check.check}: the source has no column {wanted}; {hint}")


def _paths(
    fields: Sequence[tuple[str, pa.DataType]], above: str = "", at: tuple[int, ...] = ()
) -> Iterator[tuple[str, tuple[int, ...], pa.DataType]]:
    """Every column and every field of a STRUCT, by its dotted name."""
    for i, (name, kind) in enumerate(fields):
        yield f"{above}{name}", (*at, i), kind
        if pa.types.is_struct(kind):
            yield from _paths([(inner.name, inner.type) for inner in kind], f"{above}{name}.", (*at, i))
