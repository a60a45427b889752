"""Every row of one person out of the lake: found in all partitions, versions and the trash, and proved.

Only files that hold such a row are written again, under new names, by the journal of `metadata`. Resume points and
coverage stay, so an erased row never comes back. What the receipt keeps of the value is a salted hash.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ksql_lake.base.files import atomic_write, make_dirs
from ksql_lake.maintain.erased import hashed
from ksql_lake.model.columns import schema_of
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import Erasure, FeedState, FileEntry
from ksql_lake.model.target import Target, Test, as_mask
from ksql_lake.quality import quarantine
from ksql_lake.store import metadata, trash
from ksql_lake.store.metadata import Dataset, Move
from ksql_lake.store.writer import PartitionWriter, StagedFile, options_like


@dataclass(frozen=True)
class Found:
    """A file with rows of the person: its entry in the metadata (or in a bundle of the trash), and how many.

    `set_aside`: the file lies in quarantine, or did before it went into the trash.
    """

    path: Path
    entry: FileEntry
    rows: int
    bundle: trash.Bundle | None = None
    set_aside: bool = False


def find(dataset: Dataset, state: FeedState, target: Target) -> Iterator[Found]:
    """Every file of a feed, in the lake, in the trash and in quarantine, that holds a row of the person."""
    for entry in state.files:
        path = dataset.directory / entry.path
        if rows := _count(path, target):
            yield Found(path, entry, rows)
    for bundle in trash.bundles(dataset.lake, dataset.feed):
        for entry in bundle.files:
            path = bundle.directory / entry.path
            if rows := _count(path, target):
                yield Found(path, entry, rows, bundle)
        for entry in bundle.aside:
            path = bundle.directory / entry.path
            if rows := _count(path, target):
                yield Found(path, entry, rows, bundle, set_aside=True)
    for entry in state.quarantined:
        path = dataset.lake / entry.path
        if rows := _count(path, target):
            yield Found(path, entry, rows, set_aside=True)


def aimed(state: FeedState, column: str, value: str) -> Target:
    """What is meant in one feed, whose columns may have other names on disk."""
    return Target(column, value, {column.disk_name: column.name for column in state.columns})


def declared(state: FeedState, target: Target) -> list[pa.DataType]:
    """The types that the column has in a feed; none where the feed does not have it, or only as a key of MAPs."""
    return target.declared(schema_of(state.columns))


def has_key(dataset: Dataset, state: FeedState, target: Target) -> bool:
    """Whether a MAP of a feed has an entry that is called so: no schema says."""
    paths = [dataset.directory / entry.path for entry in state.files]
    paths += [dataset.lake / entry.path for entry in state.quarantined]
    return any(_count(path, target, lambda leaf: as_mask(leaf.is_valid())) for path in paths)


def _count(path: Path, target: Target, test: Test | None = None) -> int:
    with pq.ParquetFile(path) as parquet:
        names = target.columns(parquet.schema_arrow)
        if not names:
            return 0
        batches = parquet.iter_batches(columns=names)
        return sum(int(target.rows_where(batch, test or target.equals).sum()) for batch in batches)


def erase(
    dataset: Dataset, state: FeedState, found: Sequence[Found], target: Target, run: str, *, receipt: str, rule: str,
    now: str, by: str,
) -> int:
    """Take the rows out of one feed as one commit; returns how many. Call with the feed's lock held.

    Args:
        receipt: the erasure this belongs to; kept in the metadata, so that a receipt survives a crash.
        rule: "drop" or "keep" later events of the person.
    """
    staging = dataset.staging / run
    make_dirs(staging / "retired")
    moves: list[Move] = []
    for one in (file for file in found if file.bundle is None and not file.set_aside):
        state.files.replace([one.entry.path], _replace(dataset, one, target, run, dataset.directory, moves))
    aside = {file.entry.path: file for file in found if file.bundle is None and file.set_aside}
    kept = list[FileEntry]()
    for entry in state.quarantined:
        file = aside.get(entry.path)
        kept += _replace(dataset, file, target, run, dataset.lake, moves) if file else [entry]
    state.quarantine = None if state.quarantine is None else tuple(kept)
    rows = sum(file.rows for file in found)
    trash.count_removed(state, [replace(file.entry, rows=file.rows) for file in found if file.bundle is None], "erase")
    for bundle in {file.bundle.directory: file.bundle for file in found if file.bundle}.values():
        _replace_bundle(dataset, bundle, [file for file in found if file.bundle == bundle], target, run, moves)
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
    metadata.amend(dataset, run, state, moves, kind="erase", now=now, by=by, what=what)
    return rows


def _replace(
    dataset: Dataset, file: Found, target: Target, run: str, directory: Path, moves: list[Move]
) -> list[FileEntry]:
    """Stage the file without the rows; its entry, or none when nothing of a stream's file is left."""
    number = len(moves)
    staged = _rewrite(dataset, file, target, f"{run}e{number}")
    retired = dataset.staging / run / "retired" / f"{number}_{file.path.name}"
    moves.append(Move.of(dataset, file.path, retired))
    entries = list[FileEntry]()
    for new in staged:
        path = f"{new.partition}/{new.name}"
        if file.set_aside:
            name = quarantine.file_name(f"{run}e{number}", new.partition, 1)
            path = (quarantine.directory(dataset) / name).relative_to(dataset.lake).as_posix()
        moves.append(Move.of(dataset, new.staged, directory / path))
        entry = replace(file.entry, path=path, rows=new.rows, bytes=new.bytes, crc32=new.crc32)
        if entry.offsets is not None:
            entry = replace(entry, rowtime_min=new.rowtime_min, rowtime_max=new.rowtime_max, offsets=new.offsets)
        if file.set_aside:
            entry = replace(entry, reasons=quarantine.reasons(new.staged, set(entry.reasons or ())))
        entries.append(entry)
    return entries


