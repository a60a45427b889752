"""The record of a run: a line in the history for each feed it chose, however that went."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ksql_lake.base.errors import ExitCode, LakeError
from ksql_lake.ingest.export import FeedResult
from ksql_lake.model.findings import Finding, findings_of
from ksql_lake.store import history, layout, running
from ksql_lake.store.history import Run
from ksql_lake.store.running import Started

log = logging.getLogger("export_to_data_lake")
INTERRUPTED = "interrupted; what was committed stays, and the next run continues from there"


@dataclass
class RunRecord:
    """One run from beginning to end. Use it as a context manager: until it ends, others can see what is running.

    Args:
        run: its name, the same for all its feeds.
        feeds: those it chose, each as (name, type).
        days: those it is limited to.
        results: gets each result in the order in which feeds end, but none for feeds that an exception left out.
    """

    lake: Path
    run: str
    feeds: tuple[tuple[str, str], ...]
    days: tuple[dt.date, ...] = ()
    results: list[FeedResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._recorded: set[str] = set()
        self._started = dt.datetime.now(dt.UTC).replace(microsecond=0)

    def __enter__(self) -> RunRecord:
        for run in running.close_dead(self.lake, self._started):
            log.error("%s", run.findings[0].line)
        started = Started(self.run, history.iso(self._started), self.feeds)
        self._stack.enter_context(running.underway(self.lake, started))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.results = []  # what ended the run is reported once, not once for each feed that it left out
        with self._stack:
            if isinstance(error, KeyboardInterrupt):
                self.rest("stopped", INTERRUPTED, ExitCode.INTERRUPTED)
            elif error is not None:
                self.rest("failed", _words(error), ExitCode.FINDINGS)

    def add(self, result: FeedResult) -> FeedResult:
        """Record how a feed went; returns the result, with a finding if it could not be recorded."""
        self._recorded.add(result.feed)
        ended = dt.datetime.now(dt.UTC)
        try:
            history.append(self.lake, run_of(self.run, result, ended, self.days))
        except OSError as error:
            result = _not_in_history(self.lake, result, error)
        self.results.append(result)
        return result

    def rest(self, result: str, message: str, exit_code: int) -> list[FeedResult]:
        """Record the feeds without a result: they were stopped, or had not begun.

        Args:
            result: failed or stopped.
        """
        left = [(feed, kind) for feed, kind in self.feeds if feed not in self._recorded]
        found = [
            FeedResult(feed, kind, result, findings=tuple(findings_of(feed, result, message)), exit_code=exit_code)
            for feed, kind in left
        ]
        for one in found:
            for finding in one.findings:
                log.error("%s", finding.line)
        return [self.add(one) for one in found]


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, LakeError) else f"a bug: {type(error).__name__}: {error}"


def run_of(run: str, result: FeedResult, ended: dt.datetime, days: Sequence[dt.date]) -> Run:
    """How a feed went, for the history."""
    return Run(
        result.feed, history.iso(ended), result.result, run, result.type,
        history.iso(ended - dt.timedelta(seconds=result.seconds)), result.seconds, result.rows, result.files,
        result.bytes, result.retries, result.quarantined, tuple(map(str, days)), result.findings, result.checks,
        result.version, result.offsets, result.road, result.passed_over,
    )


def _not_in_history(lake: Path, result: FeedResult, error: OSError) -> FeedResult:
    """A full disk must not hide how the feed went."""
    message = (
        f"{layout.runs(lake)}: {error.strerror}; this run is missing from the history, but its rows are in "
        "the lake"
    )
    lost = Finding("run", message, feed=result.feed)
    code, word = result.exit_code or ExitCode.FINDINGS, "findings" if result.result == "ok" else result.result
    return replace(result, result=word, exit_code=code, findings=(*result.findings, lost))
