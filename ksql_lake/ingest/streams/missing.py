"""Partitions whose last exported row was not read again: what that means, as far as the source can tell."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from ksql_lake.base.errors import KsqlError, KsqlUnavailable
from ksql_lake.base.retry import delay
from ksql_lake.ingest.streams.anchors import is_row
from ksql_lake.ingest.streams.job import StreamJob
from ksql_lake.model.anchor import Anchor
from ksql_lake.sources.row_source import RowSource

Fate = Literal["there", "gone", "cut off", "unknown"]  # cut off: gone, though rows before it are there
TRIES = 4  # how often to ask when answers are cut off
SILENT, EXPIRED = "silent", "expired"  # how an anchor remembers it


def fates(source: RowSource, anchors: Mapping[int, Anchor], patience: float) -> dict[int, Fate]:
    """Whether the last exported rows of some partitions are still in the topic.

    Args:
        patience: seconds; an attempt that took longer and failed is not repeated.
    """
    found: dict[int, Fate] = dict.fromkeys(anchors, "unknown")
    if not anchors:
        return found
    for tries in range(TRIES):
        started = time.monotonic()
        try:
            there = _there(source, anchors)
        except KsqlUnavailable:
            if time.monotonic() - started > patience:
                break  # it waited in vain for an answer
            time.sleep(delay(tries))
        except KsqlError:
            break
        else:
            return {partition: "there" if partition in there else "gone" for partition in anchors}
    return found


def _there(source: RowSource, anchors: Mapping[int, Anchor]) -> set[int]:
    """The partitions whose last exported row is still in the topic."""
    found: set[int] = set()
    for names, batch in source.at({anchor.rowtime for anchor in anchors.values()}):
        for partition, anchor in anchors.items():
            if partition not in found and any(is_row(batch, row, 1, names, anchor) for row in range(batch.num_rows)):
                found.add(partition)
    return found


def memory(anchor: Anchor, fate: Fate) -> str:
    """How the anchor's fate is recorded, so that no later run waits for it."""
    return EXPIRED if fate == "gone" or (fate == "unknown" and anchor.missing == EXPIRED) else SILENT


def why(partition: int, anchor: Anchor, fate: Fate, job: StreamJob) -> str:
    """What a person should know of such a partition."""
    row, seconds = f"its last exported row (offset {anchor.offset})", job.limits.anchor
    if memory(anchor, fate) == EXPIRED:
        return f"partition {partition} has nothing to read: {row} has expired, and no row has followed it yet"
    head = f"partition {partition} was not read: {row} "
    if fate == "cut off":
        return (
            f"{head}is gone, though rows before it are there: the topic was truncated, or recreated with the same "
            "first rows. If it was recreated, start the feed afresh as well: python manage_feeds.py reset "
            f"{job.dataset.feed}"
        )
    if fate == "there":
        return f"{head}is in the topic, but was not received within {seconds:.0f} s; the next run asks again"
    if anchor.missing:
        return f"{head}is still missing; either its leader is lost or the row expired"
    return f"{head}was not received again within {seconds:.0f} s; either its leader is lost or the row expired"
