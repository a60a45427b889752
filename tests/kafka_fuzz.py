"""Damaged objects through the native reader of topics, each compared with the exact path; also run sanitized.

    python -m tests.kafka_fuzz LIBRARY BLOCKS SEED
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
from typing import Any

import numpy as np
import pyarrow as pa

from ksql_lake.base import native
from ksql_lake.model.types import PSEUDO, Column, SqlType
from ksql_lake.sources.kafka.formats import Part, Plan
from ksql_lake.sources.kafka.native_values import ValueReader
from ksql_lake.sources.kafka.records import Record, RecordDecoder
from ksql_lake.sources.kafka.verdicts import Unsure
from ksql_lake.sources.row_source import Flawed
from tests.native_fuzz import PIECES, same

TEXTS = SqlType("MAP", key=SqlType("STRING"), element=SqlType("STRING"))
NAMES = ("A", "B2", "LONG_NAME", "low", "b c", "Ü")
KEYS = ("a", "b", "ab", "Aa", "BB", "channel", "ref", "k1", "k2", "é", 'q"')
MORE = (b" ", b"\n", b"\t", b'"A":1,', b'"a":', b"{}", b"[]", b"[[[", b"]]]", b"tru", b"null,", b"1.5", b"86400000",
        b"-62135769600001", b"1e2", b"\xef\xbb\xbf", b"x", b'{"A":1}')


def kind(r: random.Random, depth: int = 3) -> SqlType:
    shape = r.choice(("scalar", "scalar", "DECIMAL", *(("ARRAY", "MAP", "STRUCT") if depth else ())))
    if shape == "scalar":
        bases = ("BOOLEAN", "INTEGER", "BIGINT", "DOUBLE", "STRING", "BYTES", "DATE", "TIME", "TIMESTAMP")
        return SqlType(r.choice(bases))
    if shape == "DECIMAL":
        precision = r.randrange(1, 39)
        return SqlType("DECIMAL", precision, r.randrange(precision + 1))
    if shape == "ARRAY":
        return SqlType("ARRAY", element=kind(r, depth - 1))
    if shape == "MAP":
        return SqlType("MAP", key=SqlType("STRING"), element=kind(r, depth - 1))
    return SqlType("STRUCT", fields=tuple((name, kind(r, depth - 1)) for name in r.sample(NAMES, r.randrange(1, 4))))


def made(kind: SqlType, r: random.Random) -> str:
    """A value of the type as a producer may write it, mostly well."""
    blank = r.choice(("", "", "", " ", "\n\t"))
    if r.random() < 0.1:
        return r.choice(("null", "null", "true", '"12"', "1.0", "{}", "[]", "-0", '"x"'))
    if kind.base == "STRUCT":
        fields = [(r.choice((name, name, name, name.lower())), made(inner, r)) for name, inner in kind.fields]
        fields += [("other", made(TEXTS, r))] * r.randrange(2)
        r.shuffle(fields)
        named = [f"{json.dumps(name, ensure_ascii=r.random() < 0.3)}{blank}:{value}" for name, value in fields]
        return "{" + f",{blank}".join(named) + "}"
    if kind.base == "ARRAY" and kind.element:
        return f"[{blank}" + f"{blank},".join(made(kind.element, r) for _ in range(r.randrange(4))) + "]"
    if kind.base == "MAP" and kind.element:
        keys = r.choices(KEYS, k=r.choice((0, 1, 2, 3, 5, 9))) if r.random() < 0.2 else r.sample(KEYS, r.randrange(8))
        named = [f"{json.dumps(key, ensure_ascii=False)}:{made(kind.element, r)}" for key in keys]
        return "{" + f",{blank}".join(named) + "}"
    return _scalar(kind, r)


def _scalar(kind: SqlType, r: random.Random) -> str:
    if kind.base == "BOOLEAN":
        return r.choice(("true", "false"))
    if kind.base == "STRING":
        return json.dumps("".join(r.choices(("a", '"', "\\", "\n", "é", "\U0001F600", "/"), k=r.randrange(9))),
                          ensure_ascii=r.random() < 0.5)
    if kind.base == "BYTES":
        return r.choice(('""', '"AQ=="', '"AQI="', '"AQID"', '"AQJ="'))
    if kind.base == "DOUBLE":
        return r.choice((repr(r.uniform(-1e6, 1e6)), "1.5", "-0.0", "0", "1e400", str(r.randrange(10**18)), "-0e5"))
    if kind.base == "DECIMAL":
        digits = str(r.randrange(10 ** r.randrange(1, kind.precision + 1))).zfill(kind.scale + 1)
        cut = len(digits) - kind.scale
        return r.choice(("", "-")) + digits[:cut] + ("." + digits[cut:] if kind.scale else "")
    if kind.base == "TIME":
        return str(r.choice((0, 9999, 86_399_999, 86_400_000, r.randrange(86_400_000))))
    bits = 31 if kind.base in ("INTEGER", "DATE") else 63
    return str(r.choice((r.randrange(-(2**bits), 2**bits), r.randrange(100), 2**bits - 1, -(2**bits), -(10**14))))


def damaged(value: bytes, r: random.Random) -> bytes:
    for _ in range(r.choice((0, 0, 1, 1, 2))):
        at = r.randrange(len(value) + 1)
        end = min(len(value), at + r.choice((0, 0, 1, 2, 8)))
        value = value[:at] + r.choice((b"", bytes((r.randrange(256),)), r.choice(PIECES), r.choice(MORE))) + value[end:]
    return value


class Fuzz:
    """One schema: its native reader, and the exact path beside it."""

    def __init__(self, library: ctypes.CDLL, r: random.Random) -> None:
        self.root = SqlType("STRUCT", fields=tuple((name, kind(r)) for name in r.sample(NAMES, r.randrange(1, 5))))
        columns = tuple(Column(name, inner) for name, inner in self.root.fields)
        exact = r.random() < 0.3
        self.exact = RecordDecoder(Plan("S", "T", Part("NONE", ()), Part("JSON", columns)), exact=exact, lenient=True)
        schema = pa.schema([self.exact.schema.field(i) for i in range(len(PSEUDO), len(self.exact.schema))])
        self.reader = ValueReader(library, columns, schema, exact=exact)

    def values(self, r: random.Random) -> list[bytes]:
        return [damaged(made(self.root, r).encode("utf-8", "surrogatepass"), r) for _ in range(r.randrange(1, 8))]

    def compare(self, values: list[bytes]) -> int:
        """Read them; the values taken.

        Raises:
            AssertionError: the exact path makes something else of one of these.
        """
        block = b"\n".join(values) + b"\n"
        ends = np.cumsum([len(value) + 1 for value in values]) - 1
        copy = ctypes.create_string_buffer(block, len(block))  # of just this size: a sanitizer sees one byte too far
        found, taken = self.reader.read_block(ctypes.cast(copy, ctypes.c_char_p), ends)  # type: ignore[arg-type]
        if found is None:
            return 0
        found.validate(full=True)
        chosen = [Record(0, i, 0, None, value) for i, value in enumerate(values) if taken[i]]
        try:
            decoded = self.exact.decode(chosen)
        except Unsure as error:
            raise AssertionError(f"{self.root} {values!r}: {error}") from None
        rows: Any = decoded.rows
        wanted = pa.RecordBatch.from_arrays(rows.columns[len(PSEUDO):], schema=found.schema) if not isinstance(
            rows, Flawed) else None
        if decoded.passed or wanted is None or not same(found, wanted):
            raise AssertionError(f"{self.root} {[r.value for r in chosen]!r}: {found.to_pylist()} {decoded}")
        return len(found)


def main() -> None:
    path, blocks, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    library, r = native.declared(ctypes.CDLL(path)), random.Random(seed)
    taken = made_ = 0
    while made_ < blocks:
        fuzz = Fuzz(library, r)
        for _ in range(20):
            values = fuzz.values(r)
            taken += fuzz.compare(values)
            made_ += 1
    print(f"{made_} blocks, {taken} values taken")


if __name__ == "__main__":
    main()
