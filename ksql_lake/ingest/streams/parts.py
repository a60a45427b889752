"""Reads a large topic in parts: each covers some partitions and is staged by a worker; one commit publishes them all.

Only where the topic is known by its id (or none of it was read before): then a part needs no rows of another part to
know that it is still the same topic. How much there is to read is known from the ends of the partitions.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace

from ksql_lake.base.errors import MAY_PASS, LakeError
from ksql_lake.ingest.progress import SILENT, Progress
from ksql_lake.ingest.streams.anchors import salt_of
from ksql_lake.ingest.streams.brought import Brought, merged
from ksql_lake.ingest.streams.job import Part, StreamJob
from ksql_lake.ingest.streams.reading import StreamExport
from ksql_lake.ingest.workers import Workers
from ksql_lake.model.entries import FileSet
from ksql_lake.model.state import FeedState
from ksql_lake.sources.kafka.asked import Asker
from ksql_lake.sources.kafka.formats import Plan
from ksql_lake.sources.kafka.topic import AHEAD, Broker, TopicState
from ksql_lake.sources.kafka.topic_rows import TopicRows
from ksql_lake.sources.ksqldb.client import Client, Server, Source
from ksql_lake.sources.ksqldb.push_rows import PushSource
from ksql_lake.sources.row_source import RowSource

PART_RECORDS = 250_000  # of a part; a smaller one is not worth another file in each day


@dataclass(frozen=True)
class Piece:
    """The work of one part: plain values, for this process or another machine.

    Attributes:
        state: what the feed knows of the part's partitions.
        share: parts that share this process's memory.
    """

    job: StreamJob
    state: FeedState
    server: Server
    source: Source
    plan: Plan
    topic: TopicState
    partitions: frozenset[int]
    started_ms: int
    share: int = 1


def split(records: Mapping[int, int], most: int, least: int) -> list[frozenset[int]]:
    """Partitions in groups of about the same size; [] where one reader is enough.

    Args:
        records: partition -> how many there are to read.
        most: groups.
        least: records in a group, on average.
    """
    full = sum(count > 0 for count in records.values())
    count = min(most, full, sum(records.values()) // max(least, 1))
    if count < 2:
        return []
    groups: list[list[int]] = [[] for _ in range(count)]
    sizes = [0] * count
    for partition in sorted(records, key=lambda p: (-records[p], p)):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(partition)
        sizes[smallest] += records[partition]
    return sorted(map(frozenset, groups), key=min)


def groups_of(rows: RowSource, state: FeedState, threads: int) -> list[frozenset[int]]:
    """How to split what is to be read of a topic; [] where it is read in one piece."""
    if not isinstance(rows, TopicRows) or rows.identity is None:
        return []
    if (state.resume or state.heads) and not rows.known:
        return []  # known rows are to be compared first
    return split(rows.records({p: anchor.offset for p, anchor in state.resume.items()}), threads, PART_RECORDS)


def least_records() -> int:
    """The number of records below which a topic is read in one piece, by threads or workers."""
    return 2 * PART_RECORDS


def read_parts(
    rows: TopicRows, groups: Sequence[frozenset[int]], job: StreamJob, state: FeedState, server: Server,
    source: Source, started_ms: int, workers: Workers,
) -> Brought:
    """Read groups of partitions at the same time, and combine their results.

    Raises:
        LakeError: one of them failed for good; nothing of the others counts.
    """
    shared = _Shared(job.progress)
    pieces = pieces_of(rows, groups, job, state, server, source, started_ms, workers, shared)
    futures = [workers.executor.submit(read_part, piece) for piece in pieces]
    patience = 2 * (job.limits.duration + job.limits.retry)  # what a worker may take, and another one after it
    try:
        done, late = wait(futures, patience, FIRST_EXCEPTION)
        for future in done:
            future.result()
        if late:
            raise LakeError(
                f"{job.dataset.feed}: {len(late)} of {len(futures)} parts were not read within {patience:.0f} s; "
                "nothing is lost, the next run reads them again"
            )
    except BaseException:
        shared.stop.set()
        _let_end(futures, workers)
        raise
    brought = merged(job.dataset.feed, [future.result() for future in futures])
    brought.anchors = {**state.resume, **brought.anchors}  # unchanged for partitions that could not be read
    brought.heads = {**state.heads, **brought.heads}
    state.columns, state.schema_version = brought.columns, brought.schema_version
    return brought


def _let_end(futures: Sequence[Future[Brought]], workers: Workers) -> None:
    """Before their files are taken away: threads of this process end; a cluster's workers lose their lease."""
    for future in futures:
        future.cancel()
    if not workers.remote:
        wait(futures)


