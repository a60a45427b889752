"""Decides what is too old to keep, with reasons, and then moves it to the trash.

`plan` is a pure function of the metadata, the feed's rule and the time. A file that is in no metadata is never touched.
Quarantined rows belong to their day of a stream.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from zoneinfo import ZoneInfo

from ksql_lake.base.figures import counted
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.partitions import parse_day, parse_version
from ksql_lake.model.state import FeedState
from ksql_lake.store import journal, layout, trash
from ksql_lake.store.dataset import Dataset

GUARDS = ("clock", "stale", "amount")
NIGHTS = 3  # days on which a plan is refused and reported; after that it is carried out, as the rule asks
REFUSED = "retention_refused"  # in the metadata: {"rule": ..., "days": [...]}
CONFIRMED = "future_days"  # in the metadata: partitions in the future that did not keep a plan from being carried out


@dataclass(frozen=True)
class Rule:
    """What a feed keeps. `None` keeps everything. `allow` names the guards (`GUARDS`) that an operator has lifted.

    Args:
        days: streams: a day is removed when it ended more than this many days ago.
        versions: tables: how many of the newest versions stay, besides the current and the pinned ones.
        max_share: of the feed's bytes; a plan that would remove more is refused.
    """

    days: int | None = None
    versions: int | None = None
    max_share: float = 0.3
    allow: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return f"{self.days} days, {self.versions} versions"


@dataclass(frozen=True)
class Decision:
    """What becomes of one partition, and why."""

    partition: str
    goes: bool
    reason: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """All decisions about one feed, oldest first. With a refusal nothing is removed, whatever the decisions say.

    `ends`: the refusal ends after `NIGHTS` days, each of which is recorded.
    """

    feed: str
    decisions: tuple[Decision, ...]
    refusal: str | None = None
    ends: bool = False

    @property
    def going(self) -> tuple[Decision, ...]:
        return () if self.refusal else tuple(decision for decision in self.decisions if decision.goes)

    @property
    def rows(self) -> int:
        return sum(decision.rows for decision in self.going)

    @property
    def bytes(self) -> int:
        return sum(decision.bytes for decision in self.going)


def plan(feed: str, state: FeedState, rule: Rule, now: dt.datetime) -> Plan:
    """What goes, what stays, and why.

    Args:
        now: the present time, with a time zone.
    """
    if state.is_table:
        decisions = _versions(state, rule.versions)
    else:
        decisions = _days(state, rule.days, now)
    refusal, ends = _refusal(feed, state, decisions, rule, now)
    return Plan(feed, tuple(decisions), refusal, ends)


def _partitions(state: FeedState) -> dict[str, tuple[int, int]]:
    """Rows and bytes of each partition, in the order of the metadata."""
    return {partition.path: (partition.records, partition.bytes) for partition in state.partitions}


def _set_aside(state: FeedState) -> dict[str, tuple[int, int]]:
    """Rows and bytes in quarantine, by partition."""
    found: dict[str, tuple[int, int]] = {}
    _count(state.quarantined, found)
    return found


def _count(files: Iterable[FileEntry], found: dict[str, tuple[int, int]]) -> None:
    for file in files:
        rows, size = found.get(file.partition, (0, 0))
        found[file.partition] = (rows + file.rows, size + file.bytes)


def _days(state: FeedState, keep: int | None, now: dt.datetime) -> list[Decision]:
    today = now.astimezone(ZoneInfo(state.timezone)).date()
    partitions, aside = _partitions(state), _set_aside(state)
    decisions = []
    for path in sorted({*partitions, *aside}):
        (rows, size), (rows_aside, size_aside) = partitions.get(path, (0, 0)), aside.get(path, (0, 0))
        day = parse_day(path)
        if keep is None:
            goes, reason = False, "no retention_days"
        elif day is None:
            goes, reason = False, "not a day of ours"
        else:
            age = (today - day).days
            goes = age > keep
            days = counted(abs(age), "day")
            reason = f"{days} old, {keep} are kept" if age >= 0 else f"{days} in the future"
        if path in aside:
            reason += f"; {rows_aside:,} of its rows are in quarantine"
        decisions.append(Decision(path, goes, reason, rows + rows_aside, size + size_aside))
    return decisions


def _versions(state: FeedState, keep: int | None) -> list[Decision]:
    partitions = _partitions(state)
    current = state.current.path if state.current else None
    pinned = set(state.pinned)
    numbers = sorted((number for path in partitions if (number := parse_version(path)) is not None), reverse=True)
    newest = set(numbers[:keep])
    decisions = []
    for path, (rows, size) in partitions.items():
        number = parse_version(path)
        goes = False
        if keep is None:
            reason = "no retention_versions"
        elif number is None:
            reason = "not a version of ours"
        elif path == current:
            reason = "the current version"
        elif f"v{number}" in pinned:
            reason = "pinned"
        elif number in newest:
            reason = "the newest version" if number == numbers[0] else f"one of the newest {keep}"
        else:
            goes, reason = True, f"{sum(other > number for other in numbers)} newer versions, {keep} are kept"
        decisions.append(Decision(path, goes, reason, rows, size))
    return decisions


def _refusal(
    feed: str, state: FeedState, decisions: list[Decision], rule: Rule, now: dt.datetime
) -> tuple[str | None, bool]:
    """Why the plan as a whole must not be carried out, None when it may; and whether that ends without an operator."""
    going = [decision for decision in decisions if decision.goes]
    if not going:
        return None, False
    # The next good export ends these two.
    lasting = ("clock" not in rule.allow and _behind(feed, state, now)) or (
        "stale" not in rule.allow and _stale(feed, state, rule, now)
    )
    if lasting:
        return lasting, False
    doubt = ("clock" not in rule.allow and _in_the_future(feed, state, now)) or (
        "amount" not in rule.allow and _too_much(feed, decisions, going, rule)
    )
    left = NIGHTS - len([day for day in refused_days(state, rule) if day < f"{now:%Y-%m-%d}"])
    if not doubt or left <= 0:
        return None, False
    days = f"{left} more {'day' if left == 1 else 'days'}"
    return f"{doubt}; unless the rule changes, it is carried out after {days}", True


def refused_days(state: FeedState, rule: Rule) -> list[str]:
    """The consecutive days on which this rule was refused, UTC."""
    known = state.extra.get(REFUSED)
    if not isinstance(known, dict) or known.get("rule") != rule.name:
        return []
    return [str(day) for day in known.get("days", ())]


def remember(dataset: Dataset, state: FeedState, decided: Plan, rule: Rule, run: str, *, now: str, by: str) -> None:
    """Record that the plan was refused today. Call with the feed's lock held.

    A day in the future is dropped: the clock was wrong then. When a plan is carried out, the whole record is dropped.
    """
    before, today = refused_days(state, rule), now[:10]
    days = [*(day for day in before if day < today), today]
    if decided.ends and days != before:
        state.extra = {**state.extra, REFUSED: {"rule": rule.name, "days": days[-NIGHTS:]}}
        what = f"retention: refused, {len(decided.decisions)} partitions stay"
        journal.amend(dataset, run, state, (), kind="retention", now=now, by=by, what=what)


def _behind(feed: str, state: FeedState, now: dt.datetime) -> str | None:
    last = state.last_export
    if last and _moment(last) > now:
        return f"{feed}: the last export was at {last}, which is in the future by this machine's clock; set the clock"
    return None


def _in_the_future(feed: str, state: FeedState, now: dt.datetime) -> str | None:
    # Days of the lake only: an impossible time is a good reason to quarantine a row.
    known = state.extra.get(CONFIRMED) or ()
    days = [day for path in _partitions(state) if path not in known and (day := parse_day(path)) is not None]
    if state.is_table or not days:
        return None
    today = now.astimezone(ZoneInfo(state.timezone)).date()
    if max(days) <= today:
        return None
    return (
        f"{feed}: its newest day is {max(days)} and today is {today}: is this machine's clock right? If the events are "
        "wrong and the clock is right: python manage_feeds.py retention --allow clock"
    )


def _stale(feed: str, state: FeedState, rule: Rule, now: dt.datetime) -> str | None:
    last = state.last_export
    if state.is_table or not last or rule.days is None or now - _moment(last) <= dt.timedelta(days=rule.days):
        return None
    return (
        f"{feed}: its last good export was at {last}, longer ago than the {rule.days} days it keeps, so retention "
        "would remove all of it; export it first, or: python manage_feeds.py retention --allow stale"
    )


def _too_much(feed: str, decisions: list[Decision], going: list[Decision], rule: Rule) -> str | None:
    # One partition may go every night, even where a feed keeps so few that one is a large share.
    total = sum(decision.bytes for decision in decisions)
    share = sum(decision.bytes for decision in going) / total if total else 1.0
    if len(going) <= 1 or share <= rule.max_share:
        return None
    return (
        f"{feed}: {len(going)} of {len(decisions)} partitions, {share:.0%} of its bytes, would go, and "
        f"{rule.max_share:.0%} is the most at a time; look at: python manage_feeds.py retention "
        f"--dry-run, then say --max-delete {min(int(share * 100) + 1, 100)}"
    )


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def apply(dataset: Dataset, state: FeedState, decided: Plan, run: str, *, now: str, by: str) -> list[PurePath]:
    """Move what the plan removes to the trash. Call with the feed's lock held, on the state the plan was made from.

    Returns:
        Partitions that stay because a link is in the way.
    """
    wanted = {decision.partition for decision in decided.going}
    held = _set_aside(state) if dataset.kind == "stream" else {}
    closed = _leads_out(dataset, dataset.quarantine)
    linked = {path for path in wanted if _leads_out(dataset, dataset.file(path)) or (closed and path in held)}
    wanted -= linked
    if wanted:
        _confirm(state, now)
        what = f"retention: {len(wanted)} partitions into the trash"
        trash.put(dataset, state, wanted, run, now=now, by=by, what=what, why="retention")
    return [dataset.file(partition) for partition in sorted(linked)]


def _confirm(state: FeedState, now: str) -> None:
    """A plan is carried out: drop the record of refusals; its days in the future no longer cause one."""
    today = _moment(now).astimezone(ZoneInfo(state.timezone)).date()
    future = [path for path in _partitions(state) if (day := parse_day(path)) is not None and day > today]
    kept = {key: value for key, value in state.extra.items() if key not in (REFUSED, CONFIRMED)}
    state.extra = kept | ({CONFIRMED: future} if future and not state.is_table else {})


def _leads_out(dataset: Dataset, place: PurePath) -> bool:
    """Whether a link is on the path to a partition, or in it: which may lead out of the lake."""
    return any(layout.leads_out(dataset.lake, one) for one in (place, *dataset.storage.list(place)))
