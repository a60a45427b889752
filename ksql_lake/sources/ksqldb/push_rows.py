"""A stream's rows by a REST push query: it never ends, cannot seek, and proves nothing about the topic.

No end mark can be trusted, so `Pace` decides when the topic has been read to its present end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import numbers
from ksql_lake.base.errors import KsqlError, KsqlUnavailable, RowNotSent
from ksql_lake.base.limits import PARTITIONS
from ksql_lake.model.types import Column
from ksql_lake.sources.ksqldb.answers import AnswerRows
from ksql_lake.sources.ksqldb.client import Answer, Client, Source, quote
from ksql_lake.sources.ksqldb.not_sent import Place, locate
from ksql_lake.sources.pace import Limits, Pace
from ksql_lake.sources.row_source import PSEUDO_COLUMNS, TICK, Flawed, Reading, Rows, Wanted

MOST_TIMES = 100  # in one condition: 300 ORs overflow the server's stack
HEADER = [("ROWTIME", "BIGINT"), ("ROWPARTITION", "INTEGER"), ("ROWOFFSET", "BIGINT")]


def push_query(source: str, wanted: Wanted, columns: str = ", *") -> str:
    """The push query for the wanted rows, with all their columns, or only their place where `columns` is "".

    300 ORs overflow the server's stack, CASE works to 1,000 partitions; beyond that the least offset filters.
    Rows with ROWOFFSET % 1000 < 2 come from everywhere and show that the server is still reading.
    """
    select = f"SELECT ROWTIME, ROWPARTITION, ROWOFFSET{columns} FROM {quote(source)}"
    after, window = wanted.after, wanted.window
    left_out = " AND ".join(
        f"NOT (ROWPARTITION = {p} AND ROWOFFSET IN ({', '.join(map(str, sorted(offsets)))}))"
        for p, offsets in sorted(wanted.without.items()) if offsets
    )
    if not after and window is None:
        return f"{select} WHERE {left_out} EMIT CHANGES;" if left_out else f"{select} EMIT CHANGES;"
    rows = f"ROWOFFSET >= {_case(_first(wanted), 0)}" if after else "ROWOFFSET >= 0"
    if window is not None:
        rows = f"({rows} AND ROWTIME >= {window[0]} AND ROWTIME < {window[1]})"
        if after:
            rows += f" OR ROWOFFSET = {_case(after, -1)}"
    rows = f"{rows} OR ROWOFFSET % {TICK} < 2"
    return f"{select} WHERE {f'({rows}) AND {left_out}' if left_out else rows} EMIT CHANGES;"


def _first(wanted: Wanted) -> dict[int, int]:
    """Partition -> the offset of the first row that is wanted."""
    return {p: 0 if p in wanted.whole else offset for p, offset in wanted.after.items()}


def _case(after: Mapping[int, int], otherwise: int) -> str:
    if len(after) > 1000 and otherwise == 0:
        return str(min(after.values()))
    whens = " ".join(f"WHEN ROWPARTITION = {p} THEN {after[p]}" for p in sorted(after))
    return f"CASE {whens} ELSE {otherwise} END"


class PushRows(Reading):
    """One push query as a `Reading`.

    Attributes:
        sent: partition -> the offset of the last row that was returned.
        stays: decides at the end of the reading whether the query stays open; called with the error that ends it.
    """

    proven = False
    samples = True

    def __init__(
        self, answer: Answer, source: Source, limits: Limits, batch_size: int, lenient: bool, run_started_ms: int,
        locate: Callable[[Mapping[int, int]], Place | None],
    ) -> None:
        self._answer, self._locate = answer, locate
        self.sent: dict[int, int] = {}
        self.stays: Callable[[BaseException | None], bool] = lambda error: False
        self._rows = AnswerRows(answer, source.name, batch_size, lenient)
        self._looks = self._rows.endless()
        self._pace = Pace(limits, source.partitions, run_started_ms, self._rows.started)

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._answer.columns[PSEUDO_COLUMNS:]

    @property
    def query_id(self) -> str:
        return self._answer.query_id

    def read(self) -> Sequence[Rows]:
        try:
            found = [element for element in next(self._looks) if isinstance(element, pa.RecordBatch | Flawed)]
        except RowNotSent as error:
            self._answer.close()
            place = self._locate(self.sent)
            if place is None:
                raise KsqlUnavailable(str(error), code=error.code) from None
            error.partition, error.offset, error.rowtime = place
            error.last = self.sent.get(place[0], -1)
            raise
        if found:
            received, now_ms = self._rows.heard, int(time.time() * 1000)
            for rows in found:
                batch = rows.batch if isinstance(rows, Flawed) else rows
                self._check(batch)
                partitions, offsets = numbers(batch.column(1)), numbers(batch.column(2))
                for partition in np.unique(partitions).tolist():
                    last = int(offsets[partitions == partition].max())
                    self.sent[partition] = max(self.sent.get(partition, -1), last)
                self._pace.rows(received, now_ms, partitions, numbers(batch.column(0)))
            self._pace.worked(time.monotonic() - received)  # decoding
        return found

    def _check(self, batch: pa.RecordBatch) -> None:
        """Make sure that each row says where it is."""
        for column, (name, _) in zip(batch.columns, HEADER, strict=False):
            if column.null_count:
                raise KsqlError(f"{self._rows.name}: the answer is not what ksqlDB sends: a row without {name}")
        for name, column, most in (
            ("ROWPARTITION", batch.column(1), PARTITIONS), ("ROWOFFSET", batch.column(2), (1 << 63) - 1)
        ):
            found = numbers(column)
            if len(found) and (found.min() < 0 or found.max() > most):
                raise KsqlError(
                    f"{self._rows.name}: the answer is not what ksqlDB sends: a {name} that is not from 0 to {most:,}"
                )

    def worked(self, seconds: float) -> None:
        self._pace.worked(seconds)

    def ended(self, now: float) -> str | None:
        return self._pace.ended(now)

    def silence(self, now: float, partition: int | None = None) -> float:
        return self._pace.silence(now, partition)

    def behind(self, now: float) -> Sequence[int]:
        return self._pace.waiting(now)

    def __enter__(self) -> PushRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.stays(error):
            self._answer.close()

    def close(self) -> None:
        """Hang up, which ends the query on the server."""
        self._answer.close()


class PushSource:
    """A stream of a ksqlDB server as a `RowSource`.

    Args:
        batch_size, lenient: see `Decoder`.
        run_started_ms: epoch ms; a row of the run's own time shows that its partition is read to its present end.
    """

    identity: str | None = None

    def __init__(
        self, client: Client, source: Source, limits: Limits, batch_size: int = 10_000,
        lenient: bool = False, run_started_ms: int | None = None,
    ) -> None:
        self._client, self._source, self._limits = client, source, limits
        self._batch_size, self._lenient = batch_size, lenient
        self._started_ms = int(time.time() * 1000) if run_started_ms is None else run_started_ms

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def partitions(self) -> int:
        return self._source.partitions

    @property
    def compacted(self) -> bool:
        return self._source.compacted

    def at(self, rowtimes: Collection[int]) -> Iterator[tuple[Sequence[str], pa.RecordBatch]]:
        """By a pull query, which ends when it has read what the topic held when it began."""
        wanted = " OR ".join(f"ROWTIME = {time}" for time in sorted(rowtimes)[:MOST_TIMES])
        limits = replace(self._limits, first_row=self._limits.anchor)  # what does not match is silence
        with self._client.query(f"SELECT ROWTIME, * FROM {quote(self.name)} WHERE {wanted};", earliest=True) as answer:
            names = [column.name for column in answer.columns[1:]]
            for rows in AnswerRows(answer, self.name, self._batch_size, self._lenient).whole(limits):
                if isinstance(rows, pa.RecordBatch | Flawed):
                    yield names, rows.batch if isinstance(rows, Flawed) else rows
        if len(rowtimes) > MOST_TIMES:
            raise KsqlError(f"{self.name}: {len(rowtimes)} times are more than one query can ask for")

    def first_row(self, partition: int) -> tuple[int, int] | None:
        """Offset and ROWTIME of the first row of a partition; None when none comes within `limits.idle` seconds.

        By a query that ends with that row, so the server does not read the whole topic.
        """
        where = f"{quote(self.name)} WHERE ROWPARTITION = {partition}"
        sql = f"SELECT ROWTIME, ROWOFFSET FROM {where} EMIT CHANGES LIMIT 1;"
        with self._client.query(sql, earliest=True) as answer:
            rows = AnswerRows(answer, self.name)
            while (found := rows.poll()) is not None:
                for batch in found:
                    if isinstance(batch, pa.RecordBatch) and len(batch):
                        return int(numbers(batch.column(1))[0]), int(numbers(batch.column(0))[0])
                if time.monotonic() - rows.started > self._limits.idle:
                    break
        return None

    def is_empty(self) -> bool | None:
        return self._client.is_empty(self._source.name)

    def open(self, wanted: Wanted) -> PushRows:
        answer = self._client.query(push_query(self._source.name, wanted), earliest=True)
        if [(c.name, c.type.base) for c in answer.columns[:PSEUDO_COLUMNS]] != HEADER:
            answer.close()
            shown = ", ".join(f"{name} {kind}" for name, kind in HEADER)
            raise KsqlError(
                f"{self._source.name}: the answer is not what ksqlDB sends: its header does not begin with {shown}"
            )
        places = push_query(self._source.name, wanted, columns="")
        find = partial(locate, self._client, self._source.name, places, limits=self._limits)
        return PushRows(answer, self._source, self._limits, self._batch_size, self._lenient, self._started_ms, find)
