"""Where a feed's bytes are, and what is still to be uploaded or deleted; from the metadata alone."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from ksql_lake.base.figures import counted
from ksql_lake.model.findings import Finding
from ksql_lake.model.state import FeedState
from ksql_lake.remote import plans
from ksql_lake.remote.plans import Policy

LATE = dt.timedelta(hours=26)  # a nightly push should have run by then


@dataclass(frozen=True)
class Standing:
    """Bytes and files of one feed, of a lake that has a remote.

    Attributes:
        oldest_unpushed: when the oldest file that is not in the remote was exported, ISO 8601.
        due_bytes: what should leave this disk according to `local_days`.
        late_files: not in the remote yet, though their day is only there: SQL engines miss their rows.
        to_delete: removed files whose objects are waiting to be deleted.
    """

    local_bytes: int
    remote_bytes: int
    unpushed_files: int
    oldest_unpushed: str | None
    due_bytes: int
    late_files: int
    to_delete: int


def standing(feed: str, state: FeedState, policy: Policy, now: dt.datetime) -> Standing:
    """The present figures of a feed; reads every file's entry.

    Args:
        now: the present time, with a time zone.
    """
    files = list(state.files)
    unpushed = plans.unpushed(state)
    away = {file.partition for file in files if not file.local}
    return Standing(
        sum(file.bytes for file in files if file.local), sum(file.bytes for file in files if file.remote is not None),
        len(unpushed), min((file.exported_at for file in unpushed), default=None),
        plans.drop(feed, state, policy, plans.today_of(state, now)).bytes,
        sum(file.partition in away and file.remote is None for file in files), len(state.remote_gone),
    )


def findings(feed: str, stands: Standing, now: dt.datetime) -> list[Finding]:
    """What a person should know of it."""
    found = []
    push = f"python manage_feeds.py remote push {feed}"
    if stands.late_files:
        late = counted(stands.late_files, "late file")
        found.append(Finding(
            "remote", f"{late} of days that are only in the remote not pushed yet: Spark, Hive, Athena and BigQuery "
                      f"miss their rows; {push}", feed=feed,
        ))
    oldest = stands.oldest_unpushed
    if oldest and now - dt.datetime.fromisoformat(oldest) > LATE:
        found.append(Finding(
            "remote", f"{stands.unpushed_files:,} files are not in the remote yet, the oldest of {oldest}; {push}",
            feed=feed,
        ))
    return found


def places_of(state: FeedState) -> dict[str, str]:
    """Partition -> "remote" if one of its files is only there, "both" if every file is in both places, else "here"."""
    found: dict[str, str] = {}
    for file in state.files:
        place = "remote" if not file.local else "here" if file.remote is None else "both"
        before = found.get(file.partition, place)
        found[file.partition] = min(before, place, key=("remote", "here", "both").index)
    return found
