"""A stream read to its present end, through cuts: which rows are new, staged in the partition of their day.

A source may never end, and no end mark can be trusted, so offsets decide. Rows are staged per reading
("attempt"), and kept only for partitions whose anchor was seen; a silent partition does not hold up the others.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import numbers
from ksql_lake.base.errors import MAY_PASS, LakeError, RowNotSent, SourceError
from ksql_lake.base.figures import counted
from ksql_lake.base.retry import delay
from ksql_lake.ingest.stored import as_stored
from ksql_lake.ingest.streams.anchors import Sieve, TopicRecreated, salt_of
from ksql_lake.ingest.streams.attempt import Attempt
from ksql_lake.ingest.streams.event_time import EPOCH, event_times
from ksql_lake.ingest.streams.exported_days import ExportedDays
from ksql_lake.ingest.streams.job import RESERVED, StreamJob
from ksql_lake.ingest.streams.missing import EXPIRED, fates, memory, why
from ksql_lake.ingest.streams.not_sent import MOST, NotSent
from ksql_lake.ingest.streams.patience import Patience
from ksql_lake.maintain.erased import lasting, later
from ksql_lake.model.anchor import Anchor
from ksql_lake.model.columns import evolve, refuse_forbidden
from ksql_lake.model.findings import Finding
from ksql_lake.model.partitions import days_of
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import PSEUDO
from ksql_lake.sources.row_source import PSEUDO_COLUMNS, Flaw, Flawed, Reading, Replaced, RowSource, Wanted


class StreamExport:
    """The state of one run over one generation of a stream.

    Args:
        started_ms: epoch ms at which the run began.

    Attributes:
        attempts: the results of the readings that count, in order.
        given_up: partitions whose last exported row is missing, so that nothing of them is read.
    """

    def __init__(self, rows: RowSource, job: StreamJob, state: FeedState, started_ms: int) -> None:
        self.source, self.job, self.state = rows, job, state
        self.started_ms = started_ms
        self.attempts: list[Attempt] = []
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.retries = 0
        self.deadline = time.monotonic() + job.limits.duration
        self.base = dict(state.resume)
        skip = {partition: covered.beyond for partition, covered in state.covered.items() if covered.beyond}
        self.exported_days = ExportedDays.of(state.covered)
        self.base_heads = dict(state.heads)
        self.erased = lasting(job.dataset, state)
        self.first_day = (job.since - EPOCH).days if job.since and not self.base else None
        salt = job.part.salt if job.part else salt_of([*self.base.values(), *self.base_heads.values()])
        self.sieve = Sieve(rows.name, dict(self.base), skip, heads=dict(self.base_heads), salt=salt)
        self.stepped_over: list[NotSent] = []
        self.seen: set[int] = set()  # partitions for which it is known why their last exported row is missing
        self.given_up = {p for p, anchor in self.base.items() if anchor.missing}
        self.remembered: dict[int, str] = {p: anchor.missing for p, anchor in self.base.items() if anchor.missing}

    def read(self) -> bool:
        """Read to the end, through cuts; True when the topic turned out to be recreated."""
        try:
            self._refuse_gone_partitions()
            self._read_through_cuts()
            self._hold_back()
        except (TopicRecreated, Replaced) as evidence:
            self._discard(evidence)
            next_one = f"generation {self.state.generation + 1} starts, older data stays"
            message = f"the topic was recreated ({evidence}); {next_one}"
            offset = evidence.offset if isinstance(evidence, TopicRecreated) else None
            self._found("drift", message, evidence.partition, offset)
            return True
        return False

    @property
    def anchors(self) -> dict[int, Anchor]:
        """How far the attempts that count have read each partition."""
        anchors = self.attempts[-1].anchors if self.attempts else self.base
        return {p: self._marked(p, anchor) for p, anchor in anchors.items()}

    @property
    def heads(self) -> dict[int, Anchor]:
        """The first row of each partition in the attempts that count."""
        return self.attempts[-1].heads if self.attempts else self.base_heads

    @property
    def rows(self) -> int:
        return sum(attempt.rows for attempt in self.attempts)

    @property
    def _taken(self) -> int:
        """New rows so far, quarantined or not."""
        return self.rows + sum(attempt.aside.rows for attempt in self.attempts)

    def _marked(self, partition: int, anchor: Anchor) -> Anchor:
        return replace(anchor, missing=self.remembered[partition]) if partition in self.remembered else anchor

    def _refuse_gone_partitions(self) -> None:
        """Kafka never removes a partition: where there are fewer than before, it is another topic."""
        for partition in sorted({*self.base, *self.base_heads}):
            if 0 < self.source.partitions <= partition:
                raise TopicRecreated(
                    partition, f"it has {self.source.partitions} partitions now, and partition {partition} was exported"
                )

    def _read_through_cuts(self) -> None:
        failing_since: float | None = None
        tries = 0
        while True:
            before = self._taken
            try:
                self.notes.append(f"ended: {self._attempt()}")
                return
            except RowNotSent as error:
                if not self._step_over(error):
                    return
            except MAY_PASS as error:
                now = time.monotonic()
                if self._taken > before or failing_since is None:
                    failing_since, tries = now, 0
                pause = delay(tries)
                tries += 1
                if now + pause - failing_since > self.job.limits.retry or now + pause > self.deadline:
                    self._give_up(error)
                    return
                self.notes.append(f"retry after {pause:.1f} s: {error}")
                self.retries += 1
                time.sleep(pause)

    def _step_over(self, error: RowNotSent) -> bool:
        """Skip a row that the server cannot send, where the feed allows it; False when reading ends here."""
        partition, offset = error.partition, error.offset
        assert partition is not None and offset is not None
        after = f"after offset {error.last}" if error.last >= 0 else "at its beginning"
        what = (
            f"partition {partition}, {after}: the server cannot send the row at offset {offset} ({error}), as with "
            "a TIME of 24:00"
        )
        if self.job.on_bad_value != "fail" and len(self.stepped_over) < MOST:
            self.stepped_over.append(NotSent(partition, offset, error.rowtime, what))
            return True
        message = f'{what}; to skip it, set "on_bad_value" to "quarantine" in the feed file'
        if not self._taken:
            raise SourceError(message).at(partition, offset)
        self._found("incomplete", f"{message}; what came before is published", partition, offset)
        return False

    def _give_up(self, error: LakeError) -> None:
        """The server can no longer be read: what was read counts, except what may be another topic's."""
        while self.attempts and self.attempts[-1].doubtful:
            self.attempts.pop()
        self._hold_back()
        if not self._taken:
            raise error
        self._found(
            "incomplete", f"{error}; what was read until then is published, and the next run continues from there"
        )

    def _hold_back(self) -> None:
        """Publish nothing where nothing shows that the topic is still the same, and something suggests another one.

        That is: no known row was seen unchanged, and a partition had rows before its last exported row, but not that
        row. It may still come; or the topic was recreated, and all of it must be read again.
        """
        last = self.attempts[-1] if self.attempts else None
        if last is None or not last.unclear - self.seen or any(attempt.matched for attempt in self.attempts):
            return
        if self._taken:
            partition = min(last.unclear)
            message = (
                "nothing is published: no row shows yet that the topic is the one exported so far; rows of partition "
                f"{partition} came, but not its last exported row"
            )
            self._found("incomplete", message, partition)
        self.attempts.clear()

    def _found(self, kind: str, message: str, partition: int | None = None, offset: int | None = None) -> None:
        self.findings.append(Finding(kind, message, feed=self.job.dataset.feed, partition=partition, offset=offset))

    def _discard(self, evidence: TopicRecreated | Replaced) -> None:
        """Forget the attempts that may hold rows of the new topic.

        An attempt read the old topic if it saw a known row of the partition that revealed the new one, or brought the
        row that was contradicted; so did all attempts before it. A source that can tell topics apart has already
        discarded what it read of the new one.
        """
        if isinstance(evidence, Replaced):
            return
        while self.attempts and evidence.partition not in self.attempts[-1].evidence:
            self.attempts.pop()

    def _attempt(self) -> str:
        """One reading: stage its new rows until the end rule holds. Leaves an Attempt behind, also after a cut."""
        job, state = self.job, self.state
        after = {p: anchor.offset for p, anchor in self.sieve.anchors.items()}
        left_out = {p: set(offsets) for p, offsets in state.not_sent.get(state.generation, {}).items()}
        for row in self.stepped_over:
            left_out.setdefault(row.partition, set()).add(row.offset)
        wanted = Wanted(after, frozenset(self.given_up), job.window, left_out, state.mark.next)
        with self.source.open(wanted) as reading:
            self.sieve.start_query(proven=reading.proven, samples=reading.samples)
            self.sieve.log_starts(reading.starts(), wanted.next)
            refuse_forbidden(job.dataset.feed, reading.columns, job.forbidden_columns)
            state.columns, state.schema_version = evolve(
                job.dataset.feed, state.columns, reading.columns, RESERVED, state.schema_version,
                state.timestamps,
            )
            before = self.attempts[-1].checker if self.attempts else None
            attempt = Attempt(job, state, len(self.attempts), before)
            self._record_not_sent(attempt)
            self._report_gaps(attempt)
            try:
                reason = self._drain(reading, attempt)
            except MAY_PASS:
                self._keep(attempt, reading)
                raise
            except BaseException:
                attempt.abort()
                raise
            self._keep(attempt, reading)
            return reason

    def _record_not_sent(self, attempt: Attempt) -> None:
        """Quarantine the rows that were skipped, each once; those of other days not at all."""
        recorded = {row for earlier in self.attempts for row in earlier.not_sent}
        for row in self.stepped_over:
            day = int(days_of(np.array([row.rowtime]), self.job.timezone)[0])
            if row not in recorded and (not self.job.days or EPOCH + dt.timedelta(days=day) in self.job.days):
                attempt.leave_out(row, day)

    def _keep(self, attempt: Attempt, reading: Reading) -> None:
        attempt.close(self.sieve, reading)
        self.attempts.append(attempt)
        self.given_up &= self.sieve.pending
        self.remembered = {p: fate for p, fate in self.remembered.items() if p in self.given_up}

    def _drain(self, reading: Reading, attempt: Attempt) -> str:
        names = [column.name for column in reading.columns]
        patience = Patience(self.job.limits.anchor, self.given_up)
        goals, begun = reading.goals(), dict(reading.positions())
        while True:
            batches = reading.read()
            received = time.monotonic()
            for rows in batches:
                flawed = isinstance(rows, Flawed)
                self._rows(rows.batch if flawed else rows, names, attempt, rows.flaws if flawed else ())
            now = time.monotonic()
            reading.worked(now - received)
            if goals:
                self.job.progress.reached(_share(goals, begun, reading.positions()))
            if not batches:
                self._waits(reading.silence(now))
            reason = self._ended(reading, patience, now)
            if reason:
                return reason

    def _waits(self, silent: float) -> None:
        """Report what the reading waits for, once a person would notice."""
        if silent >= 1:
            idle = f"{silent:.0f} s of {self.job.limits.idle:g}"
            self.job.progress.waits(f"no row for {idle}, after which the stream counts as read")

    def _ended(self, reading: Reading, patience: Patience, now: float) -> str | None:
        """Why the reading is over; None to continue.

        Raises:
            TopicRecreated: a partition that looks like another topic's is at its end, and its anchor never came.
        """
        reason, sieve = reading.ended(now), self.sieve
        over = now >= self.deadline
        behind = reading.behind(now) if sieve.doubts else ()
        for partition, doubt in sieve.doubts.items():
            if over or (reason and partition not in behind):
                raise TopicRecreated(partition, doubt)
        waits = patience.waits_for(sieve.pending, reading, now, reason is not None)
        if not over and (not reason or waits):
            return None
        if over and not (reason and not waits):
            reason = "time limit"
            self._tell_time_limit(reading.behind(now), waits)
        self._tell_given_up(sorted(sieve.pending - waits))
        return reason

    def _tell_time_limit(self, behind: Collection[int], waits: Collection[int]) -> None:
        """Report which partitions are not read to their end, and whether the next run can continue from there."""
        stopped = f"stopped at the time limit of {self.job.limits.duration:.0f} s (MAX_DURATION_SECONDS)"
        begun = sorted(p for p in set(behind) - self.sieve.pending if self.sieve.anchors.get(p) != self.base.get(p))
        rest = sorted({*behind, *waits} - {*begun, *self.given_up})
        if begun:
            self._found("incomplete", f"{stopped}; the rest of {_partitions(begun)} is read next time")
        if rest:
            what = f"before anything new of {_partitions(rest)} had come; if this happens again, raise it"
            self._found("incomplete", f"{stopped}, {what}")

    def _tell_given_up(self, partitions: Collection[int]) -> None:
        """Report each partition whose last exported row is missing, so that it was not read, and why.

        Raises:
            TopicRecreated: the row is gone, though rows before it are there: nothing expires in this order.
        """
        sieve, anchors = self.sieve, self.sieve.anchors
        new = {p: anchors[p] for p in partitions if not anchors[p].missing or p in sieve.before}
        found = fates(self.source, new, self.job.limits.anchor / 2)
        for partition in partitions:
            anchor, fate = anchors[partition], found.get(partition, "unknown")
            if fate == "gone" and partition in sieve.before:
                fate = "cut off"
            if fate == "there":
                self.seen.add(partition)
            if fate == "cut off" and partition not in sieve.matched and not self.source.compacted:
                raise TopicRecreated(
                    partition, f"partition {partition}: its last exported row is gone, though rows before it are there",
                    anchor.offset,
                )
            if fate == "cut off":
                self.seen.add(partition)
            message = why(partition, anchor, fate, self.job)
            self.remembered[partition] = memory(anchor, fate)
            old = anchor.rowtime < self.started_ms - self.job.source_retention_days * 86_400_000
            if self.remembered[partition] == EXPIRED and (old or anchor.missing == EXPIRED):
                self.notes.append(message)
            else:
                self._found("gap", message, partition, anchor.offset)

    def _rows(self, batch: pa.RecordBatch, names: list[str], attempt: Attempt, flaws: Sequence[Flaw]) -> None:
        job = self.job
        rowtimes, partitions, offsets = (numbers(batch.column(i)) for i in range(PSEUDO_COLUMNS))
        keep = self.sieve.new_rows(batch, names)
        self._report_gaps(attempt)
        times = event_times(batch, PSEUDO_COLUMNS, names, rowtimes, job.timestamp_column, job.dataset.feed)
        days = days_of(times, job.timezone)
        if job.days:
            keep &= np.isin(days, [(day - EPOCH).days for day in job.days])
        if self.first_day is not None:
            keep &= days >= self.first_day
        self.exported_days.take_out(keep, partitions, offsets, days)
        if not keep.any():
            return
        if job.days:
            attempt.cover(partitions[keep], offsets[keep], days[keep])
        table, unfit = self._on_disk(batch, names, attempt.schema, keep)
        erased = later(self.erased, table, self.state.columns)
        if erased is not None:
            keep &= ~erased
        job.progress(int(keep.sum()), batch.nbytes, int(rowtimes.max()))
        attempt.take(table, keep, days, [*flaws, *unfit])

    def _report_gaps(self, attempt: Attempt) -> None:
        for partition, lost in self.sieve.gaps:
            message = f"up to {counted(lost, 'row')} of partition {partition} expired before they were exported"
            attempt.findings.append(Finding("gap", message, feed=self.job.dataset.feed, partition=partition))
        self.sieve.gaps.clear()

    def _on_disk(
        self, batch: pa.RecordBatch, names: list[str], schema: pa.Schema, keep: np.ndarray
    ) -> tuple[pa.RecordBatch, list[Flaw]]:
        positions = {name: PSEUDO_COLUMNS + i for i, name in enumerate(names)}
        columns = [column.name for column in self.state.columns]
        arrays = [batch.column(i) for i in (*range(PSEUDO_COLUMNS), *(positions[name] for name in columns))]
        return as_stored(arrays, [*PSEUDO, *columns], schema, keep, self.job.on_bad_value)


def _share(goals: Mapping[int, int], begun: Mapping[int, int], now: Mapping[int, int]) -> float:
    """How much of what lay between the first positions and the ends has been read, from 0 to 1."""
    whole = sum(goal - begun.get(partition, goal) for partition, goal in goals.items())
    read = sum(now[partition] - first for partition, first in begun.items() if partition in now)
    return min(max(read / whole, 0.0), 1.0) if whole else 1.0


def _partitions(numbers_: Collection[int]) -> str:
    return f"partition{'s' if len(numbers_) > 1 else ''} {', '.join(map(str, numbers_))}"
