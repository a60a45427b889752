"""One export of one stream: what `reading` staged becomes files, resume points and coverage, every event once."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace

from ksql_lake.base.errors import SourceError
from ksql_lake.base.retry import until_answered
from ksql_lake.ingest.staged import Outcome, Staged
from ksql_lake.ingest.streams.attempt import Attempt, run_name
from ksql_lake.ingest.streams.job import StreamJob
from ksql_lake.ingest.streams.reading import StreamExport
from ksql_lake.ingest.streams.road import choose, refuse_moved_values
from ksql_lake.model.anchor import Covered, TopicMark
from ksql_lake.model.change import Change
from ksql_lake.model.checks import Result
from ksql_lake.model.columns import record_schema
from ksql_lake.model.coverage import merge
from ksql_lake.model.entries import AHEAD, FileEntry
from ksql_lake.model.state import FeedState, LastRun, Told
from ksql_lake.quality.bad_values import told
from ksql_lake.quality.checker import Occasion, judge, results
from ksql_lake.sources.ksqldb.client import Client
from ksql_lake.sources.row_source import RowSource
from ksql_lake.store import metadata
from ksql_lake.store.writer import StagedFile


def stage_stream(client: Client, job: StreamJob, state: FeedState, now: Callable[[], str]) -> Staged:
    """Read what is new in a stream and stage it. Call with the feed's lock held, here or by whoever waits for this.

    Args:
        state: the feed's state; it becomes the new one.
        now: the present time as ISO 8601 text.

    Raises:
        LakeError: nothing was staged, and why.
    """
    outcome = Outcome(findings=metadata.unknown_files(job.dataset, state))
    _refuse_moved_days(job, state)
    refuse_moved_values(job, state.mark, state.last_export is not None)
    started_ms = int(time.time() * 1000)
    source = until_answered(lambda: client.resolve(job.source, "stream"), job.limits.retry, outcome.retried)
    with ExitStack() as held:
        road = choose(client, source, job, state.mark, started_ms, held)
        outcome.road, outcome.why = road.name, road.why
        outcome.findings += [road.finding] if road.finding else []
        return stage_rows(road.rows, job, state, outcome, now, started_ms, road.proof)


def stage_rows(
    rows: RowSource, job: StreamJob, state: FeedState, outcome: Outcome, now: Callable[[], str], started_ms: int,
    proof: str | None = None,
) -> Staged:
    """The same from any source of rows.

    Args:
        proof: what was compared with ksqlDB's rows, to be remembered.
    """
    export = StreamExport(rows, job, state, started_ms)
    recreated = False
    try:
        if not state.resume and rows.is_empty():
            outcome.notes.append("the stream is empty")
        else:
            recreated = export.read()
        export.findings = [*(found for attempt in export.attempts for found in attempt.findings), *export.findings]
        outcome.checks = _verdict(job, export, now(), recreated)
        export.findings += judge(job.dataset.feed, outcome.checks)
        export.findings += told(job.dataset.feed, [attempt.bad for attempt in export.attempts])
        if not recreated:
            state.topic = _mark(job, export, proof)
        return _staged(job, export, outcome, now(), recreated)
    except BaseException:
        job.dataset.storage.delete(job.dataset.staged(run_name(job, state)))
        raise


def _mark(job: StreamJob, export: StreamExport, proof: str | None) -> TopicMark | None:
    """Where the topic is left; over REST, which knows nothing of it, as it was left before."""
    state, identity = export.state, export.source.identity
    last = export.attempts[-1] if export.attempts else None
    if identity is None and proof is None:
        return state.topic
    known = state.mark
    unseen = bool(export.sieve.pending)  # rows that should tell whether it is the same topic
    positions = {} if job.days or last is None else last.positions
    following = {p: max(at, known.next.get(p, 0)) for p, at in positions.items()}
    return TopicMark(
        state.generation, None if unseen else identity, {**known.next, **following}, proof, job.exact_values
    )


def _verdict(job: StreamJob, export: StreamExport, now: str, recreated: bool) -> list[Result]:
    """What the checks say of the attempts that count."""
    part = "the topic was recreated meanwhile" if recreated else "only some days were asked for" if job.days else ""
    state = export.state
    moment = dt.datetime.fromisoformat(now)
    latest = (moment.timestamp() + AHEAD) * 1000
    times = [state.newest_until(latest), *(file.rowtime_max for file in state.quarantined)]
    newest = max((time for time in times if time is not None and time <= latest), default=state.newest_rowtime)
    occasion = Occasion(moment, job.usual_rows, newest, part)
    return results(job.checks, [attempt.checker for attempt in export.attempts], occasion)


def _refuse_moved_days(job: StreamJob, state: FeedState) -> None:
    for key, was, wanted in (
        ("timezone", state.timezone, job.timezone),
        ("timestamp_column", state.timestamp_column, job.timestamp_column),
    ):
        if was != wanted:
            raise SourceError(
                f"{job.dataset.feed}: {key} was {was} at the first export and is {wanted} now, which would "
                "put events of one day in two; change the feed back, or archive it and add a new one"
            )


def _staged(job: StreamJob, export: StreamExport, outcome: Outcome, now: str, recreated: bool) -> Staged:
    """The attempts that count, and the state that publishing them makes."""
    state = export.state
    moves, entries = _set_aside(job, export, outcome, now), list[FileEntry]()
    for attempt in export.attempts:
        for file in attempt.files:
            target = job.dataset.file(f"{file.partition}/{file.name}")
            moves.append(metadata.Move.of(job.dataset, file.staged, target))
            entries.append(_file_entry(job, state, file, now))
            outcome.files += 1
            outcome.bytes += file.bytes
            outcome.rows += file.rows
    state.files.add(entries)
    _advance(job, export, state)
    outcome.offsets = _spans(export.attempts)
    outcome.findings += export.findings
    if export.attempts:
        outcome.findings += export.attempts[-1].remarks
    _count_passed(export, outcome)
    outcome.notes += export.notes
    outcome.retries += export.retries
    base, run = state.sequence, run_name(job, state)
    state.sequence, state.last_export, state.run = base + 1, now, run
    state.findings = Told.of(now, export.findings)
    state.last_run = LastRun(now, export.rows, outcome.files, "findings" if export.findings else "ok")
    if outcome.checks or state.checks is not None:
        state.checks = tuple(asdict(result) for result in outcome.checks)
    change = Change("export", base + 1, run, now, schema=record_schema(state, now))
    return Staged(run, base, tuple(moves), state, change, outcome, recreated)


def _count_passed(export: StreamExport, outcome: Outcome) -> None:
    for attempt in export.attempts:
        for partition, passed in sorted(attempt.passed.items()):
            outcome.passed_over += passed.records
            outcome.notes.append(
                f"partition {partition}: {passed.records} records that ksqlDB passes over, the first at offset "
                f"{passed.first} ({passed.reason})"
            )


def _set_aside(job: StreamJob, export: StreamExport, outcome: Outcome, now: str) -> list[metadata.Move]:
    """Count in the rows that the checks quarantined; the renames of their files."""
    state, moves = export.state, list[metadata.Move]()
    for number, attempt in enumerate(export.attempts):
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


def _advance(job: StreamJob, export: StreamExport, state: FeedState) -> None:
    anchors = export.anchors
    covered = state.coverage.setdefault(state.generation, {})
    # Of a run of some days too: they alone tell the next run that the topic was recreated meanwhile.
    state.heads = dict(export.heads)
    for row in (row for attempt in export.attempts for row in attempt.not_sent):
        places = state.not_sent.setdefault(state.generation, {})
        places[row.partition] = tuple(sorted({*places.get(row.partition, ()), row.offset}))
    if not job.days:
        state.resume = dict(anchors)
        for partition, anchor in anchors.items():
            known = covered.get(partition, Covered())
            covered[partition] = known.with_upto(anchor.offset, merge(known.beyond, [], anchor.offset))
        return
    for attempt in export.attempts:
        for partition, days in attempt.days.items():
            covered[partition] = covered.get(partition, Covered()).with_days(days)


def _file_entry(job: StreamJob, state: FeedState, file: StagedFile, now: str) -> FileEntry:
    options = job.writer
    return file.entry(
        run=job.run, origin=job.origin, schema_version=state.schema_version, exported_at=now,
        generation=state.generation, compression=options.compression, compression_level=options.compression_level,
    )
