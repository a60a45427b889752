"""Files between this disk and an object store: downloads that are looked at, and checksums."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import BinaryIO

from ksql_lake.base.errors import RemoteError
from ksql_lake.base.files import make_dirs
from ksql_lake.model.entries import FileEntry
from ksql_lake.store.remote.seam import Gone, ObjectStore

PIECE = 1 << 20  # bytes


def fetch(store: ObjectStore, key: str, file: FileEntry, path: Path) -> None:
    """Download one file of the lake and check that it is the one that was uploaded.

    Raises:
        RemoteError: it is gone, archived or altered.
    """
    make_dirs(path.parent)
    with path.open("w+b") as sink:
        try:
            store.get(key, sink)
        except Gone:
            raise Gone(f"{store.url}/{key}: missing, though the metadata lists it; see: remote verify") from None
        size, found = checksum(sink)
    if (size, found) != (file.bytes, file.crc32):
        raise RemoteError(f"{store.url}/{key}: is not what was uploaded (its checksum differs); see: remote verify")


def checksum(file: BinaryIO) -> tuple[int, int]:
    """Bytes and CRC-32 of an open file, from its start."""
    size, found = 0, 0
    file.seek(0)
    while piece := file.read(PIECE):
        size, found = size + len(piece), zlib.crc32(piece, found)
    return size, found


def md5(path: Path) -> bytes:
    """The MD5 of a file on this disk."""
    found = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.digest()
