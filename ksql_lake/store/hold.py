"""The right to change one feed: its lock, held after a look for links that lead out of the lake."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import PurePath

from ksql_lake.store import layout
from ksql_lake.store.dataset import Dataset


def places(dataset: Dataset) -> tuple[PurePath, ...]:
    """Every directory and file that a change of a feed may write to, whichever change it is."""
    return (
        dataset.lock, dataset.log, dataset.staging, dataset.metadata, dataset.manifests,
        dataset.quarantine, layout.trash(dataset.lake),
    )


@contextlib.contextmanager
def hold(dataset: Dataset, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a feed.

    Raises:
        LakeBusyError: another process holds it and `wait` is False.
        LinkError: a link stands where the feed lies; nothing was touched.
    """
    storage = dataset.storage
    storage.guard(dataset.lake, places(dataset))
    with storage.lock(dataset.lock, dataset.feed, wait=wait):
        storage.close(layout.staging(dataset.lake))  # what is not published yet is nobody else's, whatever the access
        yield
