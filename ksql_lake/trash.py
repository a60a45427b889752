"""The trash: what retention took out of the lake, for some days, with all that is needed to bring it back.

    <lake>/.trash/<YYYY-MM-DD>/<feed>/<run>/manifest.json, year=.../...parquet | version=vN/...
"""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksql_lake import metadata
from ksql_lake.errors import StateError
from ksql_lake.files import atomic_write, fsync_dir, make_dirs, remove_tree
from ksql_lake.metadata import TRASH, Dataset, Move, State

MANIFEST = "manifest.json"
COMPACTED = "compact"  # why: the rows are in a merged file, these are the small ones it was made of


@dataclass(frozen=True)
class Bundle:
    """What one run put into the trash of one feed."""

    directory: Path
    feed: str
    at: str
    why: str
    files: tuple[dict[str, Any], ...]

    @property
    def rows(self) -> int:
        return sum(file["rows"] for file in self.files)


def put(
    dataset: Dataset, state: State, partitions: Collection[str], run: str, *, now: str, by: str, what: str, why: str
) -> None:
    """Move all files of some partitions into the trash, as one change of the feed. Call with its lock held."""
    files = [file for file in state["files"] if file["partition"] in partitions]
    moves = stage(dataset, files, run, now=now, by=by, why=why)
    state["files"] = [file for file in state["files"] if file["partition"] not in partitions]
    count_removed(state, files, why)
    metadata.amend(dataset, run, state, moves, now=now, by=by, what=what)


def stage(
    dataset: Dataset, files: Sequence[dict[str, Any]], run: str, *, now: str, by: str, why: str
) -> list[Move]:
    """The renames that put files of the lake into the trash; their manifest is staged."""
    directory = dataset.lake / TRASH / now[:10] / dataset.feed / run
    staging = dataset.staging / run
    make_dirs(staging)
    manifest = {"feed": dataset.feed, "type": dataset.kind, "at": now, "by": by, "why": why, "files": list(files)}
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    atomic_write(staging / MANIFEST, text.encode(), dataset.file_mode)
    return [Move.of(dataset, staging / MANIFEST, directory / MANIFEST), *_moves(dataset, files, directory)]


def _moves(dataset: Dataset, files: Iterable[dict[str, Any]], directory: Path) -> list[Move]:
    """A table's version in one rename where all in it is ours, so that no reader sees half of it; else file by file."""
    owned: dict[str, list[str]] = defaultdict(list)
    for file in files:
        owned[file["partition"]].append(file["path"])
    moves = []
    for partition, paths in owned.items():
        place = dataset.directory / partition
        names = {path.name for path in place.iterdir()} if place.is_dir() else set()
        whole = dataset.kind == "table" and names == {Path(path).name for path in paths}
        for path in [partition] if whole else paths:
            moves.append(Move.of(dataset, dataset.directory / path, directory / path))
    return moves


def bundles(lake: Path, feed: str | None = None) -> list[Bundle]:
    """What the trash holds, oldest first."""
    found = []
    for path in (lake / TRASH).glob(f"*/{feed or '*'}/*/{MANIFEST}"):
        try:
            manifest = json.loads(path.read_bytes())
            files = tuple(manifest["files"])
            found.append(Bundle(path.parent, manifest["feed"], manifest["at"], manifest["why"], files))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(f"{path}: not readable as JSON ({error}); move its directory away") from None
    return sorted(found, key=lambda bundle: (bundle.at, bundle.directory.name))


def undo(dataset: Dataset, state: State, bundle: Bundle, run: str, *, now: str, by: str) -> None:
    """Bring a bundle back to where it was. Call with the feed's lock held.

    Raises:
        StateError: a file of it is gone, or its place is taken; nothing is touched.
    """
    for file in bundle.files:
        if not (bundle.directory / file["path"]).exists():
            raise StateError(f"{bundle.directory / file['path']}: gone from the trash, so it cannot be brought back")
        if (dataset.directory / file["path"]).exists():
            raise StateError(f"{dataset.directory / file['path']}: stands there already; move it away first")
    staging = dataset.staging / run
    make_dirs(staging)
    moves = [Move.of(dataset, bundle.directory / f["path"], dataset.directory / f["path"]) for f in bundle.files]
    moves.append(Move.of(dataset, bundle.directory / MANIFEST, staging / f"undone_{MANIFEST}"))
    state["files"] += bundle.files
    count_removed(state, bundle.files, bundle.why, -1)
    what = f"undo: {len(bundle.files)} files back from the trash of {bundle.at}"
    metadata.amend(dataset, run, state, moves, now=now, by=by, what=what)


def count_removed(state: State, files: Iterable[dict[str, Any]], why: str, sign: int = 1) -> None:
    """Keep in mind how many rows of each partition went, so that a reconciliation can explain them."""
    removed = {partition: dict(entry) for partition, entry in state.get("removed", {}).items()}
    for file in files:
        entry = removed.setdefault(file["partition"], {})
        entry[why] = entry.get(why, 0) + sign * file["rows"]
    kept = {partition: {key: rows for key, rows in entry.items() if rows} for partition, entry in removed.items()}
    state["removed"] = {partition: entry for partition, entry in sorted(kept.items()) if entry}


def empty(dataset: Dataset, days: int, today: dt.date) -> list[Path]:
    """Remove for good what has been in the trash of one feed for longer than `days`; call with its lock held."""
    removed = []
    for directory in sorted((dataset.lake / TRASH).glob(f"????-??-??/{dataset.feed}")):
        try:
            age = (today - dt.date.fromisoformat(directory.parent.name)).days
        except ValueError:
            continue
        if age > days and not directory.is_symlink() and not directory.parent.is_symlink():
            remove_tree(directory)
            removed.append(directory)
            if not any(directory.parent.iterdir()):
                directory.parent.rmdir()
            fsync_dir(dataset.lake / TRASH)
    return removed
