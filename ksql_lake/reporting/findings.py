"""What is wrong with a feed, by kind: told by its runs, or seen in its metadata."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ksql_lake.maintain import retention
from ksql_lake.maintain.merges import plan as plan_merges
from ksql_lake.model.feeds import Feed
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import QUARANTINE, FeedState
from ksql_lake.store.history import Run

LEVELS = ("error", "warning", "note")
# The worst kind first, each with its level where a finding does not say another.
KINDS = {
    "failed": "error",  # the last run failed
    "metadata": "error",  # _metadata.json cannot be used
    "feed file": "error",  # the feed file cannot be used
    "gap": "error",  # rows expired before they were exported; as a warning: days without any row
    "drift": "error",  # the source and the lake differ, or the topic is another one
    "quality": "error",  # checks of the data that failed
    "stale": "error",  # the newest data are older than freshness_hours
    "files": "error",  # files that no metadata knows
    "run": "warning",  # what else the last run had to say
    "clock": "warning",  # events in the future
    "busy": "warning",  # the last run found the feed's lock held
    "quarantine": "note",  # rows that checks set aside and nobody has looked after
    "retention": "note",  # something is due to go; as a warning: it was refused
    "small files": "note",  # days that are over, in more files than they need
    "schema": "note",  # columns that came lately
}
LATELY = dt.timedelta(days=7)
MANY = 20  # files that a compaction would save; fewer are what every night leaves
CLOSED = 2  # days ago that a day must have ended to count its small files
PATTERNS = (
    ("retention", re.compile(r"too old, but a symbolic link")),
    ("gap", re.compile(r"expired before they were exported|did not come again within")),
    ("drift", re.compile(r"the topic was recreated \(|\d{4}-\d{2}-\d{2}  source +[\d,]+  lake ")),
    ("clock", re.compile(r"clock has not reached yet")),
    ("files", re.compile(r"no metadata knows this file")),
)


@dataclass(frozen=True)
class Finding:
    """One thing to know: `kind` is a key of `KINDS`, `level` one of error, warning, note."""

    kind: str
    message: str
    level: str = ""

    def __post_init__(self) -> None:
        if not self.level:
            object.__setattr__(self, "level", KINDS[self.kind])

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts the worst first."""
        return LEVELS.index(self.level), list(KINDS).index(self.kind)


def findings_of_runs(runs: Sequence[Run], state: FeedState | None) -> list[Finding]:
    """What the last run said; without a run in the history, what the metadata kept of it."""
    run = runs[-1] if runs else None
    checks = list(_quality((run or {}).get("checks") or (state.checks if state else None) or ()))
    if run is None:
        messages = [told.message for told in state.findings] if state else []
        result = "findings"
    else:
        messages, result = [str(message) for message in run.get("findings", ())], str(run.get("result"))
    found = []
    for message in (line for text in messages for line in text.splitlines()):
        if message.startswith("retention: ") or any(check.message in message for check in checks):
            continue  # told from the state as it is now, and with the checks
        kind = {"failed": "failed", "busy": "busy"}.get(result) or _kind(message)
        found.append(Finding(kind, message))
    if result == "failed" and not found:
        found.append(Finding("failed", f"{(run or {}).get('feed')}: the last run failed"))
    return checks + found


def _kind(message: str) -> str:
    return next((kind for kind, pattern in PATTERNS if pattern.search(message)), "run")


def _quality(checks: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    for check in checks:
        if check.get("failed"):
            what = f"{check.get('check', '')} {check.get('column') or ''}".strip()
            said = check.get("message") or f"{check['failed']:,} of {check.get('rows')} rows"
            yield Finding("quality", f"{what}: {said}", "error" if check.get("level") == "fail" else "warning")


def findings_of_state(
    name: str, state: FeedState, feed: Feed | None, now: dt.datetime, max_share: float
) -> list[Finding]:
    """What the metadata show: days without rows, what retention would take, small files, new columns.

    Args:
        feed: the rules in force; None for a feed that has none.
        max_share: of the feed's bytes that retention may take at a time.
    """
    found = [*_missing_days(name, state), *_small_files(name, state, now), *_schema_changes(name, state, now)]
    aside = sum(entry.rows for entry in state.quarantined)
    if aside:
        look = f"python manage_feeds.py quarantine {name}"
        found.append(Finding("quarantine", f"{name}: {_number(aside, 'row')} set aside; {look}"))
    if feed is not None:
        found += _retention(name, state, feed, now, max_share)
    return found


def _missing_days(name: str, state: FeedState) -> Iterator[Finding]:
    """Days between the first and the last one that have no row, unless their rows were taken out here."""
    taken = [path for path, whys in state.removed.items() if whys.keys() - {QUARANTINE}]
    removed = {day for path in taken if (day := parse_day(path))}
    days = sorted({day for partition in state.partitions if (day := parse_day(partition.path))} | removed)
    gaps = [(a, b) for a, b in zip(days, days[1:], strict=False) if (b - a).days > 1]
    if gaps:
        count = sum((b - a).days - 1 for a, b in gaps)
        shown = [_span(a + dt.timedelta(days=1), b - dt.timedelta(days=1)) for a, b in gaps[:3]]
        more = f" and {len(gaps) - 3} more times" if len(gaps) > 3 else ""
        yield Finding("gap", f"{name}: no rows on {_number(count, 'day')}: {', '.join(shown)}{more}", "warning")


def _span(first: dt.date, last: dt.date) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _small_files(name: str, state: FeedState, now: dt.datetime) -> Iterator[Finding]:
    if state.is_table:
        return
    merges = plan_merges(state, CLOSED, now)
    if sum(len(merge.files) - 1 for merge in merges) >= MANY:
        files, days = sum(len(merge.files) for merge in merges), len({merge.partition for merge in merges})
        yield Finding(
            "small files",
            f"{name}: {files:,} small files on {_number(days, 'day')}; merge: python manage_feeds.py compact {name}",
        )


def _schema_changes(name: str, state: FeedState, now: dt.datetime) -> Iterator[Finding]:
    for entry in state.schema_history[1:]:
        lately = dt.datetime.fromisoformat(entry.at) >= now - LATELY
        if lately or entry.at >= (state.last_export or ""):
            yield Finding("schema", f"{name}: new since {entry.at[:10]}: {', '.join(entry.added)}")


def _retention(name: str, state: FeedState, feed: Feed, now: dt.datetime, max_share: float) -> Iterator[Finding]:
    rule = retention.Rule(feed.retention_days, feed.retention_versions, max_share)
    decided = retention.plan(name, state, rule, now)
    if decided.refusal:
        yield Finding("retention", decided.refusal, "warning")
    elif decided.going:
        word = "version" if state.is_table else "day"
        yield Finding(
            "retention",
            f"{name}: {_number(len(decided.going), word)}, {decided.rows:,} rows, due to go; "
            f"python manage_feeds.py retention {name}",
        )


def _number(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
