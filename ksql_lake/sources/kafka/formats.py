"""Turns what DESCRIBE ... EXTENDED says about a stream into a plan for decoding its topic, or a reason why not.

DESCRIBE does not show everything (an inherited delimiter, server defaults): a plan is compared with real rows of the
REST API before it is used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import ucd_3_2_0

from ksql_lake.model.types import Column, SqlType
from ksql_lake.sources.kafka import delimited, json_values, rowtime

VALUE_FORMATS = ("JSON", "DELIMITED", "KAFKA")
KEY_FORMATS = ("KAFKA", "JSON", "DELIMITED", "NONE")
KAFKA_TYPES = ("INTEGER", "BIGINT", "DOUBLE", "STRING", "BYTES")
NESTED = ("ARRAY", "MAP", "STRUCT")
_SCALARS = {
    "JSON": (*json_values.SCALARS, "DECIMAL"), "DELIMITED": (*delimited.SCALARS, "DECIMAL"), "KAFKA": KAFKA_TYPES,
}
DELIMITERS = {"SPACE": " ", "TAB": "\t"}
UNITS_MS = {"MILLISECOND": 1, "SECOND": 1000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}
DEFAULTS = {  # server settings that change what a record means, and the only value that is proven
    "ksql.timestamp.throw.on.invalid": ("false",),
    "ksql.persistence.wrap.single.values": ("true",),
    "ksql.streams.default.deserialization.exception.handler": ("LogMetricAndContinueExceptionHandler",),
    "ksql.streams.default.timestamp.extractor": ("FailOnInvalidTimestamp", "UsePreviousTimeOnInvalidTimestamp"),
}
_TOKEN = re.compile(r"\s+|--[^\n]*|'(?:[^']|'')*'|`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"|\w+|.", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """The key or the value of a record: its format and its columns.

    `wrapped` says for JSON whether the columns are fields of an object; one column may also be the whole text.
    """

    format: str
    columns: tuple[Column, ...]
    delimiter: str = ","
    wrapped: bool = True


@dataclass(frozen=True)
class Header:
    """A column of record headers; `key` is None for the list of all of them."""

    column: Column
    key: str | None


@dataclass(frozen=True)
class Plan:
    """How the records of a topic become rows of a stream.

    Attributes:
        columns: as `SELECT *` shows them: keys, the window's bounds, values, headers.
        window: TUMBLING, HOPPING, SESSION or None.
        window_ms: the length of a TUMBLING or HOPPING window.
        timestamp: the column that ROWTIME is taken from; None for Kafka's timestamp.
        timestamp_format: of a STRING column.
    """

    source: str
    topic: str
    key: Part
    value: Part
    headers: tuple[Header, ...] = ()
    window: str | None = None
    window_ms: int = 0
    timestamp: str | None = None
    timestamp_format: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        bounds = ("WINDOWSTART", "WINDOWEND") if self.window else ()
        return (
            *self.key.columns,
            *(Column(name, SqlType("BIGINT")) for name in bounds),
            *self.value.columns,
            *(header.column for header in self.headers),
        )

    @property
    def fingerprint(self) -> str:
        """A hash over everything that decides how a record is read."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Refusal:
    """Why a stream cannot be read from its topic, in one line."""

    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}; it is read through ksqlDB's REST API"


class _Refused(Exception):
    pass


def plan_of(description: Mapping[str, Any], settings: Mapping[str, str] | None = None) -> Plan | Refusal:
    """The plan for a stream.

    Args:
        description: `sourceDescription` of DESCRIBE name EXTENDED.
        settings: what LIST PROPERTIES says, name to value; those not in it count as their defaults.
    """
    name = str(description.get("name", "?"))
    try:
        return _plan(description, settings or {})
    except _Refused as refused:
        return Refusal(name, str(refused))
    except (KeyError, TypeError, ValueError, AttributeError):
        return Refusal(name, "DESCRIBE EXTENDED does not describe it as ksqlDB does")


