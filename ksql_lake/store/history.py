"""The run history: one line in `logs/runs.jsonl` for every feed of every run, however it ended.

The file grows for years and anybody may have written to it, so it is read from its end, and a line of an unexpected
shape is skipped.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any, BinaryIO

from ksql_lake import __version__
from ksql_lake.model.checks import Result
from ksql_lake.model.findings import Finding, read_findings
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of

TAIL = 4 << 20  # bytes at the end of the history that a report reads: some 10,000 runs
LONGEST = 4 << 20  # bytes; this tool writes no longer line
BLOCK = 1 << 20
SLACK = dt.timedelta(days=1)  # by how much a clock that was set back may put lines out of order
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """How one run of one feed went.

    Attributes:
        run: the same for all feeds of a run.
        started, ended: ISO 8601, UTC.
        result: ok, findings, failed, busy or stopped (interrupted or killed).
        days: those a run was limited to; empty for all.
        version: of a table, the one it made.
        offsets: Kafka partition -> first and last offset that it exported.
        road: kafka or rest, of a stream; passed_over: records of the topic that are no rows.
        line: as it is in the history, including fields that this version does not know.
    """

    feed: str
    ended: str
    result: str = "ok"
    run: str = ""
    type: str = "-"
    started: str = ""
    seconds: float = 0.0
    rows: int = 0
    files: int = 0
    bytes: int = 0
    retries: int = 0
    quarantined: int = 0
    days: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    checks: tuple[Result, ...] = ()
    version: str | None = None
    offsets: Mapping[str, Sequence[int]] = field(default_factory=dict)
    road: str = ""
    passed_over: int = 0
    line: Line = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, line: Any) -> Run | None:
        """A run from a line of the history; None without a feed or an end. Odd values of the rest are left out."""
        if not isinstance(line, Mapping):
            return None
        feed, ended = line.get("feed"), _moment(line.get("ended"))
        if not isinstance(feed, str) or not feed or ended is None:
            return None
        result, days = _text(line, "result", "-"), line.get("days")
        kind = result if result in ("failed", "busy", "stopped") else "run"
        return cls(
            feed=feed, ended=iso(ended), result=result, run=_text(line, "run"), type=_text(line, "type", "-"),
            started="" if (started := _moment(line.get("started"))) is None else iso(started),
            seconds=_seconds(line.get("seconds")),
            rows=_count(line.get("rows")), files=_count(line.get("files")), bytes=_count(line.get("bytes")),
            retries=_count(line.get("retries")), quarantined=_count(line.get("quarantined")),
            days=tuple(day for day in days if isinstance(day, str)) if isinstance(days, list) else (),
            findings=tuple(read_findings(feed, line.get("findings"), kind)),
            checks=tuple(read_checks(line.get("checks"))), road=_text(line, "road"),
            passed_over=_count(line.get("passed_over")), line=line,
        )

    def as_line(self, tool: str) -> dict[str, Any]:
        """The line for the history."""
        known = {name: value for name, value in vars(self).items() if name != "line"}
        return {
            **known, "days": list(self.days), "findings": [finding.as_json() for finding in self.findings],
            "checks": [asdict(check) for check in self.checks], "tool": tool,
        }

    def as_json(self) -> dict[str, Any]:
        """For machines: the line of the history, or what it would be."""
        return dict(self.line) or self.as_line(__version__)

    @property
    def good(self) -> bool:
        """Whether it committed what it read."""
        return self.result in ("ok", "findings")


def _text(line: Line, name: str, otherwise: str = "") -> str:
    value = line.get(name)
    return value if isinstance(value, str) else otherwise


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else 0


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 <= value < 1e12 and math.isfinite(value) else 0.0


def iso(moment: dt.datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(value: Any) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def read_checks(entries: Any) -> Iterator[Result]:
    """Results of checks from the history or metadata; what has an unknown form is skipped."""
    for entry in entries if isinstance(entries, list | tuple) else ():
        if isinstance(entry, Mapping):
            check, column, level, message = (_text(entry, name) for name in ("check", "column", "level", "message"))
            failed, rows = _count(entry.get("failed")), _count(entry.get("rows"))
            yield Result(check, column, level, failed, rows, message or f"{failed:,} of {rows:,} rows")


def append(lake: PurePath, run: Run) -> None:
    """Add one run, durably."""
    path, storage = layout.runs(lake), storage_of(lake)
    storage.make(path.parent)
    storage.append(path, json.dumps(run.as_line(__version__), ensure_ascii=False).encode(errors="replace"))


@dataclass
class Unreadable:
    """How many lines were skipped while the history was read."""

    lines: int = 0


def runs(lake: PurePath, tail: int = TAIL, feeds: Collection[str] | None = None) -> list[Run]:
    """The runs in the newest `tail` bytes of the history, oldest first; of these feeds, or of all."""
    return [run for run in read(lake, max(_length(lake) - tail, 0)) if feeds is None or run.feed in feeds]


def read(lake: PurePath, start: int = 0, unreadable: Unreadable | None = None) -> Iterator[Run]:
    """The runs from a byte of the history on, oldest first; no more than one line is in memory.

    Args:
        start: in the middle of a line, reading begins with the next one.
        unreadable: counts the lines that were skipped.
    """
    try:
        file = storage_of(lake).open(layout.runs(lake))
    except FileNotFoundError:
        return
    with file:
        for text in _lines(file, start):
            run = _parsed(text)
            if run is not None:
                yield run
            elif text.strip() and unreadable is not None:
                unreadable.lines += 1


def _lines(file: BinaryIO, start: int) -> Iterator[bytes]:
    """Lines from a byte on; one that is longer than LONGEST is cut, so that it is not valid JSON."""
    if start:
        file.seek(start - 1)
        _skip_line(file)
    while text := file.readline(LONGEST):
        if not text.endswith(b"\n") and len(text) == LONGEST:
            _skip_line(file)
            text = b"too long"
        yield text


def _skip_line(file: BinaryIO) -> None:
    while (part := file.readline(LONGEST)) and not part.endswith(b"\n"):
        pass


def _parsed(text: bytes) -> Run | None:
    try:
        return Run.read(json.loads(text))
    except (ValueError, RecursionError):
        return None


def since(lake: PurePath, first: dt.date) -> int:
    """The byte of the history where the runs that ended on a day (UTC) or later begin; found from the end."""
    wanted = dt.datetime.combine(first, dt.time(), dt.UTC)
    earlier = iso(wanted - SLACK) if wanted > dt.datetime(1, 1, 3, tzinfo=dt.UTC) else ""
    position = _length(lake)
    if not position:
        return 0
    with storage_of(lake).open(layout.runs(lake)) as file:
        while position > 0:
            position = max(position - BLOCK, 0)
            newest = next((run for run in map(_parsed, reversed(_lines_of_block(file, position))) if run), None)
            if newest is not None and newest.ended < earlier:
                break
    return position


def _lines_of_block(file: BinaryIO, position: int) -> list[bytes]:
    """The whole lines that begin in the block at a position."""
    file.seek(position)
    lines = file.read(BLOCK).split(b"\n")
    return lines[1 if position else 0 : -1]


def _length(lake: PurePath) -> int:
    there = storage_of(lake).stat(layout.runs(lake))
    return there.size if there else 0


def same_weekday(known: Sequence[Run], feed: str, now: dt.datetime) -> tuple[int, ...]:
    """Rows, quarantined ones included, of each good and complete run of a feed on the weekday of `now` (UTC)."""
    mine = [run for run in known if run.feed == feed and run.good and not run.days and run.started and _counted(run)]
    return tuple(
        run.rows + run.quarantined for run in mine
        if dt.datetime.fromisoformat(run.started).weekday() == now.weekday()
    )


def _counted(run: Run) -> bool:
    rows = run.line.get("rows")
    return isinstance(rows, int) and not isinstance(rows, bool)
