"""The trash: what was removed from the lake, kept for some days with everything needed to bring it back.

    <lake>/.trash/<YYYY-MM-DD>/<feed>/<run>/manifest.json, year=.../...parquet | version=vN/...
                                            quarantine/<feed>/...parquet      rows of these days from quarantine
"""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.model.anchor import Covered, anchors_from
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.state import QUARANTINE, Current, FeedState
from ksql_lake.store import journal, layout
from ksql_lake.store.dataset import Dataset, Move
from ksql_lake.store.layout import storage_of
from ksql_lake.store.manifests import UNREADABLE

MANIFEST = "manifest.json"
RELOADED = "reload"  # why: these rows were read again from the source
RESET = "reset"  # why: the feed starts afresh
COMPACTED = "compact"  # why: the rows are in a merged file, these are the small ones it was made of
REPEATED = "repeated"  # why: other files hold all rows of these
IN_THE_LAKE = (COMPACTED, REPEATED, RELOADED)  # whose rows are still in the lake: an undo would double them


@dataclass(frozen=True)
class Bundle:
    """What one run moved to the trash of one feed; `aside`: files that were in quarantine."""

    directory: PurePath
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

    @property
    def manifest(self) -> PurePath:
        return self.directory / MANIFEST

    def place(self, path: str) -> PurePath:
        """Where a path that the metadata know lies in the bundle."""
        return self.directory / path

    def file(self, entry: FileEntry) -> PurePath:
        """The place of a file of the bundle."""
        return self.place(entry.path)

    def local(self, entry: FileEntry) -> Path:
        """The same on this machine's disk, for a file that comes from a remote."""
        return Path(self.file(entry))

    def holds(self, entry: FileEntry) -> bool:
        """Whether the file is there."""
        return storage_of(self.directory).stat(self.file(entry)) is not None

    def read_manifest(self) -> dict[str, Any]:
        """The manifest as it is now."""
        content: dict[str, Any] = json.loads(storage_of(self.directory).read(self.manifest))
        return content


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
    journal.amend(dataset, run, state, moves, kind=why, now=now, by=by, what=what)


def stage(
    dataset: Dataset, files: Sequence[FileEntry], run: str, *, now: str, by: str, why: str,
    aside: Sequence[FileEntry] = (), before: Mapping[str, Any] | None = None,
) -> list[Move]:
    """The renames that put files of the lake, and of its quarantine, into the trash; their manifest is staged."""
    directory = dataset.trash(now[:10], run)
    staged = dataset.staged(run, MANIFEST)
    dataset.storage.make(staged.parent)
    manifest = {
        "feed": dataset.feed, "type": dataset.kind, "at": now, "by": by, "why": why,
        "files": [file.to_json() for file in files],
        **({"quarantine": [file.to_json() for file in aside]} if aside else {}),
        **({"before": before} if before else {}),
    }
    dataset.storage.put(staged, as_text(manifest), dataset.file_mode)
    return [
        Move.of(dataset, staged, directory / MANIFEST), *moves(dataset, files, directory),
        *(Move.of(dataset, dataset.in_lake(entry.path), directory / entry.path) for entry in aside),
    ]


def as_text(manifest: Mapping[str, Any]) -> bytes:
    """A bundle's manifest as it is written."""
    return json.dumps(manifest, indent=2, ensure_ascii=False).encode()


def discard(dataset: Dataset, files: Sequence[FileEntry], run: str, *, now: str, by: str, why: str) -> PurePath:
    """Move files to the trash at once, without a change of the feed: they will be in no metadata."""
    moves = stage(dataset, files, run, now=now, by=by, why=why)
    for move in moves:
        dataset.storage.move(dataset.in_lake(move.source), dataset.in_lake(move.target), dataset.file_mode)
    dataset.storage.delete(dataset.staged(run))
    return dataset.trash(now[:10], run)