def pieces_of(
    rows: TopicRows, groups: Sequence[frozenset[int]], job: StreamJob, state: FeedState, server: Server,
    source: Source, started_ms: int, workers: Workers, progress: Progress,
) -> list[Piece]:
    """The work of each group. Hashes made by one of them must be comparable with those of the others."""
    salt, seed = salt_of([*state.resume.values(), *state.heads.values()]), secrets.randbits(128)
    share = 1 if workers.remote else min(len(groups), workers.threads)
    writer = job.writer
    if share > 1:
        rows_each = max(1, min(writer.row_group_rows, max(65_536, writer.row_group_rows // share)))
        writer = replace(writer, buffer_bytes=max(1, writer.buffer_bytes // (2 * share)), row_group_rows=rows_each)
    whole = replace(
        job, progress=SILENT if workers.remote else progress, push=None, writer=writer,
        since=None if state.resume else job.since,
    )
    return [
        Piece(replace(whole, part=Part(f"p{number}", salt, seed)), state_of(state, group), server, source, rows.plan,
              rows.topic, group, started_ms, share)
        for number, group in enumerate(groups)
    ]


def state_of(state: FeedState, partitions: frozenset[int]) -> FeedState:
    """What the feed knows about some partitions: a part must say nothing about others, not even in footers."""
    mark, covered = state.mark, state.covered
    return replace(
        state,
        files=FileSet(), quarantine=None,
        resume={p: anchor for p, anchor in state.resume.items() if p in partitions},
        heads={p: head for p, head in state.heads.items() if p in partitions},
        coverage={state.generation: {p: one for p, one in covered.items() if p in partitions}},
        topic=replace(mark, next={p: at for p, at in mark.next.items() if p in partitions}),
    )


def read_part(piece: Piece) -> Brought:
    """Read and stage one part, under a name of its own: a worker that was given up may still be writing."""
    part, kafka = piece.job.part, piece.job.kafka
    assert part is not None and kafka is not None
    job = replace(piece.job, part=replace(part, name=f"{part.name}w{secrets.token_hex(3)}"))
    lenient = job.on_bad_value != "fail"
    with Client(piece.server) as client, Broker(kafka, ahead=AHEAD // piece.share) as broker:
        rest = PushSource(client, piece.source, job.limits, job.batch_size, lenient, piece.started_ms)
        rows = TopicRows(
            broker, piece.plan, piece.topic, piece.state.mark, rest, job.dataset.feed, job.batch_size, lenient=lenient,
            exact=job.exact_values, only=piece.partitions,
            asker=None if job.exact_values else Asker(client, piece.source.name, job.limits, lenient=lenient),
        )
        export = StreamExport(rows, job, piece.state, piece.started_ms)
        try:
            return Brought.of(export, export.read())
        except MAY_PASS as error:
            return Brought(failure=error, notes=export.notes, retries=export.retries)


class _Shared(Progress):
    """One feed's progress, reported by several threads; here they also notice that they must stop."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lock, self.stop = progress, threading.Lock(), threading.Event()

    def __call__(self, rows: int, size: int = 0, rowtime: int | None = None) -> None:
        if self.stop.is_set():
            raise LakeError("the reading was stopped")
        with self._lock:
            self._progress(rows, size, rowtime)

    def waits(self, why: str) -> None:
        with self._lock:
            self._progress.waits(why)
