"""What an object store must be able to do for a lake, and the exceptions for when it cannot.

A key is relative to the remote's prefix and looks like a path below the lake: `streams/clicks/year=2025/...`.
Every method can be repeated: it checks the object to distinguish a conflict from a success whose answer was lost.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ksql_lake.base.errors import RemoteError

if TYPE_CHECKING:
    import pyarrow.fs

SINGLE = 64 << 20  # bytes; larger files go up in parts
RETRIES = 6  # of one request, with a longer pause each time, also for a store that says "slow down"


class Gone(RemoteError):
    """There is no object under this key."""


class Taken(RemoteError):
    """There is a different object under this key, or it changed since it was read."""


class Archived(RemoteError):
    """The object is in a tier that must be restored before it can be read."""


class Refused(RemoteError):
    """The store refuses: credentials, rights, no such bucket, the clock, a checksum that differs. Do not retry."""


class Away(RemoteError):
    """The store did not answer, or asked us to slow down until we gave up: the same request may succeed later."""


@dataclass(frozen=True)
class Stat:
    """What a store knows about an object, without its content.

    Args:
        size: bytes.
        crc32: as the store keeps it; None where it was never given (an object of somebody else, or from a listing).
        md5: of the content, where the store keeps one (Azure).
        tier: in the store's own words, such as STANDARD, GLACIER, Hot or Archive.
        archived: it cannot be read now.
        restoring: a restore was asked for and is not done.
    """

    key: str
    size: int
    etag: str
    crc32: int | None = None
    md5: bytes | None = None
    tier: str = ""
    archived: bool = False
    restoring: bool = False
    modified: dt.datetime | None = None

    def holds(self, size: int, crc32: int) -> bool:
        """Whether the content has this size and checksum."""
        return self.size == size and self.crc32 == crc32


class ObjectStore(Protocol):
    """The ten methods. All may raise Refused and Away; each names what else it raises."""

    @property
    def url(self) -> str:
        """The remote as a person writes it, for messages: s3://bucket/prefix."""

    def create(self, key: str, path: Path, crc32: int, tier: str | None = None) -> None:
        """Upload a file to a key where nothing is yet. Whole or not at all; the content must have this CRC-32.

        An object of the same size and checksum that is there already counts as done.

        Raises:
            Taken: another object is there.
            Refused: the file does not have this checksum (it changed on the disk, or on its way).
        """

    def swap(self, key: str, data: bytes, etag: str | None) -> str:
        """Replace a small object, provided it is still the one with `etag` (None: nothing is there); the new ETag.

        The content must differ from every earlier one, as the ETag of some stores is a hash of it.

        Raises:
            Taken: it is another one by now.
        """

    def get(self, key: str, sink: BinaryIO) -> str:
        """Write an object's content into `sink`, which must be able to seek; returns the ETag.

        Raises:
            Gone, Archived.
        """

    def stat(self, key: str) -> Stat:
        """One request, no content.

        Raises:
            Gone.
        """

    def list(self, prefix: str = "") -> Iterator[Stat]:
        """All objects whose key starts with `prefix`, by key; without checksums. Never decide by this, only report."""

    def purge(self, key: str, versions: bool = False) -> tuple[str, ...]:
        """Delete an object, with all earlier versions and snapshots when asked to; a missing object is not an error.

        Returns:
            A line for each thing that stays nevertheless: a locked version, a soft-deleted copy until some day.
        """

    def retier(self, key: str, tier: str) -> None:
        """Move an object to another tier; its content, checksum and key stay.

        Raises:
            Gone, Archived.
        """

    def restore(self, key: str, days: int) -> None:
        """Ask for an archived object to be readable for this many days; takes hours. Asking twice is not an error.

        Raises:
            Gone.
        """

    def abort_stale(self, before: dt.datetime) -> int:
        """Remove the parts of uploads that began before a time and never ended; returns how many there were."""

    def arrow(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """A file system for pyarrow, and what to put before `/<key>` to get a path in it."""
