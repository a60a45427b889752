"""Reads days of a stream again from its source and replaces what the lake has of them, in one commit.

Only rows that were exported before are read: new ones come with the next export. Rows that the source no longer has are
copied from the files that can be read, and rows in quarantine stay there. What is in no readable file and no longer at
the source is lost; without `allow_loss` a reload refuses to make that final.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import numpy as np
import pyarrow as pa

from ksql_lake import __version__
from ksql_lake.base.arrays import mask, numbers
from ksql_lake.base.errors import SourceError, StateError
from ksql_lake.base.retry import until_answered
from ksql_lake.ingest.stored import as_stored
from ksql_lake.ingest.streams.anchors import TopicRecreated
from ksql_lake.ingest.streams.event_time import EPOCH, event_times
from ksql_lake.ingest.streams.exported_days import ExportedDays
from ksql_lake.ingest.streams.job import RESERVED, StreamJob
from ksql_lake.ingest.streams.patience import Patience
from ksql_lake.ingest.streams.retaking import Retaking
from ksql_lake.maintain.erased import Rules, lasting, later
from ksql_lake.model.columns import as_schema, evolve, refuse_forbidden, rows_schema
from ksql_lake.model.coverage import inside
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.footer import Footer
from ksql_lake.model.partitions import day_path, days_of, parse_day
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import PSEUDO
from ksql_lake.sources.row_source import PSEUDO_COLUMNS, Flawed, Reading, RowSource, Wanted
from ksql_lake.store import journal, trash
from ksql_lake.store.metadata import Move
from ksql_lake.store.parquet import open_parquet
from ksql_lake.store.writer import PartitionWriter, StagedFile

PLACE = ["ROWPARTITION", "ROWOFFSET"]
Places = dict[int, np.ndarray]  # Kafka partition -> offsets, ascending


@dataclass
class Reloaded:
    """What a reload did: rows read again, rows carried over from files, rows that are lost, files made."""

    read: int = 0
    carried: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    files: int = 0


def missing_days(job: StreamJob, state: FeedState) -> list[dt.date]:
    """The days of which a file of the present generation is gone or damaged, as far as its size and footer tell."""
    days = {
        parse_day(entry.partition) for entry in state.files
        if entry.generation == state.generation and entry.local and not _readable(job, entry)
    }
    return sorted(day for day in days if day is not None)


def reload_days(
    rows: RowSource, job: StreamJob, state: FeedState, *, allow_loss: bool, now: str, by: str
) -> Reloaded:
    """Read the days of `job` again and replace their files. Call with the feed's lock held.

    Raises:
        StateError: rows would be lost for good, or a file is only in the remote.
        SourceError: the topic at the source is another one.
        LakeError: the source could not be read to its end; nothing is changed.
    """
    turn = _Turn(rows, job, state)
    try:
        done = until_answered(turn.read, job.limits.retry, lambda _: None)
        turn.refuse_loss(done, allow_loss)
        turn.commit(done, now, by)
        return done
    except BaseException:
        if not journal.is_journalled(job.dataset, job.run):  # else the next run finishes the change
            job.dataset.storage.delete(job.dataset.staged(job.run))
        raise


class _Turn:
    """One reload of some days."""

    def __init__(self, rows: RowSource, job: StreamJob, state: FeedState) -> None:
        self.source, self.job, self.state = rows, job, state
        self.days = frozenset((day - EPOCH).days for day in job.days)
        paths = {day_path(day) for day in job.days}
        self.old = [e for e in state.files if e.partition in paths and e.generation == state.generation]
        away = [entry.path for entry in self.old if not entry.local]
        if away:
            raise StateError(f"{job.dataset.feed}: {away[0]} is only in the remote; bring it back with: "
                             f"python manage_feeds.py remote pull {job.dataset.feed}")
        if not self.old and not any(entry.partition in paths for entry in state.quarantined):
            raise StateError(
                f"{job.dataset.feed}: the lake has no rows of {', '.join(map(str, job.days))}; export them with: "
                f"python export_to_data_lake.py --stream {job.dataset.feed} --date {job.days[0]}"
            )
        self.exported_days = ExportedDays.of(state.covered)
        self.rules = _every_rule(job, state)
        self.made: list[StagedFile] = []

    def read(self) -> Reloaded:
        """Stage all rows of the days: those of the source, and those that only our files still have."""
        job, state = self.job, self.state
        job.dataset.storage.delete(job.dataset.staged(job.run))
        after = {p: anchor.offset for p, anchor in state.resume.items()}
        with self.source.open(Wanted(after, frozenset(after), job.window)) as reading:
            refuse_forbidden(job.dataset.feed, reading.columns, job.forbidden_columns)
            state.columns, state.schema_version = evolve(
                job.dataset.feed, state.columns, reading.columns, RESERVED, state.schema_version,
                state.timestamps,
            )
            schema = rows_schema(state)
            footer = Footer.of(state, job.dataset.feed, tool=__version__, run=job.run, origin="reload")
            directory = job.dataset.staged(job.run)
            with PartitionWriter(directory, schema, job.run, "data", job.writer, footer.pairs()) as writer:
                held = _held(job, state.quarantined)
                found = self._drain(reading, writer, schema, held)
                done = Reloaded(sum(len(offsets) for offsets in found.values()))
                done.carried = self._carry_over(writer, schema, found)
                self.made = writer.close()
        done.files, done.lost = len(self.made), self._lost()
        return done

    def _drain(self, reading: Reading, writer: PartitionWriter, schema: pa.Schema, held: Places) -> Places:
        sieve = Retaking(self.source.name, dict(self.state.resume), heads=dict(self.state.heads))
        sieve.start_query(proven=reading.proven, samples=reading.samples)
        given_up = {p for p, anchor in self.state.resume.items() if anchor.missing}
        patience, deadline = Patience(self.job.limits.anchor, given_up), time.monotonic() + self.job.limits.duration
        taken: dict[int, list[np.ndarray]] = {}
        try:
            while True:
                batches = reading.read()
                received = time.monotonic()
                for rows in batches:
                    self._take(rows.batch if isinstance(rows, Flawed) else rows, reading, sieve, writer, schema, held,
                               taken)
                now = time.monotonic()
                reading.worked(now - received)
                reason = reading.ended(now)
                if reason and not patience.waits_for(sieve.pending, reading, now, True):
                    break
                if now > deadline:
                    raise SourceError(
                        f"{self.source.name}: was not read to its end within {self.job.limits.duration:.0f} s "
                        "(MAX_DURATION_SECONDS); nothing is changed"
                    )
        except TopicRecreated as evidence:
            raise SourceError(
                f"{self.source.name}: the topic was recreated ({evidence}), so these rows cannot be read again"
            ) from None
        unproven = sorted(set(taken) - sieve.evidence) if not reading.proven else []
        if unproven or sieve.doubts:
            raise SourceError(
                f"{self.source.name}: no row of partition {(unproven or sorted(sieve.doubts))[0]} shows that the topic "
                "is still the one that was exported, so its rows cannot replace those of the lake"
            )
        return {p: np.sort(np.concatenate(parts)) for p, parts in taken.items()}

    def _take(
        self, batch: pa.RecordBatch, reading: Reading, sieve: Retaking, writer: PartitionWriter, schema: pa.Schema,
        held: Places, taken: dict[int, list[np.ndarray]],
    ) -> None:
        job, names = self.job, [column.name for column in reading.columns]
        rowtimes, partitions, offsets = (numbers(batch.column(i)) for i in range(PSEUDO_COLUMNS))
        keep = sieve.new_rows(batch, names)
        times = event_times(batch, PSEUDO_COLUMNS, names, rowtimes, job.timestamp_column, job.dataset.feed)
        days = days_of(times, job.timezone)
        keep &= np.isin(days, list(self.days))
        keep &= self._exported(partitions, offsets, days) & ~_in(held, partitions, offsets)
        if not keep.any():
            return
        where = {name: PSEUDO_COLUMNS + i for i, name in enumerate(names)}
        columns = [column.name for column in self.state.columns]
        arrays = [batch.column(i) for i in (*range(PSEUDO_COLUMNS), *(where[name] for name in columns))]
        table, _ = as_stored(arrays, [*PSEUDO, *columns], schema, keep, job.on_bad_value)
        erased = later(self.rules, table, self.state.columns)
        keep &= True if erased is None else ~erased
        _write(writer, table, keep, days)
        for partition in np.unique(partitions[keep]).tolist():
            taken.setdefault(partition, []).append(offsets[keep & (partitions == partition)])

    def _exported(self, partitions: np.ndarray, offsets: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Rows that were exported before; the others come with the next export."""
        fresh = np.ones(len(offsets), bool)
        self.exported_days.take_out(fresh, partitions, offsets, days)
        for partition, covered in self.state.covered.items():
            here = partitions == partition
            fresh[here] &= (offsets[here] > covered.upto) & ~inside(covered.beyond, offsets[here])
        return ~fresh

    def _carry_over(self, writer: PartitionWriter, schema: pa.Schema, found: Places) -> int:
        """Copy rows of our files that the source did not send (expired since) into the new files as they are."""
        carried = 0
        for entry in self.old:
            for batch in _batches(self.job.dataset.file(entry.path)) if _readable(self.job, entry) else ():
                partitions, offsets = (numbers(batch.column(name)) for name in PLACE)
                alone = ~_in(found, partitions, offsets)
                if alone.any():
                    part = as_schema(batch.filter(mask(alone)), schema)
                    writer.write(part, entry.partition, f"{parse_day(entry.partition):%Y%m%d}")
                    carried += int(alone.sum())
        return carried

    def _lost(self) -> dict[str, int]:
        """Day's directory -> rows that the metadata list but that neither a readable file nor the source has."""
        rows: dict[str, int] = {}
        for entry in self.old:
            rows[entry.partition] = rows.get(entry.partition, 0) + entry.rows
        for file in self.made:
            rows[file.partition] = rows.get(file.partition, 0) - file.rows
        return {partition: left for partition, left in sorted(rows.items()) if left > 0}

    def refuse_loss(self, done: Reloaded, allow_loss: bool) -> None:
        if done.lost and not allow_loss:
            raise StateError("\n".join(
                f"{self.job.dataset.feed}: {rows:,} rows of {parse_day(partition)} are in no readable file and no "
                "longer at the source; nothing is changed. To accept their loss, add --allow-loss"
                for partition, rows in done.lost.items()
            ))

    def commit(self, done: Reloaded, now: str, by: str) -> None:
        job, state = self.job, self.state
        there = [entry for entry in self.old if job.dataset.storage.stat(job.dataset.file(entry.path))]
        moves = trash.stage(job.dataset, there, job.run, now=now, by=by, why=trash.RELOADED)
        entries = []
        for file in self.made:
            moves.append(Move.of(job.dataset, file.staged, job.dataset.file(f"{file.partition}/{file.name}")))
            entries.append(file.entry(
                run=job.run, origin="reload", schema_version=state.schema_version, exported_at=now,
                generation=state.generation, compression=job.writer.compression,
                compression_level=job.writer.compression_level,
            ))
        state.files.replace({entry.path for entry in self.old}, entries)
        lost = sum(done.lost.values())
        what = f"reload: {done.read + done.carried} rows of {', '.join(map(str, job.days[:3]))}"
        what += f" and {len(job.days) - 3} more days" if len(job.days) > 3 else ""
        what += f"; {lost} rows given up" if lost else ""
        journal.amend(job.dataset, job.run, state, moves, kind="reload", now=now, by=by, what=what)


