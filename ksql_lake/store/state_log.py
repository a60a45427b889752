"""The state log `.state/<feed>.jsonl`: one line for each change of a feed, with the differences from the line before.

It holds what Parquet footers cannot: resume points and pointers of runs that wrote no file. Files and partitions are
not in it. A line with `"after"` holds the differences from the line of that number; one without is the whole state, as
in every line of earlier versions. A torn line is skipped; the line after it is complete.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store.layout import storage_of
from ksql_lake.store.storage import CLOSED, RESTRICTED

AFTER = "after"
LISTED = 200  # files of a change that a line names
WHOLE = 64  # every this many lines the whole state is written, so that one is never far away
GONE = "gone"  # keys that are no longer there
CHANGE = "change"  # the kind of the change and the paths of its files, for observers that missed it
TOTALS = ("total_records", "total_size_mb")
LISTS = ("changes", "quarantine", "erasures", "schema_history")  # that mostly grow at their end
TABLES = ("removed", "resume", "heads")  # of which a change touches a few keys
LEFT_OUT = ("files", "partitions", "manifests")


@dataclass(frozen=True)
class Logged:
    """A feed's state after one change, less files and partitions."""

    sequence: int
    state: Mapping[str, Any]

    def typed(self) -> FeedState:
        return FeedState.from_json(self.state)

    @property
    def at(self) -> str:
        """When the change was made."""
        changes = self.state.get("changes") or [{}]
        times = [time for time in (self.state.get("last_export"), changes[-1].get("at")) if time]
        return str(max(times, default=self.state.get("created_at", "")))


def states(path: PurePath) -> Iterator[Logged]:
    """The states in the log, oldest first."""
    for line, state in _folded(path):
        if state is not None:
            yield Logged(line["sequence"], state)


def begins(path: PurePath) -> tuple[int, str] | None:
    """The number and the time of the first change in the log, or None where it has none."""
    line = next(_lines(path), None)
    if line is None:
        return None
    at = (line.get(CHANGE) or {}).get("at")
    return line["sequence"], at or Logged(line["sequence"], line).at


def changes(path: PurePath, after: int) -> Iterator[tuple[int, str, list[str] | None, list[str] | None]]:
    """(sequence, kind, paths added, paths removed) of each change after a sequence number, oldest first.

    Paths are None where they were too many to list.
    """
    for line in _lines(path):
        change = line.get(CHANGE)
        if line["sequence"] > after and isinstance(change, dict):
            yield line["sequence"], str(change["kind"]), change.get("added"), change.get("removed")


def last(path: PurePath) -> Logged | None:
    """The newest state in the log."""
    found = deque(states(path), maxlen=1)
    return found[0] if found else None


def last_sequence(path: PurePath) -> int | None:
    """The number of the newest change, read from the end of the file; None without a whole last line."""
    line = last_line(path)
    if not line:
        return None
    try:
        sequence = json.loads(line)["sequence"]
    except (ValueError, KeyError, TypeError):
        return None
    return sequence if isinstance(sequence, int) else None


def last_line(path: PurePath) -> bytes:
    """The last line of a file, however long the file is; b"" where there is none."""
    try:
        file = storage_of(path).open(path)
    except FileNotFoundError:
        return b""
    with file:
        start, tail = file.seek(0, os.SEEK_END), b""
        while start and b"\n" not in tail.rstrip(b"\n"):
            start = max(start - (64 << 10), 0)
            file.seek(start)
            tail = file.read()
    return tail.rstrip(b"\n").rpartition(b"\n")[2]


def append(path: PurePath, state: FeedState, before: FeedState | None, change: Change | None) -> None:
    """Add a line, unless the log has it already.

    Args:
        before: the state that this one follows, where it is known and is the log's last line.
        change: what was changed; None for a state that was rebuilt.
    """
    logged = last_sequence(path)
    if logged == state.sequence:
        return
    storage_of(path).close(path.parent, CLOSED)
    now = described(state)
    whole = before is None or logged != before.sequence or state.sequence % WHOLE == 0
    line = now if whole or before is None else _delta(described(before), now)
    if change is not None:
        line[CHANGE] = {"kind": change.kind, "at": change.at, **_paths(change)}
    storage_of(path).append(path, json.dumps(line, ensure_ascii=False).encode(), RESTRICTED)


def _paths(change: Change) -> dict[str, list[str] | None]:
    """The paths of a change's files; None where there are many: whoever missed the change reads the whole state."""
    both = {"added": change.added, "removed": change.removed}
    return {key: [file.path for file in files] if len(files) <= LISTED else None for key, files in both.items()}


def described(state: FeedState) -> dict[str, Any]:
    """A state as it is written in a line."""
    return {key: value for key, value in state.described().items() if key not in LEFT_OUT}


def _delta(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The differences from which `_apply` makes `now` out of `before`."""
    line: dict[str, Any] = {"sequence": now["sequence"], AFTER: before["sequence"]}
    for key, value in now.items():
        old = before.get(key)
        if value == old and key in before:
            continue
        if key in LISTS and isinstance(old, list) and (kept := _kept(old, value)) is not None:
            line[f"{key}_added"] = value[kept:]
            if kept < len(old):
                line[f"{key}_dropped"] = len(old) - kept
        elif key in TABLES and isinstance(old, dict):
            line[f"{key}_set"] = {name: one for name, one in value.items() if old.get(name) != one}
            if gone := [name for name in old if name not in value]:
                line[f"{key}_{GONE}"] = gone
        else:
            line[key] = value
    if gone := [key for key in before if key not in now]:
        line[GONE] = gone
    return line


def _kept(old: list[Any], new: list[Any]) -> int | None:
    """How many of the old list's last items the new list begins with; the rest of the new list was appended."""
    for dropped in (0, 1):
        kept = len(old) - dropped
        if kept >= 0 and new[:kept] == old[dropped:]:
            return kept
    return None


def _folded(path: PurePath) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    folded: dict[str, Any] | None = None
    for line in _lines(path):
        if AFTER in line:
            follows = folded is not None and folded["sequence"] == line[AFTER]
            folded = _apply(folded, line) if folded is not None and follows else None
        else:
            held = (folded or {}).get("quarantine")
            folded = {key: value for key, value in line.items() if key not in (CHANGE, "quarantine_added")}
            if "quarantine" not in line and held is not None:  # earlier versions said only what was new
                folded["quarantine"] = [*held, *line.get("quarantine_added", ())]
        yield line, folded


def _apply(before: dict[str, Any], line: Mapping[str, Any]) -> dict[str, Any]:
    folded = dict(before)
    for key in line.get(GONE, ()):
        folded.pop(key, None)
    for key in LISTS:
        if f"{key}_added" in line:
            folded[key] = [*before[key][line.get(f"{key}_dropped", 0):], *line[f"{key}_added"]]
    for key in TABLES:
        if f"{key}_set" in line:
            gone = set(line.get(f"{key}_{GONE}", ()))
            kept = {name: one for name, one in before[key].items() if name not in gone}
            folded[key] = kept | line[f"{key}_set"]
    marks = {AFTER, GONE, CHANGE, *(f"{key}_{end}" for key in LISTS for end in ("added", "dropped")),
             *(f"{key}_{end}" for key in TABLES for end in ("set", GONE))}
    return folded | {key: value for key, value in line.items() if key not in marks}


def _lines(path: PurePath) -> Iterator[dict[str, Any]]:
    try:
        file = storage_of(path).open(path)
    except FileNotFoundError:
        return
    with file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("sequence"), int):
                yield line
