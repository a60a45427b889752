"""`_metadata.json` made again from what every Parquet file says of itself, and from the state log.

Footers know files, schema, generations and the resume points of the run that wrote them. The state log
(`.state/<feed>.jsonl`) knows what left no file: runs without rows, rollbacks, files removed since.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksql_lake.base.errors import StateError
from ksql_lake.model.coverage import merge, ranges
from ksql_lake.model.empty import empty_stream, empty_table
from ksql_lake.quality import quarantine
from ksql_lake.store import metadata
from ksql_lake.store.metadata import Dataset, State
from ksql_lake.store.writer import LEVEL

KEY = b"ksql_lake"
RESUME = b"ksql_lake.resume"
PIECE = 1 << 20


@dataclass(frozen=True)
class Found:
    """One Parquet file of a feed: its entry for the metadata, and what its footer says beyond."""

    entry: dict[str, Any]
    footer: Mapping[str, Any]
    resume: Mapping[str, Any] | None
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
    log = _log(dataset)
    if not journals and not found and not aside_ and not log:
        raise StateError(f"{dataset.directory}: no Parquet file of ours and no state log; nothing to rebuild from")
    done = [f"{path}: was not written by this tool; left alone, and not in the metadata" for path in strange]
    aside = metadata.set_aside(dataset, stamp)
    if aside is not None:
        done.append(f"set the old metadata aside as {aside}")
    if journals:
        return [*done, *metadata.recover(dataset, trusted=True)]
    state = (_table if dataset.kind == "table" else _stream)(dataset, found, aside_, log)
    metadata.summarise(state)
    metadata.restore(dataset, state)
    metadata.recover(dataset)
    if not log:
        done.append(
            "there was no state log: runs that wrote no file, and files that were removed since, are not known any more"
        )
    return [*done, f"rebuilt {dataset.metadata}: {state['total_records']} rows in {len(state['files'])} files"]


def _files(dataset: Dataset, directory: Path) -> tuple[list[Found], list[Path]]:
    """Our files in the order they were made, and those of somebody else."""
    found, strange = [], []
    for path in sorted(directory.rglob("*.parquet")):
        try:
            parquet = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise StateError(f"{path}: torn, its footer cannot be read ({error}); move it away and rebuild") from None
        with parquet:
            pairs = parquet.metadata.metadata or {}
            if KEY in pairs:
                found.append(_found(dataset, path, parquet, pairs))
            else:
                strange.append(path)
    found.sort(key=lambda file: (file.footer["sequence"], file.entry["path"].rpartition("_")[2]))
    return found, strange


def _found(dataset: Dataset, path: Path, parquet: pq.ParquetFile, pairs: Mapping[bytes, bytes]) -> Found:
    footer = json.loads(pairs[KEY])
    labels = json.loads(pairs[quarantine.LABELS.encode()]) if quarantine.LABELS.encode() in pairs else None
    relative = path.relative_to(dataset.directory if labels is None else dataset.lake)
    entry = {
        "path": relative.as_posix(),
        "partition": relative.parent.as_posix() if labels is None else quarantine.partition_of(path.name),
        "rows": parquet.metadata.num_rows,
        "bytes": path.stat().st_size,
        "crc32": _checksum(path),
        **_compression(parquet),
    }
    spans: dict[int, list[tuple[int, int]]] = {}
    if dataset.kind == "stream":
        table = parquet.read(columns=["ROWTIME", "ROWPARTITION", "ROWOFFSET"])
        times = pc.min_max(table["ROWTIME"].cast(pa.int64())).as_py()
        partitions, offsets = table["ROWPARTITION"].to_numpy(), table["ROWOFFSET"].to_numpy()
        mine = {p: np.sort(offsets[partitions == p]) for p in np.unique(partitions).tolist()}
        spans = {p: ranges(sorted_offsets) for p, sorted_offsets in mine.items()}
        entry |= {
            "rowtime_min": times["min"],
            "rowtime_max": times["max"],
            "offsets": {str(p): [int(o[0]), int(o[-1]), len(o)] for p, o in mine.items()},
            "generation": footer["generation"],
        }
    entry |= {
        "run": footer["run"],
        "origin": footer.get("origin", "export"),
        "schema_version": footer["schema_version"],
        "exported_at": _moment(footer["run"]),
        **({} if labels is None else {"reasons": quarantine.reasons(path, labels)}),
    }
    resume = json.loads(pairs[RESUME]) if RESUME in pairs else None
    return Found(entry, footer, resume, spans)


def _compression(parquet: pq.ParquetFile) -> dict[str, Any]:
    groups = parquet.metadata.num_row_groups
    name = parquet.metadata.row_group(0).column(0).compression.lower() if groups else "none"
    level = (parquet.metadata.metadata or {}).get(LEVEL.encode())
    known = {} if level is None else {"compression_level": int(level)}
    return {"compression": "none" if name == "uncompressed" else str(name), **known}


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as raw:
        while piece := raw.read(PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _moment(run: str) -> str:
    """The start of a run, from its name: `20250115T020000_...` -> `2025-01-15T02:00:00Z`."""
    return f"{run[:4]}-{run[4:6]}-{run[6:8]}T{run[9:11]}:{run[11:13]}:{run[13:15]}Z"


def _log(dataset: Dataset) -> list[State]:
    """The state log, oldest first; a torn line is passed over."""
    lines = []
    for line in dataset.log.read_bytes().splitlines() if dataset.log.exists() else ():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("sequence"), int):
            lines.append(value)
    return lines


def _base(
    dataset: Dataset, found: Sequence[Found], aside: Sequence[Found], log: Sequence[State],
    empty: Callable[[Mapping[str, Any]], State],
) -> State:
    """The newest of what log and footers say, with every file, and with when each was exported."""
    last = {key: value for key, value in log[-1].items() if key != "quarantine_added"} if log else {}
    held = metadata.logged_quarantine(log)
    if held is not None:
        last["quarantine"] = held
    every = _in_order(found, aside)
    newest = every[-1].footer if every else {}
    state: State = {**empty(last or newest), **last}
    moments = {line["sequence"]: line["last_export"] for line in log}
    for file in every:
        file.entry["exported_at"] = moments.get(file.footer["sequence"]) or file.entry["exported_at"]
    if newest.get("sequence", 0) > state["sequence"]:
        state |= {key: newest[key] for key in ("sequence", "run", "columns", "schema_version")}
        state["last_export"] = every[-1].entry["exported_at"]
    state["files"] = [file.entry for file in found]
    known = {entry["path"] for entry in state.get("quarantine", ())}
    lost = [file.entry for file in aside if held is None or file.footer["sequence"] > last["sequence"]]
    if lost:
        state["quarantine"] = [*state.get("quarantine", ()), *(entry for entry in lost if entry["path"] not in known)]
    return state


def _in_order(found: Sequence[Found], aside: Sequence[Found]) -> list[Found]:
    """Files of the lake and those in quarantine, in the order they were made."""
    return sorted([*found, *aside], key=lambda file: file.footer["sequence"])


def _stream(dataset: Dataset, found: Sequence[Found], aside: Sequence[Found], log: Sequence[State]) -> State:
    state = _base(dataset, found, aside, log, lambda footer: empty_stream(
        footer["source"], footer["timezone"], footer.get("timestamp_column"), footer["created_at"]
    ))
    known = log[-1]["sequence"] if log else 0
    for file in _in_order(found, aside):
        if file.footer["sequence"] <= known:
            continue
        generation, origin = file.footer["generation"], file.entry["origin"]
        if generation > state["generation"]:
            state["generation"], state["resume"], state["heads"] = generation, {}, {}
        covered = state["coverage"].setdefault(str(generation), {})
        for partition, anchor in (file.resume or {}).items() if origin in ("export", "compact") else ():
            entry = covered.setdefault(partition, {"upto": -1, "beyond": []})
            if anchor["offset"] >= entry["upto"]:
                state["resume"][partition], entry["upto"] = anchor, anchor["offset"]
        for number, spans in file.ranges.items() if origin != "export" else ():
            entry = covered.setdefault(str(number), {"upto": -1, "beyond": []})
            entry["beyond"] = merge(entry["beyond"], spans, entry["upto"])
    for covered in state["coverage"].values():
        for entry in covered.values():
            entry["beyond"] = merge(entry["beyond"], [], entry["upto"])
    if state["sequence"] > known:
        state["run"] = f"{state['run']}g{state['generation']}"  # the name a stream's commits go by
    return state


def _table(dataset: Dataset, found: Sequence[Found], aside: Sequence[Found], log: Sequence[State]) -> State:
    state = _base(dataset, found, aside, log, lambda footer: empty_table(footer["source"], footer["created_at"]))
    known = log[-1]["sequence"] if log else 0
    for file in found:
        number = int(str(file.footer["version"]).removeprefix("v"))
        if file.footer["sequence"] > known and number >= state["last_version"]:
            state["last_version"] = number
            state["current"] = {"version": file.footer["version"], "path": file.entry["partition"]}
    there = {file.entry["partition"] for file in found}
    if (state["current"] or {}).get("path") not in there and found:  # its files are gone: the newest there is
        newest = max(found, key=lambda file: int(str(file.footer["version"]).removeprefix("v")))
        state["current"] = {"version": newest.footer["version"], "path": newest.entry["partition"]}
    return state
