"""The trash: what was removed from the lake, kept for some days with everything needed to bring it back.

    <lake>/.trash/<YYYY-MM-DD>/<feed>/<run>/manifest.json, year=.../...parquet | version=vN/...
                                            quarantine/<feed>/...parquet      rows of these days from quarantine
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.base.files import atomic_write, fsync_dir, make_dirs, remove_tree
from ksql_lake.model.anchor import Covered, anchors_from
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.state import Current, FeedState
from ksql_lake.store import metadata
from ksql_lake.store.metadata import QUARANTINE, TRASH, Dataset, Move

MANIFEST = "manifest.json"
RELOADED = "reload"  # why: these rows were read again from the source
RESET = "reset"  # why: the feed starts afresh
COMPACTED = "compact"  # why: the rows are in a merged file, these are the small ones it was made of
REPEATED = "repeated"  # why: other files hold all rows of these
IN_THE_LAKE = (COMPACTED, REPEATED, RELOADED)  # whose rows are still in the lake: an undo would double them


@dataclass(frozen=True)
class Bundle:
    """What one run moved to the trash of one feed; `aside`: files that were in quarantine."""

    directory: Path
    feed: str
    at: str
    why: str
    files: tuple[FileEntry, ...]
    aside: tuple[FileEntry, ...] = ()
    before: Mapping[str, Any] | None = None

    @property
    def every(self) -> tuple[FileEntry, ...]:
        """The entries of files of the lake, and of those from quarantine."""
        return (*self.files, *self.aside)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.every)


def put(
    dataset: Dataset, state: FeedState, partitions: Collection[str], run: str, *, now: str, by: str, what: str, why: str
) -> None:
    """Move all files of some partitions to the trash, as one change of the feed. Call with its lock held.

    Quarantined rows of a stream's days go with them; those of a table's version go with the next export.
    """
    files = [file for file in state.files if file.partition in partitions]
    held = state.quarantined if dataset.kind == "stream" else ()
    aside = [entry for entry in held if entry.partition in partitions]
    moves = stage(dataset, files, run, now=now, by=by, why=why, aside=aside)
    state.files.remove([file.path for file in files])
    if aside:
        state.quarantine = tuple(entry for entry in held if entry.partition not in partitions)
    count_removed(state, files, why)
    count_removed(state, aside, QUARANTINE)  # counted separately: a day without other rows is not a day of the lake
    metadata.amend(dataset, run, state, moves, kind=why, now=now, by=by, what=what)


def stage(
    dataset: Dataset, files: Sequence[FileEntry], run: str, *, now: str, by: str, why: str,
    aside: Sequence[FileEntry] = (), before: Mapping[str, Any] | None = None,
) -> list[Move]:
    """The renames that put files of the lake, and of its quarantine, into the trash; their manifest is staged."""
    directory = dataset.lake / TRASH / now[:10] / dataset.feed / run
    staging = dataset.staging / run
    make_dirs(staging)
    manifest = {
        "feed": dataset.feed, "type": dataset.kind, "at": now, "by": by, "why": why,
        "files": [file.to_json() for file in files],
        **({"quarantine": [file.to_json() for file in aside]} if aside else {}),
        **({"before": before} if before else {}),
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    atomic_write(staging / MANIFEST, text.encode(), dataset.file_mode)
    return [
        Move.of(dataset, staging / MANIFEST, directory / MANIFEST), *moves(dataset, files, directory),
        *(Move.of(dataset, dataset.lake / entry.path, directory / entry.path) for entry in aside),
    ]


def discard(dataset: Dataset, files: Sequence[FileEntry], run: str, *, now: str, by: str, why: str) -> Path:
    """Move files to the trash at once, without a change of the feed: they will be in no metadata."""
    moves = stage(dataset, files, run, now=now, by=by, why=why)
    for move in moves:
        target = dataset.lake / move.target
        make_dirs(target.parent, dataset.dir_mode)
        os.rename(dataset.lake / move.source, target)
        fsync_dir(target.parent)
    remove_tree(dataset.staging / run)
    return dataset.lake / TRASH / now[:10] / dataset.feed / run


def moves(dataset: Dataset, files: Iterable[FileEntry], directory: Path) -> list[Move]:
    """The renames that move files of the lake to the same paths in `directory`; files not on this disk are left out.

    A table's version is moved in one rename if it holds no other files, so that no reader sees half of it.
    """
    owned: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if file.local:
            owned[file.partition].append(file.path)
    renames = []
    for partition, paths in owned.items():
        place = dataset.directory / partition
        names = {path.name for path in place.iterdir()} if place.is_dir() else set()
        whole = dataset.kind == "table" and names == {Path(path).name for path in paths}
        for path in [partition] if whole else paths:
            renames.append(Move.of(dataset, dataset.directory / path, directory / path))
    return renames


def bundles(lake: Path, feed: str | None = None) -> list[Bundle]:
    """What the trash holds, oldest first."""
    found = []
    for path in (lake / TRASH).glob(f"*/{feed or '*'}/*/{MANIFEST}"):
        try:
            manifest = json.loads(path.read_bytes())
            files, aside = (tuple(map(FileEntry.from_json, manifest.get(k, ()))) for k in ("files", "quarantine"))
            named = (manifest["feed"], manifest["at"], manifest["why"])
            found.append(Bundle(path.parent, *named, files, aside, manifest.get("before")))
        except (OSError, *metadata.UNREADABLE) as error:
            raise StateError(f"{path}: not readable as JSON ({error}); move its directory away") from None
    return sorted(found, key=lambda bundle: (bundle.at, bundle.directory.name))


def undo(dataset: Dataset, state: FeedState, bundle: Bundle, run: str, *, now: str, by: str) -> None:
    """Bring a bundle back to where it was. Call with the feed's lock held.

    Raises:
        StateError: a file of it is gone, or its place is taken; nothing is touched.
    """
    files, aside = ([_as_remote_has_it(file, state) for file in some] for some in (bundle.files, bundle.aside))
    places = [(bundle.directory / file.path, dataset.directory / file.path) for file in files if file.local]
    places += [(bundle.directory / entry.path, dataset.lake / entry.path) for entry in aside]
    for there, back in places:
        if not there.exists():
            raise StateError(f"{there}: gone from the trash, so it cannot be brought back")
        if back.exists():
            raise StateError(f"{back}: is already there; move it away first")
    if bundle.before is not None:
        _go_back(dataset, state, bundle.before)
    staging = dataset.staging / run
    make_dirs(staging)
    moves = [Move.of(dataset, there, back) for there, back in places]
    moves.append(Move.of(dataset, bundle.directory / MANIFEST, staging / f"undone_{MANIFEST}"))
    state.files.add(files)
    if aside:
        make_dirs(dataset.lake / QUARANTINE)  # of all feeds: open, whatever the feed's access
        state.quarantine = (*state.quarantined, *aside)
    count_removed(state, bundle.files, bundle.why, -1)
    count_removed(state, bundle.aside, QUARANTINE, -1)
    what = f"undo: {len(bundle.every)} files back from the trash of {bundle.at}"
    metadata.amend(dataset, run, state, moves, kind="undo", now=now, by=by, what=what)


def _go_back(dataset: Dataset, state: FeedState, before: Mapping[str, Any]) -> None:
    """The position of a feed before it was reset.

    Raises:
        StateError: the feed has been exported since.
    """
    if state.is_table:
        if state.current is None and before["current"]:
            state.current = Current(**before["current"])
        state.pinned = (*before["pinned"], *state.pinned)
        return
    coverage = {int(g): {int(p): Covered.from_json(c) for p, c in parts.items()}
                for g, parts in before["coverage"].items()}
    if "generation" in before:
        later = {*state.coverage, *(file.generation or 0 for file in (*state.files, *state.quarantined))}
        if max(later, default=0) > before["generation"]:
            raise StateError(
                f"{dataset.feed}: has been exported since its reset, so these rows would be in the lake twice; they "
                "stay "
                "in the trash"
            )
        state.generation = before["generation"]
        state.resume, state.heads = anchors_from(before["resume"]), anchors_from(before["heads"])
    state.coverage |= coverage


def _as_remote_has_it(file: FileEntry, state: FeedState) -> FileEntry:
    """The entry of a file in the trash, with its present place in the remote."""
    if file.remote is None or any(gone.path == file.path and not gone.purge for gone in state.remote_gone):
        return file
    if not file.local:
        raise StateError(
            f"{file.path}: was only in the remote and has been deleted there, so it cannot be brought back"
        )
    return replace(file, remote=None)


def count_removed(state: FeedState, files: Iterable[FileEntry], why: str, sign: int = 1) -> None:
    """Record how many rows of each partition were removed, so that a reconciliation can explain them."""
    removed = {partition: dict(whys) for partition, whys in state.rows_removed.items()}
    for file in files:
        whys = removed.setdefault(file.partition, {})
        whys[why] = whys.get(why, 0) + sign * file.rows
    kept = {partition: {why: rows for why, rows in whys.items() if rows} for partition, whys in removed.items()}
    state.removed = {partition: whys for partition, whys in sorted(kept.items()) if whys}


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
