"""Passes changes on to the observers after their commit: catalogs, metrics, the log of changes.

A commit never fails because of an observer: its failure is a finding, and it catches up the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ksql_lake.base.errors import LakeError
from ksql_lake.model.change import Change
from ksql_lake.model.findings import Finding
from ksql_lake.model.state import FeedState
from ksql_lake.store.dataset import Dataset, Observer

log = logging.getLogger("ksql_lake")


def notify(observers: Sequence[Observer], dataset: Dataset, state: FeedState, change: Change | None) -> list[Finding]:
    """Pass a change on to every observer, or with None let each catch up; a finding for each that failed."""
    failed = []
    for observer in observers:
        try:
            if change is None:
                observer.catch_up(dataset, state)
            else:
                observer.committed(dataset, state, change)
        except (LakeError, OSError) as error:
            failed.append(_failed(dataset, observer, str(error)))
        except Exception as error:
            log.exception("%s: %s failed", dataset.feed, observer.name)
            failed.append(_failed(dataset, observer, f"{type(error).__name__}: {error}"))
    return failed


def _failed(dataset: Dataset, observer: Observer, why: str) -> Finding:
    return Finding("run", f"{observer.name}: {why}; the lake itself is up to date", feed=dataset.feed)
