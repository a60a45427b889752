"""Who is told of a change after its commit: catalogs, metrics, a remote home of the lake.

A commit never fails because of an observer: what one could not do is a message, and it catches up the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ksql_lake.base.errors import LakeError
from ksql_lake.model.state import Change, FeedState

if TYPE_CHECKING:
    from ksql_lake.store.metadata import Dataset

log = logging.getLogger("ksql_lake")


class Observer(Protocol):
    """Somebody who wants to know what changed in a feed."""

    name: str

    def committed(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        """A change was committed. Called with the feed's lock held; may be called again for the same change."""

    def catch_up(self, dataset: Dataset, state: FeedState) -> None:
        """Bring up to date what changes were missed, as after a crash; called as a feed's turn begins."""


def tell(observers: Sequence[Observer], dataset: Dataset, state: FeedState, change: Change | None) -> list[str]:
    """Tell every observer of a change, or with None let each catch up; a line for each that failed."""
    failed = []
    for observer in observers:
        try:
            if change is None:
                observer.catch_up(dataset, state)
            else:
                observer.committed(dataset, state, change)
        except (LakeError, OSError) as error:
            failed.append(f"{dataset.feed}: {observer.name}: {error}; the lake itself is up to date")
        except Exception as error:
            log.exception("%s: %s failed", dataset.feed, observer.name)
            failed.append(
                f"{dataset.feed}: {observer.name}: {type(error).__name__}: {error}; the lake itself is up to date"
            )
    return failed
