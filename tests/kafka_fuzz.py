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
from ksql_lake.sources.kafka.librdkafka import _arrays, _block
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
        copy = np.frombuffer(block, np.uint8).copy()  # of just this size: a sanitizer sees one byte too far
        found, taken = self.reader.read_block(copy, ends)
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


class Message(ctypes.Structure):
    """librdkafka's rd_kafka_message_t."""

    _fields_ = [
        ("error", ctypes.c_int32), ("topic", ctypes.c_void_p), ("partition", ctypes.c_int32),
        ("value", ctypes.c_void_p), ("size", ctypes.c_size_t), ("key", ctypes.c_void_p), ("key_size", ctypes.c_size_t),
        ("offset", ctypes.c_int64), ("its_own", ctypes.c_void_p),
    ]


class Queue:
    """In librdkafka's place: messages of partitions 0 to 2, with events among them, in portions of any size."""

    def __init__(self, r: random.Random, count: int) -> None:
        self.r, self.out, self.kept = r, 0, list[Any]()
        self.records: list[Record | tuple[int, int]] = []
        offsets = [0, 0, 0]
        for _ in range(count):
            partition = r.randrange(3)
            offsets[partition] += r.choice((1, 1, 1, 3))
            if r.random() < 0.05:
                self.records.append((partition, offsets[partition]))
                continue
            value, key = (r.choice((None, b"", r.randbytes(r.choice((3, 40, 3000))))) for _ in range(2))
            self.records.append(Record(partition, offsets[partition], r.randrange(9**9), key, value))
        self.at = 0
        self.messages: dict[int, Message] = {}

    def batch(self, queue: int, milliseconds: int, into: Any, most: int) -> int:
        count = min(most, self.r.randrange(0, 1100), len(self.records) - self.at)
        for i, record in enumerate(self.records[self.at : self.at + count]):
            message = self._message(record)
            self.messages[ctypes.addressof(message)] = message
            into[i] = ctypes.addressof(message)
        self.at += count
        return count

    def _message(self, record: Record | tuple[int, int]) -> Message:
        if not isinstance(record, Record):
            text = ctypes.create_string_buffer(b"what" * 100, 400)
            self.kept.append(text)
            return Message(-191, None, record[0], ctypes.addressof(text), 400, None, 0, record[1], None)
        made = Message(0, None, record.partition, offset=record.offset, its_own=record.timestamp)
        for name, data in (("value", record.value), ("key", record.key)):
            if data is not None:
                held = ctypes.create_string_buffer(data, max(len(data), 1))
                self.kept.append(held)
                setattr(made, name, ctypes.addressof(held))
                setattr(made, "size" if name == "value" else "key_size", len(data))
        return made

    def timestamp(self, message: int, kind: Any) -> int:
        return int(self.messages[message].its_own or 0)

    def destroy(self, message: int) -> None:
        del self.messages[message]  # twice would be an error


def fetched(library: ctypes.CDLL, r: random.Random) -> int:
    """Take all of a queue through rooms of odd sizes; the records, each compared."""
    queue = Queue(r, r.randrange(1, 3000))
    calls = (
        ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p),
                         ctypes.c_size_t)(queue.batch),
        ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(queue.timestamp),
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(queue.destroy),
    )
    fetch = library.ksql_fetch_new(*(ctypes.cast(call, ctypes.c_void_p) for call in calls), None)
    goals = np.array([r.choice((0, 400, 10**6)) for _ in range(3)], np.int64)
    positions, events = np.zeros(3, np.int64), (native.Event * 3)()
    found, size, key_size, idle, marks = list[Record](), 64, 64, 0, 0
    while idle < 50:
        most = r.choice((1, 7, 1500))
        arrays = _arrays(most, size, key_size)
        room = native.Room(
            room=size, key_room=key_size, most=most, partition_count=3, goals=goals.ctypes.data,
            positions=positions.ctypes.data, events=ctypes.addressof(events), event_room=3,
        )
        for name, array in arrays.items():
            setattr(room, name, array.ctypes.data)
        library.ksql_fetch(fetch, 0, room)
        idle = 0 if room.heard or room.needed else idle + 1
        marks += room.event_count
        size, key_size = max(size, room.needed), max(key_size, room.key_needed)
        if room.count:
            found += _block(arrays, room)
    library.ksql_fetch_free(fetch)
    wanted = [one for one in queue.records if isinstance(one, Record) and one.offset < goals[one.partition]]
    assert [one._replace(headers=()) for one in found] == wanted and not queue.messages
    assert marks == sum(not isinstance(one, Record) for one in queue.records)
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
    records = sum(fetched(library, r) for _ in range(max(1, blocks // 200)))
    print(f"{made_} blocks, {taken} values taken; {records} records fetched")


if __name__ == "__main__":
    main()
