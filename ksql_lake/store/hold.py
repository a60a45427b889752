"""The right to change one feed: its lock, after a check for links that lead out of the lake."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ksql_lake.base.files import exclusive_lock, make_closed, refuse_links
from ksql_lake.store.metadata import QUARANTINE, TRASH, Dataset


def places(dataset: Dataset) -> tuple[Path, ...]:
    """Every directory and file that any change of a feed may write to."""
    return (
        dataset.lock, dataset.log, dataset.staging, dataset.metadata, dataset.manifests,
        dataset.lake / QUARANTINE / dataset.feed, dataset.lake / TRASH,
    )


@contextlib.contextmanager
def hold(dataset: Dataset, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a feed.

    Raises:
        LakeBusyError: another process holds it and `wait` is False.
        LinkError: a link is in the place of the feed; nothing was touched.
    """
    refuse_links(dataset.lake, places(dataset))
    with exclusive_lock(dataset.lock, dataset.feed, wait=wait):
        make_closed(dataset.lake / ".staging")  # closed to others until it is published, whatever the feed's access
        yield
