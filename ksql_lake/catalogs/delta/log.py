"""The files of a Delta log: versions are read in order and added only where there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from ksql_lake.base.errors import StateError
from ksql_lake.catalogs.delta.actions import Snapshot, Version
from ksql_lake.store import layout
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.layout import storage_of
from ksql_lake.store.storage import Changed, Storage

DIRECTORY = "_delta_log"
_VERSION = re.compile(r"(\d{20})\.json", re.ASCII)


def is_kept(dataset: Dataset) -> bool:
    """Whether a table has a log: then it is kept up to date, whatever the settings say."""
    there = dataset.storage.stat(dataset.file(DIRECTORY))
    return there is not None and there.directory


class DamagedLog(StateError):
    """The log cannot be followed: a version is missing or is not JSON."""


@dataclass(frozen=True)
class Log:
    """The `_delta_log` of one table, and the modes of its files."""

    directory: PurePath
    dir_mode: int = 0o755
    file_mode: int = 0o644

    @property
    def storage(self) -> Storage:
        return storage_of(self.directory)

    def versions(self) -> list[int]:
        """The numbers of the versions that are there."""
        names = (place.name for place in self.storage.list(self.directory))
        return sorted(int(match[1]) for match in map(_VERSION.fullmatch, names) if match)

    def place(self, name: str) -> PurePath:
        """Where a file of the log lies."""
        return layout.at(self.directory, name)

    def path(self, version: int) -> PurePath:
        return self.place(f"{version:020d}.json")

    def replay(self) -> Snapshot:
        """The table after its last version.

        Raises:
            DamagedLog: says which version.
        """
        snapshot = Snapshot()
        for expected, number in enumerate(self.versions()):
            if number != expected:
                raise DamagedLog(f"{self.path(expected)}: is missing, though version {number} is there")
            self.follow(snapshot, number)
        return snapshot

    def newest(self) -> Snapshot:
        """From the last version alone: its number, its sequence number, and whether this tool wrote it.

        Raises:
            DamagedLog: it is not what a version looks like.
        """
        snapshot, numbers = Snapshot(), self.versions()
        if numbers:
            self.follow(snapshot, numbers[-1])
        return snapshot

    def follow(self, snapshot: Snapshot, number: int) -> None:
        """Apply one version's file.

        Raises:
            DamagedLog: it is not what a version looks like.
        """
        try:
            snapshot.apply(number, self.storage.read(self.path(number)).splitlines())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedLog(f"{self.path(number)}: is not a version of a Delta log ({error})") from None

    def put(self, number: int, version: Version) -> bool:
        """Add a version, whole and durable, unless there is one of that number. Call with the feed's lock held.

        Returns:
            False when another writer was faster; then nothing is written.
        """
        self.storage.make(self.directory, self.dir_mode)
        self.clean()
        try:
            self.storage.swap(self.path(number), version.text(), None, self.file_mode)
        except Changed:
            return False
        return True

    def clean(self) -> None:
        """Remove what a run left behind that was killed while writing. Call with the feed's lock held."""
        for pattern in (".*.inprogress", ".*.tmp"):  # the second: of earlier versions
            for left in self.storage.list(self.directory, pattern):
                self.storage.delete(left)
