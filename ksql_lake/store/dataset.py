"""Where one feed is in a lake, and the observers of its changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Protocol

from ksql_lake.base.files import make_file
from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of
from ksql_lake.store.storage import OPEN, RESTRICTED, Storage

METADATA = "_metadata.json"
MANIFESTS = "_manifests"


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
    def storage(self) -> Storage:
        """What reads and changes the files whose places the rest of this class names."""
        return storage_of(self.lake)

    @property
    def directory(self) -> PurePath:
        return layout.directory(self.lake, self.kind, self.feed)

    def file(self, path: str) -> PurePath:
        """The place of a file or a partition of the feed, by its path in the metadata."""
        return self.directory / path

    def local(self, path: str) -> Path:
        """The same for a file that is on this machine's disk, for what reads files by their path."""
        return Path(self.file(path))

    def in_lake(self, path: str) -> PurePath:
        """The same for what in quarantine, whose paths in the metadata are relative to the lake."""
        return self.lake / path

    @property
    def quarantine(self) -> PurePath:
        return layout.quarantine(self.lake) / self.feed

    @property
    def metadata(self) -> PurePath:
        return self.directory / METADATA

    @property
    def staging(self) -> PurePath:
        return layout.staging(self.lake) / self.feed

    def staged(self, run: str, *below: str) -> Path:
        """A place in the staging directory of a run: on this machine's disk, wherever the lake lies."""
        return Path(self.staging, run, *below)

    def scratch(self, run: str, name: str) -> Path:
        """A new, empty file there that nobody else may open, for a library that opens files by name."""
        path = self.staged(run, name)
        make_file(path)
        return path

    @property
    def lock(self) -> PurePath:
        return layout.state(self.lake) / f"{self.feed}.lock"

    @property
    def log(self) -> PurePath:
        return layout.state(self.lake) / f"{self.feed}.jsonl"

    @property
    def manifests(self) -> PurePath:
        return self.directory / MANIFESTS

    def trash(self, day: str, run: str) -> PurePath:
        """Where what a run takes out of the lake on a day (`2025-01-15`) goes."""
        return layout.trash(self.lake) / day / self.feed / run

    @property
    def dir_mode(self) -> int:
        return 0o750 if self.restricted else 0o755

    @property
    def file_mode(self) -> int:
        return RESTRICTED if self.restricted else OPEN


@dataclass(frozen=True)
class Move:
    """One rename of a commit; both paths are relative to the lake."""

    source: str
    target: str

    @classmethod
    def of(cls, dataset: Dataset, source: PurePath, target: PurePath) -> Move:
        """From whole paths inside the lake."""
        return cls(str(source.relative_to(dataset.lake)), str(target.relative_to(dataset.lake)))
