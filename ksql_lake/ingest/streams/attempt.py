"""The result of one reading: staged files, quarantined rows, what the checks found, and how far it got."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from ksql_lake import __version__
from ksql_lake.base.arrays import mask, numbers
from ksql_lake.ingest.streams.anchors import Sieve
from ksql_lake.ingest.streams.event_time import EPOCH
from ksql_lake.ingest.streams.job import StreamJob
from ksql_lake.ingest.streams.not_sent import NotSent
from ksql_lake.model.anchor import Anchor
from ksql_lake.model.columns import rows_schema
from ksql_lake.model.findings import Finding
from ksql_lake.model.footer import Footer, resume_pair, taken_pair
from ksql_lake.model.partitions import day_path
from ksql_lake.model.state import FeedState
from ksql_lake.quality.bad_values import BadValues
from ksql_lake.quality.checker import BadRows, Checker
from ksql_lake.quality.quarantine import Aside
from ksql_lake.sources.row_source import Flaw, PassedOver, Reading
from ksql_lake.store.writer import PartitionWriter, StagedFile


class Attempt:
    """The rows of one reading on their way into staged files; `close` or `abort` ends it. Closed it is a plain value.

    Args:
        number: of the attempt in its run, from 0.
        before: the checker of the previous attempt, so that a value seen there counts as a duplicate here.

    Attributes:
        files, rows: what is staged for the lake; `rows` is the sum over `files` once it is closed.
        anchors, heads: how far each partition is read, and its first row, once it is closed.
        days: of a run of some days: partition -> day as ISO text -> the last offset of it that was read.
        evidence: partitions whose rows are known to belong to the same topic as before.
        matched: partitions with a row that was known before and is unchanged.
        unclear: partitions with rows, but without the last exported row, which must follow them.
        doubtful: whether some partition looked like that of another topic.
        positions, passed, remarks: what the reading reported about itself, once it is closed.
        not_sent: rows that the server cannot send, quarantined without their content.
        findings: what to report if the attempt counts.
    """

    def __init__(self, job: StreamJob, state: FeedState, number: int, before: Checker | None) -> None:
        self.run, name = run_name(job, state), f"{job.part.name if job.part else ''}a{number}"
        self.schema = rows_schema(state)
        names = {column.name: column.disk_name for column in state.columns}
        seed = job.part.seed if job.part else None
        self.checker = Checker(job.dataset.feed, job.checks, self.schema, names, before, seed)
        unique, staged = f"{self.run}{name}", partial(job.dataset.staged, self.run)
        footer = _footer(job, state, unique)
        self.aside = Aside(staged(f"{name}q"), self.schema, unique, job.writer, footer)
        self._writer: PartitionWriter | None = PartitionWriter(
            staged(name), self.schema, unique, "data", job.writer, footer
        )
        self.bad = BadValues(job.on_bad_value)
        self.files: list[StagedFile] = []
        self.rows = 0
        self.taken = Counter[int]()
        self.anchors: dict[int, Anchor] = {}
        self.heads: dict[int, Anchor] = {}
        self.days: dict[int, dict[str, int]] = {}
        self.evidence: frozenset[int] = frozenset()
        self.matched: frozenset[int] = frozenset()
        self.unclear: frozenset[int] = frozenset()
        self.doubtful = False
        self.positions: dict[int, int] = {}
        self.passed: Mapping[int, PassedOver] = {}
        self.remarks: tuple[Finding, ...] = ()
        self.findings: list[Finding] = []
        self.not_sent: list[NotSent] = []
        self._feed = job.dataset.feed

    def take(self, table: pa.RecordBatch, keep: np.ndarray, days: np.ndarray, flaws: Sequence[Flaw] = ()) -> None:
        """Stage the rows of `keep`: the good ones in the partitions of their days, the bad ones in quarantine."""
        keep = keep.copy()
        found, counts = np.unique(numbers(table.column("ROWPARTITION"))[keep], return_counts=True)
        self.taken.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        flawed = self.bad.inspect(table, keep, flaws) if flaws else None
        if flawed is not None:
            self._quarantine(flawed, np.flatnonzero(flawed.mask), keep, days)
        unfit = self.checker.inspect(table if keep.all() else table.filter(mask(keep)))
        if unfit is not None:
            self._quarantine(unfit, np.flatnonzero(keep)[unfit.mask], keep, days)
        for day in np.unique(days[keep]).tolist():
            chosen = keep & (days == day)
            part = table if chosen.all() else table.filter(mask(chosen))
            date = EPOCH + dt.timedelta(days=day)
            assert self._writer is not None, "closed"
            self._writer.write(part, day_path(date), date.strftime("%Y%m%d"))
        self.rows += int(keep.sum())

    def cover(self, partitions: np.ndarray, offsets: np.ndarray, days: np.ndarray) -> None:
        """Remember how far a run of some days has read each of them."""
        for partition in np.unique(partitions).tolist():
            here, known = partitions == partition, self.days.setdefault(partition, {})
            for day in np.unique(days[here]).tolist():
                name = str(EPOCH + dt.timedelta(days=day))
                known[name] = max(known.get(name, -1), int(offsets[here & (days == day)].max()))

    def leave_out(self, row: NotSent, day: int) -> None:
        """Quarantine a row that the server cannot send, without its content; `day` since 1970-01-01."""
        date = EPOCH + dt.timedelta(days=day)
        self.aside.write(row.bad_row(self.schema), day_path(date), date.strftime("%Y%m%d"))
        self.not_sent.append(row)  # no later query asks for it
        message = f"{row.what}; it is quarantined without its content"
        self.findings.append(Finding("quality", message, "warning", self._feed, row.partition, row.offset))

    def close(self, sieve: Sieve, reading: Reading) -> None:
        """Finish the files, and keep what the sieve and the source know by now."""
        self.positions = {p: at for p, at in reading.positions().items() if p not in sieve.pending}
        self.passed, self.remarks = reading.passed_over(), tuple(reading.remarks())
        self.anchors, self.heads = dict(sieve.anchors), sieve.known_heads
        self.matched, self.unclear = frozenset(sieve.matched), frozenset(sieve.pending & sieve.before)
        self.evidence, self.doubtful = frozenset(sieve.evidence), bool(sieve.doubts)
        resume = resume_pair(self.anchors) | taken_pair(self.taken)
        assert self._writer is not None, "closed"
        self.files, self._writer = self._writer.close(resume), None
        self.aside.close(resume)
        self.rows = sum(file.rows for file in self.files)

    def abort(self) -> None:
        """Discard everything: none of it will be published."""
        if self._writer is not None:
            self._writer.abort()
        self.aside.abort()

    def _quarantine(self, bad: BadRows, rows: np.ndarray, keep: np.ndarray, days: np.ndarray) -> None:
        """Stage bad rows by their days, and take them out of `keep`; `rows` are their positions in the table."""
        keep[rows] = False
        for day in np.unique(days[rows]).tolist():
            date = EPOCH + dt.timedelta(days=day)
            self.aside.write(bad, day_path(date), date.strftime("%Y%m%d"), days[rows] == day)


def run_name(job: StreamJob, state: FeedState) -> str:
    """The name of a run in one generation: of its staging directory, its journal, its files."""
    return f"{job.run}g{state.generation}"


def _footer(job: StreamJob, state: FeedState, reading: str) -> dict[str, str]:
    made = Footer.of(state, job.dataset.feed, tool=__version__, run=job.run, origin=job.origin, reading=reading)
    return made.pairs()
