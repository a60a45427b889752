"""What a person should know about each feed, from metadata, feed files and the run history; opens no Parquet file.

`read` gathers what is known of the feeds, `summary_of` is a pure function of that and the time: state, size, freshness
and findings, the worst first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import FeedError, StateError
from ksql_lake.base.figures import several
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed
from ksql_lake.model.findings import Finding
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import FeedState
from ksql_lake.remote.plans import Policy
from ksql_lake.remote.standing import Standing, places_of, standing
from ksql_lake.remote.standing import findings as findings_of_remote
from ksql_lake.reporting.findings import findings_of_runs, findings_of_state, missed
from ksql_lake.store import history, layout, metadata, running
from ksql_lake.store.history import Run
from ksql_lake.store.lake import directories
from ksql_lake.store.layout import KINDS, STATUSES, storage_of
from ksql_lake.store.remote import binding

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class FeedRecord:
    """All that the lake knows of one feed. `problem`: why metadata or feed file cannot be used."""

    name: str
    type: str
    status: str  # active, disabled, off (by CONFIG_FEEDS), archived, broken, no feed
    state: FeedState | None = None
    feed: Feed | None = None
    runs: tuple[Run, ...] = ()  # oldest first
    metadata_problem: str | None = None
    feed_problem: str | None = None
    has_remote: bool = False


@dataclass(frozen=True)
class FeedSummary:
    """One feed at a glance; sizes in bytes, times as ISO 8601 in UTC, durations in seconds."""

    feed: str
    type: str
    state: str  # active, disabled, off (by CONFIG_FEEDS), archived, broken (its file cannot be used), no feed
    rows: int
    bytes: int
    files: int
    partitions: int
    newest: str  # newest day, or current version, or "-"
    newest_event: str | None  # newest ROWTIME of a stream, last export of a table
    freshness_seconds: float | None  # age of that; an event in the future counts as 0
    freshness_limit: float | None
    last_export: str | None  # last change of the lake by an export
    last_success: str | None  # end of the last run that was ok or left findings
    last_run: Run | None
    findings: tuple[Finding, ...] = ()  # the worst first
    quarantined: int = 0  # rows in quarantine
    checks: tuple[dict[str, Any], ...] = ()  # what the checks of the last export found
    remote: Standing | None = None  # of a lake that has a remote home


def summarise(
    lake: Path, now: dt.datetime, feed: str | None = None, max_share: float = 0.3, off: Collection[str] = ()
) -> list[FeedSummary]:
    """Every feed that has a file, data or a run in the history, by name.

    Args:
        now: the present time, with a time zone.
        feed: only this one.
        max_share: of a feed's bytes that retention may take at a time.
        off: feeds that are switched off by CONFIG_FEEDS.
    """
    return [summary_of(record, now, max_share) for record in read(lake, feed, now, off)]


def read(
    lake: Path, feed: str | None = None, now: dt.datetime | None = None, off: Collection[str] = ()
) -> list[FeedRecord]:
    """What the lake knows about each feed, by name; files that cannot be used are reported as problems.

    Args:
        now: where given, runs that were killed and that no later run has noticed yet are reported as of this time.
        off: feeds that are switched off by CONFIG_FEEDS; without data they are left out.
    """
    runs: dict[str, list[Run]] = {}
    for run in [*history.runs(lake), *(running.dead_runs(lake, now) if now else ())]:
        runs.setdefault(run.feed, []).append(run)
    kinds = {
        directory.name: kind
        for kind in KINDS for directory in directories(lake, kind) if not directory.name.startswith(".")
    }
    active = {path.stem for path in storage_of(lake).list(lake, "feeds/active/*.json")}
    names = sorted({*kinds, *active, *runs} if feed is None else {feed} & {*kinds, *active, *runs})
    records = (_record(lake, name, kinds.get(name), runs.get(name, []), name in off) for name in names)
    return [record for record in records if _is_known(record) or record.name == feed]


def _is_known(record: FeedRecord) -> bool:
    """Whether there is a reason to show it: not just an empty directory, runs of a removed feed, or the file of a feed
    that is switched off."""
    has_data = record.state is not None or record.metadata_problem is not None
    return has_data or record.status not in ("no feed", "off")


def _record(lake: Path, name: str, kind: str | None, runs: list[Run], off: bool) -> FeedRecord:
    feed, feed_problem, status = _feed(lake, name)
    if off and status in ("active", "disabled"):
        status = "off"
    if feed is not None and storage_of(lake).stat(layout.directory(lake, feed.type, name)):
        kind = feed.type  # the name may have been another kind of feed before
    state, metadata_problem = (None, None) if kind is None else _state(lake, name, kind)
    known = kind or (feed.type if feed else runs[-1].type if runs else "-")
    return FeedRecord(name, known, status, state, feed, tuple(runs), metadata_problem, feed_problem,
                      binding.is_bound(lake))


def _feed(lake: Path, name: str) -> tuple[Feed | None, str | None, str]:
    """(feed, what is wrong with its file, status)."""
    for status in STATUSES:
        path = layout.feed_file(lake, name, status)
        if storage_of(lake).stat(path):
            try:
                feed = feeds.load(path)
            except FeedError as error:
                return None, str(error).replace("\n", "; "), "broken" if status == "active" else status
            return feed, None, status if feed.enabled or status == "archived" else "disabled"
    return None, None, "no feed"


def _state(lake: Path, name: str, kind: str) -> tuple[FeedState | None, str | None]:
    dataset = metadata.Dataset(lake, name, kind)
    try:
        state = metadata.load(dataset)
    except StateError as error:
        return None, str(error)
    if state is None and any(metadata.parquet_files(dataset.directory)):
        return None, (
            f"{dataset.metadata}: missing, though there are Parquet files; restore it with: "
            f"python metadata_utils.py --rebuild --feed {name}"
        )
    return state, None


def summary_of(record: FeedRecord, now: dt.datetime, max_share: float = 0.3) -> FeedSummary:
    """One feed at a glance; see `summarise` for the arguments."""
    state = record.state
    newest_event = None if state is None else _newest_event(state)
    limit = _freshness_limit(record.feed, newest_event)
    age = None if newest_event is None else max((now - newest_event).total_seconds(), 0.0)
    last_export = None if state is None else state.last_export
    good = [run.ended for run in record.runs if run.good]
    return FeedSummary(
        feed=record.name, type=record.type, state=record.status,
        rows=state.total_records if state else 0, bytes=state.total_bytes if state else 0,
        files=len(state.files) if state else 0, partitions=len(state.partitions) if state else 0,
        newest=_newest(state) if state else "-", newest_event=None if newest_event is None else _iso(newest_event),
        freshness_seconds=age, freshness_limit=limit,
        last_export=last_export, last_success=good[-1] if good else last_export,
        last_run=record.runs[-1] if record.runs else None,
        quarantined=sum(entry.rows for entry in state.quarantined) if state else 0,
        checks=(state.checks or ()) if state else (),
        findings=_findings(record, now, newest_event, age, limit, max_share), remote=_remote(record, now),
    )


def _freshness_limit(feed: Feed | None, newest_event: dt.datetime | None) -> float | None:
    """How old the newest data may be, in seconds. The default applies to feeds that have data: for others, failed runs
    are reported."""
    if feed is None or feed.freshness_hours is None:
        return None
    if newest_event is None and "freshness_hours" not in feed.raw:
        return None
    return feed.freshness_hours * 3600


def _remote(record: FeedRecord, now: dt.datetime) -> Standing | None:
    if record.state is None or not record.has_remote:
        return None
    policy = Policy(record.feed.local_days) if record.feed else Policy()
    return standing(record.name, record.state, policy, now)


def _newest(state: FeedState) -> str:
    if state.current:
        return state.current.version
    days = [day for partition in state.partitions if (day := parse_day(partition.path))]
    return str(max(days, default="-"))


def _newest_event(state: FeedState) -> dt.datetime | None:
    """When the newest row happened; of a table, when it was last taken."""
    if state.is_table:
        return dt.datetime.fromisoformat(state.last_export) if state.last_export else None
    newest = state.newest_rowtime
    if newest is None:  # retention may have taken every file; the resume points still know
        newest = max((anchor.rowtime for anchor in state.resume.values()), default=None)
    if newest is None:
        return None
    try:
        return EPOCH + dt.timedelta(milliseconds=newest)
    except OverflowError:  # beyond the year 9999
        return dt.datetime.max.replace(tzinfo=dt.UTC)


def _iso(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _findings(
    record: FeedRecord, now: dt.datetime, newest_event: dt.datetime | None, age: float | None, limit: float | None,
    max_share: float,
) -> tuple[Finding, ...]:
    found: list[Finding] = []
    if record.metadata_problem:
        found.append(Finding("metadata", record.metadata_problem, feed=record.name))
    if record.feed_problem:
        found.append(Finding("feed file", record.feed_problem, feed=record.name))
    if record.status == "active":
        found += _age(record.name, now, newest_event, age, limit)
        found += missed(record.name, record.runs, now)
    if record.status in ("active", "disabled", "broken"):  # of the others nobody expects another run
        found += findings_of_runs(record.name, record.runs, record.state)
    if record.state is not None:
        rule = record.feed if record.status in ("active", "disabled", "off") else None
        found += findings_of_state(record.name, record.state, rule, now, max_share)
    stands = _remote(record, now)
    if stands is not None:
        found += findings_of_remote(record.name, stands, now)
    return tuple(sorted(_without_echoes(found), key=lambda finding: finding.rank))


def _without_echoes(found: Sequence[Finding]) -> Iterator[Finding]:
    """Each finding once: a problem that still exists need not be reported again as the reason of the last run."""
    seen = {finding.said for finding in found if finding.kind in ("metadata", "feed file")}
    for finding in dict.fromkeys(found):
        if not (finding.kind == "failed" and finding.said in seen):
            yield finding


def _age(
    name: str, now: dt.datetime, newest_event: dt.datetime | None, age: float | None, limit: float | None
) -> Iterator[Finding]:
    if limit is not None and age is None:
        yield Finding("stale", f"has no data yet; at most {limit / 3600:g} hours are allowed", feed=name)
    elif limit is not None and age is not None and age > limit:
        message = f"the newest data is {age / 3600:,.1f} hours old; {limit / 3600:g} are allowed"
        yield Finding("stale", message, feed=name)
    if newest_event is not None and newest_event > now + dt.timedelta(days=1):
        message = f"the newest event is dated {_iso(newest_event)}, in the future, so its age means nothing"
        yield Finding("clock", message, feed=name)


@dataclass(frozen=True)
class PartitionSummary:
    """One day of a stream or one version of a table; `label` is the day or the version in short.

    `place`, of a lake with a remote: here, both, or remote if one of its files is only there; else empty.
    """

    feed: str
    type: str
    source: str
    path: str
    label: str
    rows: int
    bytes: int
    files: int
    exported_at: str
    current: bool
    place: str = ""


def partitions_of(record: FeedRecord, first: dt.date | None = None) -> list[PartitionSummary]:
    """The partitions of a feed, oldest first.

    Args:
        first: only days from this one on, and versions taken on it or later.
    """
    state = record.state
    partitions = list[PartitionSummary]()
    places = places_of(state) if state and record.has_remote else {}
    for one in state.partitions if state else ():
        day = parse_day(one.path)
        if first is None or (str(day) if day else one.exported_at[:10]) >= str(first):
            assert state is not None
            label = str(day) if day else one.path.removeprefix("version=")
            partitions.append(PartitionSummary(
                record.name, state.type, state.source, one.path, label, one.records, one.bytes, one.files,
                one.exported_at, state.current is not None and one.path == state.current.path,
                places.get(one.path, ""),
            ))
    return partitions


def result_of(summary: FeedSummary) -> str:
    """In one word how the last run went, or why none is expected."""
    if summary.state != "active":
        return summary.state
    return summary.last_run.result if summary.last_run else "ok" if summary.last_export else "never run"


def worst_first(summaries: Sequence[FeedSummary]) -> list[FeedSummary]:
    """By the worst finding that is more than a note, then by name."""
    def urgency(summary: FeedSummary) -> tuple[tuple[int, int], str]:
        ranks = [finding.rank for finding in summary.findings if finding.level != "note"]
        return min(ranks, default=(9, 0)), summary.feed

    return sorted(summaries, key=urgency)


@dataclass(frozen=True)
class SharedFinding:
    """A finding, and the feeds that have it."""

    finding: Finding
    feeds: tuple[str, ...]

    @property
    def line(self) -> str:
        """As a person reads it: the feeds, the place, the message."""
        return f"{several(self.feeds)}: {self.finding.said}"


def findings_by_rank(summaries: Sequence[FeedSummary]) -> list[SharedFinding]:
    """All findings, the worst first; what is said of several feeds in the same words is one of them."""
    feeds: dict[Finding, list[str]] = {}
    for summary in sorted(summaries, key=lambda summary: summary.feed):
        for finding in summary.findings:
            own = replace(finding, feed=summary.feed)  # takes the name off its message
            feeds.setdefault(replace(own, feed=""), []).append(summary.feed)
    shared = [SharedFinding(finding, tuple(names)) for finding, names in feeds.items()]
    return sorted(shared, key=lambda one: (one.finding.rank, one.feeds))


def as_json(summary: FeedSummary) -> dict[str, Any]:
    """The stable form for machines: the fields of `FeedSummary`, size in MB, result, findings as objects."""
    shown = {**vars(summary), "size_mb": round(summary.bytes / 1e6, 6), "result": result_of(summary)}
    stands = shown.pop("remote")
    if stands is not None:
        shown["remote"] = dict(vars(stands))
    shown["last_run"] = None if summary.last_run is None else summary.last_run.as_json()
    shown["findings"] = [
        {
            "kind": finding.kind, "level": finding.level, "message": finding.line, "feed": finding.feed or summary.feed,
            "partition": finding.partition, "offset": finding.offset,
        }
        for finding in summary.findings
    ]
    return shown
