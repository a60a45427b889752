"""One export of one stream: turns what `reading` staged into files, resume points and coverage, every event once."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace

from ksql_lake.base.errors import SourceError
from ksql_lake.base.figures import counted
from ksql_lake.base.retry import until_answered
from ksql_lake.ingest.staged import Outcome, Staged
from ksql_lake.ingest.streams.attempt import Attempt, run_name
from ksql_lake.ingest.streams.brought import Brought
from ksql_lake.ingest.streams.job import StreamJob
from ksql_lake.ingest.streams.parts import groups_of, least_records, read_parts
from ksql_lake.ingest.streams.reading import StreamExport
from ksql_lake.ingest.streams.road import NotLarge, choose, refuse_moved_values
from ksql_lake.ingest.workers import Workers
from ksql_lake.model.anchor import Covered, TopicMark
from ksql_lake.model.change import Change
from ksql_lake.model.checks import Result
from ksql_lake.model.columns import record_schema
from ksql_lake.model.coverage import merge
from ksql_lake.model.entries import AHEAD, FileEntry
from ksql_lake.model.state import FeedState, KeptFinding, LastRun
from ksql_lake.quality.bad_values import bad_value_findings
from ksql_lake.quality.checker import Occasion, judge, results
from ksql_lake.sources.kafka.topic_rows import TopicRows
from ksql_lake.sources.kafka.verdicts import Unsure
from ksql_lake.sources.ksqldb.client import Client
from ksql_lake.sources.row_source import RowSource
from ksql_lake.store import metadata
from ksql_lake.store.writer import StagedFile


def stage_stream(
    client: Client, job: StreamJob, state: FeedState, now: Callable[[], str], workers: Workers | None = None
) -> Staged:
    """Read what is new in a stream and stage it. This process, or the one that waits for it, holds the feed's lock.

    Args:
        state: the feed's state; it is changed into the new one.
        now: the present time as ISO 8601 text.
        workers: these read parts of a large topic.

    Raises:
        LakeError: nothing was staged, and why.
        NotLarge: it is not worth the while of workers on other machines to read parts of it.
    """
    outcome = Outcome(findings=metadata.unknown_files(job.dataset, state))
    _refuse_moved_days(job, state)
    refuse_moved_values(job, state.mark, state.last_export is not None)
    started_ms = int(time.time() * 1000)
    source = until_answered(lambda: client.resolve(job.source, "stream"), job.limits.retry, outcome.retried)
    with ExitStack() as held:
        least = least_records() if workers and workers.remote else 0
        road = choose(client, source, job, state.mark, started_ms, held, least)
        rows = road.rows
        groups = groups_of(rows, state, workers.threads) if workers else []
        if workers and workers.remote and not groups:
            raise NotLarge
        outcome.road, outcome.why = road.name, road.why + (f", in {len(groups)} parts" if groups else "")
        outcome.findings += [road.finding] if road.finding else []
        try:
            if groups and workers and isinstance(rows, TopicRows):
                with _cleared(job, state):
                    brought = read_parts(rows, groups, job, state, client.server, source, started_ms, workers)
                    return _judged(job, state, brought, outcome, now, road.proof)
            staged = stage_rows(rows, job, state, outcome, now, started_ms, road.proof)
        except Unsure as error:
            if road.other is None:
                raise
            outcome.road, outcome.why = "rest", f"{error}; the whole stream is read over REST this time"
            return stage_rows(road.other, job, state, outcome, now, started_ms)
        if road.asker is not None and road.asker.records:
            outcome.why += f", {counted(road.asker.records, 'record')} asked over REST"
        return staged


def stage_rows(
    rows: RowSource, job: StreamJob, state: FeedState, outcome: Outcome, now: Callable[[], str], started_ms: int,
    proof: str | None = None,
) -> Staged:
    """The same from any source of rows, in this thread.

    Args:
        proof: a hash of what was compared with ksqlDB's rows, to be kept in the state.
    """
    export = StreamExport(rows, job, state, started_ms)
    recreated = False
    with _cleared(job, state):
        if not state.resume and rows.is_empty():
            outcome.notes.append("the stream is empty")
        else:
            recreated = export.read()
        return _judged(job, state, Brought.of(export, recreated), outcome, now, proof)


@contextmanager
def _cleared(job: StreamJob, state: FeedState) -> Iterator[None]:
    """Leave nothing in staging when it ends in an error."""
    try:
        yield
    except BaseException:
        job.dataset.storage.delete(job.dataset.staged(run_name(job, state)))
        raise


def _judged(
    job: StreamJob, state: FeedState, brought: Brought, outcome: Outcome, now: Callable[[], str], proof: str | None
) -> Staged:
    """What was brought, once the checks let it pass."""
    outcome.checks = _verdict(job, state, brought, now())
    brought.findings += judge(job.dataset.feed, outcome.checks)
    brought.findings += bad_value_findings(job.dataset.feed, [attempt.bad for attempt in brought.attempts])
    if not brought.recreated:
        state.topic = _mark(job, state, brought, proof)
    return _staged(job, state, brought, outcome, now())


def _mark(job: StreamJob, state: FeedState, brought: Brought, proof: str | None) -> TopicMark | None:
    """The state of the topic after this run; over REST, which cannot tell, the same as before."""
    if brought.identity is None and proof is None:
        return state.topic
    known = state.mark
    positions = {} if job.days else brought.positions
    following = {p: max(at, known.next.get(p, 0)) for p, at in positions.items()}
    identity = None if brought.unseen else brought.identity
    return TopicMark(state.generation, identity, {**known.next, **following}, proof, job.exact_values)


def _verdict(job: StreamJob, state: FeedState, brought: Brought, now: str) -> list[Result]:
    """The result of the checks over the attempts that count."""
    part = "only some days were asked for" if job.days else ""
    part = "the topic was recreated meanwhile" if brought.recreated else part
    moment = dt.datetime.fromisoformat(now)
    latest = (moment.timestamp() + AHEAD) * 1000
    times = [state.newest_until(latest), *(file.rowtime_max for file in state.quarantined)]
    newest = max((time for time in times if time is not None and time <= latest), default=state.newest_rowtime)
    occasion = Occasion(moment, job.usual_rows, newest, part)
    return results(job.checks, [attempt.checker for attempt in brought.attempts], occasion)


def _refuse_moved_days(job: StreamJob, state: FeedState) -> None:
    for key, was, wanted in (
        ("timezone", state.timezone, job.timezone),
        ("timestamp_column", state.timestamp_column, job.timestamp_column),
    ):
        if was != wanted:
            raise SourceError(
                f"{job.dataset.feed}: {key} was {was} at the first export and is now {wanted}, which would "
                "split events of one day over two; change the feed back, or archive it and add a new one"
            )


def _staged(job: StreamJob, state: FeedState, brought: Brought, outcome: Outcome, now: str) -> Staged:
    """The attempts that count, and the state after they are published."""
    moves, entries = _set_aside(job, state, brought, outcome, now), list[FileEntry]()
    for attempt in brought.attempts:
        for file in attempt.files:
            target = job.dataset.file(f"{file.partition}/{file.name}")
            moves.append(metadata.Move.of(job.dataset, file.staged, target))
            entries.append(_file_entry(job, state, file, now))
            outcome.files += 1
            outcome.bytes += file.bytes
            outcome.rows += file.rows
    state.files.add(entries)
    _advance(job, brought, state)
    outcome.offsets = _spans(brought.attempts)
    outcome.findings += [*brought.findings, *brought.remarks]
    _count_passed(brought, outcome)
    outcome.notes += brought.notes
    outcome.retries += brought.retries
    base, run = state.sequence, run_name(job, state)
    state.sequence, state.last_export, state.run = base + 1, now, run
    state.findings = KeptFinding.of(now, brought.findings)
    state.last_run = LastRun(now, brought.rows, outcome.files, "findings" if brought.findings else "ok")
    if outcome.checks or state.checks is not None:
        state.checks = tuple(asdict(result) for result in outcome.checks)
    change = Change("export", base + 1, run, now, schema=record_schema(state, now))
    return Staged(run, base, tuple(moves), state, change, outcome, brought.recreated)


def _count_passed(brought: Brought, outcome: Outcome) -> None:
    for attempt in brought.attempts:
        for partition, passed in sorted(attempt.passed.items()):
            outcome.passed_over += passed.records
            outcome.notes.append(
                f"partition {partition}: ksqlDB skips {counted(passed.records, 'record')}, the first at offset "
                f"{passed.first} ({passed.reason})"
            )


def _set_aside(
    job: StreamJob, state: FeedState, brought: Brought, outcome: Outcome, now: str
) -> list[metadata.Move]:
    """Add the rows that the checks quarantined to the state; returns the renames of their files."""
    moves = list[metadata.Move]()
    for number, attempt in enumerate(brought.attempts):
        renames, entries = attempt.aside.publish(job.dataset, f"{attempt.run}a{number}")
        moves += renames
        if entries:
            made = (
                replace(entry, run=job.run, origin=job.origin, schema_version=state.schema_version, exported_at=now,
                        generation=state.generation)
                for entry in entries
            )
            state.quarantine = (*state.quarantined, *made)
        outcome.quarantined += attempt.aside.rows
    return moves


def _spans(attempts: Sequence[Attempt]) -> dict[str, list[int]]:
    """Kafka partition -> first and last offset that was exported."""
    spans: dict[str, list[int]] = {}
    for partition, (low, high, _) in (item for a in attempts for file in a.files for item in file.offsets.items()):
        before = spans.get(str(partition), [low, high])
        spans[str(partition)] = [min(before[0], low), max(before[1], high)]
    return dict(sorted(spans.items(), key=lambda item: int(item[0])))


def _advance(job: StreamJob, brought: Brought, state: FeedState) -> None:
    anchors = brought.anchors
    covered = state.coverage.setdefault(state.generation, {})
    # For a run of some days too: only they tell the next run that the topic was recreated meanwhile.
    state.heads = dict(brought.heads)
    for row in (row for attempt in brought.attempts for row in attempt.not_sent):
        places = state.not_sent.setdefault(state.generation, {})
        places[row.partition] = tuple(sorted({*places.get(row.partition, ()), row.offset}))
    if not job.days:
        state.resume = dict(anchors)
        for partition, anchor in anchors.items():
            known = covered.get(partition, Covered())
            covered[partition] = known.with_upto(anchor.offset, merge(known.beyond, [], anchor.offset))
        return
    for attempt in brought.attempts:
        for partition, days in attempt.days.items():
            covered[partition] = covered.get(partition, Covered()).with_days(days)


def _file_entry(job: StreamJob, state: FeedState, file: StagedFile, now: str) -> FileEntry:
    options = job.writer
    return file.entry(
        run=job.run, origin=job.origin, schema_version=state.schema_version, exported_at=now,
        generation=state.generation, compression=options.compression, compression_level=options.compression_level,
    )
