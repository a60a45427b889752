"""Compares the rows per day at the source with those in the lake, and explains differences.

The count is one bounded pull query. A pull query shows no offsets, so it finds that rows of a day are missing, but not
which ones; the export itself relies on offsets.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ksql_lake.base.errors import SourceError
from ksql_lake.base.retry import until_answered
from ksql_lake.ingest.streams.event_time import EPOCH, event_times
from ksql_lake.model.partitions import day_bounds, days_of, parse_day
from ksql_lake.model.state import FeedState
from ksql_lake.sources.ksqldb.answers import AnswerRows
from ksql_lake.sources.ksqldb.client import Client, quote
from ksql_lake.sources.pace import Limits
from ksql_lake.store import metadata


@dataclass(frozen=True)
class DayCount:
    """Rows of one day on both sides; `reason` says why they differ, `explained` whether that is expected."""

    day: dt.date
    source: int
    lake: int
    reason: str = ""
    explained: bool = True

    def __str__(self) -> str:
        same = "equal" if not self.reason else self.reason
        return f"{self.day}  source {self.source:>10,}  lake {self.lake:>10,}  {same}"


@dataclass
class SourceCount:
    """Rows per day at the source; `newer`: those of them with a ROWTIME after the newest one in the lake."""

    days: Counter[dt.date] = field(default_factory=Counter)
    newer: Counter[dt.date] = field(default_factory=Counter)


def reconcile(
    client: Client, dataset: metadata.Dataset, days: Sequence[dt.date], limits: Limits
) -> list[DayCount]:
    """Count one stream at its source and compare, day by day; all days, or those given.

    Raises:
        SourceError: the feed was never exported, or is not a stream.
        LakeError: the source could not be counted.
    """
    state = metadata.load(dataset)
    if state is None or dataset.kind != "stream":
        raise SourceError(f"{dataset.feed}: only a stream that was exported before can be reconciled")
    lake: Counter[dt.date] = Counter()
    for file in state.files:
        day = parse_day(file.partition)
        if file.generation == state.generation and day is not None:
            lake[day] += file.rows
    # The resume points too: retention may have removed the newest files, and what was read once is not new.
    known = [f.rowtime_max or 0 for f in state.files if f.generation == state.generation]
    newest = max([*known, *(anchor.rowtime for anchor in state.resume.values())], default=-1)
    source = until_answered(lambda: _count(client, state, days, newest, limits), limits.retry, lambda _: None)
    chosen = lake if not days else Counter({day: lake[day] for day in days})
    return compare(source, chosen, exported_whole=bool(state.resume), removed=_removed(state), feed=dataset.feed)


def _removed(state: FeedState) -> Counter[dt.date]:
    """Rows per day that were removed from the lake (retention, erasure), or that are in quarantine."""
    found: Counter[dt.date] = Counter()
    for entry in state.quarantined:
        day = parse_day(entry.partition)
        if entry.generation == state.generation and day is not None:
            found[day] += entry.rows
    for partition, whys in state.rows_removed.items():
        day = parse_day(partition)
        if day is not None:
            found[day] += sum(whys.values())
    return found


def compare(
    source: SourceCount, lake: Mapping[dt.date, int], *, exported_whole: bool, removed: Mapping[dt.date, int],
    feed: str = "NAME",
) -> list[DayCount]:
    """Why the days differ, oldest first.

    Args:
        exported_whole: False for a feed that only `--date` runs have filled so far.
        removed: rows of each day that retention or an erasure took out of the lake, or that are in quarantine.
    """
    oldest = min((day for day, rows in source.days.items() if rows), default=None)
    found = []
    for day in sorted({*source.days, *lake}):
        there, here, newer = source.days.get(day, 0), lake.get(day, 0), source.newer.get(day, 0)
        at_the_edge = oldest is None or day <= oldest
        reason, explained = _reason(there, here, newer, at_the_edge, exported_whole, removed.get(day, 0))
        reason += f" {feed} --date {day}" if reason.endswith("manage_feeds.py reload") else ""
        found.append(DayCount(day, there, here, reason, explained))
    return found


def _reason(
    there: int, here: int, newer: int, at_the_edge: bool, exported_whole: bool, removed: int
) -> tuple[str, bool]:
    if there == here:
        return "", True
    if here > there:
        more = here - there
        if at_the_edge:
            return f"{more:,} expired at the source, the lake keeps them", True
        return (
            f"{more:,} more in the lake than at the source; check with: python metadata_utils.py --verify "
            "--deep", False
        )
    missing = there - here
    if not exported_whole and not here:
        return f"{missing:,} not exported: there were only --date runs so far, and none for this day", True
    if missing <= newer:
        return f"{missing:,} newer than the last export", True
    if missing <= newer + removed:
        return f"{removed:,} removed from the lake by retention or erasure, or in quarantine", True
    return (
        f"{missing:,} not in the lake ({newer:,} of them newer than the last export): they arrived late, and the next "
        "export brings them; if they are still missing then, read the day again with: python manage_feeds.py reload"
    ), False


def _count(
    client: Client, state: FeedState, days: Sequence[dt.date], newest: int, limits: Limits
) -> SourceCount:
    source = client.resolve(state.source, "stream")
    column, zone = state.timestamp_column, state.timezone
    name = next((n for n, _ in source.fields if n == column), None) or next(
        (n for n, _ in source.fields if column and n.upper() == column.upper()), None
    )
    sql = f"SELECT ROWTIME{f', {quote(name)}' if name else ''} FROM {quote(source.name)}"
    if days and column is None:
        bounds = [day_bounds(day, zone) for day in days]
        sql += f" WHERE ROWTIME >= {min(b for b, _ in bounds)} AND ROWTIME < {max(b for _, b in bounds)}"
    count = SourceCount()
    with client.query(f"{sql};", earliest=True) as answer:
        names = [column.name for column in answer.columns[1:]]
        for element in AnswerRows(answer, source.name).whole(limits):
            if isinstance(element, pa.RecordBatch):
                _add(count, element, names, column, zone, newest)
    if days:
        count.days = Counter({day: count.days[day] for day in days})
    return count


def _add(
    count: SourceCount, batch: pa.RecordBatch, names: Sequence[str], column: str | None, zone: str, newest: int
) -> None:
    rowtimes = batch.column(0).to_numpy(zero_copy_only=False)
    days = days_of(event_times(batch, 1, names, rowtimes, column, "reconcile"), zone)
    for counter, chosen in ((count.days, days), (count.newer, days[rowtimes > newest])):
        for day, rows in zip(*np.unique(chosen, return_counts=True), strict=True):
            counter[EPOCH + dt.timedelta(days=int(day))] += int(rows)
