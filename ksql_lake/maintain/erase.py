"""Every row of one person out of the lake: found in all partitions, versions and the trash, and proved.

Only files that hold such a row are written again, under new names, by the journal of `metadata`. Resume points and
coverage stay, so an erased row never comes back. What the receipt keeps of the value is a salted hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksql_lake.base.errors import StateError
from ksql_lake.base.files import append_line, atomic_write, make_dirs
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import Erasure, FeedState, FileEntry
from ksql_lake.quality import quarantine
from ksql_lake.store import metadata, trash
from ksql_lake.store.metadata import Dataset, Move
from ksql_lake.store.writer import PartitionWriter, StagedFile, options_like

RECEIPTS = "logs/erasures"
RULES = ".state/_erasures.jsonl"  # beginning with _, as all files of the lake that belong to no feed
OLD_RULES = ".state/erasures.jsonl"  # where they were before; a feed called erasures has its state log there
Mask = np.ndarray[Any, np.dtype[np.bool_]]


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


@dataclass(frozen=True)
class Target:
    """Whose rows: a column, or a field of that name at any depth (`customer.ip_address`), and its value as text."""

    column: str
    value: str

    def names(self, schema: pa.Schema) -> list[str]:
        """The top-level columns of a file in which the column stands, at any depth."""
        return [field.name for field in schema if _holds(field.name, field.type, self.column.upper())]

    def rows_of(self, table: pa.Table | pa.RecordBatch) -> Mask:
        """Which rows hold the value."""
        mask = np.zeros(table.num_rows, bool)
        for name in self.names(table.schema):
            column = table.column(name)
            array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            mask |= _matches(array, name, self.column.upper(), self.value)
        return mask


def _holds(path: str, kind: pa.DataType, wanted: str) -> bool:
    if pa.types.is_struct(kind):
        return any(_holds(f"{path}.{field.name}", field.type, wanted) for field in kind)
    if pa.types.is_map(kind):
        return _holds(path, kind.item_type, wanted)
    if pa.types.is_list(kind):
        return _holds(path, kind.value_type, wanted)
    return f".{path.upper()}".endswith(f".{wanted}")


def _matches(array: pa.Array, path: str, wanted: str, value: str) -> Mask:
    kind = array.type
    mask = np.zeros(len(array), bool)
    if pa.types.is_struct(kind):
        for field in kind:
            if _holds(f"{path}.{field.name}", field.type, wanted):
                mask |= _matches(pc.struct_field(array, field.name), f"{path}.{field.name}", wanted, value)
        return mask
    if pa.types.is_map(kind) or pa.types.is_list(kind):
        if pa.types.is_map(kind):
            array = array.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
            items = pc.struct_field(pc.list_flatten(array), "value")
        else:
            items = pc.list_flatten(array)
        inner = _matches(items, path, wanted, value)
        mask[pc.list_parent_indices(array).to_numpy()[inner]] = True
        return mask
    text = array
    if not pa.types.is_string(kind):
        text = pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string())
    return np.asarray(pc.fill_null(pc.equal(text, value), False).to_numpy(zero_copy_only=False), bool)


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


def has_column(state: FeedState, target: Target) -> bool:
    """Whether a feed has the column at all, now or in older files."""
    from ksql_lake.model.columns import schema_of

    return bool(target.names(schema_of(state.columns)))


def _count(path: Path, target: Target) -> int:
    with pq.ParquetFile(path) as parquet:
        names = target.names(parquet.schema_arrow)
        if not names:
            return 0
        return sum(int(target.rows_of(batch).sum()) for batch in parquet.iter_batches(columns=names))


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
    mine = Erasure(
        receipt, target.column, salt, salted(salt, target.value), rule, rows + sum(e.rows for e in before),
        len(found) + sum(e.files for e in before),
    )
    state.erasures = (*done, mine)
    what = f"erase: {rows} rows in {len(found)} files"
    metadata.amend(dataset, run, state, moves, kind="erase", now=now, by=by, what=what)
    return rows


def salted(salt: str, value: str) -> str:
    """What is kept of a value: enough to recognise it, not enough to read it."""
    return hashlib.sha256(f"{salt}:{value}".encode()).hexdigest()


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


def lock(lake: Path) -> Path:
    """The lock of erasures: one at a time."""
    return lake / ".state" / "erase.erasure"


def begin(lake: Path, target: Target, receipt: str, *, rule: str, now: str, by: str) -> dict[str, Any]:
    """A receipt that says what was begun; an unfinished one of the same value and column goes on.

    Call with `lock` held.

    Raises:
        StateError: a receipt cannot be read.
    """
    for temporary in (lake / RECEIPTS).glob(".*.inprogress"):
        os.unlink(temporary)  # of a call that was killed: with the lock held nobody else writes
    for path in sorted((lake / RECEIPTS).glob("*.json")):
        try:
            known: dict[str, Any] = json.loads(path.read_bytes())
            same = known["column"] == target.column and salted(known["salt"], target.value) == known["hash"]
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{path}: not readable as a receipt ({error}); move it away") from None
        if same and not known["ended"] and known["later"] == rule:
            return known
    salt = secrets.token_hex(16)
    begun: dict[str, Any] = {
        "receipt": receipt, "begun": now, "ended": None, "by": by, "column": target.column, "salt": salt,
        "hash": salted(salt, target.value), "later": rule, "feeds": [], "rows": 0, "rows_left": None,
    }
    write(lake, begun)
    return begun


def write(lake: Path, receipt: dict[str, Any]) -> Path:
    """Write a receipt, readable by the owner and the group only."""
    path = lake / RECEIPTS / f"{receipt['receipt']}.json"
    make_dirs(path.parent, 0o750)
    atomic_write(path, (json.dumps(receipt, indent=2, ensure_ascii=False) + "\n").encode(), 0o640)
    return path


def remember(lake: Path, target: Target, feeds: Sequence[str]) -> None:
    """Keep in mind that this person's later rows are to be dropped: in all feeds, also those not exported yet.

    Args:
        feeds: only in these; empty for all.
    """
    known = _remembered(lake)
    if any(salted(r["salt"], target.value) == r["hash"] and r["column"] == target.column and
           (not r["feeds"] or set(feeds) and set(feeds) <= set(r["feeds"])) for r in known):
        return
    salt = known[0]["salt"] if known else secrets.token_hex(16)  # one for all: a value is hashed once
    rule = {"column": target.column, "salt": salt, "hash": salted(salt, target.value), "feeds": sorted(feeds)}
    make_dirs((lake / RULES).parent)
    append_line(lake / RULES, json.dumps(rule, ensure_ascii=False).encode(), 0o640)


def _remembered(lake: Path) -> list[dict[str, Any]]:
    found = []
    for path in (lake / OLD_RULES, lake / RULES):
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                rule = json.loads(line)
            except ValueError:
                continue  # torn by a crash; its erasure was not over and is begun again
            if isinstance(rule, dict) and {"column", "salt", "hash", "feeds"} <= rule.keys():
                found.append(rule)
    return found


Rules: TypeAlias = dict[tuple[str, str], set[str]]


def lasting(dataset: Dataset, state: FeedState) -> Rules:
    """(column, salt) -> hashes of the values whose rows a feed drops: its own rules and those of the whole lake."""
    rules: Rules = defaultdict(set)
    for rule in _remembered(dataset.lake):
        if not rule["feeds"] or dataset.feed in rule["feeds"]:
            rules[(rule["column"], rule["salt"])].add(rule["hash"])
    for erasure in state.erasures:
        if erasure.later == "drop":
            rules[(erasure.column, erasure.salt)].add(erasure.hash)
    return rules


def later(rules: Rules, table: pa.RecordBatch) -> Mask | None:
    """Rows of persons erased before whose later events are to be dropped; None when there is no such rule."""
    if not rules:
        return None
    mask = np.zeros(table.num_rows, bool)
    for (column, salt), hashes in rules.items():
        for value in _values(table, Target(column, "")):
            if salted(salt, value) in hashes:
                mask |= Target(column, value).rows_of(table)
    return mask


def _values(table: pa.RecordBatch, target: Target) -> set[str]:
    """The different values of a column at any depth, as text."""
    found: set[str] = set()
    for name in target.names(table.schema):
        found |= _texts(table.column(name), name, target.column.upper())
    return found


def _texts(array: pa.Array, path: str, wanted: str) -> set[str]:
    kind = array.type
    if pa.types.is_struct(kind):
        parts = [
            _texts(pc.struct_field(array, field.name), f"{path}.{field.name}", wanted)
            for field in kind if _holds(f"{path}.{field.name}", field.type, wanted)
        ]
        return set().union(*parts)
    if pa.types.is_map(kind):
        return _texts(array.items, path, wanted)
    if pa.types.is_list(kind):
        return _texts(pc.list_flatten(array), path, wanted)
    return {str(value) for value in array.unique().to_pylist() if value is not None}
