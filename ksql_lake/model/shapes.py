"""Checks that values read from JSON have their declared types: anybody may have written the file."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints


def problem(value: Any, kind: Any, where: str = "") -> str | None:
    """What is wrong with a value, such as "files.rows: expected int, found str"; None when it is of its type.

    Args:
        kind: a type, a dataclass (whose fields are checked), or tuple, Mapping, dict and unions of these.
        where: what the value is called.
    """
    if kind is Any:
        return None
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if any(problem(value, one) is None for one in args) else _wrong(value, kind, where)
    if not isinstance(value, origin or kind) or (isinstance(value, bool) and kind is not bool):
        return _wrong(value, kind, where)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return f"{where}: a number of {value.bit_length()} bits"
    if origin is tuple:
        kinds = args[:1] * len(value) if args[1:] == (Ellipsis,) else args
        if len(kinds) != len(value):
            return f"{where}: expected {len(kinds)} values, found {len(value)}"
        return _first(problem(one, of, where) for one, of in zip(value, kinds, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return _first(problem(key, args[0], where) or problem(item, args[1], where) for key, item in value.items())
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _fields_problem(value, kind, where)
    return None


def _fields_problem(value: Any, kind: type, where: str) -> str | None:
    for name, of, plain in _fields(kind):
        item = getattr(value, name)
        if type(item) in plain and (type(item) is not int or -(1 << 63) <= item < 1 << 63):
            continue  # most are: a large lake has thousands of entries
        wrong = problem(item, of, f"{where}.{name}".lstrip("."))
        if wrong:
            return wrong
    return None


def _first(problems: Any) -> str | None:
    return next((one for one in problems if one), None)


def _wrong(value: Any, kind: Any, where: str) -> str:
    return f"{where}: expected {getattr(kind, '__name__', kind)}, found {type(value).__name__}"


@cache
def _fields(kind: Any) -> list[tuple[str, Any, frozenset[type]]]:
    """Of each field of a dataclass its name, its type, and the types of its values that need no closer look."""
    hints = get_type_hints(kind)
    return [(field.name, hints[field.name], _plain(hints[field.name])) for field in dataclasses.fields(kind)]


def _plain(kind: Any) -> frozenset[type]:
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return frozenset(one for one in kinds if one in (str, int, bool, float, type(None)))
