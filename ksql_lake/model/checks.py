"""The checks that a feed declares under `checks`: their kinds, their settings, and what is wrong with them."""

from __future__ import annotations

import datetime as dt
import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

LEVELS = ("warn", "fail", "quarantine")
BOUND = "a number, or a time such as 2025-01-15T00:00:00Z"
Bound: TypeAlias = int | float | str


@dataclass(frozen=True)
class Form:
    """What belongs to one check: its keys, of which it needs one of each group; `rows`: it judges row by row."""

    says: str
    keys: tuple[str, ...]
    needs: tuple[tuple[str, ...], ...]
    rows: bool


FORMS: dict[str, Form] = {
    "not_null": Form("no value is missing", ("column",), (("column",),), True),
    "unique": Form("no value, or combination of values, comes twice in a run", ("column", "columns"),
                   (("column", "columns"),), False),
    "range": Form("values lie between min and max, both included", ("column", "min", "max"),
                  (("column",), ("min", "max")), True),
    "accepted_values": Form("values are in a list", ("column", "values"), (("column",), ("values",)), True),
    "regex": Form("a pattern (RE2) is found in the text", ("column", "pattern"), (("column",), ("pattern",)), True),
    "row_count": Form("rows of the run against the median of the same weekday; at least half of it where no share is "
                      "given", ("min_share", "max_share"), (), False),
    "freshness": Form("the newest row is at most this many hours old; for a table by a column", ("hours", "column"),
                      (("hours",),), False),
}


@dataclass(frozen=True)
class Check:
    """One check of a feed; only the settings of its kind are set."""

    check: str
    level: str = "warn"
    columns: tuple[str, ...] = ()
    min: Bound | None = None
    max: Bound | None = None
    values: tuple[Bound, ...] = ()
    pattern: str = ""
    min_share: float = 0.5
    max_share: float = math.inf
    hours: float = 0.0

    @property
    def label(self) -> str:
        """Its name in results and reasons: `range AMOUNT`."""
        return " ".join([self.check, ", ".join(self.columns)]).strip()

    @property
    def by_row(self) -> bool:
        """Whether it checks single rows, so that bad ones can be quarantined."""
        return FORMS[self.check].rows


@dataclass(frozen=True)
class Result:
    """What one check found in one run: `failed` of `rows` rows, or 1 where it does not count rows; a line for people.

    `message` never holds a value of a row.
    """

    check: str
    column: str
    level: str
    failed: int
    rows: int
    message: str

    def __str__(self) -> str:
        return f"{f'{self.check} {self.column}'.strip()}: {self.message}"


def parse(raw: Sequence[Mapping[str, Any]]) -> tuple[Check, ...]:
    """The checks of a feed file in which `problems` found nothing."""
    found = []
    for one in raw:
        settings = {key: value for key, value in one.items() if key not in ("column", "columns", "values")}
        columns = one.get("columns", [one["column"]] if "column" in one else [])
        if "max_share" in one:
            settings.setdefault("min_share", 0.0)
        found.append(Check(columns=tuple(columns), values=tuple(one.get("values", ())), **settings))
    return tuple(found)


def problems(raw: object, kind: str, *, patterns: bool = True) -> list[tuple[str, str]]:
    """(place such as `checks[1].level`, what is wrong there), all of them.

    Args:
        kind: "stream" or "table".
        patterns: compile each pattern, for which Arrow is loaded.
    """
    if not isinstance(raw, list):
        return [("checks", f'"checks" is {_shown(raw)}; expected a list of checks')]
    found = []
    for number, one in enumerate(raw):
        place = f"checks[{number}]"
        if not isinstance(one, dict):
            found.append((place, f"{place} is {_shown(one)}; expected an object such as "
                                 '{"check": "not_null", "column": "user_id"}'))
            continue
        for key, problem in _problems(one, kind, patterns):
            found.append((f"{place}.{key}" if key else place, f"{place}: {problem}"))
    return found


def _problems(one: Mapping[str, Any], kind: str, patterns: bool) -> list[tuple[str, str]]:
    name = one.get("check")
    if not isinstance(name, str) or name not in FORMS:
        what = f'"check" is {_shown(name)}' if "check" in one else 'key "check" is missing'
        return [("check" if "check" in one else "", f"{what}{_one_of(FORMS, name)}")]
    form = FORMS[name]
    found = [(key, problem) for key, value in one.items() if (problem := _problem(name, key, value, patterns))]
    for group in form.needs:
        if not any(key in one for key in group):
            found.append(("", f"{name} needs {' or '.join(_quoted(group))}"))
    if "column" in one and "columns" in one and not found:
        found.append(("columns", '"column" and "columns" are given; keep one of them'))
    return found or _together(name, one, kind)


