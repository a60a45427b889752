"""`_metadata.json` made again from what every Parquet file says of itself, and from the state log.

Footers know files, schema, generations and the resume points of the run that wrote them. The state log
(`.state/<feed>.jsonl`) knows what left no file: runs without rows, rollbacks, files removed since.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksql_lake.base.errors import StateError
from ksql_lake.model.coverage import merge, ranges
from ksql_lake.model.state import (
    Covered,
    Current,
    FeedState,
    FileEntry,
    FileSet,
    Footer,
    new_stream,
    new_table,
)
from ksql_lake.quality import quarantine
from ksql_lake.store import metadata, state_log
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.state_log import Logged
from ksql_lake.store.writer import LEVEL

PIECE = 1 << 20


@dataclass(frozen=True)
class Found:
    """One Parquet file of a feed: its entry for the metadata, and what its footer says beyond."""

    entry: FileEntry
    footer: Footer
    ranges: Mapping[int, list[tuple[int, int]]]


def rebuild(dataset: Dataset, stamp: str) -> list[str]:
    """Restore the metadata of one feed; a file that is there is set aside first. Call with the feed's lock held.

    Args:
        stamp: what makes the name of the file set aside unique.

    Returns:
        A line for each thing done.

    Raises:
        StateError: neither journal, log nor Parquet file says what the feed holds; nothing was touched.
    """
    journals = sorted(dataset.staging.glob(f"*/{metadata.JOURNAL}"))
    found, strange = _files(dataset, dataset.directory)
    aside_, _ = _files(dataset, quarantine.directory(dataset))
    log = list(state_log.states(dataset.log))
    if not journals and not found and not aside_ and not log:
        raise StateError(f"{dataset.directory}: no Parquet file of ours and no state log; nothing to rebuild from")
    done = [f"{path}: was not written by this tool; left alone, and not in the metadata" for path in strange]
    aside = metadata.set_aside(dataset, stamp)
    if aside is not None:
        done.append(f"set the old metadata aside as {aside}")
    if journals:
        return [*done, *metadata.recover(dataset, trusted=True)]
    state = (_table if dataset.kind == "table" else _stream)(dataset, found, aside_, log)
    metadata.restore(dataset, state)
    metadata.recover(dataset)
    if not log:
        done.append(
            "there was no state log: runs that wrote no file, and files that were removed since, are not known any more"
        )
    return [*done, f"rebuilt {dataset.metadata}: {state.total_records} rows in {len(state.files)} files"]


def _files(dataset: Dataset, directory: Path) -> tuple[list[Found], list[Path]]:
    """Our files in the order they were made, and those of somebody else."""
    found, strange = [], []
    for path in sorted(metadata.parquet_files(directory)):
        try:
            parquet = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise StateError(f"{path}: torn, its footer cannot be read ({error}); move it away and rebuild") from None
        with parquet:
            pairs = parquet.metadata.metadata or {}
            footer = Footer.read(pairs)
            if footer is None:
                strange.append(path)
            else:
                found.append(_found(dataset, path, parquet, footer, pairs))
    found.sort(key=lambda file: (file.footer.sequence, file.entry.path.rpartition("_")[2]))
    return found, strange


def _found(
    dataset: Dataset, path: Path, parquet: pq.ParquetFile, footer: Footer, pairs: Mapping[bytes, bytes]
) -> Found:
    labels = json.loads(pairs[quarantine.LABELS.encode()]) if quarantine.LABELS.encode() in pairs else None
    relative = path.relative_to(dataset.directory if labels is None else dataset.lake)
    codec, level = _compression(parquet)
    entry = FileEntry(
        relative.as_posix(),
        relative.parent.as_posix() if labels is None else quarantine.partition_of(path.name),
        parquet.metadata.num_rows, path.stat().st_size, _checksum(path), footer.run, footer.origin,
        footer.schema_version, _moment(footer.run), codec, level,
        reasons=None if labels is None else quarantine.reasons(path, labels),
    )
    if dataset.kind != "stream":
        return Found(entry, footer, {})
    table = parquet.read(columns=["ROWTIME", "ROWPARTITION", "ROWOFFSET"])
    times = pc.min_max(table["ROWTIME"].cast(pa.int64())).as_py()
    partitions, offsets = table["ROWPARTITION"].to_numpy(), table["ROWOFFSET"].to_numpy()
    mine = {p: np.sort(offsets[partitions == p]) for p in np.unique(partitions).tolist()}
    entry = replace(
        entry, rowtime_min=times["min"], rowtime_max=times["max"], generation=footer.generation,
        offsets={p: (int(o[0]), int(o[-1]), len(o)) for p, o in mine.items()},
    )
    return Found(entry, footer, {p: ranges(sorted_offsets) for p, sorted_offsets in mine.items()})


def _compression(parquet: pq.ParquetFile) -> tuple[str, int | None]:
    groups = parquet.metadata.num_row_groups
    name = parquet.metadata.row_group(0).column(0).compression.lower() if groups else "none"
    level = (parquet.metadata.metadata or {}).get(LEVEL.encode())
    return "none" if name == "uncompressed" else str(name), None if level is None else int(level)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as raw:
        while piece := raw.read(PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _moment(run: str) -> str:
    """The start of a run, from its name: `20250115T020000_...` -> `2025-01-15T02:00:00Z`."""
    return f"{run[:4]}-{run[4:6]}-{run[6:8]}T{run[9:11]}:{run[11:13]}:{run[13:15]}Z"


def _base(
    dataset: Dataset, found: Sequence[Found], aside: Sequence[Found], log: Sequence[Logged],
    empty: Callable[[Footer], FeedState],
) -> FeedState:
    """The newest of what log and footers say, with every file, and with when each was exported."""
    every = _in_order(found, aside)
    state = log[-1].typed() if log else empty(every[-1].footer)
    known = state.sequence if log else 0
    moments = {line.sequence: line.state.get("last_export") for line in log}
    files = [_dated(file, moments) for file in found]
    if every and every[-1].footer.sequence > state.sequence:
        newest = every[-1].footer
        state.sequence, state.run, state.columns = newest.sequence, newest.run, newest.columns
        state.schema_version = newest.schema_version
        state.last_export = _dated(every[-1], moments).exported_at
    state.files = FileSet(files)
    held = {entry.path for entry in state.quarantined}
    lost = [
        _dated(file, moments) for file in aside
        if (state.quarantine is None or file.footer.sequence > known) and file.entry.path not in held
    ]
    if lost:
        state.quarantine = (*state.quarantined, *lost)
    return state


def _dated(file: Found, moments: Mapping[int, str | None]) -> FileEntry:
    return replace(file.entry, exported_at=moments.get(file.footer.sequence) or file.entry.exported_at)


def _in_order(found: Sequence[Found], aside: Sequence[Found]) -> list[Found]:
    """Files of the lake and those in quarantine, in the order they were made."""
    return sorted([*found, *aside], key=lambda file: file.footer.sequence)


def _stream(dataset: Dataset, found: Sequence[Found], aside: Sequence[Found], log: Sequence[Logged]) -> FeedState:
    state = _base(dataset, found, aside, log, lambda footer: new_stream(
        footer.source, footer.timezone or "UTC", footer.timestamp_column, footer.created_at
    ))
    known = log[-1].sequence if log else 0
    for file in _in_order(found, aside):
        if file.footer.sequence > known:
            _cover(state, file)
    for parts in state.coverage.values():
        for partition, one in parts.items():
            parts[partition] = Covered(one.upto, merge(one.beyond, [], one.upto))
    if state.sequence > known:
        state.run = f"{state.run}g{state.generation}"  # the name a stream's commits go by
    return state


def _cover(state: FeedState, file: Found) -> None:
    """Count in what a file that the log does not know of says of its run."""
    generation, origin = file.footer.generation or 1, file.entry.origin
    if generation > state.generation:
        state.generation, state.resume, state.heads = generation, {}, {}
    covered = state.coverage.setdefault(generation, {})
    for partition, anchor in (file.footer.resume or {}).items() if origin in ("export", "compact") else ():
        one = covered.setdefault(partition, Covered())
        if anchor.offset >= one.upto:
            state.resume[partition], covered[partition] = anchor, Covered(anchor.offset, one.beyond)
    for partition, spans in file.ranges.items() if origin != "export" else ():
        one = covered.get(partition, Covered())
        covered[partition] = Covered(one.upto, merge(one.beyond, spans, one.upto))


def _table(dataset: Dataset, found: Sequence[Found], aside: Sequence[Found], log: Sequence[Logged]) -> FeedState:
    state = _base(dataset, found, aside, log, lambda footer: new_table(footer.source, footer.created_at))
    known = log[-1].sequence if log else 0
    for file in found:
        if file.footer.sequence > known and _number(file) >= state.last_version:
            state.last_version, state.current = _number(file), _version(file)
    there = {file.entry.partition for file in found}
    if found and (state.current is None or state.current.path not in there):  # its files are gone: the newest there is
        state.current = _version(max(found, key=_number))
    return state


def _number(file: Found) -> int:
    return int(str(file.footer.version).removeprefix("v"))


def _version(file: Found) -> Current:
    return Current(str(file.footer.version), file.entry.partition)
