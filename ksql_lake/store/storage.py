"""What a place for a lake's files must be able to do. The local disk is one (`local_disk.py`).

A file's *place* is its path below the lake's directory. Whoever asks gets places from a `Dataset` or from `layout`
and hands them to a storage; a `PurePath` has no methods that touch a file, so mypy refuses anything else.

Staging is always on the disk of the machine that stages: files are made there and moved to their place by a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ksql_lake.base.errors import StateError

if TYPE_CHECKING:
    import pyarrow.fs
    import pyarrow.parquet as pq

OPEN, RESTRICTED = 0o644, 0o640  # modes of files, for a storage that has modes
CLOSED, PRIVATE = 0o750, 0o700  # modes of directories that are not for everybody


class Changed(StateError):
    """What was to be replaced is not what it was when it was read: somebody else wrote there."""


@dataclass(frozen=True)
class Stat:
    """What a storage says about a file or directory without opening it.

    Attributes:
        modified: seconds since 1970.
        tag: another one whenever the file was replaced.
        closed: it is not for everybody to read.
    """

    size: int
    modified: float
    tag: str = ""
    directory: bool = False
    closed: bool = False


def directory_mode(mode: int) -> int:
    """The mode of a directory for files of this mode: who may read the files may look into it."""
    return mode | (mode & 0o444) >> 2


class Storage(Protocol):
    """The verbs by which the store reads and changes a lake. All raise OSError where the storage refuses."""

    def read(self, place: PurePath) -> bytes:
        """The whole content of a small file.

        Raises:
            FileNotFoundError: it is not there.
        """

    def open(self, place: PurePath) -> BinaryIO:
        """A file for reading from any position, to be closed by the caller; raises as `read`."""

    def parquet(self, place: PurePath) -> pq.ParquetFile:
        """A Parquet file, to be closed by the caller.

        Raises:
            FileNotFoundError: it is not there.
            ArrowException, OSError: it is torn.
        """

    def arrow(self, place: PurePath) -> tuple[pyarrow.fs.FileSystem, str]:
        """A file system of pyarrow and the file's path in it, for scans over many files at once."""

    def stat(self, place: PurePath) -> Stat | None:
        """Size and time of a file or directory; None where there is neither."""

    def list(self, directory: PurePath, pattern: str = "*") -> Sequence[PurePath]:
        """What lies below a directory and matches a pattern such as `*/*.json`, sorted; nothing where it is absent."""

    def walk(self, directory: PurePath) -> Iterator[tuple[str, Sequence[str]]]:
        """All that lies below a directory as (directory below it, names of files), but not what begins with . or _."""

    def put(self, place: PurePath, data: bytes, mode: int = OPEN) -> None:
        """Create or replace a file. A reader sees the old content or the new, also after a power cut."""

    def swap(self, place: PurePath, data: bytes, expected: bytes | None, mode: int = OPEN) -> None:
        """Replace a file as `put` does, provided that it still has the expected content (None: it is not there).

        This is what commits a change: `expected` is what the change was made from. A local disk looks and replaces in
        two steps, so whoever replaces a file there holds the feed's lock; a file that is new is added in one step.

        Raises:
            Changed: it has another content; it stays as it is.
        """

    def append(self, place: PurePath, line: bytes, mode: int = OPEN) -> None:
        """Add a line to a file: the whole of it or nothing. Several processes may append.

        Raises:
            LinkError: the file is a link, or no regular file.
        """

    def make(self, directory: PurePath, mode: int = 0o755) -> None:
        """Create a directory and its parents, where a storage has directories."""

    def close(self, directory: PurePath, mode: int = PRIVATE) -> None:
        """The same for a directory that must not be more open than this, also one that is there already."""

    def move(self, source: PurePath, target: PurePath, mode: int = OPEN) -> None:
        """Move a staged file, or a directory of files, to its place in one step, with this mode and its parents."""

    def delete(self, place: PurePath) -> None:
        """Delete a file, or a directory with all that is in it; what is not there is no error. Links are not followed.

        Raises:
            LinkError: the directory is a link.
        """

    def prune(self, directory: PurePath, top: PurePath) -> None:
        """Remove a directory that is empty, and then its parents that are, up to and without `top`."""

    def lock(self, place: PurePath, what: str, *, wait: bool = False) -> AbstractContextManager[None]:
        """Hold a lock until the block ends or the process dies.

        Args:
            what: is locked, for the message.

        Raises:
            LakeBusyError: another process holds it and `wait` is False; says which and since when.
        """

    def guard(self, lake: PurePath, places: Iterable[PurePath | str]) -> None:
        """Look whether places are where they seem to be, before anything is changed there.

        Raises:
            LinkError: one lies outside the lake, or a link leads out of it.
        """
