"""Erases every row of one person from the lake: from all partitions, versions and the trash, with proof.

Only files that hold such a row are rewritten, under new names, by the journal of `metadata`. Resume points and
coverage stay, so an erased row never comes back. Of the value, the receipt keeps only a salted hash.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import pyarrow as pa

from ksql_lake.maintain.erased import Rules, hashed
from ksql_lake.model.columns import schema_of
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import Erasure, FeedState
from ksql_lake.model.target import Mask, Meant, Target, as_mask
from ksql_lake.quality import quarantine
from ksql_lake.store import journal, trash
from ksql_lake.store.dataset import Dataset, Move
from ksql_lake.store.layout import leads_out, storage_of
from ksql_lake.store.parquet import open_parquet
from ksql_lake.store.remote.binding import purged_now
from ksql_lake.store.writer import PartitionWriter, StagedFile, options_like


@dataclass(frozen=True)
class Found:
    """A file with rows of the person: its entry in the metadata (or in a bundle of the trash), and how many.

    `quarantined`: the file is in quarantine, or was before it went to the trash.
    """

    path: PurePath
    entry: FileEntry
    rows: int
    bundle: trash.Bundle | None = None
    quarantined: bool = False


def find(dataset: Dataset, state: FeedState, meant: Meant) -> Iterator[Found]:
    """Every file of a feed, in the lake, in the trash and in quarantine, that holds a row of the person."""
    for entry in state.files:
        place = dataset.file(entry.path)
        if rows := _count(dataset.lake, place, meant):
            yield Found(place, entry, rows)
    for bundle in trash.bundles(dataset.lake, dataset.feed):
        yield from find_in_bundle(dataset.lake, bundle, meant)
    for entry in state.quarantined:
        place = dataset.in_lake(entry.path)
        if rows := _count(dataset.lake, place, meant):
            yield Found(place, entry, rows, quarantined=True)


def find_in_bundle(lake: PurePath, bundle: trash.Bundle, meant: Meant) -> Iterator[Found]:
    """Every file of a bundle of the trash that holds such a row."""
    for entries, quarantined in ((bundle.files, False), (bundle.aside, True)):
        for entry in entries:
            if rows := _count(lake, bundle.file(entry), meant):
                yield Found(bundle.file(entry), entry, rows, bundle, quarantined)


def aimed(state: FeedState, column: str, value: str) -> Target:
    """The target for one feed, whose columns may have other names on disk."""
    return Target(column, value, {column.disk_name: column.name for column in state.columns})


def declared(state: FeedState, target: Target) -> list[pa.DataType]:
    """The types of the column in a feed; none where the feed does not have it, or only as a key of MAPs."""
    return target.declared(schema_of(state))


def has_key(dataset: Dataset, state: FeedState, target: Target) -> bool:
    """Whether a MAP of a feed has an entry with this name: no schema says so."""
    named = _Named(target)
    places = [dataset.file(entry.path) for entry in state.files]
    places += [dataset.in_lake(entry.path) for entry in state.quarantined]
    return any(_count(dataset.lake, place, named) for place in places)


@dataclass(frozen=True)
class _Named:
    """Rows in which the column has any value."""

    target: Target

    def columns(self, schema: pa.Schema) -> list[str]:
        return self.target.columns(schema)

    def rows_of(self, table: pa.RecordBatch) -> Mask:
        return self.target.rows_where(table, lambda leaf: as_mask(leaf.is_valid()))


def _count(lake: PurePath, place: PurePath, meant: Meant) -> int:
    """How many such rows a file holds; 0 where it is gone or is a link, both of which `leftovers` reports."""
    if leads_out(lake, place) or not storage_of(lake).stat(place):
        return 0
    with open_parquet(place) as parquet:
        columns = meant.columns(parquet.schema_arrow)
        if not columns:
            return 0
        return sum(int(meant.rows_of(batch).sum()) for batch in parquet.iter_batches(columns=columns))


def erase(
    dataset: Dataset, state: FeedState, found: Sequence[Found], target: Target, run: str, *, receipt: str, rule: str,
    now: str, by: str,
) -> int:
    """Take the rows out of one feed as one commit; returns how many. Call with the feed's lock held.

    Args:
        receipt: the erasure this belongs to; kept in the metadata, so that a receipt survives a crash.
        rule: "drop" or "keep" later events of the person.
    """
    rows, moves = _take_out(dataset, state, found, target, run)
    # One salt for all persons of a feed: a later export hashes each value once, however many were erased.
    salt = next((e.salt for e in state.erasures), None) or secrets.token_hex(16)
    done = (e for e in state.erasures if e.receipt != receipt)
    before = [e for e in state.erasures if e.receipt == receipt]
    mine = Erasure.from_json({
        "receipt": receipt, "column": target.column, **hashed(salt, target.value), "later": rule,
        "rows": rows + sum(e.rows for e in before), "files": len(found) + sum(e.files for e in before),
    })
    state.erasures = (*done, mine)
    what = f"erase: {rows} rows in {len(found)} files"
    journal.amend(dataset, run, state, moves, kind="erase", now=now, by=by, what=what)
    return rows


def catch_up(dataset: Dataset, state: FeedState, rules: Rules, run: str, *, now: str, by: str) -> int:
    """Take out, in one commit, the rows that match rules added while an export was reading; returns how many.

    Call with the feed's lock held.
    """
    rules.names = {column.disk_name: column.name for column in state.columns}
    found = list(find(dataset, state, rules)) if rules.known else []
    if not found:
        return 0
    rows, moves = _take_out(dataset, state, found, rules, run)
    what = f"erase: {rows} rows that were being exported"
    journal.amend(dataset, run, state, moves, kind="erase", now=now, by=by, what=what)
    return rows


def _take_out(
    dataset: Dataset, state: FeedState, found: Sequence[Found], meant: Meant, run: str
) -> tuple[int, list[Move]]:
    """Stage the files without the rows, and name the new ones in the state; (rows, renames of the commit)."""
    dataset.storage.make(dataset.staged(run, "retired"))
    moves: list[Move] = []
    for one in (file for file in found if file.bundle is None and not file.quarantined):
        state.files.replace([one.entry.path], _replace(dataset, one, meant, run, dataset.file, moves))
    bad = {file.entry.path: file for file in found if file.bundle is None and file.quarantined}
    kept = list[FileEntry]()
    for entry in state.quarantined:
        file = bad.get(entry.path)
        kept += _replace(dataset, file, meant, run, dataset.in_lake, moves) if file else [entry]
    state.quarantine = None if state.quarantine is None else tuple(kept)
    trash.count_removed(state, [replace(file.entry, rows=file.rows) for file in found if file.bundle is None], "erase")
    state.remote_gone = purged_now(state.remote_gone, {file.entry.path for file in found if file.bundle})
    for bundle in {file.bundle.directory: file.bundle for file in found if file.bundle}.values():
        _replace_bundle(dataset, bundle, [file for file in found if file.bundle == bundle], meant, run, moves)
    return sum(file.rows for file in found), moves


def erase_from_trash(dataset: Dataset, meant: Meant, run: str) -> tuple[int, int]:
    """Take the rows out of the trash of a feed that has no metadata any more; (rows, files). Call with its lock held.

    There is no state to commit against, so each file is replaced on its own, the new one first.
    """
    rows = files = 0
    for bundle in trash.bundles(dataset.lake, dataset.feed):
        for file in list(find_in_bundle(dataset.lake, bundle, meant)):
            files += 1
            _swap(dataset, file, meant, f"{run}e{files}")
            rows += file.rows
    dataset.storage.delete(dataset.staged(run))
    return rows, files


def _swap(dataset: Dataset, file: Found, meant: Meant, unique: str) -> None:
    assert file.bundle is not None
    made = [(new, _entry(dataset, file, new, unique)) for new in _rewrite(dataset, file, meant, unique)]
    for new, entry in made:
        dataset.storage.move(new.staged, file.bundle.file(entry), dataset.file_mode)
    manifest = file.bundle.read_manifest()
    key = "quarantine" if file.quarantined else "files"
    kept = [entry for entry in manifest[key] if entry["path"] != file.entry.path]
    manifest[key] = [*kept, *(entry.to_json() for _, entry in made)]
    dataset.storage.put(file.bundle.manifest, trash.as_text(manifest), dataset.file_mode)
    dataset.storage.delete(file.path)


def _replace(
    dataset: Dataset, file: Found, meant: Meant, run: str, place: Callable[[str], PurePath], moves: list[Move]
) -> list[FileEntry]:
    """Stage the file without the rows; its entry, or none when nothing of a stream's file is left.

    Args:
        place: where the path of an entry leads.
    """
    number = len(moves)
    staged = _rewrite(dataset, file, meant, f"{run}e{number}")
    retired = dataset.staged(run, "retired", f"{number}_{file.path.name}")
    moves.append(Move.of(dataset, file.path, retired))
    entries = list[FileEntry]()
    for new in staged:
        entry = _entry(dataset, file, new, f"{run}e{number}")
        moves.append(Move.of(dataset, new.staged, place(entry.path)))
        entries.append(entry)
    return entries


def _entry(dataset: Dataset, file: Found, new: StagedFile, unique: str) -> FileEntry:
    """The entry of the file that replaces another one."""
    path = f"{new.partition}/{new.name}"
    if file.quarantined:
        name = quarantine.file_name(unique, new.partition, 1)
        path = quarantine.path_of(dataset, name)
    entry = replace(
        file.entry, path=path, rows=new.rows, bytes=new.bytes, crc32=new.crc32, remote=None, local=True
    )
    if entry.offsets is not None:
        entry = replace(entry, rowtime_min=new.rowtime_min, rowtime_max=new.rowtime_max, offsets=new.offsets)
    if file.quarantined:
        entry = replace(entry, reasons=quarantine.reasons(new.staged, set(entry.reasons or ())))
    return entry


def _rewrite(dataset: Dataset, file: Found, meant: Meant, unique: str) -> list[StagedFile]:
    partition = file.entry.partition
    day = parse_day(partition)
    stem, label = ("data", f"{day:%Y%m%d}") if day else ("snapshot", file.path.name.split("_")[1])
    stem = "data" if file.quarantined else stem  # of which nothing is left when no row is
    with open_parquet(file.path) as parquet:
        options = options_like(parquet, file.entry, dataset.file_mode)
        pairs = parquet.metadata.metadata or {}
        footer = {k.decode(): v.decode() for k, v in pairs.items() if k.startswith(b"ksql_lake")}
        schema = parquet.schema_arrow.remove_metadata()
        run = unique.rpartition("e")[0]
        directory = dataset.staged(run, unique)
        with PartitionWriter(directory, schema, unique, stem, options, footer) as writer:
            for batch in parquet.iter_batches():
                left = batch.filter(pa.array(~meant.rows_of(batch)))
                writer.write(pa.RecordBatch.from_arrays(left.columns, schema=schema), partition, label)
            return writer.close()


def _replace_bundle(
    dataset: Dataset, bundle: trash.Bundle, found: Sequence[Found], meant: Meant, run: str, moves: list[Move]
) -> None:
    """Move the whole bundle to a new name: no name in the lake is ever used twice."""
    after = replace(bundle, directory=bundle.directory.with_name(f"{bundle.directory.name}e{run[-6:]}"))
    holding = {file.entry.path: file for file in found}
    kept: dict[str, list[FileEntry]] = {"files": [], **({"quarantine": []} if bundle.aside else {})}
    for key, entries in (("files", bundle.files), ("quarantine", bundle.aside)):
        for entry in entries:
            if replaced := holding.get(entry.path):
                kept[key] += _replace(dataset, replaced, meant, run, after.place, moves)
            elif not entry.local:
                kept[key].append(entry)
            elif bundle.holds(entry):
                moves.append(Move.of(dataset, bundle.file(entry), after.file(entry)))
                kept[key].append(entry)
    listed = {key: [entry.to_json() for entry in entries] for key, entries in kept.items()}
    staged = dataset.staged(run, f"{len(moves)}_{trash.MANIFEST}")
    dataset.storage.put(staged, trash.as_text({**bundle.read_manifest(), **listed}), dataset.file_mode)
    retired = dataset.staged(run, "retired", f"{len(moves)}_{trash.MANIFEST}")
    moves.append(Move.of(dataset, bundle.manifest, retired))
    moves.append(Move.of(dataset, staged, after.manifest))
