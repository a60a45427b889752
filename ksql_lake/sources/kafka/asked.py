"""Records of which decoding is not certain: ksqlDB is asked what it makes of just these.

A push query never ends, so the answer is whole when every record came, or a later one of its partition; or when
the server has been silent as long as at the end of a topic. Rows with ROWOFFSET % 1000 < 2 show that it still reads.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import mask, numbers
from ksql_lake.base.errors import KsqlUnavailable, RowNotSent, SchemaError
from ksql_lake.sources.kafka.verdicts import Unsure
from ksql_lake.sources.ksqldb.answers import AnswerRows
from ksql_lake.sources.ksqldb.client import Client, quote
from ksql_lake.sources.pace import Limits
from ksql_lake.sources.row_source import TICK, Flaw, Flawed, Rows

Places: TypeAlias = Mapping[int, Collection[int]]  # partition to offsets
MOST_TIMES = 20  # in a run: each makes the server read the topic from its start
MOST_RECORDS = 2_000  # in one question
BEYOND = 100  # rows behind a record that show that it is none


class Asker:
    """Asks for records of one stream in one run.

    Args:
        limits: how long the server may be silent.
        lenient: see `RecordDecoder`.

    Attributes:
        records: so many were asked for.
    """

    def __init__(self, client: Client, source: str, limits: Limits, *, lenient: bool = False) -> None:
        self._client, self._source, self._limits, self._lenient = client, source, limits, lenient
        self._times = self.records = 0

    def ask(self, places: Places, why: str) -> list[Rows]:
        """The rows among these records.

        Args:
            why: why the first of them is not certain.

        Raises:
            Unsure: there are too many of them, so that the whole stream is better read over REST.
            KsqlError: ksqlDB cannot be asked.
            SchemaError: one is a row that it cannot send.
        """
        first = min((partition, offset) for partition, offsets in places.items() for offset in offsets)
        where = f"{self._source}: partition {first[0]}, offset {first[1]}"
        count = sum(map(len, places.values()))
        if self._times == MOST_TIMES or count > MOST_RECORDS:
            raise Unsure(f"{where}: {why}, and there are many such records").at(*first)
        self._times, self.records = self._times + 1, self.records + count
        try:
            return self._answer(places)
        except RowNotSent as error:
            raise SchemaError(f"{where}: {why}, and ksqlDB cannot send it ({error})").at(*first) from None

    def _answer(self, places: Places) -> list[Rows]:
        found, open_ = list[Rows](), {partition: set(offsets) for partition, offsets in places.items()}
        with self._client.query(question(self._source, places), earliest=True) as answer:
            rows = AnswerRows(answer, self._source, lenient=self._lenient)
            for elements in rows.endless():
                for element in elements:
                    if isinstance(element, pa.RecordBatch | Flawed):
                        found.append(_only(element, places))
                        _close(open_, element)
                if not open_ or self._silent(rows):
                    return [one for one in found if len(one.batch if isinstance(one, Flawed) else one)]
        return found

    def _silent(self, rows: AnswerRows) -> bool:
        now, limits = time.monotonic(), self._limits
        if now - rows.started > limits.duration:
            raise KsqlUnavailable(f"{self._source}: ksqlDB did not come to the records asked for in time")
        return now - rows.heard > (limits.idle if rows.heard > rows.started else limits.first_row)


def question(source: str, places: Places) -> str:
    """The push query that brings these records, and some that show how far the server is."""
    wanted = []
    for partition, offsets in sorted(places.items()):
        known, last = ", ".join(map(str, sorted(offsets))), max(offsets)
        these = f"ROWOFFSET IN ({known}) OR (ROWOFFSET > {last} AND ROWOFFSET <= {last + BEYOND})"
        wanted.append(f"(ROWPARTITION = {partition} AND ({these}))")
    where = " OR ".join([*wanted, f"ROWOFFSET % {TICK} < 2"])
    return f"SELECT ROWTIME, ROWPARTITION, ROWOFFSET, * FROM {quote(source)} WHERE {where} EMIT CHANGES;"


def _close(open_: dict[int, set[int]], rows: Rows) -> None:
    """Take out of `open_` what is answered: records that came, and partitions in which a later one came."""
    batch = rows.batch if isinstance(rows, Flawed) else rows
    partitions, offsets = numbers(batch.column(1)), numbers(batch.column(2))
    for partition in list(open_):
        came = offsets[partitions == partition]
        open_[partition] -= set(came.tolist())
        if not open_[partition] or (len(came) and came.max() > max(open_[partition])):
            del open_[partition]


def _only(rows: Rows, places: Places) -> Rows:
    """The rows that were asked for."""
    batch = rows.batch if isinstance(rows, Flawed) else rows
    pairs = zip(numbers(batch.column(1)).tolist(), numbers(batch.column(2)).tolist(), strict=True)
    kept = np.array([offset in places.get(partition, ()) for partition, offset in pairs], bool)
    batch = batch.filter(mask(kept))
    if not isinstance(rows, Flawed):
        return batch
    now = np.cumsum(kept) - 1
    flaws = [Flaw(int(now[f.row]), f.column, f.reason, f.partition, f.offset) for f in rows.flaws if kept[f.row]]
    return Flawed(batch, tuple(flaws)) if flaws else batch