def _every_rule(job: StreamJob, state: FeedState) -> Rules:
    """Keep out what erasures removed, even where later events of the same person are kept."""
    rules = lasting(job.dataset, state)
    for erasure in state.erasures:
        rules.add(erasure.to_json())
    return rules


def _write(writer: PartitionWriter, table: pa.RecordBatch, keep: np.ndarray, days: np.ndarray) -> None:
    for day in np.unique(days[keep]).tolist():
        date = EPOCH + dt.timedelta(days=day)
        writer.write(table.filter(mask(keep & (days == day))), day_path(date), date.strftime("%Y%m%d"))


def _readable(job: StreamJob, entry: FileEntry) -> bool:
    """Whether a file is there with its original size and rows."""
    path = job.dataset.file(entry.path)
    try:
        there = job.dataset.storage.stat(path)
        if there is None or there.size != entry.bytes:
            return False
        with open_parquet(path) as parquet:
            return int(parquet.metadata.num_rows) == entry.rows
    except (OSError, pa.ArrowException):
        return False


def _batches(path: PurePath) -> Iterator[pa.RecordBatch]:
    with open_parquet(path) as parquet:
        yield from parquet.iter_batches()


def _held(job: StreamJob, entries: Sequence[FileEntry]) -> Places:
    """The rows in quarantine, which stay there."""
    found: dict[int, list[np.ndarray]] = {}
    wanted = {day_path(day) for day in job.days}
    for entry in entries:
        if entry.partition not in wanted:
            continue
        try:
            with open_parquet(path := job.dataset.in_lake(entry.path)) as parquet:
                table = parquet.read(columns=PLACE)
        except (OSError, pa.ArrowException) as error:
            raise StateError(f"{path}: rows in quarantine cannot be read ({error})") from None
        partitions, offsets = (numbers(table[name].combine_chunks()) for name in PLACE)
        for partition in np.unique(partitions).tolist():
            found.setdefault(partition, []).append(offsets[partitions == partition])
    return {partition: np.sort(np.concatenate(parts)) for partition, parts in found.items()}


def _in(places: Mapping[int, np.ndarray], partitions: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """A mask of the rows that are among these places."""
    found = np.zeros(len(offsets), bool)
    for partition, known in places.items():
        here = np.flatnonzero(partitions == partition)
        if len(here) and len(known):
            at = np.minimum(np.searchsorted(known, offsets[here]), len(known) - 1)
            found[here] = known[at] == offsets[here]
    return found


def with_days(job: StreamJob, days: Collection[dt.date]) -> StreamJob:
    """The same job for some days."""
    return replace(job, days=tuple(sorted(days)))