def _plan(description: Mapping[str, Any], settings: Mapping[str, str]) -> Plan:
    if str(description.get("type", "")).upper() != "STREAM":
        raise _Refused("only streams are read from their topic")
    options, derived = options_of(str(description.get("statement") or ""))
    for setting, proven in DEFAULTS.items():
        found = str(settings.get(setting) or proven[0])
        if setting != "ksql.persistence.wrap.single.values" and not found.endswith(proven):
            raise _Refused(f"the server's setting {setting} is {found}, with which decoding is not proven")
    keys, values, headers = _columns(description["fields"])
    key = _key(str(description.get("keyFormat") or "NONE").upper(), keys, options, derived)
    value = _value(str(description.get("valueFormat") or "").upper(), values, options, derived, settings)
    window, window_ms = _window(description.get("windowType"), options)
    timestamp, pattern = _timestamp(str(description.get("timestamp") or ""), (*keys, *values), options)
    return Plan(
        str(description["name"]), str(description["topic"]), key, value, headers, window, window_ms, timestamp, pattern
    )


def options_of(statement: str) -> tuple[dict[str, str], bool]:
    """The options of a statement's WITH clause, and whether it is a CREATE ... AS SELECT."""
    tokens = [token for token in _TOKEN.findall(statement) if not token.isspace() and not token.startswith("--")]
    words = [token.upper() for token in tokens]
    depth = 0
    for at, word in enumerate(words):
        depth += (word in "(<") - (word in ")>") if len(word) == 1 else 0
        if word == "WITH" and depth == 0 and words[at + 1 : at + 2] == ["("]:
            return _options(tokens[at + 2 :]), _is_derived(words)
    return {}, _is_derived(words)


def _is_derived(words: Sequence[str]) -> bool:
    return any(pair == ("AS", "SELECT") for pair in zip(words, words[1:], strict=False))


