"""Python values -> the JSON bytes of the server: one codec at the top level, another inside a STRUCT.

As the recordings show it. Not imitated: the Julian calendar before 1582 in
TIMESTAMP, years above 9999 in DATE, and Java's rare non-shortest doubles of JDK 18 and older.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from .schema import Column, Type

Encoder = Callable[[object], str]
_EPOCH = datetime(1970, 1, 1)
_SPECIAL = re.compile("[\x00-\x1f\U00010000-\U0010ffff]")
_dumps = json.JSONEncoder(ensure_ascii=False).encode
_SHORT = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r"}


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return _SHORT.get(code, f"\\u{code:04X}")
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04X}\\u{0xDC00 + (code & 0x3FF):04X}"


def string(value: object) -> str:
    """A JSON string: upper-case escapes, characters beyond the BMP as surrogate pairs, the rest raw."""
    text = str(value)
    if _SPECIAL.search(text) is None:
        return _dumps(text)
    return '"' + _SPECIAL.sub(_escape, text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def double(value: object) -> str:
    """`Double.toString`; what is not finite is a JSON string."""
    number = float(str(value))
    if math.isnan(number):
        return '"NaN"'
    if math.isinf(number):
        return '"Infinity"' if number > 0 else '"-Infinity"'
    if abs(number) == 5e-324:
        return "-4.9E-324" if number < 0 else "4.9E-324"
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        text = f"{Decimal(repr(number)):f}"
        return text if "." in text else text + ".0"
    sign, digits, exponent = Decimal(repr(number)).as_tuple()
    shown = "".join(map(str, digits)).rstrip("0") or "0"
    power = len(digits) - 1 + int(exponent)
    return f"{'-' if sign else ''}{shown[0]}.{shown[1:] or '0'}E{power}"


def _decimal(scale: int) -> Encoder:
    def encode(value: object) -> str:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
        sign, digits, exponent = number.as_tuple()
        unscaled = int("".join(map(str, digits))) * 10 ** max(0, int(exponent) + scale)
        text = str(unscaled).rjust(scale + 1, "0")
        return ("-" if sign else "") + (f"{text[:-scale]}.{text[-scale:]}" if scale else text)
    return encode


def _integer(value: object) -> str:
    return str(int(str(value)))


def _boolean(value: object) -> str:
    return "true" if value else "false"


def _bytes(value: object) -> str:
    data = value if isinstance(value, bytes) else str(value).encode()
    return f'"{base64.b64encode(data).decode()}"'


def _date(value: object) -> str:
    return f'"{value.isoformat()}"' if isinstance(value, date) else f'"{value}"'


class Unserialisable(Exception):
    """A value that the server can read from Kafka but not write: it ends every answer that reaches it."""


def _time(value: object) -> str:
    if isinstance(value, int) and value >= 86_400_000:  # java.time.LocalTime ends before 24:00
        raise Unserialisable("Failed to serialize buffer")
    if isinstance(value, int):
        value = (_EPOCH + timedelta(milliseconds=value)).time()
    if not isinstance(value, time):
        return f'"{value}"'
    return f'"{value:%H:%M:%S}"' if value.second else f'"{value:%H:%M}"'


def _millis(value: datetime) -> int:
    naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return (naive - _EPOCH) // timedelta(milliseconds=1)


def _timestamp(value: object) -> str:
    if isinstance(value, int):
        value = _EPOCH + timedelta(milliseconds=value)
    if not isinstance(value, datetime):
        return f'"{value}"'
    naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
    return f'"{naive.isoformat(timespec="milliseconds")}"'


def _inner_temporal(value: object) -> str:
    """Inside a STRUCT: days since the epoch, milliseconds of the day, milliseconds since the epoch."""
    if isinstance(value, datetime):
        return str(_millis(value))
    if isinstance(value, date):
        return str((value - _EPOCH.date()).days)
    if isinstance(value, time):
        return str(((value.hour * 60 + value.minute) * 60 + value.second) * 1000 + value.microsecond // 1000)
    return _integer(value)


# The scalar types that a source may declare.
SCALARS: dict[str, Encoder] = {
    "BOOLEAN": _boolean, "INTEGER": _integer, "BIGINT": _integer, "DOUBLE": double, "STRING": string, "BYTES": _bytes,
    "DATE": _date, "TIME": _time, "TIMESTAMP": _timestamp,
}
# Those that are written differently inside a STRUCT.
_INSIDE: dict[str, Encoder] = {"DATE": _inner_temporal, "TIME": _inner_temporal, "TIMESTAMP": _inner_temporal}


def _nullable(encode: Encoder) -> Encoder:
    return lambda value: "null" if value is None else encode(value)


def _array(item: Encoder) -> Encoder:
    def encode(value: object) -> str:
        assert isinstance(value, Sequence)
        return "[" + ",".join([item(v) for v in value]) + "]"
    return encode


def _map(item: Encoder, key: Encoder | None) -> Encoder:
    def encode(value: object) -> str:
        assert isinstance(value, Mapping)
        if key is not None:  # inside a STRUCT, keys that are not strings: pairs
            return "[" + ",".join([f"[{key(k)},{item(v)}]" for k, v in value.items()]) + "]"
        return "{" + ",".join([f"{string(k)}:{item(v)}" for k, v in value.items()]) + "}"
    return encode


def _struct(fields: Sequence[tuple[str, Type]]) -> Encoder:
    parts = [(name, string(name) + ":", encoder(kind, inside=True)) for name, kind in fields]

    def encode(value: object) -> str:
        assert isinstance(value, Mapping)
        return "{" + ",".join([label + enc(value.get(name)) for name, label, enc in parts]) + "}"
    return encode


def encoder(kind: Type, inside: bool = False) -> Encoder:
    """The function that writes values of a type; `inside`: below a STRUCT, where another codec is used."""
    if kind.base == "DECIMAL":
        return _nullable(double if inside and kind.scale else _decimal(kind.scale))
    if kind.base == "ARRAY" and kind.item:
        return _nullable(_array(encoder(kind.item, inside)))
    if kind.base == "MAP" and kind.item and kind.key:
        pairs = inside and kind.key.base != "STRING"
        return _nullable(_map(encoder(kind.item, inside), encoder(kind.key, True) if pairs else None))
    if kind.base == "STRUCT":
        return _nullable(_struct(kind.fields))
    if kind.base not in SCALARS:
        raise ValueError(f"unknown type {kind.base!r}; expected {', '.join(SCALARS)}, DECIMAL, ARRAY, MAP or STRUCT")
    return _nullable(_INSIDE.get(kind.base, SCALARS[kind.base]) if inside else SCALARS[kind.base])


class RowEncoder:
    """Writes the values of one source: all of them, joined by commas, or one by its position."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.encoders = [encoder(c.type) for c in columns]

    def all(self, values: Sequence[object]) -> str:
        """Every column, in order, as it appears between the brackets of `columns`."""
        return ",".join([enc(v) for enc, v in zip(self.encoders, values, strict=True)])

    def one(self, values: Sequence[object], index: int) -> str:
        """One column."""
        return self.encoders[index](values[index])