def moves(dataset: Dataset, files: Iterable[FileEntry], directory: PurePath) -> list[Move]:
    """The renames that move files of the lake to the same paths in `directory`; files not on this disk are left out.

    A table's version is moved in one rename if it holds no other files, so that no reader sees half of it.
    """
    owned: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if file.local:
            owned[file.partition].append(file.path)
    renames = []
    for partition, paths in owned.items():
        whole = dataset.kind == "table" and _is_all(dataset, partition, paths)
        for path in [partition] if whole else paths:
            renames.append(Move.of(dataset, dataset.file(path), directory / path))
    return renames


def _is_all(dataset: Dataset, partition: str, paths: Iterable[str]) -> bool:
    """Whether these are all the files of a partition."""
    names = {place.name for place in dataset.storage.list(dataset.file(partition))}
    return names == {PurePath(path).name for path in paths}


def bundles(lake: PurePath, feed: str | None = None) -> list[Bundle]:
    """What the trash holds, oldest first."""
    found = []
    storage = storage_of(lake)
    for path in storage.list(layout.trash(lake), f"*/{feed or '*'}/*/{MANIFEST}"):
        try:
            manifest = json.loads(storage.read(path))
            files, aside = (tuple(map(FileEntry.from_json, manifest.get(k, ()))) for k in ("files", "quarantine"))
            named = (manifest["feed"], manifest["at"], manifest["why"])
            found.append(Bundle(path.parent, *named, files, aside, manifest.get("before")))
        except (OSError, *UNREADABLE) as error:
            raise StateError(f"{path}: not readable as JSON ({error}); move its directory away") from None
    return sorted(found, key=lambda bundle: (bundle.at, bundle.directory.name))


def undo(dataset: Dataset, state: FeedState, bundle: Bundle, run: str, *, now: str, by: str) -> None:
    """Bring a bundle back to where it was. Call with the feed's lock held.

    Raises:
        StateError: a file of it is gone, or its place is taken; nothing is touched.
    """
    files, aside = ([_as_remote_has_it(file, state) for file in some] for some in (bundle.files, bundle.aside))
    places = [(bundle.file(file), dataset.file(file.path)) for file in files if file.local]
    places += [(bundle.file(entry), dataset.in_lake(entry.path)) for entry in aside]
    for there, back in places:
        if dataset.storage.stat(there) is None:
            raise StateError(f"{there}: gone from the trash, so it cannot be brought back")
        if dataset.storage.stat(back):
            raise StateError(f"{back}: is already there; move it away first")
    if bundle.before is not None:
        _go_back(dataset, state, bundle.before)
    undone = dataset.staged(run, f"undone_{MANIFEST}")
    dataset.storage.make(undone.parent)
    moves = [Move.of(dataset, there, back) for there, back in places]
    moves.append(Move.of(dataset, bundle.manifest, undone))
    state.files.add(files)
    if aside:
        dataset.storage.make(layout.quarantine(dataset.lake))  # of all feeds: open, whatever the feed's access
        state.quarantine = (*state.quarantined, *aside)
    count_removed(state, bundle.files, bundle.why, -1)
    count_removed(state, bundle.aside, QUARANTINE, -1)
    what = f"undo: {len(bundle.every)} files back from the trash of {bundle.at}"
    journal.amend(dataset, run, state, moves, kind="undo", now=now, by=by, what=what)


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


def empty(dataset: Dataset, days: int, today: dt.date) -> list[PurePath]:
    """Remove for good what has been in the trash of one feed for longer than `days`; call with its lock held."""
    removed = []
    storage, top = dataset.storage, layout.trash(dataset.lake)
    for directory in storage.list(top, f"????-??-??/{dataset.feed}"):
        try:
            age = (today - dt.date.fromisoformat(directory.parent.name)).days
        except ValueError:
            continue
        if age > days and not layout.leads_out(dataset.lake, directory):
            storage.delete(directory)
            removed.append(directory)
            storage.prune(directory.parent, top)
    return removed
