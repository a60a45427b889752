"""One export of one table: a whole snapshot under the next version number, or nothing.

A pull query is believed only when its array is closed, its last HTTP chunk came, no error row was in it,
no key came twice, and the same server still answers on the same connection. What a pull query cannot read
is read as a changelog and folded to the latest row per key.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from ksql_lake import __version__
from ksql_lake.base.arrays import mask
from ksql_lake.base.errors import AnswerCut, KsqlError, KsqlUnavailable, SchemaError, SourceError
from ksql_lake.base.files import make_dirs, remove_tree
from ksql_lake.base.retry import until_answered
from ksql_lake.ingest.progress import SILENT, Progress
from ksql_lake.ingest.staged import Outcome, Staged
from ksql_lake.ingest.tables.fold import Fold
from ksql_lake.maintain.erased import lasting, later
from ksql_lake.model.checks import Check
from ksql_lake.model.columns import evolve, record_schema, refuse_forbidden, schema_of
from ksql_lake.model.findings import Finding
from ksql_lake.model.partitions import version_path
from ksql_lake.model.state import Change, Current, FeedState, FileEntry, Footer, LastRun, Told
from ksql_lake.model.types import Column
from ksql_lake.quality.bad_values import BadValues, told
from ksql_lake.quality.checker import Checker, Occasion, judge, results
from ksql_lake.quality.keys import KeyHashes
from ksql_lake.quality.quarantine import Aside
from ksql_lake.sources.ksqldb.client import Answer, Client, Source, quote
from ksql_lake.sources.ksqldb.rows import ArrayEnd, Decoder, ErrorRow, Flaw, Flawed, Tombstone
from ksql_lake.sources.pace import POLL, Limits
from ksql_lake.store import metadata
from ksql_lake.store.writer import PartitionWriter, StagedFile, WriterOptions

RESERVED = ("version",)
WINDOW_KEYS = ("WINDOWSTART", "WINDOWEND")


@dataclass(frozen=True)
class TableJob:
    """What to export and how; `max_shrink` is the share of rows a new version may have less than the last."""

    dataset: metadata.Dataset
    source: str
    run: str
    limits: Limits = Limits()
    writer: WriterOptions = WriterOptions()
    max_shrink: float = 0.5
    allow_shrink: bool = False
    batch_size: int = 10_000
    progress: Progress = SILENT
    forbidden_columns: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    usual_rows: tuple[int, ...] = ()
    on_bad_value: str = "fail"


@dataclass(frozen=True)
class Snapshot:
    """A whole copy of the table, staged; `rows` are those the table answered with, set aside or not."""

    files: list[StagedFile]
    rows: int
    checker: Checker
    aside: Aside
    bad: BadValues


class Sink:
    """Takes the rows of one try at a copy: past the checks into the files of the next version, or aside.

    Args:
        columns: the header's columns.
    """

    def __init__(self, job: TableJob, state: FeedState, columns: list[Column]) -> None:
        self.job, self.state, self.rows = job, state, 0
        self.erased = lasting(job.dataset, state)
        state.columns, state.schema_version = evolve(
            job.dataset.feed, state.columns, columns, RESERVED, state.schema_version
        )
        recorded = state.columns
        positions = {column.name: i for i, column in enumerate(columns)}
        self._positions = [positions[column.name] for column in recorded]
        self._schema = schema_of(recorded)
        self._partition = version_path(state.last_version + 1)
        names = {column.name: column.disk_name for column in recorded}
        self._checker = Checker(job.dataset.feed, job.checks, self._schema, names)
        directory, footer = job.dataset.staging / job.run, _footer(job, state)
        self._aside = Aside(directory / "aside", self._schema, job.run, job.writer, footer)
        self._writer = PartitionWriter(directory / "files", self._schema, job.run, "snapshot", job.writer, footer)
        self._bad = BadValues(job.on_bad_value)

    def write(self, batch: pa.RecordBatch, flaws: Sequence[Flaw] = ()) -> None:
        """The next rows of the answer, and which of them have a value that its type cannot hold."""
        arrays = [batch.column(position) for position in self._positions]
        made = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        erased = later(self.erased, made, self.state.columns)
        keep = np.ones(len(made), bool) if erased is None else ~erased
        day = self.job.run[:8]
        unfit = self._bad.look(made, keep, flaws)
        if unfit is not None:
            self._aside.write(unfit, self._partition, day)
            keep &= ~unfit.mask
        made = made if keep.all() else made.filter(mask(keep))
        bad = self._checker.look(made)
        if bad is not None:
            self._aside.write(bad, self._partition, day)
            made = made.filter(mask(~bad.mask))
        self._writer.write(made, self._partition, day)
        self.rows += len(batch)
        self.job.progress(len(batch), batch.nbytes)

    def close(self) -> Snapshot:
        """All rows came."""
        self._aside.close()
        return Snapshot(self._writer.close(), self.rows, self._checker, self._aside, self._bad)


def stage_table(client: Client, job: TableJob, state: FeedState, now: Callable[[], str]) -> Staged:
    """Stage a whole copy of a table as its next version. Call with the feed's lock held, as for `stage_stream`.

    Raises:
        LakeError: nothing was staged, and why.
    """
    outcome = Outcome(findings=metadata.unknown_files(job.dataset, state))
    if state.current:
        job.progress.expects(sum(part.records for part in state.partitions if part.path == state.current.path))
    source = until_answered(lambda: client.resolve(job.source, "table"), job.limits.retry, outcome.retried)
    try:
        snapshot = until_answered(lambda: _read(client, job, source, state), job.limits.retry, outcome.retried)
        _refuse_shrunk(job, state, snapshot.rows)
        occasion = Occasion(dt.datetime.fromisoformat(now()), job.usual_rows)
        outcome.checks = results(job.checks, [snapshot.checker], occasion)
        found = [*judge(job.dataset.feed, outcome.checks), *told(job.dataset.feed, [snapshot.bad])]
        outcome.findings += found
        return _staged(job, state, snapshot, outcome, found, now())
    except BaseException:
        remove_tree(job.dataset.staging / job.run)
        raise


def _read(client: Client, job: TableJob, source: Source, state: FeedState) -> Snapshot:
    """One try at a whole copy; a cut throws away what was staged."""
    directory = job.dataset.staging / job.run
    remove_tree(directory)
    make_dirs(directory)
    if source.queryable and source.window != "SESSION":
        try:
            return _pull(client, job, source, state)
        except KsqlError as error:
            if isinstance(error, KsqlUnavailable) or "isn't queryable" not in str(error):
                raise
    return _changelog(client, job, source, state)


def _pull(client: Client, job: TableJob, source: Source, state: FeedState) -> Snapshot:
    with client.query(f"SELECT * FROM {quote(source.name)};") as answer:
        columns = _columns(job, answer, source)
        keys = KeyHashes([i for i, column in enumerate(columns) if column.key])
        sink = Sink(job, state, columns)
        decoder = Decoder(answer.columns, job.batch_size, lenient=job.on_bad_value != "fail")
        closed = False
        deadline = time.monotonic() + job.limits.duration
        heard = time.monotonic()
        while (lines := answer.read(POLL)) != b"":
            now = time.monotonic()
            if lines is None:
                if now - heard > job.limits.first_row or now > deadline:
                    raise AnswerCut(f"{source.name}: no more rows within {job.limits.first_row:.0f} s")
                continue
            heard = now
            for element in decoder.decode(lines):
                if isinstance(element, pa.RecordBatch):
                    sink.write(element)
                    keys.add(element)
                elif isinstance(element, Flawed):
                    sink.write(element.batch, element.flaws)
                    keys.add(_with_keys(element, columns, job))
                elif isinstance(element, ErrorRow):
                    raise KsqlUnavailable(f"{source.name}: the server broke off: {element.message}", code=element.code)
                elif isinstance(element, ArrayEnd):
                    closed = True
        if not closed:
            raise AnswerCut(f"{source.name}: the answer ended without its closing bracket")
        if not answer.same_connection_info():
            raise AnswerCut(f"{source.name}: the server went away right after its answer, which may be a part only")
    if keys.twice():
        raise AnswerCut(f"{source.name}: a key came twice, as happens when a node fails in the middle")
    return sink.close()


def _changelog(client: Client, job: TableJob, source: Source, state: FeedState) -> Snapshot:
    with client.query(f"SELECT * FROM {quote(source.name)} EMIT CHANGES;", earliest=True) as answer:
        columns = _columns(job, answer, source)
        keys = [i for i, column in enumerate(columns) if column.key]
        if not keys:
            raise SourceError(f"{source.name}: the server names no key column, so its changelog cannot be folded")
        decoder = Decoder(answer.columns, job.batch_size, lenient=job.on_bad_value != "fail")
        fold = Fold(job.dataset.staging / job.run, decoder.schema, keys, [c.name for c in columns])
        try:
            _fold_answer(answer, decoder, fold, job, source)
            fold.prepare()
            sink = Sink(job, state, columns)
            for batch, flaws in fold.batches():
                sink.write(batch, flaws)
            return sink.close()
        finally:
            fold.close()


def _fold_answer(answer: Answer, decoder: Decoder, fold: Fold, job: TableJob, source: Source) -> None:
    """Until the whole query is silent; a part is never believed."""
    started = heard = time.monotonic()
    longest = 0.0
    while True:
        lines = answer.read(POLL)
        now = time.monotonic()
        if lines == b"":
            raise AnswerCut(f"{source.name}: the server ended a query that never ends")
        elements = decoder.decode(lines) if lines else []
        for element in elements:
            if isinstance(element, pa.RecordBatch):
                fold.add(element)
            elif isinstance(element, Flawed):
                fold.add(element.batch, element.flaws)
            elif isinstance(element, Tombstone):
                fold.remove(element)
            elif isinstance(element, ErrorRow):
                raise KsqlUnavailable(f"{source.name}: the server broke off: {element.message}", code=element.code)
        if elements:  # older servers send an empty line every second: that is silence
            if fold.count:
                longest = max(longest, now - heard)
            heard = now
        wait = max(job.limits.idle, 3 * longest) if fold.count else job.limits.first_row
        if now - heard >= wait:
            return
        if now - started > job.limits.duration:
            raise KsqlError(f"{source.name}: its changelog did not fall silent within {job.limits.duration:.0f} s")


def _columns(job: TableJob, answer: Answer, source: Source) -> list[Column]:
    """The header's columns with their keys marked: push headers never mark them, DESCRIBE and windowType tell."""
    refuse_forbidden(job.dataset.feed, answer.columns, job.forbidden_columns)
    keys = {*source.keys, *(WINDOW_KEYS if source.window else ())}
    return [Column(c.name, c.type, c.key or c.name in keys) for c in answer.columns]


