"""Proof before trust: the first records of a topic, decoded here and shown by ksqlDB, must be the same rows.

DESCRIBE hides some of what decides how a record is read (an inherited delimiter, a server's default for wrapping), and
a Kafka that has a topic of the same name need not be ksqlDB's. So a plan is compared once, and again when anything it
is made of has changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

from ksql_lake.base.arrays import pylist
from ksql_lake.base.errors import KsqlError
from ksql_lake.model.canonical import canonical
from ksql_lake.sources.kafka.formats import DEFAULTS, Plan
from ksql_lake.sources.kafka.messages import MessageDecoder
from ksql_lake.sources.kafka.topic import Broker, TopicState
from ksql_lake.sources.ksqldb.client import Client, quote
from ksql_lake.sources.ksqldb.rows import Decoder, ErrorRow, Final
from ksql_lake.sources.row_source import PSEUDO_COLUMNS, Flawed, Rows

SAMPLE = 1000  # records
MOST_PARTITIONS = 300  # in a CASE of the query that brings the sample
Row: TypeAlias = list[object]


@dataclass(frozen=True)
class Proof:
    """What the comparison says; `reason` is None where both roads brought the same rows.

    Attributes:
        rows: so many were compared.
        differs: whether a row differs, in contrast to a sample that proves nothing.
    """

    rows: int
    reason: str | None = None
    differs: bool = False


def fingerprint(plan: Plan, settings: Mapping[str, str], version: str) -> str:
    """A hash of all that decides how records are read, as far as it is shown."""
    shown = sorted((name, settings.get(name)) for name in DEFAULTS)
    return hashlib.sha256(f"{plan.fingerprint} {shown} {version}".encode()).hexdigest()[:32]


def prove(client: Client, broker: Broker, plan: Plan, state: TopicState, patience: float) -> Proof:
    """Compare the first records of each partition.

    Args:
        patience: seconds of silence after which ksqlDB is believed to have no more rows of the sample.

    Raises:
        LakeError: one of the two could not be asked.
    """
    share = max(1, SAMPLE // max(len(state.bounds), 1))
    taken = sorted(state.bounds)[:MOST_PARTITIONS]
    spans = {p: (b.start, min(b.end, b.start + share)) for p, b in state.bounds.items() if p in taken}
    decoder = MessageDecoder(plan, lenient=True)
    progress, blocks = broker.read(plan.topic, spans, headers=bool(plan.headers))
    ours: dict[tuple[int, int], Row] = {}
    for block in blocks:
        ours.update(_by_offset(decoder.decode(block).rows))
    if progress.stopped is not None:
        raise progress.stopped
    names = [column.name for column in plan.columns]
    theirs, columns = _shown(client, plan, spans, len(ours), patience)
    if columns != names:
        return Proof(0, f"ksqlDB shows the columns {', '.join(columns)}, expected {', '.join(names)}", differs=True)
    return compared(ours, theirs, names)


def compared(ours: Mapping[tuple[int, int], Row], theirs: Mapping[tuple[int, int], Row], names: Sequence[str]) -> Proof:
    """Row by row: the same offsets, and the same values at each."""
    for place in sorted({*ours, *theirs}):
        where = f"partition {place[0]}, offset {place[1]}"
        if place not in theirs:
            return Proof(0, f"{where} is a row as decoded here, and none in ksqlDB", differs=True)
        if place not in ours:
            return Proof(0, f"{where} is a row in ksqlDB, and none as decoded here", differs=True)
        for name, mine, shown in zip(["ROWTIME", *names], ours[place], theirs[place], strict=True):
            if repr(mine) != repr(shown):
                return Proof(0, f"{where}: column {name} differs from what ksqlDB shows", differs=True)
    if not ours:
        return Proof(0, "its first records are no rows, so nothing can be compared yet")
    return Proof(len(ours))


def _by_offset(rows: Rows) -> dict[tuple[int, int], Row]:
    """(partition, offset) to ROWTIME and the columns, each in the one spelling in which equal values are equal."""
    batch = rows.batch if isinstance(rows, Flawed) else rows
    columns = [pylist(column) for column in batch.columns]
    return {
        (int(row[1]), int(row[2])): [row[0], *map(canonical, row[PSEUDO_COLUMNS:])]
        for row in zip(*columns, strict=True)
    }


def _shown(
    client: Client, plan: Plan, spans: Mapping[int, tuple[int, int]], expected: int, patience: float
) -> tuple[dict[tuple[int, int], Row], list[str]]:
    """The rows that ksqlDB shows of the same offsets; it ends by itself when as many came as are expected."""
    goals = " ".join(f"WHEN ROWPARTITION = {p} THEN {goal}" for p, (_, goal) in sorted(spans.items()))
    select = f"SELECT ROWTIME, ROWPARTITION, ROWOFFSET, * FROM {quote(plan.source)}"
    limit = f" LIMIT {expected}" if expected else ""
    sql = f"{select} WHERE ROWOFFSET < CASE {goals} ELSE 0 END EMIT CHANGES{limit};"
    found: dict[tuple[int, int], Row] = {}
    with client.query(sql, earliest=True) as answer:
        decoder = Decoder(answer.columns, lenient=True)
        heard = time.monotonic()
        while time.monotonic() - heard < patience:
            lines = answer.read(0.1)
            if lines == b"":
                break
            elements = decoder.decode(lines) if lines else []
            for element in elements:
                if isinstance(element, ErrorRow):
                    raise KsqlError(f"{plan.source}: {element.message}", statement=sql, code=element.code)
                if isinstance(element, pa.RecordBatch | Flawed):
                    found.update(_by_offset(element))
                    heard = time.monotonic()
            if any(isinstance(element, Final) for element in elements):
                break
        columns = [column.name for column in answer.columns[PSEUDO_COLUMNS:]]
    low = {p: first for p, (first, _) in spans.items()}
    return {place: row for place, row in found.items() if place[1] >= low.get(place[0], 0)}, columns
