"""Quarantine: rows that failed a check, hidden from readers, with the reason; they can be counted and imported.

    <lake>/quarantine/<feed>/<run>_<day or version>_0001.parquet      the feed's columns, then `_reason`

Such a file belongs to one partition, which its name repeats, and appears by the commit of its run. Coverage includes
its rows: later exports do not read them again.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

import numpy as np
import pyarrow as pa

from ksql_lake.base.errors import StateError
from ksql_lake.model.checks import Check
from ksql_lake.model.columns import as_schema, rows_schema
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.footer import Footer
from ksql_lake.model.partitions import day_path, disk_names, parse_day
from ksql_lake.model.state import QUARANTINE, FeedState
from ksql_lake.quality.checker import BadRows, Checker, count_reasons
from ksql_lake.store import journal
from ksql_lake.store.dataset import Dataset, Move
from ksql_lake.store.parquet import open_parquet
from ksql_lake.store.writer import PartitionWriter, StagedFile, WriterOptions, options_like

REASON = "_reason"
LABELS = "ksql_lake.checks"


class Aside:
    """Stages the bad rows of one query of a run; writes nothing when there are none.

    Args:
        directory: in staging; created with the first row.
        unique: what makes the names of its files unique.
        footer: key-value metadata of each file, the same as in the files where the rows would have gone.
    """

    def __init__(
        self, directory: Path, schema: pa.Schema, unique: str, options: WriterOptions, footer: dict[str, str]
    ) -> None:
        self._directory, self._unique, self._footer = directory, unique, footer
        self._schema = schema.append(pa.field(reason_column(schema.names), pa.string()))
        whole = replace(options, bloom_filter_columns=(), file_rows=1 << 60, file_bytes=1 << 60)
        self._options = whole
        self._writer: PartitionWriter | None = None
        self.labels: set[str] = set()
        self.files: list[StagedFile] = []
        self.rows = 0

    def write(self, bad: BadRows, partition: str, day: str, chosen: np.ndarray | None = None) -> None:
        """Add the bad rows of one partition, all or those chosen."""
        if self._writer is None:
            self._writer = PartitionWriter(
                self._directory, self._schema, self._unique, "data", self._options, self._footer
            )
        batch = pa.RecordBatch.from_arrays([*bad.rows.columns, bad.reasons], schema=self._schema)
        batch = batch if chosen is None else batch.filter(pa.array(chosen))
        self._writer.write(batch, partition, day)
        self.labels |= set(bad.counts)
        self.rows += len(batch)

    def close(self, footer: dict[str, str] | None = None) -> None:
        """Finish the files, durably."""
        if self._writer is not None:
            self.files = self._writer.close({**(footer or {}), LABELS: json.dumps(sorted(self.labels))})
            self._writer = None

    def abort(self) -> None:
        """Discard everything; the caller removes what is in staging."""
        if self._writer is not None:
            self._writer.abort()

    def publish(self, dataset: Dataset, unique: str) -> tuple[list[Move], list[FileEntry]]:
        """The renames of a commit, and the entries that go with them, less run, origin, schema version and times."""
        moves, entries = list[Move](), list[FileEntry]()
        for number, file in enumerate(self.files, 1):
            path = path_of(dataset, file_name(unique, file.partition, number))
            moves.append(Move.of(dataset, file.staged, dataset.in_lake(path)))
            entries.append(entry_of(dataset, file, path, self._options, reasons(file.staged, self.labels)))
        if moves:
            dataset.storage.make(dataset.quarantine.parent)  # of all feeds: open, whatever the feed's access
        return moves, entries


def reason_column(names: Sequence[str]) -> str:
    """`_reason`, or `_reason_` where the source has such a column."""
    return disk_names([REASON], names, {})[REASON]


def file_name(unique: str, partition: str, number: int) -> str:
    """`<run>_20250115_0001.parquet`, or `<run>_v3_0001.parquet` for a table."""
    day = parse_day(partition)
    return f"{unique}_{f'{day:%Y%m%d}' if day else partition.removeprefix('version=')}_{number:04d}.parquet"


def partition_of(name: str) -> str:
    """The partition that the name of a file in quarantine repeats."""
    label = name.rsplit("_", 2)[1]
    return f"version={label}" if label.startswith("v") else day_path(dt.datetime.strptime(label, "%Y%m%d").date())


def path_of(dataset: Dataset, name: str) -> str:
    """A file in a feed's quarantine as the metadata name it: from the top of the lake."""
    return f"{QUARANTINE}/{dataset.feed}/{name}"


def reasons(path: PurePath, labels: Sequence[str] | set[str]) -> dict[str, int]:
    """How many rows of a file failed which check."""
    with open_parquet(path) as parquet:
        column = parquet.read(columns=[parquet.schema_arrow.names[-1]]).column(0)
    return count_reasons(column, sorted(labels))


def entry_of(
    dataset: Dataset, file: StagedFile, path: str, options: WriterOptions, reasons: Mapping[str, int]
) -> FileEntry:
    """The metadata's entry for one file in quarantine; its path is relative to the lake."""
    return file.entry(
        run="", origin="", schema_version="", exported_at="", generation=0 if dataset.kind == "stream" else None,
        compression=options.compression, compression_level=options.compression_level,
        path=path, reasons=reasons,
    )


