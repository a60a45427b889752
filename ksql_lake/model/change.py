"""What one commit did to a feed; observers get it after the commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ksql_lake.model.entries import FileEntry
from ksql_lake.model.state import FeedState

Json = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What one commit did to a feed; observers get it after the commit.

    Attributes:
        kind: export, retention, erase, compact, rollback, pin, undo, quarantine, rebuild, reload, reset.
        at: when, ISO 8601 UTC.
        schema: whether the columns changed.
    """

    kind: str
    sequence: int
    run: str
    at: str
    added: tuple[FileEntry, ...] = ()
    removed: tuple[FileEntry, ...] = ()
    schema: bool = False
    by: str = ""
    what: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Change:
        known = {f.name: value[f.name] for f in fields(cls) if f.name in value}
        files = {key: tuple(map(FileEntry.from_json, known.get(key, ()))) for key in ("added", "removed")}
        return cls(**{**known, **files})

    def to_json(self) -> Json:
        files = {"added": [f.to_json() for f in self.added], "removed": [f.to_json() for f in self.removed]}
        return {**vars(self), **files}


def with_files(change: Change, state: FeedState) -> Change:
    """A change with the files that a state has added and removed since its last commit."""
    return replace(change, added=tuple(state.files.added), removed=tuple(state.files.removed))
