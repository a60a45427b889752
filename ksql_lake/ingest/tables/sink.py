"""Where the rows of one attempt at a copy of a table go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from ksql_lake import __version__
from ksql_lake.base.arrays import mask
from ksql_lake.ingest.stored import as_stored
from ksql_lake.ingest.tables.job import RESERVED, TableJob
from ksql_lake.maintain.erased import lasting, later
from ksql_lake.model.columns import evolve, schema_of
from ksql_lake.model.footer import Footer, taken_pair
from ksql_lake.model.partitions import version_path
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import Column
from ksql_lake.quality.bad_values import BadValues
from ksql_lake.quality.checker import Checker
from ksql_lake.quality.quarantine import Aside
from ksql_lake.sources.row_source import Flaw
from ksql_lake.store.writer import PartitionWriter, StagedFile


@dataclass(frozen=True)
class Snapshot:
    """A complete copy of the table, staged; `rows` counts what the table answered with, quarantined or not."""

    files: list[StagedFile]
    rows: int
    checker: Checker
    aside: Aside
    bad: BadValues


class Sink:
    """Takes the rows of one attempt: through the checks into the files of the next version, or into quarantine.

    Args:
        columns: the header's columns.
        number: that of the next version.
    """

    def __init__(self, job: TableJob, state: FeedState, columns: Sequence[Column], number: int) -> None:
        self.job, self.state, self.rows, self._taken = job, state, 0, 0
        self.erased = lasting(job.dataset, state)
        state.columns, state.schema_version = evolve(
            job.dataset.feed, state.columns, columns, RESERVED, state.schema_version, state.timestamps
        )
        recorded = state.columns
        positions = {column.name: i for i, column in enumerate(columns)}
        self._positions = [positions[column.name] for column in recorded]
        self._schema = schema_of(state)
        self._partition = version_path(number)
        names = {column.name: column.disk_name for column in recorded}
        self._checker = Checker(job.dataset.feed, job.checks, self._schema, names)
        staged, footer = partial(job.dataset.staged, job.run), _footer(job, state, number)
        self._aside = Aside(staged("aside"), self._schema, job.run, job.writer, footer)
        self._writer = PartitionWriter(staged("files"), self._schema, job.run, "snapshot", job.writer, footer)
        self._bad = BadValues(job.on_bad_value)

    def write(self, batch: pa.RecordBatch, flaws: Sequence[Flaw] = ()) -> None:
        """The next rows of the answer, and which of them have a value that its type cannot hold."""
        arrays = [batch.column(position) for position in self._positions]
        names = [column.name for column in self.state.columns]
        made, unfit = as_stored(arrays, names, self._schema, np.ones(len(batch), bool), self.job.on_bad_value)
        erased = later(self.erased, made, self.state.columns)
        keep = np.ones(len(made), bool) if erased is None else ~erased
        self._taken += int(keep.sum())
        day = self.job.run[:8]
        flawed = self._bad.inspect(made, keep, [*flaws, *unfit])
        if flawed is not None:
            self._aside.write(flawed, self._partition, day)
            keep &= ~flawed.mask
        made = made if keep.all() else made.filter(mask(keep))
        bad = self._checker.inspect(made)
        if bad is not None:
            self._aside.write(bad, self._partition, day)
            made = made.filter(mask(~bad.mask))
        self._writer.write(made, self._partition, day)
        self.rows += len(batch)
        self.job.progress(len(batch), batch.nbytes)

    def close(self) -> Snapshot:
        """All rows came."""
        taken = taken_pair({None: self._taken})
        self._aside.close(taken)
        return Snapshot(self._writer.close(taken), self.rows, self._checker, self._aside, self._bad)


def _footer(job: TableJob, state: FeedState, number: int) -> dict[str, str]:
    made = Footer.of(
        state, job.dataset.feed, tool=__version__, run=job.run, origin="export", version=f"v{number}", reading=job.run
    )
    return made.pairs()
