"""The lake on a terminal: what needs attention first, then one line a feed; numbers; the history. Times are UTC."""

from __future__ import annotations

import datetime as dt
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ksql_lake.base.figures import count, duration, short_time, since, size
from ksql_lake.model.findings import Finding
from ksql_lake.reporting.summary import (
    FeedSummary,
    PartitionSummary,
    findings_by_rank,
    result_of,
    worst_first,
)
from ksql_lake.store.history import Run

if TYPE_CHECKING:
    from ksql_lake.query.column_stats import ColumnStats

WIDTH = 80  # where the output is not a terminal
NARROWEST = 60
WIDEST = 160  # longer lines of text are hard to read
NAME = 30  # characters of a feed's name in a table 80 wide
SHOWN = 12  # findings on the screen
COLOURS = {"error": "31", "warning": "33", "note": "36", "good": "32", "quiet": "2", "head": "1"}
MARKS = {"error": "!", "warning": "*", "note": "-"}
RESULTS = {
    "ok": "good", "findings": "warning", "busy": "warning", "failed": "error", "stopped": "error", "broken": "error"
}


class Ink:
    """Colours for a terminal, or none."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def __call__(self, style: str, text: str) -> str:
        return f"\033[{COLOURS[style]}m{text}\033[0m" if self.colour and style in COLOURS else text


def report(
    lake: Path, summaries: Sequence[FeedSummary], now: dt.datetime, colour: bool = False, width: int = WIDTH,
    complete: Callable[[str], str] = str,
) -> str:
    """One screen: findings, the worst first; feeds, those with the worst findings first; totals.

    Args:
        now: the present time, with a time zone.
        colour: whether to use the colours of a terminal.
        width: columns of the terminal.
        complete: makes the commands of a text work as they are shown.
    """
    ink, wide = Ink(colour), min(max(width, NARROWEST), WIDEST)
    name = _name_width([summary.feed for summary in summaries], wide)
    if not any(summary.last_export or summary.last_run or summary.findings for summary in summaries):
        return complete(f"{lake}: nothing has been exported yet; start with: python export_to_data_lake.py --all\n")
    lines = [
        *_findings(summaries, ink, wide, complete), *_table(worst_first(summaries), now, ink, name),
        *_totals(summaries, now, ink, name),
    ]
    return "\n".join(lines) + "\n"


def _name_width(names: Sequence[str], width: int) -> int:
    """Room for the longest name where the terminal has it; the other columns take 50."""
    return min(max(NAME, *map(len, names)), width - 50) if width > WIDTH and names else NAME + min(width, WIDTH) - WIDTH


def _findings(
    summaries: Sequence[FeedSummary], ink: Ink, width: int, complete: Callable[[str], str]
) -> list[str]:
    found = findings_by_rank(summaries)
    if not found:
        return [ink("good", "nothing needs attention"), ""]
    lines = []
    for shared in found[:SHOWN]:
        lines += _finding(shared.finding, complete(shared.line), ink, width)
    if len(found) > SHOWN:
        lines.append(ink("quiet", complete(f"  and {len(found) - SHOWN:,} more: python metadata_utils.py --json")))
    return [*lines, ""]


def _finding(finding: Finding, line: str, ink: Ink, width: int) -> list[str]:
    wrapped = textwrap.wrap(line, width - 14, break_on_hyphens=False) or [""]
    head = ink(finding.level, f"{MARKS[finding.level]} {finding.kind:<12}")
    return [f"{head}{wrapped[0]}", *(" " * 14 + line for line in wrapped[1:])]


def _table(summaries: Sequence[FeedSummary], now: dt.datetime, ink: Ink, name: int) -> list[str]:
    head = f"{'feed':<{name}} {'result':<8} {'rows':>5} {'size':>6} {'in':>5} {'newest':>8} {'last export':>12}"
    return [ink("head", head), *(_line(summary, now, ink, name) for summary in summaries)]


def _line(summary: FeedSummary, now: dt.datetime, ink: Ink, name: int) -> str:
    result = result_of(summary)
    age, limit = summary.freshness_seconds, summary.freshness_limit
    newest = "-" if age is None else duration(age)
    allowed = "" if limit is None else f"/{duration(limit)}"
    newest += allowed if len(newest + allowed) <= 8 else ""
    stale = any(finding.kind == "stale" for finding in summary.findings)
    parts = f"{_few(summary.partitions)}{'v' if summary.type == 'table' else 'd'}"
    return (
        f"{_clip(summary.feed, name):<{name}} {ink(RESULTS.get(result, 'quiet'), f'{result:<8}')} "
        f"{count(summary.rows):>5} {size(summary.bytes):>6} {parts:>5} "
        f"{ink('error' if stale else 'plain', f'{newest:>8}')} {_exported(summary, now):>12}"
    )


def _exported(summary: FeedSummary, now: dt.datetime) -> str:
    """How long ago the last good run was, how many rows it brought, how long it took."""
    ago, run = since(summary.last_success, now), summary.last_run
    if ago is None:
        return "-"
    shown = f"{ago:.0f}s" if ago < 60 else duration(ago)
    if run is None or run.ended != summary.last_success:
        return shown
    return f"{shown} {count(run.rows)}{f' {duration(run.seconds)}' if run.seconds else ''}"


def _few(number: int) -> str:
    return str(number) if number < 10_000 else count(number)


def _clip(name: str, width: int) -> str:
    """A long name without its middle: beginning and end tell names apart."""
    half = (width - 2) // 2
    return name if len(name) <= width else f"{name[:half]}..{name[-(width - 2 - half):]}"


def _totals(summaries: Sequence[FeedSummary], now: dt.datetime, ink: Ink, name: int) -> list[str]:
    rows, held = sum(summary.rows for summary in summaries), sum(summary.bytes for summary in summaries)
    parts = sum(summary.partitions for summary in summaries)
    feeds = f"{len(summaries):,} feed{'' if len(summaries) == 1 else 's'}"
    lines = [ink("head", f"{feeds:<{name}} {'':<8} {count(rows):>5} {size(held):>6} {_few(parts):>5}")]
    stands = [summary.remote for summary in summaries if summary.remote is not None]
    if stands:
        here, there = sum(one.local_bytes for one in stands), sum(one.remote_bytes for one in stands)
        lines.append(ink("quiet", f"{size(here)} here, {size(there)} in the remote, "
                                  f"{size(sum(one.due_bytes for one in stands))} due to leave this disk"))
    skipped = {s.feed: s.last_run.passed_over for s in summaries if s.last_run and s.last_run.passed_over}
    if skipped:
        named = ", ".join(f"{feed} {records:,}" for feed, records in skipped.items())
        lines.append(ink("quiet", f"records that ksqlDB skipped, in the last run from Kafka: {named}"))
    ended = max((summary.last_run.ended for summary in summaries if summary.last_run), default=None)
    ago = since(ended, now)
    if ended is not None and ago is not None:
        lines.append(ink("quiet", f"last run ended {ended}, {duration(ago)} ago"))
    return lines


def stats(partitions: Sequence[PartitionSummary]) -> str:
    """Rows, size and files of each day or version, below the totals of its feed; then of all."""
    feeds: dict[str, list[PartitionSummary]] = {}
    for partition in partitions:
        feeds.setdefault(partition.feed, []).append(partition)
    lines: list[str] = []
    for name, mine in feeds.items():
        lines += [f"{name}: {_sum(mine)}", *(_partition(partition) for partition in mine)]
    return "\n".join([*lines, f"total: {_sum(partitions)}"]) + "\n"


def _sum(partitions: Sequence[PartitionSummary]) -> str:
    rows, held = sum(part.rows for part in partitions), sum(part.bytes for part in partitions)
    return f"{rows:,} rows, {held / 1e6:,.3f} MB, {len(partitions):,} partitions"


def _partition(part: PartitionSummary) -> str:
    """The version that is current has a star."""
    mark = "*" if part.current else " "
    place = f" {part.place}" if part.place else ""
    figures = f"{part.rows:>11,} {part.bytes / 1e6:>10,.3f} MB {part.files:>3}f"
    return f"{mark} {part.path:<25} {figures} {part.exported_at}{place}"


def columns(found: Sequence[ColumnStats]) -> str:
    """One line a column: nulls, different values (~ where estimated), least and greatest; a long value is cut."""
    return "".join(
        f"  {column.name:<22} {column.nulls:>9,} null {_distinct(column):>9} values  {_value(column.least)} .. "
        f"{_value(column.greatest)}\n"
        for column in found
    )


def _distinct(column: ColumnStats) -> str:
    return "-" if column.distinct is None else f"{'' if column.exact else '~'}{column.distinct:,}"


def _value(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:22]}.."


def json_list(items: Iterable[Any]) -> Iterator[str]:
    """A JSON list of any length, item by item; what JSON does not know becomes text."""
    begin = "[\n  "
    for item in items:
        yield begin + json.dumps(item, indent=2, default=str).replace("\n", "\n  ")
        begin = ",\n  "
    yield "[]\n" if begin[0] == "[" else "\n]\n"


def history(runs: Iterable[Run], colour: bool = False, width: int | None = None) -> Iterator[str]:
    """One line a run, oldest first: when, feed, result, rows, size, seconds, retries, findings.

    Args:
        width: columns of the terminal, whose findings go below their run; None for one line a run, however long.
    """
    ink = Ink(colour)
    name = NAME if width is None else min(max(width, NARROWEST), WIDEST) - 52
    head = f"{'ended':<17} {'feed':<{name}} {'result':<8} {'rows':>5} {'size':>6} {'took':>5} {'retry':>5}"
    yield ink("head", head if width else f"{head} findings") + "\n"
    for run in runs:
        yield _run(run, ink, name, width) + "\n"


def _run(run: Run, ink: Ink, name: int, width: int | None) -> str:
    line = (
        f"{short_time(run.ended):<17} {_clip(run.feed, name):<{name}} "
        f"{ink(RESULTS.get(run.result, 'quiet'), f'{run.result:<8}')} {count(run.rows):>5} "
        f"{size(run.bytes):>6} {duration(run.seconds):>5} {run.retries:>5}"
    )
    if width is None:
        return f"{line} {'; '.join(finding.message for finding in run.findings) or '-'}"
    below = [
        f"    {part}" for finding in run.findings
        for part in textwrap.wrap(finding.message, max(width, NARROWEST) - 4, break_on_hyphens=False)
    ]
    return "\n".join((line, *below))
