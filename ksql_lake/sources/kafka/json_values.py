"""Converts a JSON node to a column's value like KsqlJsonDeserializer: to what `pa.array` takes for the type.

DATE is days, TIME and TIMESTAMP milliseconds, STRUCT a tuple by position, MAP a list of pairs in the order of Java's
HashMap, which is the order in which ksqlDB shows them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

from ksql_lake.model.types import SqlType
from ksql_lake.sources.kafka import java_text
from ksql_lake.sources.kafka.json_text import Node, is_number
from ksql_lake.sources.kafka.verdicts import Skipped, Unsure

Coerce: TypeAlias = Callable[[Node], Any]
DAY_MS = 86_400_000
BUCKET = 8  # entries of a HashMap's bucket that stay a list
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_ESCAPED = str.maketrans({**{chr(code): f"\\u{code:04X}" for code in range(32)}, **_ESCAPES})


def coercion(kind: SqlType) -> Coerce:
    """The function for a column's type; it turns None into None and raises `Skipped` for what ksqlDB refuses."""
    coerce = _coercion(kind)
    return lambda node: None if node is None else coerce(node)


def _coercion(kind: SqlType) -> Coerce:
    if kind.base == "DECIMAL":
        return _decimal(kind.precision, kind.scale)
    if kind.base == "ARRAY" and kind.element:
        return _array(coercion(kind.element))
    if kind.base == "MAP" and kind.element:
        return _map(coercion(kind.element))
    if kind.base == "STRUCT":
        return _struct(kind)
    return SCALARS[kind.base]


def _boolean(node: Node) -> bool:
    if not isinstance(node, bool):
        raise Skipped("not true or false")
    return node


def _integer(bits: int) -> Coerce:
    """JsonNode.intValue() or longValue(): fractions are cut, what is too large wraps, infinities saturate."""
    span, half = 1 << bits, 1 << bits - 1

    def coerce(node: Node) -> int:
        if isinstance(node, str):
            return java_text.whole(node, bits)
        if not is_number(node):
            raise Skipped("not a number")
        if isinstance(node, float):
            return half - 1 if node > 0 else -half
        if isinstance(node, int) and -half <= node < half:
            return node
        return (_truncated(node, bits) + half) % span - half

    return coerce


def _truncated(node: int | Decimal, bits: int) -> int:
    """The whole part, or a number with the same low bits: no loop over a billion zeros."""
    if isinstance(node, int):
        return node
    if node.adjusted() < 0:
        return 0
    exponent = node.as_tuple().exponent
    assert isinstance(exponent, int)
    return 0 if exponent >= bits else int(node)  # 10^bits is a multiple of 2^bits


def _double(node: Node) -> float:
    if isinstance(node, str):
        return java_text.real(node)
    if not is_number(node):
        raise Skipped("not a number")
    if isinstance(node, int):
        return _double_of(node)
    return float(node) if node else 0.0  # a BigDecimal has no negative zero; what is too small becomes one


def _double_of(node: int) -> float:
    try:
        return float(node)
    except OverflowError:
        return math.inf if node > 0 else -math.inf


def _decimal(precision: int, scale: int) -> Coerce:
    def coerce(node: Node) -> Decimal:
        if isinstance(node, str):
            return java_text.fitted(java_text.big_decimal(node), precision, scale)
        if not is_number(node) or isinstance(node, float):
            raise Skipped("not a number that a DECIMAL holds")
        return java_text.fitted(Decimal(node), precision, scale)

    return coerce


def _bytes(node: Node) -> bytes:
    if not isinstance(node, str):
        raise Skipped("not Base64 text")
    return java_text.mime_base64(node)


def time_of(milliseconds: Coerce) -> Coerce:
    """SerdeUtils.returnTimeOrThrow: the end of the day is a time, too."""

    def coerce(node: Node) -> int:
        value: int = milliseconds(node)
        if not 0 <= value <= DAY_MS:
            raise Skipped("no time of a day")
        return value

    return coerce


