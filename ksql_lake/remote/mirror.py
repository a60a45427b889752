"""The remote's copy of a feed's metadata and of the lake's other small files, replaced after every change here."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.model.entries import FileSet
from ksql_lake.model.state import QUARANTINE, FeedState
from ksql_lake.store import layout, state_log
from ksql_lake.store.dataset import METADATA, Dataset
from ksql_lake.store.layout import STATUSES, feed_file, storage_of
from ksql_lake.store.metadata import as_text
from ksql_lake.store.remote.binding import Binding
from ksql_lake.store.remote.seam import Gone, ObjectStore, Taken

LAKE = "lake"


def key_of(dataset: Dataset, path: str = METADATA) -> str:
    """The key of a feed's file: its path below the lake. Paths of files in quarantine begin there already."""
    return path if is_quarantine(path) else f"{dataset.kind}s/{dataset.feed}/{path}"


def is_quarantine(path: str) -> bool:
    return path.startswith(f"{QUARANTINE}/")


def read(store: ObjectStore, key: str) -> tuple[dict[str, Any] | None, str | None]:
    """(content, ETag) of the metadata in the remote; (None, None) where there are none.

    Raises:
        StateError: they are damaged.
    """
    content = io.BytesIO()
    try:
        etag = store.get(key, content)
    except Gone:
        return None, None
    try:
        told = json.loads(content.getvalue())
        assert isinstance(told["sequence"], int)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise StateError(
            f"{store.url}/{key}: is not a feed's metadata; somebody changed it. Delete that object, and the next push "
            "writes it again"
        ) from None
    return told, etag


def bring_up(dataset: Dataset, state: FeedState, store: ObjectStore, binding: Binding) -> bool:
    """Make the remote's metadata equal to the local one; False when it already is.

    Raises:
        StateError: the remote has more changes than this disk, so this is an old copy of the lake.
        Taken: something else writes there at the same time.
    """
    key = key_of(dataset)
    there, etag = read(store, key)
    if there is not None and there.get(LAKE) != binding.lake:
        raise StateError(f"{store.url}/{key}: belongs to another lake ({there.get(LAKE)})")
    if there is not None and there["sequence"] > state.sequence:
        raise StateError(
            f"{dataset.metadata}: is an old copy: it is at change {state.sequence}, but the remote at "
            f"{there['sequence']}; bring the newer one back into an empty directory with the command `remote restore`"
        )
    if there is not None and there["sequence"] == state.sequence and there.get("run") == state.run:
        return False
    if there is not None:
        _refuse_another_copy(dataset, state, there, store.url)
    _keep_feed(dataset, store)
    store.swap(key, as_text(_for_remote(state, binding)).encode(), etag)
    return True


def _refuse_another_copy(dataset: Dataset, state: FeedState, there: Mapping[str, Any], url: str) -> None:
    """Refuse to continue when two copies of one lake are in use, such as a restored one and its original.

    Raises:
        StateError: the remote's last change was not made by this copy.
    """
    mine: str | None = state.run if there["sequence"] == state.sequence else None
    for logged in state_log.states(dataset.log) if mine is None else ():
        if logged.sequence == there["sequence"]:
            mine = logged.state.get("run")
    if mine is not None and mine != there.get("run"):
        raise StateError(
            f"{dataset.feed}: change {there['sequence']} in {url} was not made by this copy of the lake, so a second "
            "copy is in use. Stop one of the two, and restore the other into an empty directory with the command "
            "`remote restore`"
        )


def _for_remote(state: FeedState, binding: Binding) -> FeedState:
    """All file entries in one object, so that a reader of the remote needs only this one to find them."""
    files = FileSet(replace(file, local=True) for file in state.files if file.remote is not None)
    aside = None if state.quarantine is None else tuple(file for file in state.quarantined if file.remote is not None)
    return replace(state, files=files, quarantine=aside, remote_gone=(), extra={**state.extra, LAKE: binding.lake})


def _keep_feed(dataset: Dataset, store: ObjectStore) -> None:
    for path in (dataset.log, *(feed_file(dataset.lake, dataset.feed, status) for status in STATUSES)):
        keep(store, dataset.lake, path)
    for place, other in (STATUSES, reversed(STATUSES)):
        if dataset.storage.stat(feed_file(dataset.lake, dataset.feed, place)):
            store.purge(f"feeds/{other}/{dataset.feed}.json")


def keep_lake(lake: PurePath, store: ObjectStore) -> None:
    """The lake's own files: rules for later rows of erased persons, receipts, the run history."""
    rules = (layout.erasure_rules(lake), layout.old_erasure_rules(lake))
    # without the last one a restored lake would take rows of another Kafka cluster
    for path in (*rules, layout.runs(lake), layout.kafka_cluster(lake)):
        keep(store, lake, path)
    for path in storage_of(lake).list(layout.receipts(lake), "*.json"):
        keep(store, lake, path)


def keep(store: ObjectStore, lake: PurePath, path: PurePath) -> None:
    """Copy a small file to the remote as it is now; a missing file is skipped."""
    try:
        data = storage_of(lake).read(path)
    except FileNotFoundError:
        return
    key = path.relative_to(lake).as_posix()
    for _ in range(3):
        content = io.BytesIO()
        try:
            etag: str | None = store.get(key, content)
        except Gone:
            etag = None
        if etag is not None and content.getvalue() == data:
            return
        try:
            store.swap(key, data, etag)
            return
        except Taken:
            continue  # the push of another feed wrote the same file of the lake
