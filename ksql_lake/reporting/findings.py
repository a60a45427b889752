"""What is wrong with a feed: reported by its last run, or visible in its metadata."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ksql_lake.base.figures import counted, duration
from ksql_lake.maintain import retention
from ksql_lake.maintain.merges import small_files
from ksql_lake.model.checks import Result
from ksql_lake.model.feeds import Feed
from ksql_lake.model.findings import Finding, read_findings
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import QUARANTINE, FeedState
from ksql_lake.store import history
from ksql_lake.store.history import Run

LATELY = dt.timedelta(days=7)
MANY = 20  # files that a compaction would save; every night leaves fewer
RECENT = 9  # runs that show how often one should come
SHORTEST = 300.0  # seconds between runs; a shorter rhythm is not watched
CLOSED = 2  # days ago that a day must have ended to count its small files
NEAR = dt.timedelta(days=31)  # a day further ahead is an impossible time


def findings_of_runs(feed: str, runs: Sequence[Run], state: FeedState | None) -> list[Finding]:
    """What the last run reported; without a run in the history, what the metadata kept of it."""
    run = runs[-1] if runs else None
    checks = (run.checks if run else ()) or tuple(history.read_checks(state.checks if state else None))
    kept = [one.to_json() for one in state.findings] if state else []
    said = run.findings if run else read_findings(feed, kept)
    found = [finding for finding in said if not _reported_elsewhere(finding, checks)]
    if run and run.result == "failed" and not any(finding.kind != "quality" for finding in found):
        found.append(Finding("failed", "the last run failed", feed=feed))
    return [*_quality(feed, checks), *found]


def _reported_elsewhere(finding: Finding, checks: Sequence[Result]) -> bool:
    """Whether the present state or the results of the checks already report it, with their own figures."""
    if finding.kind in ("retention", "quality"):
        return finding.kind == "retention" or bool(checks)
    reported = any(check.message in finding.message for check in checks)  # by versions that wrote plain text
    return reported or finding.message.startswith("retention: ")


def _quality(feed: str, checks: Sequence[Result]) -> Iterator[Finding]:
    for check in checks:
        if check.failed:
            yield Finding("quality", str(check), "error" if check.level == "fail" else "warning", feed)


def findings_of_state(
    name: str, state: FeedState, feed: Feed | None, now: dt.datetime, max_share: float
) -> list[Finding]:
    """What the metadata shows: days without rows, what retention would remove, small files, new columns.

    Args:
        feed: the rules in force; None for a feed that has none.
        max_share: of the feed's bytes that retention may remove at a time.
    """
    seen = Seen(name, state, feed, now, max_share)
    return [finding for look_for in OF_STATE for finding in look_for(seen)]


@dataclass(frozen=True)
class Seen:
    """What a finding can be seen in: one feed's state, its rules and the time; see `findings_of_state`."""

    name: str
    state: FeedState
    feed: Feed | None
    now: dt.datetime
    max_share: float


def _missing_days(seen: Seen) -> Iterator[Finding]:
    """Days between the first one and the last that have no rows, unless rows were removed from the lake."""
    state = seen.state
    taken = [path for path, whys in state.rows_removed.items() if whys.keys() - {QUARANTINE}]
    removed = {day for path in taken if (day := parse_day(path))}
    days = sorted({day for partition in state.partitions if (day := parse_day(partition.path))} | removed)
    days = [day for day in days if day <= seen.now.date() + NEAR]  # days up to an impossible time are not a gap
    gaps = [(a, b) for a, b in zip(days, days[1:], strict=False) if (b - a).days > 1]
    if gaps:
        count = sum((b - a).days - 1 for a, b in gaps)
        shown = [_span(a + dt.timedelta(days=1), b - dt.timedelta(days=1)) for a, b in gaps[:3]]
        more = f" and {len(gaps) - 3} more times" if len(gaps) > 3 else ""
        yield Finding("gap", f"no rows on {counted(count, 'day')}: {', '.join(shown)}{more}", "warning", seen.name)


def _span(first: dt.date, last: dt.date) -> str:
    return str(first) if first == last else f"{first} to {last}"


def missed(feed: str, runs: Sequence[Run], now: dt.datetime) -> Iterator[Finding]:
    """Whether an expected run did not come: at least three of the last gaps between runs, and three quarters of them,
    were about as long as usual, and the present gap is longer by more than a tenth and an hour."""
    moments = sorted({dt.datetime.fromisoformat(run.started or run.ended) for run in runs if not run.days})[-RECENT:]
    gaps = [(later - earlier).total_seconds() for earlier, later in zip(moments, moments[1:], strict=False)]
    usual = statistics.median(gaps) if len(gaps) >= 3 else 0.0
    alike = sum(abs(gap - usual) <= usual / 4 for gap in gaps)
    if usual < SHORTEST or alike < max(3, len(gaps) * 3 / 4):
        return
    if (now - moments[-1]).total_seconds() > usual * 1.1 + 3600:
        message = f"no run since {history.iso(moments[-1])}; until then one began every {duration(usual)}"
        yield Finding("missed", message, feed=feed)


def _small_files(seen: Seen) -> Iterator[Finding]:
    if seen.state.is_table:
        return
    files, days = small_files(seen.state, CLOSED, seen.now)
    if files - days >= MANY:
        yield Finding(
            "small files",
            f"{files:,} small files on {counted(days, 'day')}; merge: python manage_feeds.py compact {seen.name}",
            feed=seen.name,
        )


def _schema_changes(seen: Seen) -> Iterator[Finding]:
    for entry in seen.state.schema_history[1:]:
        lately = dt.datetime.fromisoformat(entry.at) >= seen.now - LATELY
        if lately or entry.at >= (seen.state.last_export or ""):
            yield Finding("schema", f"new since {entry.at[:10]}: {', '.join(entry.added)}", feed=seen.name)


def _quarantined(seen: Seen) -> Iterator[Finding]:
    rows = sum(entry.rows for entry in seen.state.quarantined)
    if rows:
        command = f"python manage_feeds.py quarantine {seen.name}"
        yield Finding("quarantine", f"{counted(rows, 'row')} in quarantine; {command}", feed=seen.name)


def _retention(seen: Seen) -> Iterator[Finding]:
    if seen.feed is None:
        return
    rule = retention.Rule(seen.feed.retention_days, seen.feed.retention_versions, seen.max_share)
    decided = retention.plan(seen.name, seen.state, rule, seen.now)
    if decided.refusal:
        yield Finding("retention", decided.refusal, "warning", seen.name)
    elif decided.going:
        word = "version" if seen.state.is_table else "day"
        yield Finding(
            "retention",
            f"{counted(len(decided.going), word)}, {decided.rows:,} rows, due to be removed: "
            f"python manage_feeds.py retention {seen.name}", feed=seen.name,
        )


# What is looked for in the state of every feed. To add one, write a function and add its name here.
OF_STATE: tuple[Callable[[Seen], Iterator[Finding]], ...] = (
    _missing_days, _small_files, _schema_changes, _quarantined, _retention,
)
