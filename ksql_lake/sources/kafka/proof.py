"""Proof before trust: a sample of a topic's records, decoded here and shown by ksqlDB, must be the same rows.

DESCRIBE hides some of what decides how a record is read (an inherited delimiter, a server's default for wrapping), and
a Kafka that has a topic of the same name need not be ksqlDB's. So a plan is compared once, and again when anything it
is made of has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa

from ksql_lake.base.arrays import pylist
from ksql_lake.base.errors import KsqlError
from ksql_lake.model.canonical import canonical
from ksql_lake.sources.kafka.formats import DEFAULTS, Plan
from ksql_lake.sources.kafka.messages import MessageDecoder
from ksql_lake.sources.kafka.topic import Broker, TopicState
from ksql_lake.sources.ksqldb.answers import NOT_SENT
from ksql_lake.sources.ksqldb.client import Client, quote
from ksql_lake.sources.ksqldb.rows import Decoder, ErrorRow, Final
from ksql_lake.sources.row_source import PSEUDO_COLUMNS, TICK, Flawed, Rows

SAMPLE = 1000  # records
MOST_SECONDS = 60.0  # for ksqlDB to show them
MOST_PARTITIONS = 300  # in a CASE of the query that brings the sample
Place: TypeAlias = tuple[int, int]  # partition, offset
Row: TypeAlias = list[object]


@dataclass(frozen=True)
class Proof:
    """The result of the comparison; `reason` is None where both sides had the same rows.

    Attributes:
        rows: how many were compared.
        differs: whether a row differs, in contrast to a sample that proves nothing.
    """

    rows: int
    reason: str | None = None
    differs: bool = False


def fingerprint(plan: Plan, settings: Mapping[str, str], version: str) -> str:
    """A hash of everything that decides how records are read, as far as ksqlDB shows it."""
    shown = sorted((name, settings.get(name)) for name in DEFAULTS)
    return hashlib.sha256(f"{plan.fingerprint} {shown} {version}".encode()).hexdigest()[:32]


def prove(client: Client, broker: Broker, plan: Plan, state: TopicState, patience: float) -> Proof:
    """Compare the first records of each partition, some in its middle and its latest ones.

    Args:
        patience: seconds of silence after which ksqlDB is believed to have no more rows of the sample.

    Raises:
        LakeError: one of the two could not be asked.
    """
    parts = sample(state)
    decoder = MessageDecoder(plan, lenient=True, asks=True)
    ours: dict[Place, Row] = {}
    unsure: set[Place] = set()
    for spans in parts:
        progress, blocks = broker.read(plan.topic, spans, headers=bool(plan.headers))
        with contextlib.closing(blocks):
            for block in blocks:
                decoded = decoder.decode(block)
                ours.update(_by_offset(decoded.rows))
                unsure.update((one.partition, one.offset) for one in decoded.unsure)
        if progress.stopped is not None:
            raise progress.stopped
    names = [column.name for column in plan.columns]
    shown = _shown(client, plan, parts, set(ours), patience)
    if shown.columns != names:
        what = f"ksqlDB shows the columns {', '.join(shown.columns)}, expected {', '.join(names)}"
        return Proof(0, what, differs=True)
    known = {place: row for place, row in ours.items() if shown.reached(place)}
    return compared(known, {place: row for place, row in shown.rows.items() if place not in unsure}, names)


def sample(state: TopicState) -> list[dict[int, tuple[int, int]]]:
    """What to compare: partition to (first offset, end), at the beginning of partitions, their middle and their end."""
    taken = sorted(p for p, bounds in state.bounds.items() if bounds.end > bounds.start)[:MOST_PARTITIONS]
    third = max(1, SAMPLE // 3 // max(len(taken), 1))
    first, middle, last = dict[int, tuple[int, int]](), dict[int, tuple[int, int]](), dict[int, tuple[int, int]]()
    for p in taken:
        start, end = state.bounds[p].start, state.bounds[p].end
        if end - start <= 3 * third:
            first[p] = start, end
            continue
        at = start + third + (end - start - 3 * third) // 2
        first[p], middle[p], last[p] = (start, start + third), (at, at + third), (end - third, end)
    return [spans for spans in (first, middle, last) if spans]


def compared(ours: Mapping[Place, Row], theirs: Mapping[Place, Row], names: Sequence[str]) -> Proof:
    """Row by row: the same offsets, and the same values at each."""
    for place in sorted({*ours, *theirs}):
        where = f"partition {place[0]}, offset {place[1]}"
        if place not in theirs:
            return Proof(0, f"{where} is a row as decoded here, but not in ksqlDB", differs=True)
        if place not in ours:
            return Proof(0, f"{where} is a row in ksqlDB, but not as decoded here", differs=True)
        for name, mine, shown in zip(["ROWTIME", *names], ours[place], theirs[place], strict=True):
            if repr(mine) != repr(shown):
                return Proof(0, f"{where}: column {name} differs from what ksqlDB shows", differs=True)
    if not ours:
        return Proof(0, "no record of the sample is a row, so nothing can be compared yet")
    return Proof(len(ours))


def _by_offset(rows: Rows) -> dict[Place, Row]:
    """(partition, offset) to ROWTIME and the columns, each in the one spelling in which equal values are equal."""
    batch = rows.batch if isinstance(rows, Flawed) else rows
    columns = [pylist(column) for column in batch.columns]
    return {
        (int(row[1]), int(row[2])): [row[0], *map(canonical, row[PSEUDO_COLUMNS:])]
        for row in zip(*columns, strict=True)
    }


@dataclass
class _Shown:
    """What ksqlDB showed of the sample.

    Attributes:
        last: partition to the highest offset that came, of the sample or not.
        whole: whether all of it came, as far as can be told.
    """

    columns: list[str]
    rows: dict[Place, Row] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    whole: bool = False

    def reached(self, place: Place) -> bool:
        return self.whole or place[1] <= self.last.get(place[0], -1)


def _shown(
    client: Client, plan: Plan, parts: Sequence[Mapping[int, tuple[int, int]]], expected: set[Place], patience: float
) -> _Shown:
    """The rows that ksqlDB shows of the same offsets: until all that are expected came, it is silent, or MOST_SECONDS.

    ksqlDB reads the topic from its start, so that the end of a long one may not be reached in that time.
    """
    sql = _question(plan.source, parts)
    waiting, started = set(expected), time.monotonic()
    with client.query(sql, earliest=True) as answer:
        shown = _Shown([column.name for column in answer.columns[PSEUDO_COLUMNS:]])
        decoder = Decoder(answer.columns, lenient=True)
        heard = started
        while time.monotonic() - started < MOST_SECONDS:
            lines = answer.read(0.1)
            elements = decoder.decode(lines) if lines else []
            for element in elements:
                if isinstance(element, ErrorRow) and NOT_SENT in element.message:
                    return shown  # what came before it is compared
                if isinstance(element, ErrorRow):
                    raise KsqlError(f"{plan.source}: {element.message}", statement=sql, code=element.code)
                if isinstance(element, pa.RecordBatch | Flawed):
                    found = _by_offset(element)
                    for partition, offset in found:
                        shown.last[partition] = max(shown.last.get(partition, -1), offset)
                    shown.rows.update((place, row) for place, row in found.items() if _within(place, parts))
                    waiting.difference_update(found)
                    heard = time.monotonic()
            over = lines == b"" or any(isinstance(element, Final) for element in elements)
            if over or (expected and not waiting) or time.monotonic() - heard > patience:
                shown.whole = True
                break
    return shown


def _question(source: str, parts: Sequence[Mapping[int, tuple[int, int]]]) -> str:
    """The push query for the sample, and for some rows of everywhere, which show that the server still reads."""
    ranges = []
    for spans in parts:
        first = " ".join(f"WHEN ROWPARTITION = {p} THEN {low}" for p, (low, _) in sorted(spans.items()))
        end = " ".join(f"WHEN ROWPARTITION = {p} THEN {high}" for p, (_, high) in sorted(spans.items()))
        ranges.append(f"(ROWOFFSET >= CASE {first} ELSE 0 END AND ROWOFFSET < CASE {end} ELSE 0 END)")
    where = " OR ".join([*ranges, f"ROWOFFSET % {TICK} < 2"])
    return f"SELECT ROWTIME, ROWPARTITION, ROWOFFSET, * FROM {quote(source)} WHERE {where} EMIT CHANGES;"


def _within(place: Place, parts: Sequence[Mapping[int, tuple[int, int]]]) -> bool:
    partition, offset = place
    return any(spans[partition][0] <= offset < spans[partition][1] for spans in parts if partition in spans)
