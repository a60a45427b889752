"""The files of a Delta log: versions are read in order and added only where there is none."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ksql_lake.base.errors import StateError
from ksql_lake.base.files import fsync_dir, make_dirs
from ksql_lake.catalogs.delta.actions import Snapshot, Version

DIRECTORY = "_delta_log"
_VERSION = re.compile(r"(\d{20})\.json", re.ASCII)


def is_kept(table: Path) -> bool:
    """Whether a table has a log: then it is kept up to date, whatever the settings say."""
    return (table / DIRECTORY).is_dir()


class DamagedLog(StateError):
    """The log cannot be followed: a version is missing or is not JSON."""


@dataclass(frozen=True)
class Log:
    """The `_delta_log` of one table, and the modes of its files."""

    directory: Path
    dir_mode: int = 0o755
    file_mode: int = 0o644

    def versions(self) -> list[int]:
        """The numbers of the versions that are there."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for match in map(_VERSION.fullmatch, names) if match)

    def path(self, version: int) -> Path:
        return self.directory / f"{version:020d}.json"

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
            snapshot.apply(number, self.path(number).read_bytes().splitlines())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedLog(f"{self.path(number)}: is not a version of a Delta log ({error})") from None

    def put(self, number: int, version: Version) -> bool:
        """Add a version, whole and durable, unless there is one of that number. Call with the feed's lock held.

        Returns:
            False when another writer was faster; then nothing is written.
        """
        make_dirs(self.directory, self.dir_mode)
        self.clean()
        final = self.path(number)
        temporary = self.directory / f".{final.name}.{os.getpid()}.tmp"
        try:
            _write(temporary, version.text(), self.file_mode)
            try:
                os.link(temporary, final)  # fails where there is such a file, unlike a rename
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        fsync_dir(self.directory)
        return True

    def clean(self) -> None:
        """Remove what a run left behind that was killed while writing. Call with the feed's lock held."""
        for left in self.directory.glob(".*.tmp"):
            left.unlink(missing_ok=True)


def _write(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)
