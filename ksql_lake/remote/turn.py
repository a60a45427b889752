"""The work of one feed with its remote, under the feed's lock: push, drop, pull, tiers, deletions. Can be repeated."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ksql_lake.base.errors import RemoteError
from ksql_lake.model.entries import FileEntry, Leaving, Remote
from ksql_lake.model.state import FeedState
from ksql_lake.remote import mirror, notice, plans
from ksql_lake.remote.plans import Part, Plan
from ksql_lake.store import journal, trash
from ksql_lake.store.dataset import Dataset, Move
from ksql_lake.store.remote.address import ARCHIVES
from ksql_lake.store.remote.binding import Binding
from ksql_lake.store.remote.seam import Gone, ObjectStore
from ksql_lake.store.remote.transfer import fetch, md5

AT_A_TIME = 8  # requests
BATCH_FILES, BATCH_BYTES = 500, 2 << 30  # after so much a push records what is there
RESTORED_DAYS = 7  # an archived object stays readable
T = TypeVar("T")


@dataclass
class Turn:
    """What every step needs. `run` names this command's commits; `progress` is called with bytes that moved."""

    dataset: Dataset
    state: FeedState
    store: ObjectStore
    binding: Binding
    run: str
    now: str
    by: str
    trash_days: int = 7
    progress: Callable[[int], None] = lambda size: None
    commits: int = 0

    def key(self, file: FileEntry) -> str:
        return self.key_of(file.path)

    def key_of(self, path: str) -> str:
        return mirror.key_of(self.dataset, path)

    def path(self, file: FileEntry) -> Path:
        """Where a file of the feed, or one in quarantine, is on this disk."""
        aside = mirror.is_quarantine(file.path)
        return Path(self.dataset.in_lake(file.path)) if aside else self.dataset.local(file.path)

    def mark(self, entries: Sequence[FileEntry]) -> None:
        """Replace the state's entries with the same paths by these."""
        self.state.files.mark([file for file in entries if not mirror.is_quarantine(file.path)])
        new = {file.path: file for file in entries}
        if any(file.path in new for file in self.state.quarantined):
            self.state.quarantine = tuple(new.get(file.path, file) for file in self.state.quarantined)

    def next_run(self) -> str:
        return f"{self.run}r{self.commits}"

    def commit(self, moves: Sequence[Move], kind: str, what: str) -> None:
        run = self.next_run()
        self.commits += 1
        journal.amend(self.dataset, run, self.state, moves, kind=kind, now=self.now, by=self.by, what=what)
        notice.write(self.dataset, self.state, self.binding)


def push(turn: Turn, plan: Plan) -> int:
    """Upload the files of the plan; returns their number. What was uploaded before a failure is recorded.

    Raises:
        RemoteError: of the first file that failed.
    """
    done = 0
    for batch in _batches(plan.files):
        sent, failed = _each(batch, lambda file: _upload(turn, file, plan.tier))
        if sent:
            remote = Remote(turn.now, plan.tier or "")
            turn.mark([replace(file, remote=remote) for file, _ in sent])
            size = sum(file.bytes for file, _ in sent)
            turn.commit([], "push", f"push: {len(sent)} files, {size:,} bytes into the remote")
        if failed is not None:
            raise failed
        done += len(sent)
    return done


