"""Finds the row that a server cannot send: it reads it from Kafka, fails to write it, and ends the whole answer.

Its offset can still be asked for, and a query that leaves it out comes past it. In each partition the row after the
last one that was sent may be the one; those few are asked for one by one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import pyarrow as pa

from ksql_lake.base.arrays import numbers
from ksql_lake.base.errors import KsqlUnavailable, RowNotSent
from ksql_lake.sources.ksqldb.answers import AnswerRows
from ksql_lake.sources.ksqldb.client import Client, quote
from ksql_lake.sources.pace import Limits

Place = tuple[int, int, int]  # partition, offset, ROWTIME


def locate(client: Client, name: str, places_query: str, sent: Mapping[int, int], limits: Limits) -> Place | None:
    """Where the row is that ended an answer; None when no row does that any more.

    Args:
        places_query: brings ROWTIME, ROWPARTITION and ROWOFFSET of the rows that were asked for.
        sent: partition -> offset of the last row that came.
    """
    for partition, (offset, rowtime) in sorted(_next(client, name, places_query, sent, limits).items()):
        if _fails(client, name, partition, offset, limits):
            return partition, offset, rowtime
    return None


def _next(
    client: Client, name: str, places_query: str, sent: Mapping[int, int], limits: Limits
) -> dict[int, tuple[int, int]]:
    """Partition -> offset and ROWTIME of the first row that was not sent."""
    found: dict[int, tuple[int, int]] = {}
    with client.query(places_query, earliest=True) as answer:
        rows = AnswerRows(answer, name)
        for elements in rows.endless():
            for batch in elements:
                if isinstance(batch, pa.RecordBatch):
                    times, partitions, offsets = (numbers(batch.column(i)).tolist() for i in range(3))
                    for rowtime, partition, offset in zip(times, partitions, offsets, strict=True):
                        if offset > sent.get(partition, -1) and partition not in found:
                            found[partition] = offset, rowtime
            now = time.monotonic()
            if now - rows.heard > (limits.idle if rows.heard > rows.started else limits.first_row):
                return found
            if now - rows.started > limits.duration:
                return found
    return found


def _fails(client: Client, name: str, partition: int, offset: int, limits: Limits) -> bool:
    """Whether the server fails to send just this row."""
    where = f"ROWPARTITION = {partition} AND ROWOFFSET = {offset}"
    sql = f"SELECT ROWTIME, ROWPARTITION, ROWOFFSET, * FROM {quote(name)} WHERE {where} EMIT CHANGES LIMIT 1;"
    try:
        with client.query(sql, earliest=True) as answer:
            rows = AnswerRows(answer, name)
            while (found := rows.poll()) is not None and not found:
                if time.monotonic() - rows.started > limits.first_row + limits.idle:
                    break
    except RowNotSent:
        return True
    except KsqlUnavailable:
        return False
    return False
