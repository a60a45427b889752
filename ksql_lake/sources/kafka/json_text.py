"""A record's JSON as Jackson 2.14 reads it (readTree): bytes in, nodes out.

Nodes are None, bool, int, str, list, dict (the last of equal names, in the place of the first), Decimal for a
number with point or exponent, and a float for one beyond the doubles, which Jackson makes an infinity.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from ksql_lake.sources.kafka.java_text import identifier_part, java_decimal, utf16
from ksql_lake.sources.kafka.verdicts import Skipped, Unsure

Node: TypeAlias = Any
MISSING = object()  # Jackson's MissingNode: there was no value at all
UTF32_BLOCK = 16_000  # bytes that Jackson decodes at once
LONG = 4000  # digits; Python refuses to convert longer texts
_BLANK = re.compile(r"[ \t\n\r]*")
# Jackson compares names by four bytes at a time and fills the last ones up with FF: C_IN<ff>T is C_INT, if an earlier
# record had that name, and an error otherwise.
_PADDED = re.compile(rb'"(?:(?:[^"\\]{4})*|[^"]*\\[^"]*)\xff[^"\\]{0,3}"[ \t\n\r]*:')
_BYTE = "\x01"  # stands for bytes that Jackson refuses: like them, a control character is an error where it is read


def parse(data: bytes) -> Node:
    """The first JSON value; what follows it is not read.

    Raises:
        Skipped: Jackson refuses it.
        Unsure: whether Jackson reads damaged bytes as this value depends on more than these bytes.
    """
    read = _read(data)
    try:
        return _value(read)
    except Skipped:
        if read.damaged and _PADDED.search(data):
            raise Unsure("a name with the byte FF") from None
        if not read.utf8 and "\\u" in read.text:
            raise Unsure("a damaged escape in UTF-16 or UTF-32") from None  # Jackson looks at half of each digit
        raise


@dataclass(frozen=True)
class _Read:
    """The text of a record.

    Attributes:
        utf8: Jackson has one parser for it, and another for UTF-16 and UTF-32.
        damaged: the text contains replacement signs for bytes that are not characters.
    """

    text: str
    utf8: bool = True
    damaged: bool = False


def _value(read: _Read) -> Node:
    text = read.text
    at = _BLANK.match(text).end()  # type: ignore[union-attr]
    if at == len(text):
        return MISSING
    try:
        node, end = _scan(text, at)
    except json.JSONDecodeError as error:
        raise Skipped(f"not JSON: {error.msg}") from None
    except RecursionError:
        node, end = _scan_deep(text, at)
    if end < len(text) and not isinstance(node, str | list | dict):
        if read.damaged and not is_number(node):
            raise Unsure("damaged bytes behind true, false or null")
        if _runs_on(node, text[end], read.utf8):
            raise Skipped("not JSON: something follows a value without a blank")
    return node


def is_number(node: Node) -> bool:
    """NumericNode; Python counts booleans as integers."""
    return isinstance(node, int | float | Decimal) and not isinstance(node, bool)


def _runs_on(node: Node, following: str, utf8: bool) -> bool:
    """A number must end in a blank; a word (true, false, null) only not run on as one."""
    if is_number(node):
        return following not in " \t\n\r"
    return following >= "0" and ((utf8 and following > "~") or identifier_part(following))


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < LONG else int(Decimal(digits))


def _number(digits: str) -> Decimal | float:
    nearest = float(digits)
    return nearest if math.isinf(nearest) else java_decimal(digits)


def _constant(name: str) -> Node:
    raise Skipped(f"not JSON: {name}")


_scan = json.JSONDecoder(parse_float=_number, parse_int=_integer, parse_constant=_constant).raw_decode


def _scan_deep(text: str, at: int) -> tuple[Node, int]:
    """The same without recursion: Jackson reads any depth, and the deepest values are rarely in a column."""
    holder: list[Any] = []
    open_: list[tuple[Any, str | None]] = [(holder, None)]  # containers, and the name the next value gets
    while True:
        node, at = _opening(text, at) if text[at : at + 1] in ("[", "{") else _leaf(text, at)
        container, name = open_[-1]
        if name is None:
            container.append(node)
        else:
            container[name] = node
        if isinstance(node, list | dict):
            open_.append((node, None))
            if text[at : at + 1] not in ("]", "}"):
                at = _next_value(text, at, open_)
                continue
        while len(open_) > 1:
            at = _skip_blanks(text, at)
            if text[at : at + 1] == ",":
                at = _next_value(text, _skip_blanks(text, at + 1), open_)
                break
            if text[at : at + 1] != ("}" if isinstance(open_[-1][0], dict) else "]"):
                raise Skipped("not JSON: a comma or closing bracket is missing")
            open_.pop()
            at += 1
        else:
            return holder[0], at


def _skip_blanks(text: str, at: int) -> int:
    return _BLANK.match(text, at).end()  # type: ignore[union-attr]


def _opening(text: str, at: int) -> tuple[Node, int]:
    return ({} if text[at] == "{" else []), _skip_blanks(text, at + 1)


def _leaf(text: str, at: int) -> tuple[Node, int]:
    try:
        node, end = _scan(text, at)
    except json.JSONDecodeError:
        raise Skipped("not JSON") from None
    return node, end


def _next_value(text: str, at: int, open_: list[tuple[Any, str | None]]) -> int:
    """Where the next value begins, after its name in an object."""
    container, _ = open_[-1]
    if not isinstance(container, dict):
        return at
    if text[at : at + 1] != '"':
        raise Skipped("not JSON: a name is missing")
    name, at = _leaf(text, at)
    at = _skip_blanks(text, at)
    if text[at : at + 1] != ":":
        raise Skipped("not JSON: a colon is missing")
    open_[-1] = (container, name)
    return _skip_blanks(text, at + 1)


def _read(data: bytes) -> _Read:
    """Jackson detects the encoding by a byte order mark, or by where the first character has its zeros."""
    encoding, mark = _encoding(data)
    body = data[mark:]
    if encoding == "utf-8":
        try:
            return _Read(body.decode())
        except UnicodeDecodeError:
            return _Read(_lenient(body), damaged=True)
    if encoding.startswith("utf-16"):
        return _Read(utf16(body, encoding), utf8=False)
    whole, rest = len(body) // 4 * 4, len(body) % 4
    try:
        text = body[:whole].decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        if len(body) > UTF32_BLOCK:  # what lies beyond the first block may never be looked at
            raise Unsure("a long record of damaged UTF-32") from None
        raise Skipped("not JSON: no character of UTF-32") from None
    return _Read(text + (_BYTE if rest else ""), utf8=False, damaged=rest > 0)


def _encoding(data: bytes) -> tuple[str, int]:
    """(encoding, bytes of its mark), as ByteSourceJsonBootstrapper.detectEncoding."""
    if len(data) >= 4:
        quad = int.from_bytes(data[:4], "big")
        if quad in (0x0000FFFE, 0xFEFF0000):
            raise Skipped("not JSON: an odd order of bytes")
        for start, encoding in (
            (b"\0\0\xfe\xff", "utf-32-be"), (b"\xff\xfe\0\0", "utf-32-le"), (b"\xfe\xff", "utf-16-be"),
            (b"\xff\xfe", "utf-16-le"), (b"\xef\xbb\xbf", "utf-8"),
        ):
            if data.startswith(start):
                return encoding, len(start)
        if quad >> 8 == 0 or quad & 0x00FFFFFF == 0:
            return ("utf-32-be" if quad >> 8 == 0 else "utf-32-le"), 0
        if quad & ~0x00FF0000 == 0 or quad & ~0x0000FF00 == 0:
            raise Skipped("not JSON: an odd order of bytes")
    if len(data) >= 2:
        if data[0] == 0:
            return "utf-16-be", 0
        if data[1] == 0:
            return "utf-16-le", 0
    return "utf-8", 0


def _lenient(data: bytes) -> str:
    """UTF-8 as Jackson decodes it: overlong forms, surrogates and code points beyond Unicode count as characters."""
    pieces: list[str] = []
    at = 0
    while at < len(data):
        plain, stop = _plain_until(data, at)
        pieces.append(plain)
        if stop == len(data):
            break
        units, size = _units(data, stop)
        escaped = (len(plain) - len(plain.rstrip("\\"))) % 2  # after a backslash no such character is allowed
        pieces.append(_BYTE if units is None or escaped else "".join(f"\\u{unit & 0xFFFF:04x}" for unit in units))
        at = stop + size
    return "".join(pieces)


def _plain_until(data: bytes, at: int) -> tuple[str, int]:
    """The well-formed text from here on, and where it ends."""
    try:
        return data[at:].decode(), len(data)
    except UnicodeDecodeError as error:
        return data[at : at + error.start].decode(), at + error.start


def _units(data: bytes, at: int) -> tuple[list[int] | None, int]:
    """The UTF-16 units of a sequence that is not well-formed, None where Jackson refuses it; and its length."""
    first = data[at]
    size = 2 if first & 0xE0 == 0xC0 else 3 if first & 0xF0 == 0xE0 else 4 if first & 0xF8 == 0xF0 else 0
    tail = data[at + 1 : at + size]
    if not size or len(tail) < size - 1 or any(byte & 0xC0 != 0x80 for byte in tail):
        return None, 1
    code = first & (0x7F >> size)
    for byte in tail:
        code = code << 6 | byte & 0x3F
    if size < 4:
        return [code], size
    code -= 0x10000
    if code < 0:
        raise Unsure("four bytes of UTF-8 for a character of fewer")  # one thing in a name, another in a text
    return [0xD800 | code >> 10, 0xDC00 | code & 0x3FF], size
