"""The lake as one self-contained HTML page: no network, no font, no library.

Everything that comes from the lake passes through `markup`, and the page's own Content-Security-Policy allows no
other script than the one below by its hash.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable, Sequence

from ksql_lake.base.figures import count, duration, short_time, since, size
from ksql_lake.base.text import markup
from ksql_lake.reporting.html import charts
from ksql_lake.reporting.html.feed_page import (
    RESULTS,
    DayCounts,
    by_day,
    day_bars,
    feed_details,
    figure,
    heat_map,
    name,
    result,
    version_bars,
)
from ksql_lake.reporting.html.style import SCRIPT, STYLE
from ksql_lake.reporting.summary import FeedRecord, FeedSummary, findings_by_rank, partitions_of, worst_first
from ksql_lake.store.history import Run

FINDINGS = 100  # shown; the others are counted
DETAILED = 60  # feeds with a section of their own
SIZES = 24  # feeds in the chart of sizes
RUNS = 60  # nights in the chart of runs
RUN_LINES = 40  # runs in the table
SPARK = 30  # days in a feed's line of the table
SPARKS = 120  # pixels of them


def page(
    title: str, records: Sequence[FeedRecord], summaries: Sequence[FeedSummary], now: dt.datetime,
    complete: Callable[[str], str] = str,
) -> str:
    """The whole page.

    Args:
        title: what to call the lake.
        records, summaries: the same feeds in the same order.
        now: the present time, with a time zone.
        complete: makes the commands of a text work as they are shown.
    """
    known = {record.name: record for record in records}
    ordered = worst_first(summaries)
    days = by_day([part for record in records if record.type == "stream" for part in partitions_of(record)])
    runs = sorted((run for record in records for run in record.runs), key=lambda run: run.ended)
    body = [
        _head(title, summaries, now), _findings(summaries, complete), _feeds(ordered, known, now),
        _growth(days, now) if days else "", _sizes(summaries), _runs(runs), _details(ordered, known, now),
        f"<footer>Made by metadata_utils.py --html from the lake's metadata, {now:%Y-%m-%d %H:%M} UTC. "
        "1 kB is 1,000 bytes.</footer>",
    ]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{policy}"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{markup(title)} - data lake</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main><script>{SCRIPT}</script></body></html>\n"
    )


def _head(title: str, summaries: Sequence[FeedSummary], now: dt.datetime) -> str:
    ended = max((s.last_run.ended for s in summaries if s.last_run), default=None)
    ago = since(ended, now)
    urgent = sum(one.finding.level != "note" for one in findings_by_rank(summaries))
    totals = (
        ("Feeds", f"{len(summaries):,}", ""), ("Rows", count(sum(s.rows for s in summaries)), ""),
        ("Size", size(sum(s.bytes for s in summaries)), ""),
        ("Days, versions", f"{sum(s.partitions for s in summaries):,}", ""),
        ("Last run", "-" if ago is None else f"{duration(ago)} ago", ""),
        ("Need attention", f"{urgent:,}", "error" if urgent else "good"),
    )
    cells = "".join(f'<div><dt>{word}</dt><dd class="{style}">{markup(value)}</dd></div>'
                    for word, value, style in totals)
    return (
        f'<header><p class="soft" style="margin:0">Data lake</p><h1>{markup(title)}</h1>'
        f'<p class="soft">As of {now:%-d %B %Y, %H:%M} UTC</p><dl class="totals">{cells}</dl></header>'
    )


def _findings(summaries: Sequence[FeedSummary], complete: Callable[[str], str]) -> str:
    found = findings_by_rank(summaries)
    if not found:
        return '<section><h2>Needs attention</h2><p class="good dot">Nothing.</p></section>'
    items = "".join(
        f'<li><span class="kind dot {one.finding.level}">{markup(one.finding.kind)}</span><span>{_links(one.feeds)} '
        f'<span class="said">{markup(complete(one.finding.said))}</span></span></li>'
        for one in found[:FINDINGS]
    )
    more = f'<p class="soft">and {len(found) - FINDINGS:,} more</p>' if len(found) > FINDINGS else ""
    return f'<section><h2>Needs attention</h2><ul class="findings">{items}</ul>{more}</section>'


def _links(feeds: Sequence[str]) -> str:
    """Each feed with a link to what the page says of it."""
    return ", ".join(_link(feed) for feed in feeds)


def _link(feed: str) -> str:
    return f'<a href="#feed-{markup(feed)}">{name(feed)}</a>'


def _feeds(ordered: Sequence[FeedSummary], known: dict[str, FeedRecord], now: dt.datetime) -> str:
    heads = (("Feed", ""), ("Last run", ""), ("Rows", "n"), ("Size", "n opt"), ("Days, versions", "n opt"),
             ("Newest data", "n"), ("Exported", "n opt"))
    head = "".join(f'<th class="{style}" scope="col"><button type="button">{word}</button></th>'
                   for word, style in heads)
    rows = "".join(_feed_row(summary, known[summary.feed], now) for summary in ordered)
    return (
        f'<section><h2>Feeds</h2><div class="scroll"><table class="sortable" id="feeds"><thead><tr>{head}'
        f'<th class="opt" scope="col">Last {SPARK} days or versions</th></tr></thead><tbody>{rows}</tbody></table>'
        "</div></section>"
    )


def _feed_row(summary: FeedSummary, record: FeedRecord, now: dt.datetime) -> str:
    partitions = partitions_of(record)
    spark = version_bars(partitions, SPARK) if record.type == "table" else day_bars(by_day(partitions), now, SPARK)
    run, ago = summary.last_run, since(summary.last_success, now)
    brought = f"{count(run.rows)} rows" if run is not None and run.ended == summary.last_success else ""
    return (
        f'<tr><td>{_link(summary.feed)}<span class="under">{markup(record.type)}</span></td>'
        f'<td class="w">{result(summary)}</td>'
        f'<td class="n" data-v="{summary.rows}">{summary.rows:,}</td>'
        f'<td class="n opt" data-v="{summary.bytes}">{size(summary.bytes)}</td>'
        f'<td class="n opt" data-v="{summary.partitions}">{summary.partitions:,}'
        f'<span class="under">{markup(summary.newest)}</span></td>{_freshness(summary)}'
        f'<td class="n opt" data-v="{-1 if ago is None else ago:.0f}">{"-" if ago is None else f"{duration(ago)} ago"}'
        f'<span class="under">{brought}</span></td>'
        f'<td class="spark opt">{charts.columns(spark, f"{summary.feed}: rows", 30, SPARKS / SPARK)}</td></tr>'
    )


def _freshness(summary: FeedSummary) -> str:
    age, limit = summary.freshness_seconds, summary.freshness_limit
    shown = "-" if age is None else duration(age)
    bar = ""
    if age is not None and limit is not None:
        late = age > limit
        title = f"{duration(age)} old, {duration(limit)} allowed"
        bar = charts.meter(age / limit if limit else 1.0, title, "error" if late else "")
        shown += f' <span class="{"error" if late else "soft"}">of {duration(limit)}</span>'
    return f'<td class="n" data-v="{-1 if age is None else age:.0f}">{shown}{bar}</td>'


def _growth(days: DayCounts, now: dt.datetime) -> str:
    bars = day_bars(days, now)
    if not bars:
        return ""
    ends, calendar = (bars[0].title[:10], bars[-1].title[:10]), heat_map(days, now, "rows per day, all streams")
    return (
        '<section><h2>Growth</h2><p class="lead">Rows of all streams, by the day of the event.</p>'
        f"{figure(bars, 'rows per day, all streams', *ends, 'rows', 120)}"
        f"{f'<h3>Calendar</h3>{calendar}' if calendar else ''}</section>"
    )


def _sizes(summaries: Sequence[FeedSummary]) -> str:
    ordered = sorted(summaries, key=lambda summary: -summary.bytes)
    total = sum(summary.bytes for summary in summaries)
    if not total:
        return ""
    lines = [(summary.feed, summary.bytes, summary.rows) for summary in ordered[:SIZES]]
    rest = ordered[SIZES:]
    most = max(held for _, held, _ in lines)
    items = "".join(
        f'<li><div><span class="name">{markup(feed)}</span><span>{size(held)} <span class="soft">'
        f"{_share(held / total)}</span></span></div>"
        f"{charts.meter(held / most, f'{feed}: {held:,} bytes, {rows:,} rows')}</li>"
        for feed, held, rows in lines
    )
    if rest:
        held = sum(summary.bytes for summary in rest)
        items += (f'<li><div><span class="name">{len(rest)} others</span><span>{size(held)} '
                  f'<span class="soft">{_share(held / total)}</span></span></div></li>')
    return f'<section><h2>Size by feed</h2><ol class="sizes">{items}</ol></section>'


def _share(part: float) -> str:
    return "&lt;1%" if 0 < part < 0.01 else f"{part:.0%}"


def _runs(runs: Sequence[Run]) -> str:
    if not runs:
        return ""
    nights: dict[str, list[Run]] = {}
    for run in runs:
        nights.setdefault(run.run, []).append(run)
    bars = [_night(night) for night in list(nights.values())[-RUNS:]]
    ends = bars[0].title[:17], bars[-1].title[:17]
    rows = "".join(_run_row(run) for run in reversed(runs[-RUN_LINES:]))
    heads = (("Ended", "opt"), ("Feed", ""), ("Result", ""), ("Rows", "n"), ("Size", "n opt"), ("Took", "n"),
             ("Retries", "n opt"), ("Findings", "opt"))
    head = "".join(f'<th class="{style}" scope="col"><button type="button">{word}</button></th>'
                   for word, style in heads)
    return (
        '<section><h2>Runs</h2><p class="lead">Seconds that each run took for all its feeds; '
        '<span class="error">red</span> where a feed failed, <span class="warning">amber</span> where one left '
        f"findings.</p>{figure(bars, 'seconds per run', *ends, 's')}<h3>The last {min(len(runs), RUN_LINES)}, by feed"
        f'</h3><div class="scroll"><table class="sortable" id="runs"><thead><tr>{head}</tr></thead><tbody>{rows}'
        "</tbody></table></div></section>"
    )


def _night(runs: Sequence[Run]) -> charts.Bar:
    seconds = sum(run.seconds for run in runs)
    results = [run.result for run in runs]
    styles = {RESULTS.get(word) for word in results}
    style = "error" if "error" in styles else "warning" if "warning" in styles else ""
    words = ", ".join(f"{results.count(word)} {word}" for word in dict.fromkeys(results))
    ended = short_time(runs[-1].ended)
    rows = sum(run.rows for run in runs)
    return charts.Bar(seconds or 0.01, f"{ended}: {seconds:.1f} s, {rows:,} rows, {words}", style)


def _run_row(run: Run) -> str:
    findings = "<br>".join(markup(finding.message) for finding in run.findings)
    below = "".join(f'<span class="under phone">{text}</span>' for text in (short_time(run.ended), findings) if text)
    return (
        f'<tr><td class="w opt">{short_time(run.ended)}</td><td>{name(run.feed)}{below}</td>'
        f'<td class="w"><span class="dot {RESULTS.get(run.result, "soft")}">{markup(run.result)}</span></td>'
        f'<td class="n" data-v="{run.rows}">{run.rows:,}</td>'
        f'<td class="n opt" data-v="{run.bytes}">{size(run.bytes)}</td>'
        f'<td class="n" data-v="{run.seconds}">{duration(run.seconds)}</td>'
        f'<td class="n opt" data-v="{run.retries}">{run.retries}</td>'
        f'<td class="opt findings">{findings}</td></tr>'
    )


def _details(ordered: Sequence[FeedSummary], known: dict[str, FeedRecord], now: dt.datetime) -> str:
    shown = ordered[:DETAILED]
    more = len(ordered) - len(shown)
    text = f"The {DETAILED} that need attention most; {more:,} more are in the table above." if more else (
        "Days or versions, columns, and when each column was added."
    )
    sections = "".join(
        feed_details(known[summary.feed], summary, now, opened=number == 0) for number, summary in enumerate(shown)
    )
    return f'<section><h2>Each feed</h2><p class="lead">{text}</p>{sections}</section>' if shown else ""
