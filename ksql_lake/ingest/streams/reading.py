"""A push query read to its present end: which rows are new, staged in the partition of their day.

Design: a push query never ends and no end mark can be believed, so what decides is offsets. Rows are
staged per query ("attempt"); an attempt counts once all its anchors were seen.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ksql_lake import __version__
from ksql_lake.base.arrays import mask, numbers
from ksql_lake.base.errors import AnswerCut, KsqlUnavailable, SourceError
from ksql_lake.base.retry import delay
from ksql_lake.ingest.streams.anchors import TICK, Sieve, TopicRecreated
from ksql_lake.maintain.erase import lasting, later
from ksql_lake.model.checks import Check
from ksql_lake.model.columns import evolve, refuse_forbidden, schema_of
from ksql_lake.model.coverage import ranges
from ksql_lake.model.partitions import day_bounds, day_path, days_of
from ksql_lake.model.state import Anchor, FeedState, Footer, resume_pair
from ksql_lake.model.types import PSEUDO
from ksql_lake.quality.checker import Checker
from ksql_lake.quality.quarantine import Aside
from ksql_lake.sources.ksqldb.client import Answer, Client, Source, quote
from ksql_lake.sources.ksqldb.rows import Decoder, ErrorRow
from ksql_lake.sources.pace import POLL, Limits, Pace
from ksql_lake.store import metadata
from ksql_lake.store.writer import PartitionWriter, StagedFile, WriterOptions

EPOCH = dt.date(1970, 1, 1)
RESERVED = (*PSEUDO, "year", "month", "day")


@dataclass(frozen=True)
class StreamJob:
    """What to export and how; all values come from the feed file and the command line."""

    dataset: metadata.Dataset
    source: str
    run: str
    limits: Limits = Limits()
    writer: WriterOptions = WriterOptions()
    timezone: str = "UTC"
    timestamp_column: str | None = None
    days: tuple[dt.date, ...] = ()
    source_retention_days: int = 7
    batch_size: int = 10_000
    progress: Callable[[int], None] = lambda rows: None
    forbidden_columns: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    usual_rows: tuple[int, ...] = ()


def stream_query(
    source: str, anchors: Mapping[int, Anchor], window: tuple[int, int] | None = None
) -> str:
    """The push query that resumes at the anchors; `window` limits new rows to ROWTIME in [start, end) ms.

    300 ORs overflow the server's stack, CASE works to 1,000 partitions; beyond that the least offset filters.
    Rows with ROWOFFSET % 1000 < 2 come from everywhere and show that the server is still reading.
    """
    select = f"SELECT ROWTIME, ROWPARTITION, ROWOFFSET, * FROM {quote(source)}"
    if not anchors and window is None:
        return f"{select} EMIT CHANGES;"
    wanted = f"ROWOFFSET >= {_case(anchors, 0)}" if anchors else "ROWOFFSET >= 0"
    if window is not None:
        wanted = f"({wanted} AND ROWTIME >= {window[0]} AND ROWTIME < {window[1]})"
        if anchors:
            wanted += f" OR ROWOFFSET = {_case(anchors, -1)}"
    return f"{select} WHERE {wanted} OR ROWOFFSET % {TICK} < 2 EMIT CHANGES;"


def _case(anchors: Mapping[int, Anchor], otherwise: int) -> str:
    if len(anchors) > 1000 and otherwise == 0:
        return str(min(anchor.offset for anchor in anchors.values()))
    whens = " ".join(f"WHEN ROWPARTITION = {p} THEN {anchors[p].offset}" for p in sorted(anchors))
    return f"CASE {whens} ELSE {otherwise} END"


@dataclass
class Attempt:
    """What one query brought: staged files, rows set aside and what the checks found, and the anchors after it."""

    checker: Checker
    aside: Aside
    files: list[StagedFile] = field(default_factory=list)
    anchors: dict[int, Anchor] = field(default_factory=dict)
    rows: int = 0
    ranges: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    verified: bool = False


class StreamExport:
    """The state of one run over one generation of a stream."""

    def __init__(self, client: Client, job: StreamJob, source: Source, state: FeedState) -> None:
        self.client, self.job, self.source, self.state = client, job, source, state
        self.started_ms = int(time.time() * 1000)
        self.attempts: list[Attempt] = []
        self.findings: list[str] = []
        self.notes: list[str] = []
        self.retries = 0
        self.deadline = time.monotonic() + job.limits.duration
        self.base = dict(state.resume)
        skip = {partition: covered.beyond for partition, covered in state.covered.items()}
        self.erased = lasting(job.dataset, state)
        self.sieve = Sieve(source.name, dict(self.base), skip, heads=dict(state.heads))

    def read(self) -> bool:
        """Read to the end, through cuts; True when the topic turned out to be recreated."""
        failing_since: float | None = None
        tries = 0
        while True:
            before = self._taken
            try:
                ended = self._attempt()
                self.notes.append(f"ended: {ended}")
                return False
            except TopicRecreated as evidence:
                self.drop_unverified()
                self.findings.append(
                    f"{self.source.name}: the topic was recreated ({evidence}); generation "
                    f"{self.state.generation + 1} starts, older data stay"
                )
                return True
            except KsqlUnavailable as error:
                now = time.monotonic()
                if self._taken > before or failing_since is None:
                    failing_since, tries = now, 0
                pause = delay(tries)
                tries += 1
                if now + pause - failing_since > self.job.limits.retry or now + pause > self.deadline:
                    self._give_up(error)
                    return False
                self.notes.append(f"retry after {pause:.1f} s: {error}")
                self.retries += 1
                time.sleep(pause)

    @property
    def run(self) -> str:
        """The name of this run in this generation: of its staging directory, its journal, its files."""
        return f"{self.job.run}g{self.state.generation}"

    @property
    def rows(self) -> int:
        return sum(attempt.rows for attempt in self.attempts)

    @property
    def _taken(self) -> int:
        """New rows so far, set aside or not."""
        return self.rows + sum(attempt.aside.rows for attempt in self.attempts)

    def _give_up(self, error: KsqlUnavailable) -> None:
        self.drop_unverified()
        if not self.attempts:
            raise error
        self.findings.append(f"{error}; what was read until then is published, the next run goes on from there")

    def drop_unverified(self) -> None:
        """Forget the attempts whose anchors were never seen."""
        while self.attempts and not self.attempts[-1].verified:
            self.attempts.pop()

    def _attempt(self) -> str:
        """One query: stage its new rows until the end rule holds. Always leaves an Attempt behind, also on a cut."""
        job = self.job
        window = self._window()
        sql = stream_query(self.source.name, self.sieve.anchors, window)
        self.sieve.start_query()
        with self.client.query(sql, earliest=True) as answer:
            refuse_forbidden(job.dataset.feed, answer.columns[3:], job.forbidden_columns)
            columns, version = evolve(
                job.dataset.feed, self.state.columns, answer.columns[3:], RESERVED, self.state.schema_version
            )
            self.state.columns, self.state.schema_version = columns, version
            schema = pa.schema(
                [
                    pa.field("ROWTIME", pa.timestamp("ms", "UTC")),
                    pa.field("ROWPARTITION", pa.int32()),
                    pa.field("ROWOFFSET", pa.int64()),
                    *schema_of(columns),
                ]
            )
            attempt = self._begin(schema)
            name = f"a{len(self.attempts)}"
            directory, footer = job.dataset.staging / self.run / name, self._footer()
            writer = PartitionWriter(directory, schema, f"{self.run}{name}", "data", job.writer, footer)
            try:
                return self._drain(answer, writer, schema, attempt)
            except (TopicRecreated, SourceError):
                writer.abort()
                attempt.aside.abort()
                raise
            finally:
                attempt.verified = not self.sieve.pending
                attempt.anchors = dict(self.sieve.anchors)
                resume = resume_pair(attempt.anchors)
                attempt.files = writer.close(resume)
                attempt.aside.close(resume)
                self.attempts.append(attempt)

    def _begin(self, schema: pa.Schema) -> Attempt:
        """The next attempt; its checks know the values of the attempts before it."""
        job, name = self.job, f"a{len(self.attempts)}"
        names = {column.name: column.disk_name for column in self.state.columns}
        before = self.attempts[-1].checker if self.attempts else None
        checker = Checker(job.dataset.feed, job.checks, schema, names, before)
        directory, footer = job.dataset.staging / self.run / f"{name}q", self._footer()
        return Attempt(checker, Aside(directory, schema, f"{self.run}{name}", job.writer, footer))

    def _window(self) -> tuple[int, int] | None:
        """One span of ROWTIME that holds all days asked for; a day by another column cannot be asked of the server."""
        if not self.job.days or self.job.timestamp_column:
            return None
        bounds = [day_bounds(day, self.job.timezone) for day in self.job.days]
        return min(start for start, _ in bounds), max(end for _, end in bounds)

    def _drain(self, answer: Answer, writer: PartitionWriter, schema: pa.Schema, attempt: Attempt) -> str:
        names = [column.name for column in answer.columns[3:]]
        decoder = Decoder(answer.columns, self.job.batch_size)
        pace = Pace(self.job.limits, self.source.partitions, self.started_ms, time.monotonic())
        while True:
            lines = answer.read(POLL)
            received = time.monotonic()
            if lines == b"":
                raise AnswerCut(f"{self.source.name}: the server ended a query that never ends")
            for element in decoder.decode(lines) if lines else ():
                if isinstance(element, pa.RecordBatch):
                    self._rows(element, names, writer, schema, attempt, pace)
                elif isinstance(element, ErrorRow):
                    raise KsqlUnavailable(
                        f"{self.source.name}: the server broke off: {element.message}", code=element.code
                    )
            now = time.monotonic()
            pace.worked(now - received)
            self._give_anchors_up(pace, now)
            reason = None if self.sieve.pending else pace.ended(now)
            if reason:
                return reason
            if now >= self.deadline:
                self.findings.append(f"{self.source.name}: stopped at the time limit; the rest is read next time")
                return "time limit"

    def _give_anchors_up(self, pace: Pace, now: float) -> None:
        if self.sieve.pending and pace.silence(now) >= self.job.limits.anchor:
            oldest_kept = self.started_ms - self.job.source_retention_days * 86_400_000
            for partition in sorted(self.sieve.pending):
                expected = self.sieve.anchors[partition].rowtime < oldest_kept
                (self.notes if expected else self.findings).append(
                    f"{self.source.name}: the last exported row of partition {partition} did not come again within "
                    f"{self.job.limits.anchor:.0f} s; expired, or the topic was recreated with fewer rows"
                )
            self.sieve.pending.clear()

    def _rows(
        self, batch: pa.RecordBatch, names: Sequence[str], writer: PartitionWriter, schema: pa.Schema,
        attempt: Attempt, pace: Pace,
    ) -> None:
        rowtimes = numbers(batch.column(0))
        partitions = numbers(batch.column(1))
        pace.rows(time.monotonic(), int(time.time() * 1000), partitions, rowtimes)
        keep = self.sieve.new_rows(batch, names)
        self._report_gaps()
        times = event_times(batch, 3, names, rowtimes, self.job.timestamp_column, self.job.dataset.feed)
        days = days_of(times, self.job.timezone)
        if self.job.days:
            keep &= np.isin(days, [(day - EPOCH).days for day in self.job.days])
        if not keep.any():
            return
        table = self._on_disk(batch, names, schema)
        erased = later(self.erased, table)
        if erased is not None:
            keep &= ~erased
        offsets = numbers(batch.column(2))
        if self.job.days:
            for partition in np.unique(partitions[keep]).tolist():
                exported = ranges(np.sort(offsets[keep & (partitions == partition)]))
                attempt.ranges.setdefault(partition, []).extend(exported)
        self.job.progress(int(keep.sum()))
        self._set_aside(table, keep, days, attempt)
        for day in np.unique(days[keep]).tolist():
            chosen = keep & (days == day)
            part = table if chosen.all() else table.filter(mask(chosen))
            date = EPOCH + dt.timedelta(days=day)
            writer.write(part, day_path(date), date.strftime("%Y%m%d"))
        attempt.rows += int(keep.sum())

    def _set_aside(self, table: pa.RecordBatch, keep: np.ndarray, days: np.ndarray, attempt: Attempt) -> None:
        """Show the new rows to the checks; the bad ones are taken out of `keep`."""
        bad = attempt.checker.look(table if keep.all() else table.filter(mask(keep)))
        if bad is None:
            return
        rows = np.flatnonzero(keep)[bad.mask]
        keep[rows] = False
        for day in np.unique(days[rows]).tolist():
            date = EPOCH + dt.timedelta(days=day)
            attempt.aside.write(bad, day_path(date), date.strftime("%Y%m%d"), days[rows] == day)

    def _report_gaps(self) -> None:
        for partition, lost in self.sieve.gaps:
            self.findings.append(
                f"{self.source.name}: at most {lost} rows of partition {partition} expired before they were exported"
            )
        self.sieve.gaps.clear()

    def _on_disk(self, batch: pa.RecordBatch, names: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
        positions = {name: 3 + i for i, name in enumerate(names)}
        ordered = [positions[column.name] for column in self.state.columns]
        arrays = [batch.column(i) for i in (0, 1, 2, *ordered)]
        arrays[0] = arrays[0].cast(schema.field(0).type)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _footer(self) -> dict[str, str]:
        job = self.job
        made = Footer.of(self.state, job.dataset.feed, tool=__version__, run=job.run, origin=origin(job))
        return made.pairs()


def event_times(
    batch: pa.RecordBatch, first: int, names: Sequence[str], rowtimes: np.ndarray, wanted: str | None, feed: str
) -> np.ndarray:
    """Epoch milliseconds that decide a row's day: its ROWTIME, or the feed's timestamp column where that is not null.

    Args:
        first: the position in the batch of the first of `names`.

    Raises:
        SourceError: the column is not there, or is no time.
    """
    if wanted is None:
        return rowtimes
    matches = [i for i, name in enumerate(names) if name == wanted] or [
        i for i, name in enumerate(names) if name.upper() == wanted.upper()
    ]
    if not matches:
        raise SourceError(f"{feed}: timestamp_column {wanted} is not a column of the source")
    column = batch.column(first + matches[0])
    if not (pa.types.is_int64(column.type) or pa.types.is_timestamp(column.type)):
        raise SourceError(
            f"{feed}: timestamp_column {wanted} is {column.type}; expected BIGINT (epoch milliseconds) or TIMESTAMP"
        )
    milliseconds = column.cast(pa.int64())
    missing = milliseconds.is_null().to_numpy(zero_copy_only=False)
    return np.where(missing, rowtimes, milliseconds.fill_null(0).to_numpy(zero_copy_only=False))


def origin(job: StreamJob) -> str:
    return "date:" + ",".join(map(str, job.days)) if job.days else "export"