def _together(name: str, one: Mapping[str, Any], kind: str) -> list[tuple[str, str]]:
    """What is wrong with the combination of keys."""
    if one.get("level") == "quarantine" and not FORMS[name].rows:
        able = " or ".join(known for known, form in FORMS.items() if form.rows)
        found = f'"level" is "quarantine", but {name} does not check single rows'
        return [("level", f'{found}; "quarantine" works with {able}')]
    for low, high in (("min", "max"), ("min_share", "max_share")):
        if low in one and high in one:
            least, most = one[low], one[high]
            if isinstance(least, str) != isinstance(most, str):
                return [(high, f'"{low}" and "{high}" have different types; write both as numbers or both as text')]
            if _order(least) > _order(most):
                return [(high, f'"{high}" is {_shown(most)}, less than "{low}", which is {_shown(least)}')]
    if name == "freshness" and kind == "table" and "column" not in one:
        return [("", 'freshness of a table needs "column": a TIMESTAMP, or a BIGINT of epoch milliseconds')]
    if name == "freshness" and kind == "stream" and "column" in one:
        return [("column", 'freshness of a stream uses ROWTIME; remove "column"')]
    return []


def _problem(name: str, key: str, value: object, patterns: bool) -> str | None:
    """What is wrong with one key of a check."""
    known = ("check", "level", *FORMS[name].keys)
    if key not in known:
        return f'unknown key "{key}" of {name}{_one_of(known, key)}'
    if key == "level":
        return None if value in LEVELS else f'"level" is {_shown(value)}{_one_of(LEVELS, value)}'
    if key == "check":
        return None
    valid, words = VALUES[key]
    if not valid(value):
        return f'"{key}" is {_shown(value)}; expected {words}'
    if key == "pattern" and patterns and (reason := pattern_problem(str(value))):
        return f'"pattern" is {_shown(value)}, which is not a valid RE2 pattern: {reason}'
    return None


def pattern_problem(pattern: str) -> str | None:
    """RE2's complaint about a pattern, or None."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        return str(error).removeprefix("Invalid regular expression: ").splitlines()[0]
    return None


def moment(text: str) -> dt.datetime:
    """An ISO 8601 time, in UTC when it names no zone.

    Raises:
        ValueError: it is not such a time.
    """
    found = dt.datetime.fromisoformat(text)
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_bound(value: object) -> bool:
    return _is_number(value) or (isinstance(value, str) and _order(value)[0] < 3)


def _order(value: Bound) -> tuple[int, Any]:
    """A sort key for two bounds of the same type; 3 is not a bound."""
    if not isinstance(value, str):
        return 0, value
    for rank, read in enumerate((_finite, moment, dt.time.fromisoformat)):
        try:
            return rank, read(value)
        except (ValueError, InvalidOperation):
            continue
    return 3, value


def _finite(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(text)
    return number


def _is_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)


def _is_values(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(
        isinstance(item, str | bool) or _is_number(item) for item in value
    )


VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "column": (lambda value: isinstance(value, str) and bool(value), "the name of a column"),
    "columns": (_is_names, "a list of column names"),
    "min": (_is_bound, BOUND),
    "max": (_is_bound, BOUND),
    "values": (_is_values, "a list of values"),
    "pattern": (lambda value: isinstance(value, str) and bool(value), "a pattern"),
    "min_share": (lambda value: _is_number(value) and value >= 0, "a share such as 0.5"),
    "max_share": (lambda value: _is_number(value) and value >= 0, "a share such as 2.0"),
    "hours": (lambda value: _is_number(value) and value > 0, "a number of hours, more than 0"),
}


def _one_of(known: Sequence[str] | Mapping[str, Any], given: object) -> str:
    """The end of a sentence: the one word that was meant, or all there are."""
    close = difflib.get_close_matches(given, list(known), 1) if isinstance(given, str) else []
    return f': did you mean "{close[0]}"?' if close else f"; expected {', '.join(known)}"


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `checks`, from the same tables that `problems` checks by."""
    text, number = {"type": "string", "minLength": 1}, {"type": "number", "minimum": 0}
    bound = {"type": ["number", "string"], "description": BOUND}
    values: dict[str, Any] = {
        "column": text, "columns": {"type": "array", "items": text, "minItems": 1}, "min": bound, "max": bound,
        "values": {"type": "array", "items": {"type": ["string", "number", "boolean"]}, "minItems": 1},
        "pattern": text, "min_share": number, "max_share": number, "hours": {"type": "number", "exclusiveMinimum": 0},
    }
    variants = []
    for name, form in FORMS.items():
        levels = [level for level in LEVELS if form.rows or level != "quarantine"]
        variant: dict[str, Any] = {
            "description": form.says, "type": "object", "required": ["check"], "additionalProperties": False,
            "properties": {
                "check": {"const": name}, "level": {"enum": levels, "default": "warn"},
                **{key: values[key] for key in form.keys},
            },
        }
        groups = [{"anyOf": [{"required": [key]} for key in group]} for group in form.needs]
        variants.append({**variant, **({"allOf": groups} if groups else {})})
    return {"type": "array", "items": {"oneOf": variants}}
