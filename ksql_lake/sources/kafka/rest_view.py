"""What becomes of a value on its way through ksqlDB's REST API, so that rows from both sources are equal.

Outside a STRUCT a TIME loses its milliseconds, and a DATE or TIMESTAMP comes as text, which has no form for years
beyond 1 to 9999; inside one a DECIMAL goes through a double. All else arrives as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, TypeAlias

from ksql_lake.base.errors import SchemaError
from ksql_lake.model.types import SqlType
from ksql_lake.sources.kafka.json_values import DAY_MS
from ksql_lake.sources.kafka.verdicts import Unreadable

View: TypeAlias = Callable[[Any], Any]
DATES = range(-719162, 2932897)  # days of the years 1 to 9999
# ksqlDB writes days before 1582-10-15 in the Julian calendar, whose year 1 begins two days earlier.
TIMESTAMPS = range(-719164 * DAY_MS, 2932897 * DAY_MS)
_WIDE = Context(prec=400)


def view(kind: SqlType, *, inside: bool = False) -> View | None:
    """The function from a value (never None) to what REST shows of it; None where that is the same.

    Args:
        inside: whether the value lies in a STRUCT.
    """
    if kind.base == "STRUCT":
        return _fields([view(field, inside=True) for _, field in kind.fields])
    if kind.base in ("ARRAY", "MAP") and kind.element:
        item = view(kind.element, inside=inside)
        return item and (_items(item) if kind.base == "ARRAY" else _entries(item))
    if inside:
        return _through_double(kind.scale) if kind.base == "DECIMAL" else None
    return {"TIME": _seconds, "DATE": _written(DATES), "TIMESTAMP": _written(TIMESTAMPS)}.get(kind.base)


def _fields(views: list[View | None]) -> View | None:
    if not any(views):
        return None
    return lambda value: tuple(
        [field if field is None or look is None else look(field) for look, field in zip(views, value, strict=True)]
    )


def _items(item: View) -> View:
    return lambda value: [None if one is None else item(one) for one in value]


def _entries(item: View) -> View:
    return lambda value: [(key, None if one is None else item(one)) for key, one in value]


def _seconds(milliseconds: int) -> int:
    if milliseconds == DAY_MS:
        raise Unreadable("ksqlDB cannot show the TIME 24:00 and breaks off its answer there")
    return milliseconds // 1000 * 1000


def _written(shown: range) -> View:
    def look(value: int) -> int:
        if value not in shown:
            raise SchemaError("a date outside the years 1 to 9999 cannot be stored")
        return value

    return look


def _through_double(scale: int) -> View:
    step = Decimal(1).scaleb(-scale)

    def look(value: Decimal) -> Decimal:
        if len(value.as_tuple().digits) <= 15:
            return value
        shown = Decimal(repr(float(value)))
        scaled = shown.quantize(step, context=_WIDE)
        if scaled != shown:
            raise SchemaError(f"more than {scale} digits after the point")
        return scaled

    return look
