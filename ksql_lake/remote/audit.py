"""Compares the remote with the metadata: what is missing, altered or unknown, and whether the store can be used."""

from __future__ import annotations

import io
import secrets
import tempfile
from collections.abc import Iterator

from ksql_lake.base.errors import RemoteError
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.state import QUARANTINE
from ksql_lake.remote import mirror
from ksql_lake.remote.turn import Turn
from ksql_lake.store import trash
from ksql_lake.store.dataset import METADATA, Dataset
from ksql_lake.store.remote.address import Address
from ksql_lake.store.remote.seam import Archived, Gone, ObjectStore, Stat, Taken
from ksql_lake.store.remote.transfer import checksum


def in_trash(dataset: Dataset) -> set[str]:
    """Paths of files that can still be brought back."""
    return {file.path for bundle in trash.bundles(dataset.lake, dataset.feed) for file in bundle.every}


def verify(turn: Turn, *, deep: bool = False) -> Iterator[str]:
    """A line for each object that is missing, altered or unknown.

    Args:
        deep: read every object; else the store's own size and checksum are compared.
    """
    prefix = mirror.key_of(turn.dataset, "")
    there = _listed(turn)
    for file in (*turn.state.files, *turn.state.quarantined):
        if file.remote is None:
            continue
        key = turn.key(file)
        line = _look(turn, file, there.get(key))
        if line is None and deep:
            line = _read(turn, file)
        if line is not None:
            yield f"{turn.store.url}/{key}: {line}"
    if prefix + METADATA not in there:
        yield f"{turn.store.url}/{prefix}{METADATA}: missing; write it again with: python manage_feeds.py remote push"
    for key in unknown(turn, there):
        yield (f"{turn.store.url}/{key}: unknown, it is in no feed's metadata; delete it with: python "
               "manage_feeds.py remote "
               f"purge {turn.dataset.feed} --unknown")


def _look(turn: Turn, file: FileEntry, listed: Stat | None) -> str | None:
    if listed is None:
        return f"missing, {_what_now(file)}"
    if listed.size != file.bytes:
        return f"altered, it has {listed.size:,} bytes, the metadata says {file.bytes:,}; {_what_now(file)}"
    try:
        found = turn.store.stat(turn.key(file))
    except Gone:
        return f"missing, {_what_now(file)}"
    if found.crc32 is None:
        return f"altered, or uploaded by another tool: the store has no checksum of it; {_what_now(file)}"
    if found.crc32 != file.crc32:
        return f"altered, its checksum differs from the one in the metadata; {_what_now(file)}"
    return None


def _what_now(file: FileEntry) -> str:
    if not file.local:
        return "and it is nowhere else; look for an older version of the object in the bucket"
    return "but it is on this disk; send it again with: python manage_feeds.py remote push --repair"


def _read(turn: Turn, file: FileEntry) -> str | None:
    with tempfile.TemporaryFile() as content:  # a file may be larger than the memory
        try:
            turn.store.get(turn.key(file), content)
        except Archived:
            return f"is archived in {file.remote.tier if file.remote else '?'}, so it was not read"
        found = checksum(content)
    if found != (file.bytes, file.crc32):
        return f"altered, the checksum of its content differs from the one in the metadata; {_what_now(file)}"
    return None


def unknown(turn: Turn, listed: dict[str, Stat] | None = None) -> list[str]:
    """The feed's keys that belong neither to its files nor to what is waiting to be deleted."""
    prefix = mirror.key_of(turn.dataset, "")
    there = listed if listed is not None else _listed(turn)
    known = {turn.key(file) for file in (*turn.state.files, *turn.state.quarantined)} | {prefix + METADATA}
    known |= {mirror.key_of(turn.dataset, gone.path) for gone in turn.state.remote_gone}
    return sorted(set(there) - known)


def _listed(turn: Turn) -> dict[str, Stat]:
    """What the remote has of the feed; its quarantine is listed only if it ever had one."""
    aside = f"{QUARANTINE}/{turn.dataset.feed}/"
    places = [mirror.key_of(turn.dataset, ""), *([aside] if turn.state.quarantine is not None else [])]
    return {found.key: found for place in places for found in turn.store.list(place)}


def check(store: ObjectStore, address: Address) -> Iterator[str]:
    """Try every permission with one small test object; a line for each result.

    Raises:
        RemoteError: what does not work.
    """
    key = f"_check_{secrets.token_hex(6)}"
    first = store.swap(key, b"1", None)
    yield f"{store.url}: an object can be written"
    try:
        for words, etag in (("an object that is there", None), ("an object that changed", f'"{"0" * 32}"')):
            try:
                store.swap(key, b"3", etag)
            except Taken:
                continue
            raise RemoteError(f"{store.url}: replaces {words} in spite of the condition; a lake is not safe there")
        store.swap(key, b"2", first)
        yield "conditional writes: work"
        content = io.BytesIO()
        store.get(key, content)
        store.stat(key)
        assert key in [found.key for found in store.list(key)]
        yield "reading and listing: work"
    finally:
        kept = store.purge(key, versions=True)
    yield from kept
    yield "deleting, with all versions: works" if not kept else "deleting: something stays, see above"
    describe = getattr(store, "describe", None)
    if describe is not None:
        yield from describe()
