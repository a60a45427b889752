"""Decides which files to upload, drop from this disk, pull, move to another tier or delete, and why; pure functions.

Only whole days of a stream and whole versions of a table move: for SQL engines a partition is in one place.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from ksql_lake.model.entries import FileEntry, Leaving
from ksql_lake.model.partitions import parse_day, parse_version
from ksql_lake.model.state import QUARANTINE, FeedState
from ksql_lake.store.remote.address import LEAST_BYTES, LEAST_DAYS

PART = 64 << 20  # bytes of one request of an upload


@dataclass(frozen=True)
class Policy:
    """The remote settings of a feed's file; None: never."""

    local_days: int | None = None
    tier: str | None = None
    tier_after_days: int | None = None
    retention_days: int | None = None


@dataclass(frozen=True)
class Selection:
    """The partitions that a command names; empty: all."""

    first: dt.date | None = None
    last: dt.date | None = None
    versions: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        return self.first is None and not self.versions

    def has(self, partition: str) -> bool:
        if self.everything:
            return True
        day = parse_day(partition)
        if day is not None:
            return self.first is not None and self.first <= day <= (self.last or self.first)
        return f"v{parse_version(partition)}" in self.versions


ALL = Selection()


@dataclass(frozen=True)
class Part:
    """One partition of a plan: its files, and why they are moved, or why not."""

    partition: str
    files: tuple[FileEntry, ...]
    reason: str
    goes: bool = True

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Plan:
    """What one command would do with one feed, oldest partition first, and the number of requests."""

    feed: str
    verb: str
    parts: tuple[Part, ...]
    requests: dict[str, int] = field(default_factory=dict)
    tier: str | None = None

    @property
    def going(self) -> list[Part]:
        return [part for part in self.parts if part.goes]

    @property
    def files(self) -> list[FileEntry]:
        return [file for part in self.going for file in part.files]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.going)


def push(feed: str, state: FeedState, selection: Selection = ALL) -> Plan:
    """Every file that is not in the remote yet, with those in quarantine."""
    parts = []
    for partition, files in _partitions(state, selection):
        new = tuple(file for file in files if file.remote is None and file.local)
        if new:
            parts.append(Part(partition, new, "not in the remote yet"))
    aside = tuple(file for file in state.quarantined if file.remote is None and selection.has(file.partition))
    if aside:
        parts.append(Part(QUARANTINE, aside, "not in the remote yet"))
    sent = [file for part in parts for file in part.files]
    puts = sum(max(1, -(-file.bytes // PART) + 2 * (file.bytes > PART)) for file in sent)
    return Plan(feed, "push", tuple(parts), {"PUT": puts + bool(sent), "GET": 1})


def drop(feed: str, state: FeedState, policy: Policy, today: dt.date, selection: Selection = ALL) -> Plan:
    """Days that have been over for longer than `local_days`, or those selected, where every file is in the remote."""
    parts = []
    for partition, files in _partitions(state, selection):
        here = tuple(file for file in files if file.local)
        if not here:
            continue
        goes, reason = _may_drop(state, partition, files, policy.local_days, today, selection)
        parts.append(Part(partition, here, reason, goes))
    checked = sum(len(part.files) for part in parts if part.goes)
    return Plan(feed, "drop", tuple(parts), {"HEAD": checked, "PUT": int(checked > 0)})


def _may_drop(
    state: FeedState, partition: str, files: Sequence[FileEntry], keep: int | None, today: dt.date,
    selection: Selection,
) -> tuple[bool, str]:
    unpushed = sum(file.remote is None for file in files)
    if state.is_table and state.current is not None and state.current.path == partition:
        return False, "the current version stays here"
    if selection.everything:
        if keep is None:
            return False, "no local_days"
        age = age_of(state, partition, today)
        if age is None or age <= keep:
            return False, f"{age} days old, {keep} stay here"
        reason = f"{age} days old, {keep} stay here"
    else:
        reason = "asked for"
    if unpushed:
        return False, f"{reason}, but {unpushed} of its files are not in the remote yet; push them first"
    return True, reason


def pull(feed: str, state: FeedState, selection: Selection = ALL) -> Plan:
    """Everything selected that is not on this disk."""
    parts = []
    for partition, files in _partitions(state, selection):
        away = tuple(file for file in files if not file.local)
        if away:
            parts.append(Part(partition, away, "only in the remote"))
    return Plan(feed, "pull", tuple(parts), {"GET": sum(len(part.files) for part in parts), "PUT": int(bool(parts))})


def retier(feed: str, state: FeedState, policy: Policy, today: dt.date, usual: str) -> Plan:
    """Move days that have been over for longer than `tier_after_days` to the feed's tier, where that saves money.

    Args:
        usual: the store's tier of files that were uploaded without one.
    """
    if policy.tier is None or policy.tier_after_days is None:
        return Plan(feed, "retier", ())
    least, parts = LEAST_DAYS.get(policy.tier, 0), []
    for partition, files in _partitions(state, ALL):
        age = age_of(state, partition, today)
        old = tuple(file for file in files if file.remote and (file.remote.tier or usual) != policy.tier)
        if age is None or age <= policy.tier_after_days or not old:
            continue
        large = tuple(file for file in old if file.bytes >= LEAST_BYTES)
        left = None if policy.retention_days is None else policy.retention_days - age
        if left is not None and left < least:
            parts.append(
                Part(partition, old, f"will be removed in {left} days, but {policy.tier} bills at least {least}", False)
            )
        elif not large:
            why = f"its files are small: {policy.tier} bills at least {LEAST_BYTES >> 10} kB for each"
            parts.append(Part(partition, old, why, False))
        else:
            parts.append(Part(partition, large, f"{age} days old, {policy.tier} after {policy.tier_after_days}"))
    moved = sum(len(part.files) for part in parts if part.goes)
    return Plan(feed, "retier", tuple(parts), {"HEAD": moved, "PUT": moved + bool(moved)}, policy.tier)


def due(state: FeedState, trash_days: int, today: dt.date, in_trash: Collection[str] = ()) -> list[Leaving]:
    """What to delete from the remote now: a person's rows at once, the rest once it is no longer in the trash.

    Args:
        in_trash: paths that can still be brought back.
    """
    found = []
    for gone in state.remote_gone:
        age = (today - dt.date.fromisoformat(gone.at[:10])).days
        if gone.purge or (age > trash_days and gone.path not in in_trash):
            found.append(gone)
    return found


def unpushed(state: FeedState) -> list[FileEntry]:
    return [file for file in (*state.files, *state.quarantined) if file.remote is None]


def age_of(state: FeedState, partition: str, today: dt.date) -> int | None:
    """Days since a day ended or a version was exported; None for a partition that is neither."""
    day = parse_day(partition)
    if day is not None:
        return (today - day).days
    if parse_version(partition) is None:
        return None
    known = next((one for one in state.partitions if one.path == partition), None)
    return (today - dt.date.fromisoformat(known.exported_at[:10])).days if known and known.exported_at else None


def today_of(state: FeedState, now: dt.datetime) -> dt.date:
    """The present day in the zone that the feed counts its days in."""
    return now.astimezone(ZoneInfo(state.timezone)).date()


def _partitions(state: FeedState, selection: Selection) -> Iterator[tuple[str, list[FileEntry]]]:
    held: dict[str, list[FileEntry]] = {partition.path: [] for partition in state.partitions}
    for file in state.files:
        held.setdefault(file.partition, []).append(file)
    chosen: Callable[[str], bool] = selection.has
    yield from ((partition, files) for partition, files in held.items() if chosen(partition))
