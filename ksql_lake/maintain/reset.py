"""Starts a feed afresh: its data goes to the trash, and the next export reads its source from the start."""

from __future__ import annotations

from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.model.anchor import anchors_json
from ksql_lake.model.state import FeedState
from ksql_lake.store import journal, trash
from ksql_lake.store.dataset import Dataset


def reset(dataset: Dataset, state: FeedState, generation: int | None, run: str, *, now: str, by: str) -> int:
    """Move a feed's data, or the data of one generation of its topic, to the trash; returns the number of rows.

    Call with the feed's lock held. `trash.undo` brings all of it back, as long as nothing was exported since.

    Args:
        generation: of a stream: only this generation of its topic; None for all.

    Raises:
        StateError: there is nothing to take out, or a file is only in the remote.
    """
    files = [file for file in state.files if generation is None or file.generation == generation]
    bad = [file for file in state.quarantined if generation is None or file.generation == generation]
    begins = generation is None or generation == state.generation
    if not files and not bad and not (begins and (state.resume or state.covered)):
        which = "no data" if generation is None else f"no data of generation {generation}"
        raise StateError(f"{dataset.feed}: the lake has {which} of this feed, so there is nothing to reset")
    away = [file.path for file in files if not file.local]
    if away:
        raise StateError(f"{dataset.feed}: {away[0]} is only in the remote; bring it back with: "
                         f"python manage_feeds.py remote pull {dataset.feed}")
    there = [file for file in files if dataset.storage.stat(dataset.file(file.path))]
    kept = [file for file in bad if dataset.storage.stat(dataset.in_lake(file.path))]
    before = _position(state, generation)
    moves = trash.stage(dataset, there, run, now=now, by=by, why=trash.RESET, aside=kept, before=before)
    state.files.remove([file.path for file in files])
    if bad:
        gone = {file.path for file in bad}
        state.quarantine = tuple(file for file in state.quarantined if file.path not in gone)
    _begin(state, generation)
    what = f"reset{f' of generation {generation}' if generation else ''}: {len(files)} files to the trash"
    journal.amend(dataset, run, state, moves, kind="reset", now=now, by=by, what=what)
    return sum(file.rows for file in [*files, *bad])


def _begin(state: FeedState, generation: int | None) -> None:
    """The next export reads from the start; names of versions are never used again."""
    if state.is_table:
        state.current, state.pinned = None, ()
        return
    state.coverage = {g: parts for g, parts in state.coverage.items() if generation not in (None, g)}
    if generation in (None, state.generation):
        state.generation, state.resume, state.heads = state.generation + 1, {}, {}


def _position(state: FeedState, generation: int | None) -> dict[str, Any]:
    """How far the feed had been read: what an undo restores."""
    if state.is_table:
        return {"current": None if state.current is None else dict(vars(state.current)), "pinned": list(state.pinned)}
    coverage = {
        str(g): {str(p): covered.to_json() for p, covered in parts.items()}
        for g, parts in state.coverage.items() if generation in (None, g)
    }
    if generation not in (None, state.generation):
        return {"coverage": coverage}
    return {
        "generation": state.generation, "resume": anchors_json(state.resume), "heads": anchors_json(state.heads),
        "coverage": coverage,
    }