def _batches(files: Sequence[FileEntry]) -> Iterable[list[FileEntry]]:
    batch: list[FileEntry] = []
    for file in files:
        batch.append(file)
        if len(batch) >= BATCH_FILES or sum(one.bytes for one in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _upload(turn: Turn, file: FileEntry, tier: str | None) -> None:
    turn.store.create(turn.key(file), turn.path(file), file.crc32, tier)
    turn.progress(file.bytes)


def drop(turn: Turn, plan: Plan) -> list[str]:
    """Remove from this disk what the remote verifiably has, after checking each object; a line for each day that stays.

    Raises:
        RemoteError: the store did not answer.
    """
    stay, gone = [], []
    for part in plan.going:
        looked, failed = _each(part.files, lambda file: _proof(turn, file))
        if failed is not None:
            raise failed
        wrong = [problem for _, problem in looked if problem]
        stay += wrong
        if not wrong:
            gone.append(part)
    if gone:
        _take_from_disk(turn, gone)
    return stay


def _proof(turn: Turn, file: FileEntry) -> str | None:
    """Why the object is not the file; None when it is."""
    key = turn.key(file)
    try:
        there = turn.store.stat(key)
    except Gone:
        return f"{turn.store.url}/{key}: missing from the remote, so its day stays here; see: remote verify"
    if not there.holds(file.bytes, file.crc32):
        return f"{turn.store.url}/{key}: is not what was uploaded, so its day stays here; see: remote verify"
    if there.md5 is not None and there.md5 != md5(turn.path(file)):
        return f"{turn.store.url}/{key}: differs from the local file, so its day stays here; see: remote verify"
    return None


def forget_wrong(turn: Turn) -> list[str]:
    """Delete objects that differ from the files on this disk, so that the next push sends them again; a line for each.
    """
    known = (*turn.state.files, *turn.state.quarantined)
    both = [file for file in known if file.remote is not None and file.local]
    looked, failed = _each(both, lambda file: _proof(turn, file))
    if failed is not None:
        raise failed
    wrong = [file for file, problem in looked if problem]
    for file in wrong:
        turn.store.purge(turn.key(file))
    if wrong:
        turn.mark([replace(file, remote=None) for file in wrong])
        turn.commit([], "push", f"push: {len(wrong)} files are to be sent again")
    return [f"{turn.store.url}/{turn.key(file)}: is sent again" for file in wrong]


def _take_from_disk(turn: Turn, parts: Sequence[Part]) -> None:
    files = [file for part in parts for file in part.files]
    dropped = turn.dataset.staged(turn.next_run(), "dropped")  # removed with the staging directory, at the end
    turn.dataset.storage.make(dropped.parent)
    moves = trash.moves(turn.dataset, files, dropped)
    turn.state.files.mark([replace(file, local=False) for file in files])
    size = sum(file.bytes for file in files)
    turn.commit(moves, "drop", f"drop: {len(files)} files, {size:,} bytes, are only in the remote now")


def pull(turn: Turn, plan: Plan) -> list[str]:
    """Bring days back to this disk, each as a commit of its own; a line for each archived file that was asked for.

    Raises:
        RemoteError: a file is missing, is not what was uploaded, or the store did not answer.
    """
    waiting: list[str] = []
    for part in plan.going:
        asleep = _asleep(turn, part.files)
        if asleep:
            waiting += asleep
            continue
        run = turn.next_run()
        there = partial(turn.dataset.staged, run, "pulled")
        turn.dataset.storage.make(there())
        _, failed = _each(part.files, lambda file, there=there: _download(turn, file, there))  # type: ignore[misc]
        if failed is not None:
            raise failed
        turn.state.files.mark([replace(file, local=True) for file in part.files])
        moves = _back(turn.dataset, part, there)
        turn.commit(moves, "pull", f"pull: {len(part.files)} files of {part.partition} are here again")
    return waiting


def _back(dataset: Dataset, part: Part, there: Callable[[str], Path]) -> list[Move]:
    """A table's version by one rename of its directory, so that no reader sees half of it; days file by file."""
    whole = dataset.kind == "table" and not dataset.storage.stat(dataset.file(part.partition))
    paths = [part.partition] if whole else [file.path for file in part.files]
    return [Move.of(dataset, there(path), dataset.file(path)) for path in paths]


def _asleep(turn: Turn, files: Sequence[FileEntry]) -> list[str]:
    """Ask for what is archived; a line for each file that cannot be read yet."""
    lines = []
    for file in files:
        if file.remote is None or file.remote.tier not in ARCHIVES:
            continue
        key = turn.key(file)
        there = turn.store.stat(key)
        if there.archived:
            if not there.restoring:
                turn.store.restore(key, RESTORED_DAYS)
                there = turn.store.stat(key)
            if there.archived:
                lines.append(f"{turn.store.url}/{key}: is archived and was asked for; that takes hours, so run the "
                             "same command again later")
    return lines


def _download(turn: Turn, file: FileEntry, there: Callable[[str], Path]) -> None:
    fetch(turn.store, turn.key(file), file, there(file.path))
    turn.progress(file.bytes)


def retier(turn: Turn, plan: Plan) -> int:
    """Move objects to the plan's tier; the number of files.

    Raises:
        RemoteError: of the first that failed; those before it are recorded.
    """
    if not plan.files or plan.tier is None:
        return 0
    tier = plan.tier
    moved, failed = _each(plan.files, lambda file: turn.store.retier(turn.key(file), tier))
    if moved:
        turn.state.files.mark([replace(file, remote=Remote(turn.now, tier)) for file, _ in moved])
        turn.commit([], "retier", f"retier: {len(moved)} files are in {tier} now")
    if failed is not None:
        raise failed
    return len(moved)


def finish(turn: Turn) -> list[str]:
    """Bring the remote's metadata up to date, then delete what it no longer lists.

    Returns:
        A line for each object of which something remains after the deletion.

    Raises:
        RemoteError, StateError: the next command continues from there.
    """
    mirror.bring_up(turn.dataset, turn.state, turn.store, turn.binding)
    in_trash = {file.path for bundle in trash.bundles(turn.dataset.lake, turn.dataset.feed) for file in bundle.every}
    day = dt.date.fromisoformat(turn.now[:10])
    due = plans.due(turn.state, turn.trash_days, day, in_trash)
    if not due:
        return []
    purged, failed = _each(due, lambda gone: _purge(turn, gone))
    kept = [line for _, lines in purged for line in lines]
    done = {gone.path for gone, lines in purged if not lines}
    if done:
        turn.state.remote_gone = tuple(gone for gone in turn.state.remote_gone if gone.path not in done)
        turn.commit([], "forget", f"forget: {len(done)} files are deleted from the remote")
        mirror.bring_up(turn.dataset, turn.state, turn.store, turn.binding)
    if failed is not None:
        raise failed
    return kept


def _purge(turn: Turn, gone: Leaving) -> tuple[str, ...]:
    return turn.store.purge(mirror.key_of(turn.dataset, gone.path), versions=True)


def _each(items: Sequence[T], work: Callable[[T], Any]) -> tuple[list[tuple[T, Any]], RemoteError | OSError | None]:
    """Run several at a time: (item, result) of those that worked, and the first failure, which stops the rest."""
    done: list[tuple[T, Any]] = []
    failed: RemoteError | OSError | None = None
    if len(items) == 1:
        try:
            return [(items[0], work(items[0]))], None
        except (RemoteError, OSError) as error:
            return [], error
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        begun = {pool.submit(work, item): item for item in items}
        try:
            for future in as_completed(begun):
                try:
                    if not future.cancelled():
                        done.append((begun[future], future.result()))
                except (RemoteError, OSError) as error:
                    failed = failed or error
                    for other in begun:
                        other.cancel()
        except BaseException:
            for other in begun:
                other.cancel()
            raise
    return done, failed
