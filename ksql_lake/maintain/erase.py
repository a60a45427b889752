"""Every row of one person out of the lake: found in all partitions, versions and the trash, and proved.

Only files that hold such a row are written again, under new names, by the journal of `metadata`. Resume points and
coverage stay, so an erased row never comes back. What the receipt keeps of the value is a salted hash.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ksql_lake.base.files import atomic_write, fsync_dir, make_dirs, remove_tree
from ksql_lake.maintain.erased import Rules, hashed
from ksql_lake.model.columns import schema_of
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.target import Mask, Meant, Target, as_mask
from ksql_lake.quality import quarantine
from ksql_lake.store import metadata, trash
from ksql_lake.store.lake import leads_out
from ksql_lake.store.metadata import Dataset, Move, State
from ksql_lake.store.writer import PartitionWriter, StagedFile, options_like


@dataclass(frozen=True)
class Found:
    """A file with rows of the person: its entry in the metadata (or in a bundle of the trash), and how many.

    `set_aside`: the file lies in quarantine, or did before it went into the trash.
    """

    path: Path
    entry: dict[str, Any]
    rows: int
    bundle: trash.Bundle | None = None
    set_aside: bool = False


def find(dataset: Dataset, state: State, meant: Meant) -> Iterator[Found]:
    """Every file of a feed, in the lake, in the trash and in quarantine, that holds a row of the person."""
    for entry in state["files"]:
        if rows := _count(dataset.directory, entry, meant):
            yield Found(dataset.directory / entry["path"], entry, rows)
    for bundle in trash.bundles(dataset.lake, dataset.feed):
        yield from find_in_bundle(bundle, meant)
    for entry in state.get("quarantine", ()):
        if rows := _count(dataset.lake, entry, meant):
            yield Found(dataset.lake / entry["path"], entry, rows, set_aside=True)


def find_in_bundle(bundle: trash.Bundle, meant: Meant) -> Iterator[Found]:
    """Every file of a bundle of the trash that holds such a row."""
    for entries, was_aside in ((bundle.files, False), (bundle.aside, True)):
        for entry in entries:
            if rows := _count(bundle.directory, entry, meant):
                yield Found(bundle.directory / entry["path"], entry, rows, bundle, set_aside=was_aside)


def aimed(state: State, column: str, value: str) -> Target:
    """What is meant in one feed, whose columns may have other names on disk."""
    return Target(column, value, {c["disk_name"]: c["name"] for c in state["columns"]})


def declared(state: State, target: Target) -> list[pa.DataType]:
    """The types that the column has in a feed; none where the feed does not have it, or only as a key of MAPs."""
    return target.declared(schema_of(state["columns"]))


def has_key(dataset: Dataset, state: State, target: Target) -> bool:
    """Whether a MAP of a feed has an entry that is called so: no schema says."""
    named = _Named(target)
    return any(_count(dataset.directory, entry, named) for entry in state["files"]) or any(
        _count(dataset.lake, entry, named) for entry in state.get("quarantine", ())
    )


@dataclass(frozen=True)
class _Named:
    """Rows in which the column has any value."""

    target: Target

    def columns(self, schema: pa.Schema) -> list[str]:
        return self.target.columns(schema)

    def rows_of(self, table: pa.RecordBatch) -> Mask:
        return self.target.rows_where(table, lambda leaf: as_mask(leaf.is_valid()))


def _count(top: Path, entry: dict[str, Any], meant: Meant) -> int:
    """How many such rows a file holds; none where it is gone, or a link leads elsewhere: `leftovers` tells of those."""
    path = top / entry["path"]
    if leads_out(top, entry["path"]) or not path.exists():
        return 0
    with pq.ParquetFile(path) as parquet:
        columns = meant.columns(parquet.schema_arrow)
        if not columns:
            return 0
        return sum(int(meant.rows_of(batch).sum()) for batch in parquet.iter_batches(columns=columns))


def erase(
    dataset: Dataset, state: State, found: Sequence[Found], target: Target, run: str, *, receipt: str, rule: str,
    now: str, by: str,
) -> int:
    """Take the rows out of one feed as one commit; returns how many. Call with the feed's lock held.

    Args:
        receipt: the erasure this belongs to; kept in the metadata, so that a receipt survives a crash.
        rule: "drop" or "keep" later events of the person.
    """
    rows, moves = _take_out(dataset, state, found, target, run)
    # One salt for all persons of a feed: a later export hashes each value once, however many were erased.
    salt = next((e["salt"] for e in state.get("erasures", ())), None) or secrets.token_hex(16)
    done = [e for e in state.get("erasures", []) if e["receipt"] != receipt]
    before = [e for e in state.get("erasures", []) if e["receipt"] == receipt]
    mine = {
        "receipt": receipt, "column": target.column, **hashed(salt, target.value), "later": rule,
        "rows": rows + sum(e["rows"] for e in before), "files": len(found) + sum(e["files"] for e in before),
    }
    state["erasures"] = [*done, mine]
    metadata.amend(dataset, run, state, moves, now=now, by=by, what=f"erase: {rows} rows in {len(found)} files")
    return rows


def catch_up(dataset: Dataset, state: State, rules: Rules, run: str, *, now: str, by: str) -> int:
    """Take out what rules that came while an export was reading speak of; returns how many rows, as one commit.

    Call with the feed's lock held.
    """
    rules.names = {c["disk_name"]: c["name"] for c in state["columns"]}
    found = list(find(dataset, state, rules)) if rules.known else []
    if not found:
        return 0
    rows, moves = _take_out(dataset, state, found, rules, run)
    metadata.amend(dataset, run, state, moves, now=now, by=by, what=f"erase: {rows} rows that were being exported")
    return rows


def erase_from_trash(dataset: Dataset, meant: Meant, run: str) -> tuple[int, int]:
    """Take the rows out of the trash of a feed that has no metadata any more; (rows, files). Call with its lock held.

    There is no state to commit against: each file is replaced for itself, the new one first.
    """
    rows = files = 0
    for bundle in trash.bundles(dataset.lake, dataset.feed):
        for file in list(find_in_bundle(bundle, meant)):
            files += 1
            _swap(dataset, file, meant, f"{run}e{files}")
            rows += file.rows
    remove_tree(dataset.staging / run)
    return rows, files


def _swap(dataset: Dataset, file: Found, meant: Meant, unique: str) -> None:
    assert file.bundle is not None
    made = [(new, _entry(dataset, file, new, unique)) for new in _rewrite(dataset, file, meant, unique)]
    for new, entry in made:
        make_dirs((file.bundle.directory / entry["path"]).parent, dataset.dir_mode)
        os.rename(new.staged, file.bundle.directory / entry["path"])
        fsync_dir((file.bundle.directory / entry["path"]).parent)
    path = file.bundle.directory / trash.MANIFEST
    manifest = json.loads(path.read_bytes())
    key = "quarantine" if file.set_aside else "files"
    kept = [entry for entry in manifest[key] if entry["path"] != file.entry["path"]]
    text = json.dumps({**manifest, key: [*kept, *(entry for _, entry in made)]}, indent=2, ensure_ascii=False)
    atomic_write(path, text.encode(), dataset.file_mode)
    file.path.unlink()


def _take_out(
    dataset: Dataset, state: State, found: Sequence[Found], meant: Meant, run: str
) -> tuple[int, list[Move]]:
    """Stage the files without the rows, and name the new ones in the state; (rows, renames of the commit)."""
    make_dirs(dataset.staging / run / "retired")
    moves: list[Move] = []
    entries = {file.entry["path"]: file for file in found if file.bundle is None}
    for key, directory in (("files", dataset.directory), ("quarantine", dataset.lake)):
        kept: list[dict[str, Any]] = []
        for entry in state.get(key, ()):
            replaced = entries.get(entry["path"])
            kept += _replace(dataset, replaced, meant, run, directory, moves) if replaced else [entry]
        if key in state:
            state[key] = kept
    trash.count_removed(state, [{**file.entry, "rows": file.rows} for file in found if file.bundle is None], "erase")
    for bundle in {file.bundle.directory: file.bundle for file in found if file.bundle}.values():
        _replace_bundle(dataset, bundle, [file for file in found if file.bundle == bundle], meant, run, moves)
    return sum(file.rows for file in found), moves


def _replace(
    dataset: Dataset, file: Found, meant: Meant, run: str, directory: Path, moves: list[Move]
) -> list[dict[str, Any]]:
    """Stage the file without the rows; its entry, or none when nothing of a stream's file is left."""
    number = len(moves)
    staged = _rewrite(dataset, file, meant, f"{run}e{number}")
    retired = dataset.staging / run / "retired" / f"{number}_{file.path.name}"
    moves.append(Move.of(dataset, file.path, retired))
    entries = []
    for new in staged:
        entry = _entry(dataset, file, new, f"{run}e{number}")
        moves.append(Move.of(dataset, new.staged, directory / entry["path"]))
        entries.append(entry)
    return entries


