"""Restores a whole lake on a new machine from its remote: small files first, so that the lake can be read at once."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ksql_lake.base.errors import ConfigError, RemoteError
from ksql_lake.base.figures import counted
from ksql_lake.base.files import atomic_write, make_dirs
from ksql_lake.model.entries import FileSet
from ksql_lake.model.state import FeedState
from ksql_lake.remote import mirror, turn
from ksql_lake.store import metadata, state_log
from ksql_lake.store.dataset import METADATA, Dataset
from ksql_lake.store.lake import dataset_of
from ksql_lake.store.remote import binding, marker
from ksql_lake.store.remote.binding import Binding
from ksql_lake.store.remote.seam import ObjectStore

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
    if known is None and any(lake.glob("*s/*/" + METADATA)):
        raise ConfigError(f"{lake}: already holds a lake; restore into an empty directory")
    binding.save(lake, Binding(found.lake, store.url))
    keys = [there.key for there in store.list()]
    for key in keys:
        if key.startswith(SMALL) and not (lake / key).exists():
            _copy(lake, store, key)
    for key in keys:
        parts = key.split("/")
        if len(parts) == 3 and parts[0] in ("streams", "tables") and parts[2] == METADATA:
            yield from _feed(lake, store, key, parts[1], parts[0].removesuffix("s"))


def _copy(lake: Path, store: ObjectStore, key: str) -> None:
    content = io.BytesIO()
    store.get(key, content)
    path = lake / key
    closed = key.startswith((".state/", "logs/erasures/"))
    make_dirs(path.parent, 0o750 if key.startswith("logs/erasures/") else 0o755)
    atomic_write(path, content.getvalue(), 0o640 if closed else 0o644)


def _feed(lake: Path, store: ObjectStore, key: str, name: str, kind: str) -> Iterator[str]:
    make_dirs(lake / f"{kind}s")
    dataset = dataset_of(lake, name, kind)
    if dataset.metadata.exists():
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
    for file in state.quarantined:
        path = dataset.in_lake(file.path)
        make_dirs(path.parent.parent)
        make_dirs(path.parent, dataset.dir_mode)
        turn.fetch(store, mirror.key_of(dataset, file.path), file, path)
        path.chmod(dataset.file_mode)


def _shorten_log(dataset: Dataset, state: FeedState) -> None:
    """Drop lines of the state log about changes that are not in the remote's metadata."""
    if not dataset.log.exists():
        return
    lines = dataset.log.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _sequence(line) <= state.sequence]
    if len(kept) < len(lines):
        atomic_write(dataset.log, b"".join(kept), 0o640)


def _sequence(line: bytes) -> int:
    try:
        return int(json.loads(line)["sequence"])
    except (ValueError, KeyError, TypeError):
        return 0
