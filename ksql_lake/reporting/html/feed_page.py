"""One feed on the page: growth, calendar of its days, columns and when each was added."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ksql_lake.base.figures import count, duration, size
from ksql_lake.base.text import markup
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.recorded import RecordedColumn
from ksql_lake.model.state import SchemaVersion
from ksql_lake.reporting.html import charts
from ksql_lake.reporting.summary import FeedRecord, FeedSummary, PartitionSummary, partitions_of, result_of

CALENDAR = 21  # days of which a calendar tells more than columns do
DAYS = 90  # of the columns of a growth chart
FEW = 20  # columns of the narrowest chart with a label at each end
RESULTS = {
    "ok": "good", "findings": "warning", "busy": "warning", "failed": "error", "stopped": "error", "broken": "error"
}
DayCounts = Mapping[dt.date, tuple[int, int]]  # day -> (rows, bytes)


def feed_details(record: FeedRecord, summary: FeedSummary, now: dt.datetime, *, opened: bool) -> str:
    """A section that folds out; its id is `feed-` and the feed's name."""
    partitions = partitions_of(record)
    state = record.state
    about = record.feed.description if record.feed else ""
    rows = f"{summary.rows:,} rows, {size(summary.bytes)}"
    if summary.remote is not None:
        rows += f" ({size(summary.remote.local_bytes)} here, {size(summary.remote.remote_bytes)} in the remote)"
    parts = [f'<p class="soft">{markup(about)}</p>'] if about else []
    parts.append(f'<p class="soft">{_about(record, summary)}</p>')
    parts.append(_versions(partitions) if record.type == "table" else _days(record.name, partitions, now))
    parts.append(_columns(state.columns if state else ()))
    parts.append(_schema_history(state.schema_history if state else ()))
    return (
        f'<details id="feed-{markup(record.name)}"{" open" if opened else ""}><summary><strong>{name(record.name)}'
        f'</strong> {result(summary)} <span class="soft">{markup(rows)}</span></summary><div>{"".join(parts)}</div>'
        "</details>"
    )


def name(feed: str) -> str:
    """A feed's name, which may break after each underscore."""
    return markup(feed).replace("_", "_<wbr>")


def result(summary: FeedSummary) -> str:
    """How the last run went, in its colour; never by colour alone."""
    word = result_of(summary)
    return f'<span class="dot {RESULTS.get(word, "soft")}">{markup(word)}</span>'


def _about(record: FeedRecord, summary: FeedSummary) -> str:
    state, feed = record.state, record.feed
    said = [f"{record.type} <code>{markup(str(state.source if state else feed.source if feed else '-'))}</code>"]
    if record.type == "stream":
        said.append(f"days of {markup(str(state.timezone if state else 'UTC'))}")
    if feed and feed.retention_days:
        said.append(f"{feed.retention_days} days are kept")
    if feed and feed.retention_versions:
        said.append(f"{feed.retention_versions} versions are kept")
    if summary.freshness_limit is not None:
        said.append(f"may be up to {duration(summary.freshness_limit)} old")
    said.append(f"{summary.files:,} file{'' if summary.files == 1 else 's'}")
    return " · ".join(said)