def _with_keys(flawed: Flawed, columns: Sequence[Column], job: TableJob) -> pa.RecordBatch:
    """The rows whose key is what the source says; a key cannot be null."""
    names = {column.name for column in columns if column.key}
    bad = [flaw for flaw in flawed.flaws if flaw.column in names]
    if bad and job.on_bad_value == "null":
        raise SchemaError(f'{bad[0]}; it is a key, which cannot be null: set "on_bad_value" to "quarantine"')
    there = np.ones(len(flawed.batch), bool)
    there[[flaw.row for flaw in bad]] = False
    return flawed.batch.filter(mask(there))


def _footer(job: TableJob, state: FeedState) -> dict[str, str]:
    made = Footer.of(
        state, job.dataset.feed, tool=__version__, run=job.run, origin="export", version=f"v{state.last_version + 1}"
    )
    return made.pairs()


def _refuse_shrunk(job: TableJob, state: FeedState, rows: int) -> None:
    if job.allow_shrink:
        return
    if rows == 0:
        raise SourceError(
            f"{job.source}: the table answered with no row at all; the lake keeps what it has. If it really is "
            "empty, run again with --allow-shrink"
        )
    current = state.current
    before = sum(p.records for p in state.partitions if current and p.path == current.path)
    if current and rows < before * (1 - job.max_shrink):
        raise SourceError(
            f"{job.source}: the table answered with {rows} rows, {current.version} has {before}; a shrink of more "
            f"than {job.max_shrink:.0%} is refused. If it is right, run again with --allow-shrink"
        )


