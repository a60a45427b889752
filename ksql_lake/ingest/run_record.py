"""What is remembered of a run: a line in the history for each feed it chose, whatever became of it."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ksql_lake import __version__
from ksql_lake.base.errors import ExitCode, LakeError
from ksql_lake.ingest.export import FeedResult
from ksql_lake.model.findings import Finding, findings_of
from ksql_lake.store import history

log = logging.getLogger("export_to_data_lake")
INTERRUPTED = "interrupted; what was committed stays, the next run goes on from there"


@dataclass
class RunRecord:
    """One run, from its beginning to its end; `results` gets each result, in the order of their endings."""

    lake: Path
    run: str
    feeds: tuple[tuple[str, str], ...]
    days: tuple[dt.date, ...] = ()
    results: list[FeedResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._recorded: set[str] = set()

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            self.rest("failed", INTERRUPTED, ExitCode.INTERRUPTED)
        elif error is not None:
            words = str(error) if isinstance(error, LakeError) else f"a bug: {type(error).__name__}: {error}"
            self.rest("failed", words, ExitCode.FINDINGS)

    def add(self, result: FeedResult) -> FeedResult:
        """Remember how a feed went; the result, with a finding where that could not be written."""
        self._recorded.add(result.feed)
        ended = dt.datetime.now(dt.UTC)
        started = ended - dt.timedelta(seconds=result.seconds)
        line = {
            "run": self.run, "feed": result.feed, "type": result.type, "started": f"{started:%Y-%m-%dT%H:%M:%SZ}",
            "ended": f"{ended:%Y-%m-%dT%H:%M:%SZ}", "seconds": result.seconds, "result": result.result,
            "rows": result.rows, "files": result.files, "bytes": result.bytes, "version": result.version,
            "offsets": result.offsets, "retries": result.retries,
            "findings": [finding.as_json() for finding in result.findings],
            "checks": [asdict(check) for check in result.checks],
            "quarantined": result.quarantined, "days": [str(day) for day in self.days], "tool": __version__,
        }
        try:
            history.append(self.lake, line)
        except OSError as error:
            message = f"{self.lake / history.RUNS}: {error.strerror}; this run is not in the history, its rows are"
            lost = Finding("run", message, feed=result.feed)
            code, word = result.exit_code or ExitCode.FINDINGS, "findings" if result.result == "ok" else result.result
            result = replace(result, result=word, exit_code=code, findings=(*result.findings, lost))
        self.results.append(result)
        return result

    def rest(self, result: str, message: str, exit_code: int) -> list[FeedResult]:
        """Remember the feeds that nothing was said of: they were stopped, or never had their turn."""
        left = [(feed, kind) for feed, kind in self.feeds if feed not in self._recorded]
        found = [
            FeedResult(feed, kind, result, findings=tuple(findings_of(feed, result, message)), exit_code=exit_code)
            for feed, kind in left
        ]
        return [self.add(one) for one in found]