def _entry(dataset: Dataset, file: Found, new: StagedFile, unique: str) -> dict[str, Any]:
    """What the metadata say of the file that takes the place of one."""
    path = f"{new.partition}/{new.name}"
    if file.set_aside:
        name = quarantine.file_name(unique, new.partition, 1)
        path = (quarantine.directory(dataset) / name).relative_to(dataset.lake).as_posix()
    return {
        **file.entry, "path": path, "rows": new.rows, "bytes": new.bytes, "crc32": new.crc32,
        **(_spans(new) if "offsets" in file.entry else {}),
        **({"reasons": quarantine.reasons(new.staged, set(file.entry["reasons"]))} if file.set_aside else {}),
    }


def _spans(file: StagedFile) -> dict[str, Any]:
    offsets = {str(partition): list(span) for partition, span in file.offsets.items()}
    return {"rowtime_min": file.rowtime_min, "rowtime_max": file.rowtime_max, "offsets": offsets}


def _rewrite(dataset: Dataset, file: Found, meant: Meant, unique: str) -> list[StagedFile]:
    partition = file.entry["partition"]
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
                left = batch.filter(pa.array(~meant.rows_of(batch)))
                writer.write(pa.RecordBatch.from_arrays(left.columns, schema=schema), partition, label)
            return writer.close()