def held(state: FeedState | None, run: str | None = None) -> list[FileEntry]:
    """The entries of a feed, or of one run of it.

    Raises:
        StateError: that run quarantined nothing, or all of it was imported.
    """
    entries = [] if state is None else list(state.quarantined)
    if run is None:
        return entries
    chosen = [entry for entry in entries if entry.run == run]
    if not chosen:
        runs = ", ".join(dict.fromkeys(entry.run for entry in entries)) or "none"
        raise StateError(f"no rows of run {run} are in quarantine; runs with quarantined rows: {runs}")
    return chosen


@dataclass(frozen=True)
class Readmitted:
    """What an import did: rows that are in the lake now, rows that stay in quarantine."""

    rows: int
    left: int


class Import:
    """Brings rows from quarantine into their partitions, as one commit. Call with the feed's lock held.

    Args:
        checks: the present ones of the feed; rows that still fail one of `fail` or `quarantine` stay.
        force: import those as well.
        run: a name that no run had.
    """

    def __init__(
        self, dataset: Dataset, state: FeedState, checks: Sequence[Check], run: str, *, force: bool, tool: str,
        options: WriterOptions,
    ) -> None:
        self.dataset, self.state, self.run, self.tool, self.options = dataset, state, run, tool, options
        strict = [] if force else [c for c in checks if c.by_row and c.level != "warn"]
        self.checks = [replace(check, level="quarantine") for check in strict]
        self.moves: list[Move] = []
        self.files: list[FileEntry] = []
        self.left: list[FileEntry] = []

    def carry_out(self, entries: Sequence[FileEntry], *, now: str, by: str) -> Readmitted:
        """Import these entries; nothing is changed when no row of them passes."""
        self.dataset.storage.make(self.dataset.staged(self.run, "retired"))
        gone = set()
        for number, entry in enumerate(entries):
            if self._one(entry, f"{self.run}q{number}"):
                gone.add(entry.path)
        rows = sum(file.rows for file in self.files)
        left = sum(e.rows for e in self.left) + sum(e.rows for e in entries if e.path not in gone)
        if gone:
            kept = (entry for entry in self.state.quarantined if entry.path not in gone)
            self.state.quarantine = (*kept, *self.left)
            self.state.files.add(replace(file, exported_at=now) for file in self.files)
            self._amend(rows, now, by)
        else:
            self.dataset.storage.delete(self.dataset.staged(self.run))
        return Readmitted(rows, left)

    def _amend(self, rows: int, now: str, by: str) -> None:
        what = f"quarantine: {rows} rows imported"
        journal.amend(
            self.dataset, self.run, self.state, self.moves, kind="quarantine", now=now, by=by, what=what
        )

    def _one(self, entry: FileEntry, unique: str) -> bool:
        """Stage the rows of one file that pass, and those that stay; False when none passes."""
        dataset, state = self.dataset, self.state
        path = dataset.in_lake(entry.path)
        with open_parquet(path) as parquet:
            schema = rows_schema(state)
            checker = Checker(dataset.feed, self.checks, schema, {c.name: c.disk_name for c in state.columns})
            footer = self._footer(entry, Footer.read(parquet.metadata.metadata or {}))
            like = options_like(parquet, entry, dataset.file_mode)
            staged = partial(dataset.staged, self.run)
            aside = Aside(staged(f"{unique}left"), schema, f"{unique}left", like, footer)
            with PartitionWriter(staged(unique), schema, unique, "data", self.options, footer) as writer:
                for batch in parquet.iter_batches():
                    self._batch(as_schema(batch, schema), checker, writer, aside, entry.partition)
                made = writer.close()
            aside.close()
        if made:
            self._replace(entry, path, made, aside, unique)
        return bool(made)

    def _batch(
        self, batch: pa.RecordBatch, checker: Checker, writer: PartitionWriter, aside: Aside, partition: str
    ) -> None:
        day = f"{parse_day(partition):%Y%m%d}"
        bad = checker.inspect(batch)
        if bad is not None:
            aside.write(bad, partition, day)
            batch = batch.filter(pa.array(~bad.mask))
        writer.write(batch, partition, day)

    def _replace(
        self, entry: FileEntry, path: PurePath, made: Sequence[StagedFile], aside: Aside, unique: str
    ) -> None:
        dataset = self.dataset
        self.moves.append(Move.of(dataset, path, dataset.staged(self.run, "retired", path.name)))
        for file in made:
            self.moves.append(Move.of(dataset, file.staged, dataset.file(f"{file.partition}/{file.name}")))
            self.files.append(file.entry(
                run=self.run, origin="quarantine", schema_version=self.state.schema_version, exported_at="",
                generation=entry.generation, compression=self.options.compression,
                compression_level=self.options.compression_level,
            ))
        moves, left = aside.publish(dataset, unique)
        self.moves += moves
        self.left += [
            replace(
                one, run=entry.run, origin=entry.origin, schema_version=entry.schema_version,
                exported_at=entry.exported_at, generation=entry.generation,
            )
            for one in left
        ]

    def _footer(self, entry: FileEntry, before: Footer | None) -> dict[str, str]:
        made = Footer.of(
            self.state, self.dataset.feed, tool=self.tool, run=self.run, origin="quarantine",
            generation=entry.generation, reading=before.reading if before else None,
        )
        return made.pairs()
