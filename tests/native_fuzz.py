"""Damaged rows through the native reader, each answer compared with the exact path; run by test_native, also sanitized.

    python -m tests.native_fuzz LIBRARY BLOCKS SEED
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
from collections.abc import Callable

import pyarrow as pa

from ksql_lake.base import native
from ksql_lake.base.errors import KsqlError, SchemaError
from ksql_lake.model.types import Column, parse_schema
from ksql_lake.sources.ksqldb.native_rows import RowReader
from ksql_lake.sources.ksqldb.rows import Decoder

PIECES = (
    b'"', b"\\", b"\\u", b"\\ud83d", b"\\ude00", b"\\u0000", b"\\n", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r",
    b"null", b"nul", b"true", b"fals", b"-", b"0", b"9", b"1e", b"E400", b".", b"e-5", b"99999999999999999999", b"NaN",
    b'"NaN"', b'"-Infinity"', b"\xc3", b"\xe2\x82\xac", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xf4\x90\x80\x80",
    b"\xff", b"\x00", b"\x1f", b"\x7f", b"=", b"==", b"AQID", b'"10:00"', b'"1582-10-14T00:00:00.000"', b" ",
    b"2024-02-29", b"T", b"]}},\n", b'{"row":{"columns":[', b'"tombstone":true', b'{"A":1}', b'"A":', b"-0", b"-0.0",
    b'"1500-02-29T00:00:00.000"', b'"+10000-01-01"', b'"-0001-12-31"', b"57011", b"-0001", b'"0000-02-29"',
    b"292278994-08-17T07:12:55.807", b"T07:12:55.808", b"\\ude00",
    b"123456789012345678901234567890123456789", b"0.1000000000000000055511151231257827", b"5e-324", b"1.0E8", b"00",
)
SCALARS: dict[str, Callable[[random.Random], str]] = {
    "BOOLEAN": lambda r: r.choice(("true", "false")),
    "INTEGER": lambda r: str(r.randrange(-(2**31), 2**31)),
    "BIGINT": lambda r: str(r.choice((r.randrange(-(2**63), 2**63), r.randrange(-9, 9), 2**63 - 1, -(2**63)))),
    "DOUBLE": lambda r: r.choice((repr(r.uniform(-1e6, 1e6)), repr(r.random() * 10.0 ** r.randrange(-300, 300)), "1.5",
                                  str(r.randrange(10**18)), '"NaN"', '"Infinity"', "-0.0", "1.0E10", "4.9E-324")),
    "STRING": lambda r: _text(r),
    "BYTES": lambda r: r.choice(('""', '"AQ=="', '"AQI="', '"AQID"', '"+/+/"', '"AQJ="')),
    "DATE": lambda r: r.choice((
        f'"{r.randrange(1, 9999):04d}-{r.randrange(1, 13):02d}-{r.randrange(1, 32):02d}"', "20000",
        f'"{r.randrange(-5881581, 5881581):+05d}-{r.randrange(1, 13):02d}-{r.randrange(1, 32):02d}"')),
    "TIME": lambda r: r.choice(('"10:00"', '"23:59:59"', "0", "86399999", "86400000")),
    "TIMESTAMP": lambda r: r.choice((
        f'"{r.randrange(1500, 2100)}-0{r.randrange(1, 10)}-1{r.randrange(9)}T10:00:00.123"',
        f'"{r.randrange(1, 300_000_000):04d}-{r.randrange(1, 13):02d}-{r.randrange(1, 32):02d}T23:59:59.999"',
        str(r.randrange(-(10**13), 10**13)))),
}


def _text(r: random.Random) -> str:
    letters = r.choices(('a', 'b', '"', "\\", "\n", "é", "€", "\U0001F600", "\x01", "/"), k=r.randrange(20))
    return json.dumps("".join(letters), ensure_ascii=r.random() < 0.5)


def kind(r: random.Random, depth: int = 3) -> tuple[str, Callable[[random.Random], str]]:
    """A type, and what makes its values."""
    shape = r.choice(("scalar", "scalar", "DECIMAL", *(("ARRAY", "MAP", "STRUCT") if depth else ())))
    if shape == "scalar":
        name = r.choice(sorted(SCALARS))
        return name, _nullable(SCALARS[name])
    if shape == "DECIMAL":
        precision = r.randrange(1, 39)
        scale = r.randrange(precision + 1)
        return f"DECIMAL({precision}, {scale})", _nullable(lambda r: _decimal(r, precision, scale))
    if shape == "STRUCT":
        fields = [(name, *kind(r, depth - 1)) for name in r.sample(("A", "b c", 'q"', "Ü", "\\"), r.randrange(1, 4))]
        text = "STRUCT<" + ", ".join(f"`{name}` {inner}" for name, inner, _ in fields) + ">"
        return text, _nullable(lambda r: "{" + ",".join(
            f"{json.dumps(name, ensure_ascii=False)}:{make(r)}" for name, _, make in fields) + "}")
    text, make = kind(r, depth - 1)
    if shape == "ARRAY":
        return f"ARRAY<{text}>", _nullable(lambda r: "[" + ",".join(make(r) for _ in range(r.randrange(4))) + "]")
    return f"MAP<STRING, {text}>", _nullable(lambda r: "{" + ",".join(
        f"{_text(r)}:{make(r)}" for _ in range(r.choice((0, 1, 2, 12)))) + "}")


def _nullable(make: Callable[[random.Random], str]) -> Callable[[random.Random], str]:
    return lambda r: "null" if r.random() < 0.15 else make(r)


def _decimal(r: random.Random, precision: int, scale: int) -> str:
    digits = str(r.randrange(10**precision)).zfill(scale + 1)
    text = digits[: len(digits) - scale] + ("." + digits[len(digits) - scale :] if scale else "")
    return r.choice(("", "-")) + r.choice((text, text, text.rstrip("0").rstrip(".") if scale else text, "1.0E2"))


def same(a: pa.RecordBatch, b: pa.RecordBatch) -> bool:
    """Equal; NaN too."""
    return a.schema.equals(b.schema) and all(_alike(x, y) for x, y in zip(a.columns, b.columns, strict=True))


def _alike(x: pa.Array, y: pa.Array) -> bool:
    if x.equals(y):
        return True
    if not x.is_valid().equals(y.is_valid()):
        return False
    if pa.types.is_struct(x.type):
        return all(_alike(a, b) for a, b in zip(x.flatten(), y.flatten(), strict=True))
    if pa.types.is_list(x.type):
        return bool(x.offsets.equals(y.offsets)) and _alike(x.values, y.values)
    if pa.types.is_map(x.type):
        return bool(x.offsets.equals(y.offsets) and x.keys.equals(y.keys)) and _alike(x.items, y.items)
    return pa.types.is_floating(x.type) and str(x.to_pylist()) == str(y.to_pylist())


def damaged(block: bytes, r: random.Random) -> bytes:
    """The block with some bytes changed, taken out, put in or moved."""
    for _ in range(r.choice((0, 1, 1, 2, 5))):
        at = r.randrange(len(block) + 1)
        end = min(len(block), at + r.choice((0, 0, 1, 1, 2, 8, 40)))
        piece = r.choice((b"", bytes((r.randrange(256),)), r.choice(PIECES), block[end : end + r.randrange(30)]))
        block = block[:at] + piece + block[end:]
    return block


class Fuzz:
    """One schema: its native reader, and the exact path beside it."""

    def __init__(self, library: ctypes.CDLL, r: random.Random) -> None:
        chosen = [kind(r) for _ in range(r.randrange(1, 5))]
        schema = ", ".join(f"`C{i}` {text}" for i, (text, _) in enumerate(chosen))
        self.columns: tuple[Column, ...] = parse_schema(schema)
        self.exact = Decoder(self.columns, 10**9, native=False)
        self.reader = RowReader(library, self.columns, self.exact.schema)
        self.makers = [make for _, make in chosen]

    def block(self, r: random.Random) -> bytes:
        rows = (",".join(make(r) for make in self.makers) for _ in range(r.randrange(1, 6)))
        return "".join(f'{{"row":{{"columns":[{row}]}}}},\n' for row in rows).encode("utf-8", "surrogatepass")

    def compare(self, block: bytes) -> int:
        """Read it as the decoder does; the rows taken.

        Raises:
            AssertionError: the exact path reads other values from these lines, or none.
        """
        at = taken = 0
        while at < len(block):
            start = at
            # A buffer of just this size: a sanitizer sees one byte too far.
            copy = ctypes.create_string_buffer(block, len(block))
            batch, at = self.reader.read(ctypes.cast(copy, ctypes.c_char_p), start, len(block))  # type: ignore[arg-type]
            if batch is not None:
                batch.validate(full=True)
                try:
                    (exact,) = self.exact.decode(block[start:at])
                except (KsqlError, SchemaError) as error:
                    raise AssertionError(f"{self.columns} {block[start:at]!r}: {error}") from None
                assert isinstance(exact, pa.RecordBatch)
                assert same(batch, exact), (self.columns, block[start:at])
                taken += len(batch)
            else:
                assert start == at
            at = block.find(b"\n", at) + 1 or len(block)
        return taken


def dechunk(library: ctypes.CDLL, r: random.Random) -> None:
    """Damaged chunk framing, in buffers of just its size; what comes out lay in what went in."""
    chunks = [bytes(r.randrange(40)) for _ in range(r.randrange(6))]
    wire = damaged(b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n", r)
    copy, out = ctypes.create_string_buffer(wire, len(wire)), ctypes.create_string_buffer(max(len(wire), 1))
    made, pending = ctypes.c_int64(), ctypes.c_int64(r.choice((0, 0, 1, 2, 3, 50)))
    used = library.ksql_dechunk(ctypes.cast(copy, ctypes.c_char_p), len(wire), out, made, pending)
    assert 0 <= made.value <= used <= len(wire) and pending.value >= 0


def main(argv: list[str]) -> int:
    library = native.declared(ctypes.CDLL(argv[0]))
    r = random.Random(int(argv[2]))
    taken = 0
    for number in range(int(argv[1])):
        if number % 50 == 0:
            fuzz = Fuzz(library, r)
        taken += fuzz.compare(damaged(fuzz.block(r), r))
        dechunk(library, r)
    print(taken)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