def _staged(
    job: TableJob, state: FeedState, snapshot: Snapshot, outcome: Outcome, found: list[Finding], now: str
) -> Staged:
    """The snapshot as the next version: one rename, and the state that goes with it."""
    number = state.last_version + 1
    path = version_path(number)
    directory = job.dataset.staging / job.run / "files" / path
    make_dirs(directory)
    moves = [metadata.Move.of(job.dataset, directory, job.dataset.directory / path)]
    moves += _set_aside(job, state, snapshot.aside, now)
    rows = sum(file.rows for file in snapshot.files)
    state.files.add(_file_entry(job, state, file, now) for file in snapshot.files)
    base = state.sequence
    state.sequence, state.run, state.last_export = base + 1, job.run, now
    state.last_version, state.current = number, Current(f"v{number}", path)
    state.findings = Told.of(now, found)
    state.last_run = LastRun(now, rows, len(snapshot.files), "findings" if found else "ok")
    if outcome.checks or state.checks is not None:
        state.checks = tuple(asdict(result) for result in outcome.checks)
    change = Change("export", base + 1, job.run, now, schema=record_schema(state, now))
    outcome.rows, outcome.files, outcome.version = rows, len(snapshot.files), f"v{number}"
    outcome.quarantined = snapshot.aside.rows
    outcome.bytes = sum(file.bytes for file in snapshot.files)
    return Staged(job.run, base, tuple(moves), state, change, outcome)


def _set_aside(job: TableJob, state: FeedState, aside: Aside, now: str) -> list[metadata.Move]:
    """Count in the rows that the checks set aside; those of versions that are gone go for good."""
    there = {partition.path for partition in state.partitions}
    kept, moves = list[FileEntry](), list[metadata.Move]()
    for number, entry in enumerate(state.quarantined):
        if entry.partition in there:
            kept.append(entry)
        else:
            retired = job.dataset.staging / job.run / "retired" / f"{number}.parquet"
            make_dirs(retired.parent)
            moves.append(metadata.Move.of(job.dataset, job.dataset.lake / entry.path, retired))
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
