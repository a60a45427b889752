"""Where one feed is in a lake, and the observers of its changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ksql_lake.model.change import Change
from ksql_lake.model.state import QUARANTINE, FeedState

METADATA = "_metadata.json"
MANIFESTS = "_manifests"
TRASH = ".trash"


class Observer(Protocol):
    """Something that follows a feed's changes after their commit: a catalog, metrics, the log of changes."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    def committed(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        """A change was committed. Called with the feed's lock held; may be called again for the same change."""

    def catch_up(self, dataset: Dataset, state: FeedState) -> None:
        """Catch up on changes that were missed, as after a crash; called when an export of the feed begins."""


@dataclass(frozen=True)
class Dataset:
    """Where one feed is in the lake, and the file modes there."""

    lake: Path
    feed: str
    kind: str
    restricted: bool = False
    observers: tuple[Observer, ...] = field(default=(), compare=False)

    @property
    def directory(self) -> Path:
        return self.lake / f"{self.kind}s" / self.feed

    def file(self, path: str) -> Path:
        """The place of a file or a partition of the feed on this disk, by its path in the metadata."""
        return self.directory / path

    def in_lake(self, path: str) -> Path:
        """The same for files in quarantine, whose paths in the metadata are relative to the lake."""
        return self.lake / path

    @property
    def quarantine(self) -> Path:
        return self.lake / QUARANTINE / self.feed

    @property
    def metadata(self) -> Path:
        return self.directory / METADATA

    @property
    def staging(self) -> Path:
        return self.lake / ".staging" / self.feed

    @property
    def lock(self) -> Path:
        return self.lake / ".state" / f"{self.feed}.lock"

    @property
    def log(self) -> Path:
        return self.lake / ".state" / f"{self.feed}.jsonl"

    @property
    def manifests(self) -> Path:
        return self.directory / MANIFESTS

    @property
    def dir_mode(self) -> int:
        return 0o750 if self.restricted else 0o755

    @property
    def file_mode(self) -> int:
        return 0o640 if self.restricted else 0o644


@dataclass(frozen=True)
class Move:
    """One rename of a commit; both paths are relative to the lake."""

    source: str
    target: str

    @classmethod
    def of(cls, dataset: Dataset, source: Path, target: Path) -> Move:
        """From whole paths inside the lake."""
        return cls(str(source.relative_to(dataset.lake)), str(target.relative_to(dataset.lake)))
