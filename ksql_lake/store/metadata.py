"""The state of one feed: `_metadata.json`, and the journal that changes it together with its files.

A change of a feed is staged under `<lake>/.staging/<feed>/<run>/`, described by `commit.json` there,
carried out by renames, recorded in `_metadata.json`, remembered in `<lake>/.state/<feed>.jsonl` and
cleaned up. Every step can be done twice: `recover` finishes a change whose journal exists and deletes
staging that has none, so a crash between any two system calls leaves the old state or the new one.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.base.files import atomic_write, fsync_dir, make_dirs, refuse_links, remove_tree
from ksql_lake.model.change import Change, with_files
from ksql_lake.model.entries import FileEntry, Manifest, Partition
from ksql_lake.model.findings import Finding
from ksql_lake.model.footer import Footer
from ksql_lake.model.state import QUARANTINE, Amendment, FeedState
from ksql_lake.model.state_shape import refuse_other_entries, refuse_other_shapes
from ksql_lake.store import state_log
from ksql_lake.store.dataset import METADATA, TRASH, Dataset, Move
from ksql_lake.store.observers import notify
from ksql_lake.store.remote import binding

log = logging.getLogger("ksql_lake")
JOURNAL = "commit.json"
LEASE = ".lease"
SEAL = 500  # file entries in `_metadata.json`; when there are more, a manifest takes them
HISTORY = 100  # changes that are no export, kept in the metadata; the state log keeps all
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode  # made once: a large lake has a thousand partitions
# JSON of another shape
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)

__all__ = ["METADATA", "QUARANTINE", "TRASH", "Dataset", "Move"]


def load(dataset: Dataset) -> FeedState | None:
    """The feed's state, or None when it was never exported.

    Raises:
        StateError: the file exists but cannot be read as a feed's state; it is left unchanged.
    """
    try:
        value = json.loads(dataset.metadata.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(
            f"{dataset.metadata}: not readable as JSON ({error}); restore it with: {_rebuild(dataset)}"
        ) from None
    if not isinstance(value, dict) or not isinstance(value.get("sequence"), int):
        raise StateError(
            f'{dataset.metadata}: has no "sequence", so it was not written by this tool; restore it with: '
            f"{_rebuild(dataset)}"
        )
    try:
        state = FeedState.from_json(value, ManifestReader(dataset.manifests))
        refuse_other_shapes(state, dataset.kind)
        return state
    except UNREADABLE as error:
        raise StateError(
            f"{dataset.metadata}: is not a feed's metadata ({type(error).__name__}: {error}); restore it with: "
            f"{_rebuild(dataset)}"
        ) from None


@dataclass(frozen=True)
class ManifestReader:
    """Reads the manifests of a feed's directory."""

    directory: Path

    def __call__(self, manifest: Manifest) -> list[FileEntry]:
        """The entries of a manifest.

        Raises:
            FileNotFoundError: a commit has replaced it since the metadata were read: read them again.
            StateError: it is damaged.
        """
        path = self.directory / manifest.name
        try:
            entries = [FileEntry.from_json(json.loads(line)) for line in path.read_bytes().splitlines()]
            refuse_other_entries(entries)
        except UNREADABLE as error:
            raise StateError(f"{path}: not readable as a manifest ({error}); restore it with: python "
                             "metadata_utils.py --rebuild") from None
        if len(entries) != manifest.files:
            raise StateError(
                f"{path}: lists {len(entries)} files, expected {manifest.files}; restore it with: python "
                "metadata_utils.py --rebuild"
            )
        return entries


def load_or_new(dataset: Dataset, new: Callable[[], FeedState]) -> FeedState:
    """The feed's state, or a new one for a feed that was never exported; raises as `current`.

    The caller checks `unknown_files` next.
    """
    return current(dataset, files=False) or new()


def current(dataset: Dataset, *, files: bool = True) -> FeedState | None:
    """The feed's state, known to be the current one, or None for a feed that was never exported.

    Args:
        files: whether to look for files of later changes as well.

    Raises:
        StateError: the metadata is not readable, an old copy, or gone while there is data or a history of it.
    """
    state = load(dataset)
    if state is not None:
        logged = state_log.last_sequence(dataset.log)
        if logged is not None and logged > state.sequence:
            raise StateError(
                f"{dataset.metadata}: is an old copy: it is at change {state.sequence}, but the state log at change "
                f"{logged}; "
                f"bring it up to date with: {_rebuild(dataset)}"
            )
        if files:
            unknown_files(dataset, state)
        return state
    if dataset.log.exists() or next(parquet_files(dataset.directory), None) is not None:
        raise StateError(
            f"{dataset.metadata}: missing, though the feed was exported before; restore it with: {_rebuild(dataset)}"
        )
    return None