def text_of(node: Node) -> str:
    """A STRING column takes everything: objects as JSON, arrays as Java prints lists."""
    if isinstance(node, str):
        return node
    try:
        if isinstance(node, dict):
            return _json(node)
        if isinstance(node, list):
            return "[" + ", ".join("null" if item is None else text_of(item) for item in node) + "]"
    except RecursionError:
        raise Unsure("JSON nested too deeply to be written as text") from None
    if isinstance(node, bool):
        return "true" if node else "false"
    if isinstance(node, float):
        return "Infinity" if node > 0 else "-Infinity"
    return _number_text(node)


def _number_text(node: int | Decimal) -> str:
    if isinstance(node, int):
        return str(node) if abs(node) < 10**4000 else str(Decimal(node))
    return str(node if node else abs(node))  # BigDecimal.toString() is written alike, but knows no negative zero


def _json(node: Node) -> str:
    if isinstance(node, dict):
        return "{" + ",".join(f"{_quoted(name)}:{_json(value)}" for name, value in node.items()) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(_json, node)) + "]"
    if isinstance(node, str):
        return _quoted(node)
    if isinstance(node, float):
        raise Skipped("a number beyond the doubles inside text")
    return "null" if node is None else text_of(node)


def _quoted(text: str) -> str:
    return f'"{text.translate(_ESCAPED)}"'


def _array(item: Coerce) -> Coerce:
    def coerce(node: Node) -> list[Any]:
        if not isinstance(node, list):
            raise Skipped("not an array")
        return [item(value) for value in node]

    return coerce


def _map(item: Coerce) -> Coerce:
    def coerce(node: Node) -> list[tuple[str, Any]]:
        if not isinstance(node, dict):
            raise Skipped("not an object")
        return [(name, item(node[name])) for name in hash_order(list(node))]

    return coerce


def _struct(kind: SqlType) -> Coerce:
    fields = [(name, coercion(inner)) for name, inner in kind.fields]

    def coerce(node: Node) -> tuple[Any, ...]:
        found = by_name(node, [name for name, _ in fields])
        return tuple([convert(value) for (_, convert), value in zip(fields, found, strict=True)])

    return coerce


def by_name(node: Node, names: Sequence[str]) -> list[Node]:
    """The node of each name or None: by the exact name, or else by the last name that equals it in upper case."""
    if not isinstance(node, dict):
        raise Skipped("not an object")
    if all(name in node for name in names):
        return [node[name] for name in names]
    upper = {name.upper(): value for name, value in node.items()}
    return [node[name] if name in node else upper.get(name) for name in names]


def hash_order(names: list[str]) -> list[str]:
    """Names in the order in which a HashMap made for as many of them lists them.

    Raises:
        Unsure: so many share a bucket that the map grows early or orders them otherwise.
    """
    if len(names) < 2:
        return names
    size = 1
    while size < len(names):
        size *= 2
    if len(names) > BUCKET and max(Counter(_spread(name) & size - 1 for name in names).values()) > BUCKET:
        raise Unsure("an object whose names have the same hash in Java")
    if len(names) > size * 0.75:
        size *= 2
    return sorted(names, key=lambda name: _spread(name) & size - 1)


def _spread(name: str) -> int:
    code = 0
    units = name.encode("utf-16-le", "surrogatepass")
    for at in range(0, len(units), 2):
        code = (code * 31 + units[at] + (units[at + 1] << 8)) & 0xFFFFFFFF
    return code ^ code >> 16


SCALARS: dict[str, Coerce] = {
    "BOOLEAN": _boolean,
    "INTEGER": _integer(32),
    "BIGINT": _integer(64),
    "DOUBLE": _double,
    "STRING": text_of,
    "BYTES": _bytes,
    "DATE": _integer(64),
    "TIME": time_of(_integer(64)),
    "TIMESTAMP": _integer(64),
}
