"""Records of a topic side by side: the bytes of their values in one piece, and their places and times as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ksql_lake.sources.kafka.records import Record

Array: TypeAlias = np.ndarray[Any, Any]
NO_VALUE, NO_KEY = 1, 2  # of native.c


@dataclass(frozen=True)
class Block:
    """Records in the order in which they came.

    Attributes:
        values: bytes; each value is followed by a line end, at `ends[i]`. A value that is null is empty here.
        keys: bytes without anything between them; key i ends before `key_ends[i]`.
        partitions, offsets, times: int32, int64 and int64 (epoch ms).
        absent: NO_VALUE and NO_KEY for what is null, as bits.
        headers: of each record, where they were asked for; else ().
    """

    values: Array
    ends: Array
    keys: Array
    key_ends: Array
    partitions: Array
    offsets: Array
    times: Array
    absent: Array
    headers: Sequence[Sequence[tuple[str, bytes | None]]] = ()

    @classmethod
    def of(cls, records: Sequence[Record]) -> Block:
        values, keys = [record.value or b"" for record in records], [record.key or b"" for record in records]
        absent = [(record.value is None) * NO_VALUE | (record.key is None) * NO_KEY for record in records]
        return cls(
            np.frombuffer(b"".join(value + b"\n" for value in values), np.uint8),
            np.cumsum([len(value) + 1 for value in values], dtype=np.int64) - 1,
            np.frombuffer(b"".join(keys), np.uint8),
            np.cumsum([len(key) for key in keys], dtype=np.int64),
            np.array([record.partition for record in records], np.int32),
            np.array([record.offset for record in records], np.int64),
            np.array([record.timestamp for record in records], np.int64),
            np.array(absent, np.uint8),
            [record.headers for record in records],
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[Record]:
        return map(self.record, range(len(self)))

    def record(self, i: int) -> Record:
        absent = int(self.absent[i])
        value = self.values[int(self.ends[i - 1]) + 1 if i else 0 : int(self.ends[i])]
        key = self.keys[int(self.key_ends[i - 1]) if i else 0 : int(self.key_ends[i])]
        return Record(
            int(self.partitions[i]), int(self.offsets[i]), int(self.times[i]),
            None if absent & NO_KEY else key.tobytes(), None if absent & NO_VALUE else value.tobytes(),
            self.headers[i] if self.headers else (),
        )
