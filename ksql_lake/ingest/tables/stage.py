"""One export of one table: a complete snapshot under the next free version number, or nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import asdict, replace

from ksql_lake.base.errors import SourceError
from ksql_lake.base.figures import counted
from ksql_lake.base.retry import until_answered
from ksql_lake.ingest.staged import Outcome, Staged
from ksql_lake.ingest.tables.job import TableJob
from ksql_lake.ingest.tables.reading import read_table
from ksql_lake.ingest.tables.sink import Sink, Snapshot
from ksql_lake.model.change import Change
from ksql_lake.model.columns import record_schema
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.findings import Finding
from ksql_lake.model.partitions import version_path
from ksql_lake.model.state import Current, FeedState, KeptFinding, LastRun
from ksql_lake.quality.bad_values import bad_value_findings
from ksql_lake.quality.checker import Occasion, judge, results
from ksql_lake.quality.quarantine import Aside
from ksql_lake.sources.ksqldb.client import Client
from ksql_lake.store import metadata
from ksql_lake.store.writer import StagedFile


def stage_table(client: Client, job: TableJob, state: FeedState, now: Callable[[], str]) -> Staged:
    """Stage a complete copy of a table as its next version. The feed's lock is held, as for `stage_stream`.

    Raises:
        LakeError: nothing was staged, and why.
    """
    outcome = Outcome(findings=metadata.unknown_files(job.dataset, state))
    if state.current:
        job.progress.expects(sum(part.records for part in state.partitions if part.path == state.current.path))
    source = until_answered(lambda: client.resolve(job.source, "table"), job.limits.retry, outcome.retried)
    number = free_version(job, state)
    try:
        snapshot = until_answered(
            lambda: read_table(
                client, job, source, lambda columns: Sink(job, state, columns, number), outcome.notes.append
            ),
            job.limits.retry, outcome.retried,
        )
        _refuse_shrunk(job, state, snapshot.rows)
        occasion = Occasion(dt.datetime.fromisoformat(now()), job.usual_rows)
        outcome.checks = results(job.checks, [snapshot.checker], occasion)
        found = [*judge(job.dataset.feed, outcome.checks), *bad_value_findings(job.dataset.feed, [snapshot.bad])]
        outcome.findings += found
        empty = not snapshot.rows and not _rows_of_current(state) and not job.allow_shrink
        return _staged(job, state, snapshot, outcome, found, now(), None if empty else number)
    except BaseException:
        job.dataset.storage.delete(job.dataset.staged(job.run))
        raise


def free_version(job: TableJob, state: FeedState) -> int:
    """The next version number whose directory is free: an unknown directory may have come from a backup."""
    number = state.last_version + 1
    while job.dataset.storage.stat(job.dataset.file(version_path(number))):
        number += 1
    return number


def _rows_of_current(state: FeedState) -> int:
    return sum(p.records for p in state.partitions if state.current and p.path == state.current.path)


def _refuse_shrunk(job: TableJob, state: FeedState, rows: int) -> None:
    before, current = _rows_of_current(state), state.current
    if job.allow_shrink or not before or not current:
        return
    if rows == 0:
        raise SourceError(
            f"{job.source}: the table returned no rows; the lake keeps what it has. If it really is "
            "empty, run again with --allow-shrink"
        )
    if rows < before * (1 - job.max_shrink):
        raise SourceError(
            f"{job.source}: the table returned {counted(rows, 'row')}, but {current.version} has {before:,}; a version "
            f"that lacks more than {job.max_shrink:.0%} of them is refused. If it is right, run again with "
            "--allow-shrink"
        )


def _staged(
    job: TableJob, state: FeedState, snapshot: Snapshot, outcome: Outcome, found: list[Finding], now: str,
    number: int | None,
) -> Staged:
    """Make the snapshot version `number`: one rename and the new state. None if it is empty and was before."""
    moves = list[metadata.Move]()
    if number is None:
        outcome.notes.append("the table is empty, and so is the lake's copy; no version was made")
    else:
        path = version_path(number)
        directory = job.dataset.staged(job.run, "files", path)
        job.dataset.storage.make(directory)
        moves.append(metadata.Move.of(job.dataset, directory, job.dataset.file(path)))
        state.last_version, state.current = number, Current(f"v{number}", path)
        outcome.version = f"v{number}"
    moves += _set_aside(job, state, snapshot.aside, now)
    rows = sum(file.rows for file in snapshot.files)
    state.files.add(_file_entry(job, state, file, now) for file in snapshot.files)
    base = state.sequence
    state.sequence, state.run, state.last_export = base + 1, job.run, now
    state.findings = KeptFinding.of(now, found)
    state.last_run = LastRun(now, rows, len(snapshot.files), "findings" if found else "ok")
    if outcome.checks or state.checks is not None:
        state.checks = tuple(asdict(result) for result in outcome.checks)
    change = Change("export", base + 1, job.run, now, schema=record_schema(state, now))
    outcome.rows, outcome.files = rows, len(snapshot.files)
    outcome.quarantined = snapshot.aside.rows
    outcome.bytes = sum(file.bytes for file in snapshot.files)
    return Staged(job.run, base, tuple(moves), state, change, outcome)


def _set_aside(job: TableJob, state: FeedState, aside: Aside, now: str) -> list[metadata.Move]:
    """Add the rows in quarantine to the state; those of versions that are gone are removed for good."""
    there = {partition.path for partition in state.partitions}
    kept, moves = list[FileEntry](), list[metadata.Move]()
    for number, entry in enumerate(state.quarantined):
        if entry.partition in there:
            kept.append(entry)
        else:
            retired = job.dataset.staged(job.run, "retired", f"{number}.parquet")
            job.dataset.storage.make(retired.parent)
            moves.append(metadata.Move.of(job.dataset, job.dataset.in_lake(entry.path), retired))
    renames, entries = aside.publish(job.dataset, job.run)
    made = (
        replace(entry, run=job.run, origin="export", schema_version=state.schema_version, exported_at=now)
        for entry in entries
    )
    if state.quarantine is not None or entries:
        state.quarantine = (*kept, *made)
    return moves + renames


def _file_entry(job: TableJob, state: FeedState, file: StagedFile, now: str) -> FileEntry:
    options = job.writer
    return file.entry(
        run=job.run, origin="export", schema_version=state.schema_version, exported_at=now,
        compression=options.compression, compression_level=options.compression_level,
    )
