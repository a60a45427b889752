"""The right to change one feed: its lock, after a check for links that lead out of the lake."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import PurePath

from ksql_lake.store import layout
from ksql_lake.store.dataset import Dataset


def places(dataset: Dataset) -> tuple[PurePath, ...]:
    """Every directory and file that any change of a feed may write to."""
    return (
        dataset.lock, dataset.log, dataset.staging, dataset.metadata, dataset.manifests,
        dataset.quarantine, layout.trash(dataset.lake),
    )


@contextlib.contextmanager
def hold(dataset: Dataset, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a feed.

    Raises:
        LakeBusyError: another process holds it and `wait` is False.
        LinkError: a link is in the place of the feed; nothing was touched.
    """
    storage = dataset.storage
    storage.guard(dataset.lake, places(dataset))
    with storage.lock(dataset.lock, dataset.feed, wait=wait):
        storage.close(layout.staging(dataset.lake))  # closed to others until it is published, whatever the access
        yield