def parquet_files(directory: Path) -> Iterator[Path]:
    """Every Parquet file in a directory tree; names that begin with a dot or an underscore do not count."""
    for folder, names in _parquet_names(directory):
        yield from (directory / folder / name for name in names)


def _parquet_names(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """The same as (subdirectory, file names), without a Path for each: a lake may have 100,000 files."""
    root = os.fspath(directory)
    for top, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        if found := [name for name in names if name.endswith(".parquet")]:
            yield top[len(root) :].strip("/"), found


def unknown_files(dataset: Dataset, state: FeedState) -> list[Finding]:
    """A finding for each Parquet file in the feed's directory that is not in its metadata.

    Names are only compared in partitions whose number of files or sum of names differs from the metadata.

    Raises:
        StateError: a later change wrote one of them, so the metadata is an old copy.
    """
    known = {partition.path: partition for partition in state.partitions}
    there = _parquet_names(dataset.directory)
    unclear = {folder: names for folder, names in there if not _as_known(known.get(folder), names)}
    paths = {file.path for file in state.files} if unclear else set()
    found = {f"{folder}/{name}".removeprefix("/") for folder, names in unclear.items() for name in names}
    unknown = sorted(found - paths)
    _refuse_newer(dataset, state, unknown)
    return [
        Finding(
            "files", f"{dataset.directory / path}: not in the feed's metadata, though readers see its rows; move it "
            "out of the lake", feed=dataset.feed,
        )
        for path in unknown
    ]


def _refuse_newer(dataset: Dataset, state: FeedState, unknown: Sequence[str]) -> None:
    """Refuse files that a later change of the feed wrote: continuing would export their rows twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in unknown:
        try:
            pairs = pq.read_metadata(dataset.directory / path).metadata or {}
            footer = Footer.read(pairs)
        except (pa.ArrowException, OSError, *UNREADABLE):
            continue  # torn, or not written by this tool: only a finding
        if footer is not None and footer.feed == dataset.feed and footer.sequence > state.sequence:
            raise StateError(
                f"{dataset.metadata}: is an old copy: it is at change {state.sequence}, but change {footer.sequence} "
                f"wrote {path}; bring it up to date with: {_rebuild(dataset)}"
            )


def _as_known(partition: Partition | None, names: Sequence[str]) -> bool:
    if partition is None or partition.files != len(names):
        return False
    return partition.names == sum(zlib.crc32(name.encode()) for name in names) & 0xFFFFFFFF


def keep_copy(dataset: Dataset, stamp: str) -> Path | None:
    """Keep a copy of the metadata under a name that readers skip; None when there is none."""
    if not dataset.metadata.exists():
        return None
    copy = dataset.directory / f".{METADATA}.{stamp}.aside"
    atomic_write(copy, dataset.metadata.read_bytes(), dataset.file_mode)
    return copy


def restore(dataset: Dataset, state: FeedState) -> None:
    """Write a state that was rebuilt, and add it to the state log unless it is there."""
    make_dirs(dataset.directory, dataset.dir_mode)
    if len(state.files.recent) > SEAL:
        name = _manifest_name(state)
        make_dirs(dataset.manifests, dataset.dir_mode)
        atomic_write(dataset.manifests / name, _manifest(state.files.seal(name)), dataset.file_mode)
    _record(dataset, state)
    state_log.append(dataset.log, state, None, None)
    state.files.committed()
    notify(dataset.observers, dataset, state, None)


def _rebuild(dataset: Dataset) -> str:
    return f"python metadata_utils.py --rebuild --feed {dataset.feed}"


def _record(dataset: Dataset, state: FeedState, text: str | None = None) -> None:
    atomic_write(dataset.metadata, (text or as_text(state)).encode(), dataset.file_mode)
    _remove_old_manifests(dataset, state)


def as_text(state: FeedState) -> str:
    """`_metadata.json`: indented for people, but a line for each file and each partition."""
    lists = {"partitions", "files", "quarantine", "manifests"}
    parts = []
    for key, value in state.to_json().items():
        if key in lists and value:
            body = ",\n    ".join(map(_ENCODE, value))
            text = f"[\n    {body}\n  ]"
        else:
            text = json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


def _manifest(entries: Sequence[FileEntry]) -> bytes:
    return "".join(json.dumps(entry.to_json(), ensure_ascii=False) + "\n" for entry in entries).encode()


def _manifest_name(state: FeedState) -> str:
    return f"{state.sequence:08d}.jsonl"  # one at most for each change, so no name is used twice


def _remove_old_manifests(dataset: Dataset, state: FeedState) -> None:
    """Remove manifests that are no longer in the metadata; with the feed's lock held nobody writes new ones."""
    kept = {manifest.name for manifest in state.files.manifests}
    if dataset.manifests.is_dir() and not dataset.manifests.is_symlink():
        for path in dataset.manifests.iterdir():
            if path.name not in kept:
                path.unlink()


def commit(
    dataset: Dataset, run: str, base: int, moves: Sequence[Move], state: FeedState, change: Change
) -> list[Finding]:
    """Publish staged files and the state that goes with them, as one change that a crash cannot split.

    Args:
        base: the sequence number the change builds on (0 for a new feed); `state.sequence` is one more.
        moves: renames from the staging directory of `run` (or from the dataset) to final names.
        change: what is done; its files are taken from the state.

    Returns:
        A finding for each observer that failed; the change itself is in the lake.

    Raises:
        LinkError: a move would lead through a link or out of the lake; nothing was changed.
    """
    _refuse_links(dataset, moves)
    refuse_taken(dataset, [(move.source, move.target) for move in moves])
    directory = dataset.staging / run
    make_dirs(directory)
    change = with_files(change, state)
    if binding.is_bound(dataset.lake):
        state.remote_gone = binding.leaving(state.remote_gone, change, *_quarantines(dataset, state))
    if len(state.files.recent) > SEAL:
        moves = [*moves, _seal(dataset, directory, state)]
    journal = {
        "run": run, "base": base, "moves": [[m.source, m.target] for m in moves], "change": change.to_json()
    }
    text = as_text(state)
    whole = f'{_ENCODE(journal)[:-1]}, "state": {text}}}'
    atomic_write(directory / JOURNAL, whole.encode(), dataset.file_mode)
    problems = _carry_out(dataset, directory, journal, state, text)
    state.files.committed()
    return problems


def _quarantines(dataset: Dataset, state: FeedState) -> tuple[set[str], set[str]]:
    """Paths of the files in quarantine before a commit and after it."""
    before = load(dataset) if state.quarantine is not None else None
    return {file.path for file in before.quarantined} if before else set(), {file.path for file in state.quarantined}


def _refuse_links(dataset: Dataset, moves: Sequence[Move]) -> None:
    refuse_links(dataset.lake, (place for move in moves for place in (move.source, move.target)))


def _seal(dataset: Dataset, directory: Path, state: FeedState) -> Move:
    """Stage a manifest that takes the file entries out of `_metadata.json`."""
    name = _manifest_name(state)
    atomic_write(directory / name, _manifest(state.files.seal(name)), dataset.file_mode)
    return Move.of(dataset, directory / name, dataset.manifests / name)


def amend(
    dataset: Dataset, run: str, state: FeedState, moves: Sequence[Move], *, kind: str, now: str, by: str, what: str
) -> list[Finding]:
    """Commit a change that is not an export (retention, rollback, erasure ...), and record who made it and when.

    Args:
        state: the new state, its sequence number not yet raised.
        kind: see `Change`.
        now: ISO 8601, UTC.
        by: the user who asked for it.
        what: one line for the history.

    Returns:
        As `commit`.
    """
    base = state.sequence
    state.sequence, state.run = base + 1, run
    state.changes = (*state.changes[-HISTORY + 1 :], Amendment(now, by, what))
    problems = commit(dataset, run, base, moves, state, Change(kind, base + 1, run, now, by=by, what=what))
    for problem in problems:
        log.warning("%s", problem.line)
    return problems


def catch_up(dataset: Dataset, state: FeedState) -> list[Finding]:
    """Let observers catch up on what they missed, as after a crash; a finding for each that failed. Hold the lock."""
    return notify(dataset.observers, dataset, state, None) if state.sequence else []


def recover(dataset: Dataset, *, trusted: bool = False) -> list[str]:
    """Finish or discard what an earlier run left in staging; returns a line for each thing done.

    Call with the feed's lock held.

    Args:
        trusted: carry out a journal even though the metadata it builds on is lost: it holds the whole new state.

    Raises:
        StateError: a journal builds on another state than the one found; nothing is touched.
    """
    done: list[str] = []
    for temporary in dataset.directory.glob(f".{METADATA}.*.inprogress"):
        os.unlink(temporary)  # of a run killed while it wrote: with the lock held nobody else writes
    if not dataset.staging.is_dir():
        return done
    for granted in dataset.staging.glob(f"*{LEASE}"):
        granted.unlink(missing_ok=True)  # first, so that a worker of a run that is gone creates no more files
    refuse_links(dataset.lake, dataset.staging.iterdir())
    for directory in sorted(p for p in dataset.staging.iterdir() if p.is_dir()):
        journal_file = directory / JOURNAL
        if journal_file.exists():
            try:
                journal = json.loads(journal_file.read_bytes())
                problems = _carry_out(dataset, directory, journal, trusted=trusted)
            except UNREADABLE as error:
                raise StateError(
                    f"{journal_file}: not readable as a journal ({type(error).__name__}: {error}); move the directory "
                    "away and run again"
                ) from None
            done += [problem.line for problem in problems]
            done.append(f"finished the interrupted commit of run {directory.name}")
        else:
            remove_tree(directory)
            done.append(f"discarded unpublished files of run {directory.name}")
    return done


def _carry_out(
    dataset: Dataset, directory: Path, journal: Mapping[str, Any], state: FeedState | None = None,
    text: str | None = None, *, trusted: bool = False,
) -> list[Finding]:
    before = load(dataset)
    sequence = before.sequence if before else 0
    state = state or FeedState.from_json(journal["state"], ManifestReader(dataset.manifests))
    change = _change_of(journal, state)
    recorded = before is not None and before.run == journal["run"]
    if not recorded:
        if sequence != journal["base"] and not trusted:
            raise StateError(
                f"{directory / JOURNAL}: builds on change {journal['base']} of {dataset.feed}, but the lake is at "
                f"{sequence}; move that directory out of the lake and run again"
            )
        _refuse_links(dataset, [Move(source, target) for source, target in journal["moves"]])
        refuse_taken(dataset, journal["moves"])
        make_dirs(dataset.directory.parent)  # of all feeds: open, whatever this feed's access
        _publish(dataset, journal["moves"])
        make_dirs(dataset.directory, dataset.dir_mode)
        _record(dataset, state, text)
    state_log.append(dataset.log, state, None if recorded else before, change)
    problems = notify(dataset.observers, dataset, state, change)
    remove_tree(directory)
    fsync_dir(dataset.staging)
    return problems


def _change_of(journal: Mapping[str, Any], state: FeedState) -> Change:
    """The change that a journal describes; journals of earlier versions do not name its kind."""
    if "change" in journal:
        return Change.from_json(journal["change"])
    return Change("export", state.sequence, str(journal["run"]), state.changed_at())


def refuse_taken(dataset: Dataset, moves: Sequence[Sequence[str]]) -> None:
    """Before anything is renamed, refuse a target that exists: nothing may be overwritten.

    Raises:
        StateError: names the file or directory that is in the way.
    """
    for source, target in moves:
        if (dataset.lake / source).exists() and (dataset.lake / target).exists():
            raise StateError(
                f"{dataset.lake / target}: is in the way and is not in the metadata; move it out of the lake and run "
                "again"
            )


def _publish(dataset: Dataset, moves: Sequence[Sequence[str]]) -> None:
    for source, target in moves:
        origin, final = dataset.lake / source, dataset.lake / target
        if not origin.exists() and final.exists():
            continue  # an earlier attempt got this far
        make_dirs(final.parent, dataset.dir_mode)
        if origin.is_dir():
            os.chmod(origin, dataset.dir_mode)
            for path in origin.iterdir():
                os.chmod(path, dataset.file_mode)
        else:
            os.chmod(origin, dataset.file_mode)
        os.rename(origin, final)
        fsync_dir(final.parent)
    for parent in {(dataset.lake / source).parent for source, _ in moves}:
        for top in (dataset.directory, dataset.lake / TRASH, dataset.lake / QUARANTINE):
            _remove_emptied(top, parent)


def _remove_emptied(top: Path, directory: Path) -> None:
    """Remove the partition directories that a change emptied; readers would list them for nothing."""
    while top in directory.parents:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return
        directory = directory.parent