def _rewrite(dataset: Dataset, file: Found, target: Target, unique: str) -> list[StagedFile]:
    partition = file.entry.partition
    day = parse_day(partition)
    stem, label = ("data", f"{day:%Y%m%d}") if day else ("snapshot", file.path.name.split("_")[1])
    stem = "data" if file.set_aside else stem  # of which nothing is left when no row is
    with pq.ParquetFile(file.path) as parquet:
        options = options_like(parquet, file.entry, dataset.file_mode)
        pairs = parquet.metadata.metadata or {}
        footer = {k.decode(): v.decode() for k, v in pairs.items() if k.startswith(b"ksql_lake")}
        schema = parquet.schema_arrow.remove_metadata()
        run = unique.rpartition("e")[0]
        directory = dataset.staging / run / unique
        with PartitionWriter(directory, schema, unique, stem, options, footer) as writer:
            for batch in parquet.iter_batches():
                left = batch.filter(pa.array(~target.rows_of(batch)))
                writer.write(pa.RecordBatch.from_arrays(left.columns, schema=schema), partition, label)
            return writer.close()


def _replace_bundle(
    dataset: Dataset, bundle: trash.Bundle, found: Sequence[Found], target: Target, run: str, moves: list[Move]
) -> None:
    """The whole bundle under a new name: no name in the lake is ever used twice."""
    directory = bundle.directory.with_name(f"{bundle.directory.name}e{run[-6:]}")
    holding = {file.entry.path: file for file in found}
    kept: dict[str, list[FileEntry]] = {"files": [], **({"quarantine": []} if bundle.aside else {})}
    for key, entries in (("files", bundle.files), ("quarantine", bundle.aside)):
        for entry in entries:
            if replaced := holding.get(entry.path):
                kept[key] += _replace(dataset, replaced, target, run, directory, moves)
            else:
                moves.append(Move.of(dataset, bundle.directory / entry.path, directory / entry.path))
                kept[key].append(entry)
    manifest = json.loads((bundle.directory / trash.MANIFEST).read_bytes())
    listed = {key: [entry.to_json() for entry in entries] for key, entries in kept.items()}
    staged = dataset.staging / run / f"{len(moves)}_{trash.MANIFEST}"
    text = json.dumps({**manifest, **listed}, indent=2, ensure_ascii=False)
    atomic_write(staged, text.encode(), dataset.file_mode)
    retired = dataset.staging / run / "retired" / f"{len(moves)}_{trash.MANIFEST}"
    moves.append(Move.of(dataset, bundle.directory / trash.MANIFEST, retired))
    moves.append(Move.of(dataset, staged, directory / trash.MANIFEST))