def _replace_bundle(
    dataset: Dataset, bundle: trash.Bundle, found: Sequence[Found], meant: Meant, run: str, moves: list[Move]
) -> None:
    """The whole bundle under a new name: no name in the lake is ever used twice."""
    directory = bundle.directory.with_name(f"{bundle.directory.name}e{run[-6:]}")
    holding = {file.entry["path"]: file for file in found}
    kept: dict[str, list[dict[str, Any]]] = {"files": [], **({"quarantine": []} if bundle.aside else {})}
    for key, entries in (("files", bundle.files), ("quarantine", bundle.aside)):
        for entry in entries:
            if replaced := holding.get(entry["path"]):
                kept[key] += _replace(dataset, replaced, meant, run, directory, moves)
            elif (bundle.directory / entry["path"]).exists():
                moves.append(Move.of(dataset, bundle.directory / entry["path"], directory / entry["path"]))
                kept[key].append(entry)
    manifest = json.loads((bundle.directory / trash.MANIFEST).read_bytes())
    staged = dataset.staging / run / f"{len(moves)}_{trash.MANIFEST}"
    text = json.dumps({**manifest, **kept}, indent=2, ensure_ascii=False)
    atomic_write(staged, text.encode(), dataset.file_mode)
    retired = dataset.staging / run / "retired" / f"{len(moves)}_{trash.MANIFEST}"
    moves.append(Move.of(dataset, bundle.directory / trash.MANIFEST, retired))
    moves.append(Move.of(dataset, staged, directory / trash.MANIFEST))
