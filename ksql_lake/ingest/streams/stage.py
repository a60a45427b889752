"""One export of one stream: what `reading` staged becomes files, resume points and coverage, every event once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from ksql_lake.base.errors import SourceError
from ksql_lake.base.files import remove_tree
from ksql_lake.base.retry import until_answered
from ksql_lake.ingest.staged import Outcome, Staged
from ksql_lake.ingest.streams.reading import Attempt, StreamExport, StreamJob, origin
from ksql_lake.model.checks import Result
from ksql_lake.model.columns import record_schema
from ksql_lake.model.coverage import merge
from ksql_lake.model.state import Change, Covered, FeedState, FileEntry, LastRun, Told
from ksql_lake.quality.checker import Occasion, judge, results
from ksql_lake.sources.ksqldb.client import Client
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
    source = until_answered(lambda: client.resolve(job.source, "stream"), job.limits.retry, outcome.retried)
    export = StreamExport(client, job, source, state)
    recreated = False
    try:
        if not state.resume and client.is_empty(source.name):
            outcome.notes.append("the stream is empty")
        else:
            recreated = export.read()
        export.drop_unverified()
        outcome.checks = _verdict(job, export, now(), recreated)
        export.findings += judge(job.dataset.feed, outcome.checks)
        return _staged(job, export, outcome, now(), recreated)
    except BaseException:
        remove_tree(job.dataset.staging / export.run)
        raise


def _verdict(job: StreamJob, export: StreamExport, now: str, recreated: bool) -> list[Result]:
    """What the checks say of the attempts that count."""
    part = "the topic was recreated meanwhile" if recreated else "only some days were asked for" if job.days else ""
    state = export.state
    times = [state.newest_rowtime, *(file.rowtime_max for file in state.quarantined)]
    newest = max((time for time in times if time is not None), default=None)
    occasion = Occasion(dt.datetime.fromisoformat(now), job.usual_rows, newest, part)
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
            target = job.dataset.directory / file.partition / file.name
            moves.append(metadata.Move.of(job.dataset, file.staged, target))
            entries.append(_file_entry(job, state, file, now))
            outcome.files += 1
            outcome.bytes += file.bytes
        outcome.rows += attempt.rows
    state.files.add(entries)
    _advance(job, export, state)
    outcome.offsets = _spans(export.attempts)
    outcome.findings += export.findings
    outcome.notes += export.notes
    outcome.retries += export.retries
    base = state.sequence
    state.sequence, state.last_export, state.run = base + 1, now, export.run
    state.findings = tuple(Told(now, message) for message in export.findings)
    state.last_run = LastRun(now, export.rows, outcome.files, "findings" if export.findings else "ok")
    if outcome.checks or state.checks is not None:
        state.checks = tuple(asdict(result) for result in outcome.checks)
    change = Change("export", base + 1, export.run, now, schema=record_schema(state, now))
    return Staged(export.run, base, tuple(moves), state, change, outcome, recreated)


def _set_aside(job: StreamJob, export: StreamExport, outcome: Outcome, now: str) -> list[metadata.Move]:
    """Count in the rows that the checks set aside; the renames of their files."""
    state, moves = export.state, list[metadata.Move]()
    for number, attempt in enumerate(export.attempts):
        renames, entries = attempt.aside.publish(job.dataset, f"{export.run}a{number}")
        moves += renames
        if entries:
            made = (
                replace(entry, run=job.run, origin=origin(job), schema_version=state.schema_version, exported_at=now,
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
    anchors = export.attempts[-1].anchors if export.attempts else export.base
    covered = state.coverage.setdefault(state.generation, {})
    # Of a run of some days too: they alone tell the next run that the topic was recreated meanwhile.
    state.heads = {**export.sieve.heads, **export.sieve.new_heads}
    if not job.days:
        state.resume = dict(anchors)
        for partition, anchor in anchors.items():
            beyond = covered.get(partition, Covered()).beyond
            covered[partition] = Covered(anchor.offset, merge(beyond, [], anchor.offset))
        return
    for attempt in export.attempts:
        for partition, added in attempt.ranges.items():
            known = covered.get(partition, Covered())
            covered[partition] = Covered(known.upto, merge(known.beyond, added, known.upto))


def _file_entry(job: StreamJob, state: FeedState, file: StagedFile, now: str) -> FileEntry:
    options = job.writer
    return file.entry(
        run=job.run, origin=origin(job), schema_version=state.schema_version, exported_at=now,
        generation=state.generation, compression=options.compression, compression_level=options.compression_level,
    )