def by_day(partitions: Sequence[PartitionSummary]) -> DayCounts:
    """Rows and bytes of each day, over all given partitions."""
    found: dict[dt.date, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for part in partitions:
        day = parse_day(part.path)
        if day is not None:
            rows, held = found[day]
            found[day] = rows + part.rows, held + part.bytes
    return found


def day_bars(days: DayCounts, now: dt.datetime, most: int = DAYS) -> list[charts.Bar]:
    """A column for each of the newest days up to today, also for those without rows."""
    known = [day for day in days if day <= now.date() + dt.timedelta(days=1)]
    if not known:
        return []
    last = max(known)
    first = max(min(known), last - dt.timedelta(days=most - 1))
    span = [first + dt.timedelta(days=step) for step in range((last - first).days + 1)]
    return [charts.Bar(days[day][0] if day in days else 0, day_title(day, days)) for day in span]


def day_title(day: dt.date, days: DayCounts) -> str:
    if day not in days:
        return f"{day}: no rows"
    rows, held = days[day]
    return f"{day}: {rows:,} rows, {size(held)}"


def version_bars(partitions: Sequence[PartitionSummary], most: int = DAYS) -> list[charts.Bar]:
    """A column for each of the newest versions."""
    return [
        charts.Bar(part.rows, f"{part.label}: {part.rows:,} rows, {size(part.bytes)}, {part.exported_at}"
                   f"{', current' if part.current else ''}")
        for part in partitions[-most:]
    ]


def figure(bars: Sequence[charts.Bar], label: str, first: str, last: str, unit: str, height: int = 72) -> str:
    """Columns with what they are, their greatest value, and where they begin and end."""
    most = f"{label.rpartition(': ')[2]}; at most {count(max((bar.value for bar in bars), default=0))} {unit}"
    drawn = charts.columns(bars, label, height)
    if len(bars) < FEW:  # too narrow for a label at each end
        ends = first if first == last else f"{first} to {last}"
        return f"<figure>{drawn}<figcaption><span>{markup(ends)}: {markup(most)}</span></figcaption></figure>"
    return (
        f'<figure style="max-width:{len(bars) * charts.WIDEST}px">{drawn}<figcaption><span>{markup(first)}</span>'
        f'<span class="what">{markup(most)}</span><span>{markup(last)}</span></figcaption></figure>'
    )


def _days(feed: str, partitions: Sequence[PartitionSummary], now: dt.datetime) -> str:
    days = by_day(partitions)
    bars = day_bars(days, now)
    if not bars:
        return ""
    ends = bars[0].title[:10], bars[-1].title[:10]
    calendar = heat_map(days, now, f"{feed}: days", 4)
    title = "<h3>Days of the last year</h3>" if calendar else ""
    return f"<h3>Rows per day</h3>{figure(bars, f'{feed}: rows per day', *ends, 'rows')}{title}{calendar}"


def heat_map(days: DayCounts, now: dt.datetime, label: str, most: int = charts.STRIPS) -> str:
    """A calendar of so many strips of 13 weeks with its legend."""
    last = max((day for day in days if day <= now.date() + dt.timedelta(days=1)), default=now.date())
    values: dict[dt.date, float] = {day: rows for day, (rows, _) in days.items()}
    strips = charts.calendar(values, {day: day_title(day, days) for day in days}, last, label, most)
    known = [value for day, value in values.items() if day <= last]
    if (last - min(days, default=last)).days < CALENDAR:
        return ""
    none, *shades = (
        f'<svg width="11" height="11" aria-hidden="true"><rect class="s{step}" width="11" height="11" rx="2"/></svg>'
        for step in range(charts.STEPS + 1)
    )
    legend = (
        f'<div class="legend"><span>{none} no rows</span><span>{count(min(known, default=0))} {"".join(shades)} '
        f"{count(max(known, default=0))} rows a day, a quarter of the days in each shade</span></div>"
    )
    return f'<div class="strips">{"".join(strips)}</div>{legend}'


def _versions(partitions: Sequence[PartitionSummary]) -> str:
    if not partitions:
        return ""
    ends = partitions[-DAYS:][0].label, partitions[-1].label
    bars = version_bars(partitions)
    return f"<h3>Rows per version</h3>{figure(bars, 'rows per version', *ends, 'rows')}"


def _columns(columns: Sequence[RecordedColumn]) -> str:
    if not columns:
        return ""
    rows = "".join(
        f"<tr><td><code>{markup(column.disk_name)}</code>{' key' if column.key else ''}</td>"
        f"<td><code>{markup(column.ksql_type)}</code></td>"
        f'<td class="opt"><code>{markup(column.arrow_type)}</code></td>'
        f'<td class="n">{markup(column.since)}</td></tr>'
        for column in columns
    )
    return (
        f'<h3>Columns</h3><div class="scroll"><table><thead><tr><th>Name</th><th>ksqlDB type</th>'
        f'<th class="opt">Arrow type</th><th class="n">Since</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _schema_history(history: Sequence[SchemaVersion]) -> str:
    if not history:
        return ""
    rows = "".join(f"<tr><td>{markup(entry.version)}</td><td class=w>{markup(entry.at[:10])}</td>"
                   f"<td>{_added(entry, first=number == 0)}</td></tr>" for number, entry in enumerate(history))
    return (
        f"<h3>History of the schema</h3><table><thead><tr><th>Version</th><th>Since</th><th>Added</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _added(entry: SchemaVersion, *, first: bool) -> str:
    if first:
        return f"{len(entry.added)} columns at the first export"
    return f"<code>{markup(', '.join(entry.added))}</code>"
