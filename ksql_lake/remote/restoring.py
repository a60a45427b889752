"""Restores a whole lake on a new machine from its remote: small files first, so that the lake can be read at once."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ksql_lake.base.errors import ConfigError, RemoteError
from ksql_lake.base.figures import counted
from ksql_lake.model.entries import FileSet
from ksql_lake.model.state import FeedState
from ksql_lake.remote import mirror
from ksql_lake.store import layout, metadata, state_log
from ksql_lake.store.dataset import METADATA, Dataset
from ksql_lake.store.lake import dataset_of
from ksql_lake.store.layout import storage_of
from ksql_lake.store.remote import binding, marker
from ksql_lake.store.remote.binding import Binding
from ksql_lake.store.remote.seam import ObjectStore
from ksql_lake.store.remote.transfer import fetch
from ksql_lake.store.storage import CLOSED, OPEN, RESTRICTED

SMALL = ("feeds/", ".state/", "logs/")  # what is copied as it is


def begin(lake: Path, store: ObjectStore) -> Iterator[str]:
    """Write feeds, receipts, logs and metadata; every file of data is then "only in the remote", to be pulled.

    What an interrupted restore has already written stays as it is.

    Raises:
        ConfigError: the directory holds a different lake.
        RemoteError: there is no lake in the remote.
    """
    found = marker.read(store)
    if found is None:
        raise RemoteError(f"{store.url}: no lake was ever pushed there")
    known = binding.load(lake)
    if known is not None and known != Binding(found.lake, store.url):
        raise ConfigError(f"{lake}: holds a lake with a different remote, {known.url}; restore into an empty directory")
    if known is None and storage_of(lake).list(lake, f"*s/*/{METADATA}"):
        raise ConfigError(f"{lake}: already holds a lake; restore into an empty directory")
    binding.save(lake, Binding(found.lake, store.url))
    keys = [there.key for there in store.list()]
    for key in keys:
        if key.startswith(SMALL) and not storage_of(lake).stat(layout.at(lake, key)):
            _copy(lake, store, key)
    for key in keys:
        parts = key.split("/")
        if len(parts) == 3 and parts[0] in ("streams", "tables") and parts[2] == METADATA:
            yield from _feed(lake, store, key, parts[1], parts[0].removesuffix("s"))


def _copy(lake: Path, store: ObjectStore, key: str) -> None:
    content = io.BytesIO()
    store.get(key, content)
    path, storage = layout.at(lake, key), storage_of(lake)
    closed = key.startswith((".state/", "logs/erasures/"))
    storage.make(path.parent, CLOSED if key.startswith("logs/erasures/") else 0o755)
    storage.put(path, content.getvalue(), RESTRICTED if closed else OPEN)


def _feed(lake: Path, store: ObjectStore, key: str, name: str, kind: str) -> Iterator[str]:
    dataset = dataset_of(lake, name, kind)
    dataset.storage.make(dataset.directory.parent)
    if dataset.storage.stat(dataset.metadata):
        return
    told, _ = mirror.read(store, key)
    if told is None:
        return
    told.pop(mirror.LAKE, None)
    state = FeedState.from_json(told)
    _shorten_log(dataset, state)
    logged = state_log.last(dataset.log)
    gone = logged.typed().remote_gone if logged is not None else ()
    files = FileSet(replace(file, local=False) for file in state.files)
    state = replace(state, files=files, remote_gone=gone)
    _quarantine(dataset, store, state)
    metadata.restore(dataset, state)
    aside = sum(file.rows for file in state.quarantined)
    more = f"; {counted(aside, 'row')} in quarantine fetched" if aside else ""
    yield f"{name}: {counted(state.total_records, 'row')} in {counted(len(files), 'file')} of the remote{more}"


def _quarantine(dataset: Dataset, store: ObjectStore, state: FeedState) -> None:
    """Files in quarantine are always on this disk: fetch them before the metadata lists them, again after a crash."""
    storage = dataset.storage
    storage.close(layout.staging(dataset.lake))
    storage.make(dataset.quarantine.parent)  # of all feeds: open, whatever the feed's access
    for file in state.quarantined:
        staged = dataset.staged("restore", file.path)
        fetch(store, mirror.key_of(dataset, file.path), file, staged)
        storage.move(staged, dataset.in_lake(file.path), dataset.file_mode)
    storage.delete(dataset.staged("restore"))


def _shorten_log(dataset: Dataset, state: FeedState) -> None:
    """Drop lines of the state log about changes that are not in the remote's metadata."""
    if not dataset.storage.stat(dataset.log):
        return
    lines = dataset.storage.read(dataset.log).splitlines(keepends=True)
    kept = [line for line in lines if _sequence(line) <= state.sequence]
    if len(kept) < len(lines):
        dataset.storage.put(dataset.log, b"".join(kept), RESTRICTED)


def _sequence(line: bytes) -> int:
    try:
        return int(json.loads(line)["sequence"])
    except (ValueError, KeyError, TypeError):
        return 0
