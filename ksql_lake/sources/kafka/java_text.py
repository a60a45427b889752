"""How Java parses text, where ksqlDB relies on it: numbers, Base64, UTF-8. What Java refuses raises `Skipped`."""

from __future__ import annotations

import base64
import contextlib
import re
import unicodedata
from decimal import Context, Decimal, InvalidOperation
from typing import Literal

from ksql_lake.sources.kafka.verdicts import Skipped
from ksql_lake.sources.ksqldb.values import REPLACEMENT

_WHOLE = re.compile(r"[+-]?\d+")
_REAL = re.compile(r"([+-]?)(?:(NaN)|(Infinity)|((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)[fFdD]?)", re.ASCII)
_HEX = re.compile(r"([+-]?0[xX](?:[0-9a-fA-F]+\.?|[0-9a-fA-F]*\.[0-9a-fA-F]+)[pP][+-]?[0-9]+)[fFdD]?", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_EXPONENT = re.compile(r"[eE]([+-]?\d+)$")
_MIME_GROUP = re.compile(r"[\0- ]*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)")
_BASIC = re.compile(r"((?:[A-Za-z0-9+/]{4})*)([A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?")
_JAVA_BLANKS = "".join(map(chr, range(0x21)))  # what String.trim() removes
_IDENTIFIER = ("Lu", "Ll", "Lt", "Lm", "Lo", "Nl", "Nd", "Mn", "Mc", "Pc", "Sc", "Cf")
_EXACT = Context(prec=100_000, Emax=999_999_999, Emin=-999_999_999)
_SCALES = range(-(2**31), 2**31)  # what a BigDecimal's scale can be


def whole(text: str, bits: int) -> int:
    """Integer.parseInt (32 bits) and Long.parseLong (64): a sign and digits, also of other scripts."""
    if not _WHOLE.fullmatch(text) or max(text) > "\uffff":
        raise Skipped("text that is not a whole number")
    digits = "".join(str(unicodedata.decimal(figure)) for figure in text.lstrip("+-")).lstrip("0")
    value = int(digits or "0") if len(digits) <= 19 else 1 << 64
    value = -value if text[0] == "-" else value
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise Skipped("a whole number out of range")
    return value


def real(text: str) -> float:
    """Double.parseDouble: blanks around, NaN, Infinity, a suffix f or d, hexadecimal floats."""
    trimmed = text.strip(_JAVA_BLANKS)
    if found := _REAL.fullmatch(trimmed):
        sign, nan, infinity, digits = found.groups()
        value = float("nan") if nan else float("inf") if infinity else float(digits)
        return -value if sign == "-" and not nan else value
    if found := _HEX.fullmatch(trimmed):
        try:
            return float.fromhex(found[1])
        except OverflowError:
            return float("-inf") if trimmed[0] == "-" else float("inf")
    raise Skipped("text that is not a number")


def big_decimal(text: str) -> Decimal:
    """new BigDecimal(text): no blanks, digits of any script, an exponent whose scale fits 32 bits."""
    found = _DECIMAL.fullmatch(text)
    if not found or max(text) > "\uffff":
        raise Skipped("text that is not a decimal number")
    return java_decimal(text)


def java_decimal(text: str) -> Decimal:
    """A decimal number whose form was checked, unless BigDecimal refuses its exponent."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise Skipped("a decimal number whose exponent is out of range") from None
    exponent = value.as_tuple().exponent
    written = _EXPONENT.search(text)
    if not isinstance(exponent, int) or -exponent not in _SCALES or (written and int(written[1]) not in _SCALES):
        raise Skipped("a decimal number whose exponent is out of range")
    return value


def fitted(value: Decimal, precision: int, scale: int) -> Decimal:
    """DecimalUtil.ensureFit: below 10^(precision - scale), and no digit may be lost."""
    if not value:
        return Decimal(0).scaleb(-scale)
    if value.adjusted() >= precision - scale:
        raise Skipped(f"a number beyond DECIMAL({precision}, {scale})")
    if value.adjusted() < -scale:
        raise Skipped(f"a number with more than {scale} digits after the point")
    fitting = value.quantize(Decimal(1).scaleb(-scale), context=_EXACT)
    if fitting != value:
        raise Skipped(f"a number with more than {scale} digits after the point")
    return fitting


def mime_base64(text: str) -> bytes:
    """Jackson's binaryValue(): padding required, blanks only before a group of four."""
    pieces, at = [], 0
    while found := _MIME_GROUP.match(text, at):
        pieces.append(base64.b64decode(found[1]))
        at = found.end()
    if text[at:].strip(_JAVA_BLANKS):
        raise Skipped("text that is not Base64")
    return b"".join(pieces)


def basic_base64(text: str) -> bytes:
    """java.util.Base64.getDecoder(): padding as one likes, no blanks."""
    found = _BASIC.fullmatch(text)
    if not found:
        raise Skipped("text that is not Base64")
    rest = found[2] or ""
    return base64.b64decode(found[1] + rest + "=" * (-len(rest) % 4))


def utf8(data: bytes) -> str:
    """new String(data, UTF_8): malformed bytes become U+FFFD, as many as Java makes of them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _malformed(data)


def utf16(data: bytes, encoding: str) -> str:
    """UTF-16 (`encoding` says whose order) as Java's decoder reads it: a damaged character becomes one U+FFFD."""
    order: Literal["big", "little"] = "big" if encoding.endswith("be") else "little"
    if len(data) % 2 == 0:
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode(encoding)
    units = [int.from_bytes(data[at : at + 2], order) for at in range(0, len(data) - 1, 2)]
    pieces: list[str] = []
    at = 0
    while at < len(units):
        unit, size = units[at], 1
        if 0xD800 <= unit < 0xDC00:  # a high surrogate takes the next unit with it, whatever that is
            following, size = units[at + 1] if at + 1 < len(units) else 0, 2
            paired = 0xDC00 <= following < 0xE000
            pieces.append(chr(0x10000 + (unit - 0xD800 << 10) + following - 0xDC00) if paired else REPLACEMENT)
        else:
            pieces.append(REPLACEMENT if 0xDC00 <= unit < 0xE000 else chr(unit))
        at += size
    if len(data) % 2 and at == len(units):  # otherwise the odd byte went with a high surrogate
        pieces.append(REPLACEMENT)
    return "".join(pieces)


def identifier_part(character: str) -> bool:
    """Character.isJavaIdentifierPart of a character's first 16 bits."""
    code = ord(character)
    if code > 0xFFFF:
        return False
    category = unicodedata.category(character)
    return category in _IDENTIFIER or (category == "Cc" and not 9 <= code <= 13 and not 28 <= code <= 31)


def _malformed(data: bytes) -> str:
    pieces: list[str] = []
    at = 0
    while at < len(data):
        size = _sequence(data, at)
        piece = data[at : at + size]
        try:
            pieces.append(piece.decode())
        except UnicodeDecodeError:
            pieces.append(REPLACEMENT)
        at += size
    return "".join(pieces)


def _sequence(data: bytes, at: int) -> int:
    """How many bytes Java takes at once: a character, or what it replaces by one U+FFFD."""
    first, left = data[at], len(data) - at
    second = data[at + 1] if left > 1 else None
    if 0xC2 <= first < 0xE0:
        return 2 if second is not None and _continues(second) else 1
    if 0xE0 <= first < 0xF0:
        if second is None or not _continues(second) or (first == 0xE0 and second < 0xA0):
            return 1
        return 3 if left > 2 and _continues(data[at + 2]) else 2  # also a surrogate: replaced as a whole
    if 0xF0 <= first < 0xF5:
        if second is None or not _continues(second) or (first == 0xF0 and second < 0x90) or (
            first == 0xF4 and second > 0x8F
        ):
            return 1
        if left < 3 or not _continues(data[at + 2]):
            return 2
        return 4 if left > 3 and _continues(data[at + 3]) else 3
    return 1


def _continues(byte: int) -> bool:
    return byte & 0xC0 == 0x80
