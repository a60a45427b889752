"""How a change of a feed is made: files and `_metadata.json` together, whatever happens in between.

A change is staged under `<lake>/.staging/<feed>/<run>/`, described by `commit.json` there, carried out by renames,
recorded by a swap of `_metadata.json`, remembered in `<lake>/.state/<feed>.jsonl` and cleaned up. Every step can be
done twice: `recover` finishes a change whose journal exists and deletes staging that has none, so a crash between
any two system calls leaves the old state or the new one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.model.change import Change, with_files
from ksql_lake.model.findings import Finding
from ksql_lake.model.state import Amendment, FeedState
from ksql_lake.store import layout, manifests, metadata, state_log
from ksql_lake.store.dataset import METADATA, Dataset, Move
from ksql_lake.store.layout import storage_of
from ksql_lake.store.manifests import UNREADABLE, ManifestReader
from ksql_lake.store.observers import notify
from ksql_lake.store.remote import binding

log = logging.getLogger("ksql_lake")
JOURNAL = "commit.json"
LEASE = ".lease"
HISTORY = 100  # changes other than exports that the metadata keeps; the state log keeps all
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


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
    directory = dataset.staged(run)
    dataset.storage.make(directory)
    change = with_files(change, state)
    if binding.is_bound(dataset.lake):
        state.remote_gone = binding.leaving(state.remote_gone, change, *_quarantines(dataset, state))
    if manifests.is_due(state):
        moves = [*moves, _seal(dataset, directory, state)]
    journal = {
        "run": run, "base": base, "moves": [[m.source, m.target] for m in moves], "change": change.to_json()
    }
    text = metadata.as_text(state)
    whole = f'{_ENCODE(journal)[:-1]}, "state": {text}}}'
    dataset.storage.put(directory / JOURNAL, whole.encode(), dataset.file_mode)
    problems = _carry_out(dataset, directory, journal, state, text)
    state.files.committed()
    return problems


def _quarantines(dataset: Dataset, state: FeedState) -> tuple[set[str], set[str]]:
    """Paths of the files in quarantine before a commit and after it."""
    before = metadata.load(dataset) if state.quarantine is not None else None
    return {file.path for file in before.quarantined} if before else set(), {file.path for file in state.quarantined}


def is_journalled(dataset: Dataset, run: str) -> bool:
    """Whether a run's change is described already, so that it will be finished and its staging must stay."""
    return dataset.storage.stat(dataset.staged(run, JOURNAL)) is not None


def journals(dataset: Dataset) -> list[Mapping[str, Any]]:
    """The changes of a feed that were interrupted; raises as `json.loads` where one is torn."""
    places = dataset.storage.list(dataset.staging, f"*/{JOURNAL}")
    return [json.loads(dataset.storage.read(place)) for place in places]


def left_behind(lake: PurePath, feed: str | None) -> dict[str, bool]:
    """Feeds with something in staging, of a run at work or of one that ended badly: whether a change is described."""
    storage = storage_of(lake)
    found: dict[str, bool] = {}
    for run in storage.list(layout.staging(lake), f"{feed or '*'}/*"):
        if (there := storage.stat(run)) and there.directory:
            found[run.parent.name] = found.get(run.parent.name, False) or storage.stat(run / JOURNAL) is not None
    return found


def _refuse_links(dataset: Dataset, moves: Sequence[Move]) -> None:
    dataset.storage.guard(dataset.lake, (place for move in moves for place in (move.source, move.target)))


def _seal(dataset: Dataset, directory: PurePath, state: FeedState) -> Move:
    """Stage a manifest that takes the file entries out of `_metadata.json`."""
    name, data = manifests.sealed(state)
    dataset.storage.put(directory / name, data, dataset.file_mode)
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
    storage = dataset.storage
    for temporary in storage.list(dataset.directory, f".{METADATA}.*.inprogress"):
        storage.delete(temporary)  # of a run killed while it wrote: with the lock held nobody else writes
    for granted in storage.list(dataset.staging, f"*{LEASE}"):
        storage.delete(granted)  # first, so that a worker of a run that is gone creates no more files
    left = storage.list(dataset.staging)
    storage.guard(dataset.lake, left)
    for directory in left:
        if storage.stat(directory / JOURNAL):
            problems = _finish(dataset, directory, trusted=trusted)
            done += [problem.line for problem in problems]
            done.append(f"finished the interrupted commit of run {directory.name}")
        else:
            storage.delete(directory)
            done.append(f"discarded unpublished files of run {directory.name}")
    return done


def _finish(dataset: Dataset, directory: PurePath, *, trusted: bool) -> list[Finding]:
    place = directory / JOURNAL
    try:
        return _carry_out(dataset, directory, json.loads(dataset.storage.read(place)), trusted=trusted)
    except UNREADABLE as error:
        raise StateError(
            f"{place}: not readable as a journal ({type(error).__name__}: {error}); move the directory away and run "
            "again"
        ) from None


def _carry_out(
    dataset: Dataset, directory: PurePath, journal: Mapping[str, Any], state: FeedState | None = None,
    text: str | None = None, *, trusted: bool = False,
) -> list[Finding]:
    found = metadata.content(dataset)
    before = metadata.parsed(dataset, found)
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
        dataset.storage.make(dataset.directory.parent)  # of all feeds: open, whatever this feed's access
        _publish(dataset, journal["moves"])
        dataset.storage.make(dataset.directory, dataset.dir_mode)
        metadata.record(dataset, state, text or metadata.as_text(state), found)
    state_log.append(dataset.log, state, None if recorded else before, change)
    problems = notify(dataset.observers, dataset, state, change)
    dataset.storage.delete(directory)
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
        if dataset.storage.stat(dataset.in_lake(source)) and dataset.storage.stat(dataset.in_lake(target)):
            raise StateError(
                f"{dataset.in_lake(target)}: is already there, but not in the metadata; move it out of the lake and "
                "run again"
            )


def _publish(dataset: Dataset, moves: Sequence[Sequence[str]]) -> None:
    for source, target in moves:
        origin, final = dataset.in_lake(source), dataset.in_lake(target)
        if dataset.storage.stat(origin) is None and dataset.storage.stat(final):
            continue  # an earlier attempt got this far
        dataset.storage.move(origin, final, dataset.file_mode)
    for parent in {dataset.in_lake(source).parent for source, _ in moves}:
        for top in (dataset.directory, layout.trash(dataset.lake), layout.quarantine(dataset.lake)):
            dataset.storage.prune(parent, top)  # readers would list an empty directory for nothing