def _options(tokens: Sequence[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    while len(tokens) >= 3 and tokens[0] != ")":
        end = next((at for at, token in enumerate(tokens) if token in (",", ")")), len(tokens))
        name, raw = tokens[0].upper(), "".join(tokens[2:end])
        options[name] = raw[1:-1].replace("''", "'") if raw[:1] == "'" else raw
        tokens = tokens[end + (tokens[end : end + 1] == [","]) :]
    return options


def sql_type(schema: Mapping[str, Any]) -> SqlType:
    """A type as DESCRIBE shows it."""
    base = str(schema["type"]).upper()
    base = {"INT": "INTEGER", "VARCHAR": "STRING"}.get(base, base)
    if base == "DECIMAL":
        parameters = schema.get("parameters") or {}
        return SqlType(base, int(parameters["precision"]), int(parameters["scale"]))
    if base in ("ARRAY", "MAP"):
        key = SqlType("STRING") if base == "MAP" else None
        return SqlType(base, element=sql_type(schema["memberSchema"]), key=key)
    if base == "STRUCT":
        return SqlType(base, fields=tuple((str(f["name"]), sql_type(f["schema"])) for f in schema["fields"] or ()))
    return SqlType(base)


def _columns(
    fields: Sequence[Mapping[str, Any]],
) -> tuple[tuple[Column, ...], tuple[Column, ...], tuple[Header, ...]]:
    keys, values, headers = [], [], []
    for described in fields:
        column = Column(str(described["name"]), sql_type(described["schema"]))
        if described.get("type") == "KEY":
            keys.append(column)
        elif described.get("type") == "HEADER":
            headers.append(Header(column, described.get("headerKey")))
        else:
            values.append(column)
    return tuple(keys), tuple(values), tuple(headers)


def _key(kind: str, columns: tuple[Column, ...], options: Mapping[str, str], derived: bool) -> Part:
    if not columns:
        return Part("NONE", ())
    if kind not in KEY_FORMATS or kind == "NONE":
        raise _Refused(f"KEY_FORMAT {kind} is not read from a topic yet")
    _check_types(f"KEY_FORMAT {kind}", kind, columns)
    if kind == "DELIMITED":
        return Part(kind, columns, _delimiter("KEY_DELIMITER", options, derived))
    return Part(kind, columns, wrapped=len(columns) > 1)


def _value(
    kind: str, columns: tuple[Column, ...], options: Mapping[str, str], derived: bool, settings: Mapping[str, str]
) -> Part:
    if kind == "NONE":
        raise _Refused("VALUE_FORMAT NONE never has a row")
    if kind not in VALUE_FORMATS:
        raise _Refused(f"VALUE_FORMAT {kind} is not read from a topic yet")
    _check_types(f"VALUE_FORMAT {kind}", kind, columns)
    if kind == "DELIMITED":
        return Part(kind, columns, _delimiter("VALUE_DELIMITER", options, derived))
    if kind == "KAFKA":
        return Part(kind, columns, wrapped=False)
    return Part(kind, columns, wrapped=_wrapped(columns, options, settings))


def _wrapped(columns: tuple[Column, ...], options: Mapping[str, str], settings: Mapping[str, str]) -> bool:
    if len(columns) != 1:
        return True
    if "WRAP_SINGLE_VALUE" in options:
        return options["WRAP_SINGLE_VALUE"].lower() == "true"
    if str(settings.get("ksql.persistence.wrap.single.values") or "true").lower() != "true":
        raise _Refused(
            "it has one value column without WRAP_SINGLE_VALUE, while the server's setting "
            "ksql.persistence.wrap.single.values is not true"
        )
    return True


def _check_types(what: str, kind: str, columns: Sequence[Column]) -> None:
    if kind == "KAFKA" and len(columns) != 1:
        raise _Refused(f"{what} with {len(columns)} columns")
    for column in columns:
        if not _is_read(kind, column.type):
            raise _Refused(f"{what} with column {column.name} {column.type}")
        if kind == "JSON" and not all(map(_in_any_java, _names(column.name, column.type))):
            raise _Refused(f"{what} with column {column.name}, whose letters not every Java has in upper case")


def _names(name: str, kind: SqlType) -> Iterator[str]:
    """A column's name and those of all fields in it."""
    yield name
    for inner in (("", kind.element), *kind.fields):
        if inner[1] is not None:
            yield from _names(inner[0], inner[1])


def _in_any_java(name: str) -> bool:
    """Whether toUpperCase() is the same in every version of Java: all letters are in Unicode 3.2, as in Java 5."""
    return name.isascii() or all(ucd_3_2_0.category(letter) != "Cn" for letter in name + name.upper())


def _is_read(format_: str, kind: SqlType) -> bool:
    """Whether a format's reader knows a type. A new type of a later ksqlDB is read over REST until it does."""
    if format_ != "JSON" or kind.base not in NESTED:
        return kind.base in _SCALARS[format_]
    inner = (kind.element, *(field for _, field in kind.fields))
    return all(_is_read(format_, one) for one in inner if one is not None)


def _delimiter(option: str, options: Mapping[str, str], derived: bool) -> str:
    named = options.get(option)
    if named is None:
        if derived:
            raise _Refused(f"its {option} may be inherited from the stream it selects from, and is not shown")
        return ","
    delimiter = DELIMITERS.get(named.upper(), named)
    if len(delimiter) != 1:
        raise _Refused(f"{option} {named!r}")
    return delimiter


def _window(kind: str | None, options: Mapping[str, str]) -> tuple[str | None, int]:
    if not kind:
        return None, 0
    if kind.upper() == "SESSION":
        return "SESSION", 0
    size = re.fullmatch(r"(\d+)\s*([A-Za-z]+?)[sS]?", options.get("WINDOW_SIZE", ""))
    if size is None or size[2].upper() not in UNITS_MS:
        raise _Refused(f"the length of its {kind} windows is not shown")
    return kind.upper(), int(size[1]) * UNITS_MS[size[2].upper()]


def _timestamp(
    name: str, columns: Sequence[Column], options: Mapping[str, str]
) -> tuple[str | None, str | None]:
    if not name:
        return None, None
    name = name.strip("`")
    column = next((column for column in columns if column.name in (name, name.upper())), None)
    if column is None:
        raise _Refused(f"its TIMESTAMP column {name} is not among its columns")
    if column.type.base in ("BIGINT", "TIMESTAMP"):
        return column.name, None
    pattern = options.get("TIMESTAMP_FORMAT", "")
    if column.type.base != "STRING" or rowtime.reader(pattern) is None:
        raise _Refused(f"its time is a {column.type} read by TIMESTAMP_FORMAT {pattern!r}, which is not proven")
    return column.name, pattern
