"""The state of the feeds as Prometheus text, for node_exporter's textfile collector.

Base units throughout: seconds, bytes, rows. Times are seconds since 1970, UTC.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ksql_lake.base.outputs import write_out
from ksql_lake.model.findings import LEVELS
from ksql_lake.reporting.summary import FeedSummary, summarise

log = logging.getLogger("export_to_data_lake")
RESULTS = ("ok", "findings", "failed", "busy", "stopped")
Labels = tuple[tuple[str, str], ...]
Samples = Iterable[tuple[Labels, float]]
Value = Callable[[FeedSummary], float | None]


@dataclass(frozen=True)
class ExportRun:
    """The export that writes the metrics: its exit code, when it ended, how many seconds it took."""

    exit_code: int
    ended: dt.datetime
    seconds: float


def write(
    file: Path, lake: Path, export: ExportRun, version: str, max_share: float, off: Collection[str] = (),
    now: dt.datetime | None = None,
) -> str | None:
    """Replace the metrics file in one step; a warning when that cannot be done. See `text` and `summarise`.

    Args:
        now: the present time; default: when the export ended.
    """
    try:
        content = text(summarise(lake, now or export.ended, max_share=max_share, off=off), export, version)
        write_out(file, content.encode(errors="replace"), wait=False)
    except OSError as error:
        return f"{file}: {error.strerror}; the metrics there are old, the export is not affected"
    except Exception as error:
        log.exception("metrics: a bug")
        return f"{file}: a bug: {type(error).__name__}: {error}; the metrics there are old, the export is not affected"
    return None


def text(summaries: Sequence[FeedSummary], export: ExportRun, version: str) -> str:
    """All metrics, each with its HELP and TYPE lines; what is not known of a feed is left out.

    Args:
        version: of this tool.
    """
    lines = [
        *_metric("ksql_lake_info", "The tool that wrote this file.", [((("version", version),), 1)]),
        *_metric("ksql_lake_export_exit_code", "Exit code of the last export, of whichever feeds.",
                 [((), export.exit_code)]),
        *_metric("ksql_lake_export_timestamp_seconds", "When the last export ended, however it went.",
                 [((), export.ended.timestamp())]),
        *_metric("ksql_lake_export_duration_seconds", "How long the last export took.", [((), export.seconds)]),
    ]
    for name, help_text, value in _PER_FEED:
        known = ((_labels(summary), value(summary)) for summary in summaries)
        lines += _metric(name, help_text, [(labels, number) for labels, number in known if number is not None])
    lines += _metric("ksql_lake_findings", "What is wrong with the feed, by level.", _findings(summaries))
    lines += _metric("ksql_lake_last_run_result", "1 for the result of the feed's last run.", _results(summaries))
    lines += _metric(
        "ksql_lake_check_failed_rows", "Rows of the feed's last run that a check of its file found bad.",
        _checks(summaries),
    )
    return "\n".join(lines) + "\n"


def _of_run(key: str) -> Value:
    def value(summary: FeedSummary) -> float | None:
        run = summary.last_run
        return float(getattr(run, key)) if run is not None and key in run.line else None

    return value


def _of_remote(key: str) -> Value:
    return lambda summary: None if summary.remote is None else float(getattr(summary.remote, key))


def _oldest_unpushed(summary: FeedSummary) -> float | None:
    oldest = summary.remote.oldest_unpushed if summary.remote else None
    return _seconds(oldest) if oldest else None


def _last_success(summary: FeedSummary) -> float | None:
    """When the last good export ended; 0 where there was none, so that an alert on its age fires."""
    if not _expected(summary):
        return None
    return _seconds(summary.last_success) if summary.last_success else 0.0


def _last_run(summary: FeedSummary) -> float | None:
    return _seconds(summary.last_run.ended) if summary.last_run else None


def _expected(summary: FeedSummary) -> bool:
    """Whether the feed should be exported; if not, its age must not raise an alarm."""
    return summary.state in ("active", "broken")


_PER_FEED: tuple[tuple[str, str, Value], ...] = (
    ("ksql_lake_active", "1 for a feed that --all exports, 0 for one that is disabled or archived.",
     lambda summary: float(_expected(summary))),
    ("ksql_lake_rows", "Rows in the lake; of a table, in all its versions.", lambda summary: summary.rows),
    ("ksql_lake_bytes", "Size of the Parquet files.", lambda summary: summary.bytes),
    ("ksql_lake_files", "Parquet files.", lambda summary: summary.files),
    ("ksql_lake_partitions", "Days of a stream, versions of a table.", lambda summary: summary.partitions),
    ("ksql_lake_last_success_timestamp_seconds",
     "When the feed was last exported without failure; 0 for never; only feeds that are active.", _last_success),
    ("ksql_lake_freshness_seconds",
     "Age of the newest event of a stream, of the newest version of a table; only feeds that are active.",
     lambda summary: summary.freshness_seconds if _expected(summary) else None),
    ("ksql_lake_freshness_limit_seconds", "The age that the feed file allows.",
     lambda summary: summary.freshness_limit if _expected(summary) else None),
    ("ksql_lake_last_run_timestamp_seconds", "When the feed's last run ended, however it went.", _last_run),
    ("ksql_lake_last_run_duration_seconds", "How long the feed's last run took.", _of_run("seconds")),
    ("ksql_lake_last_run_rows", "Rows that the feed's last run brought.", _of_run("rows")),
    ("ksql_lake_last_run_bytes", "Bytes that the feed's last run wrote.", _of_run("bytes")),
    ("ksql_lake_last_run_retries", "How often the feed's last run had to ask again.", _of_run("retries")),
    ("ksql_lake_local_bytes", "Size of the files on this disk, of a lake with a remote.", _of_remote("local_bytes")),
    ("ksql_lake_remote_bytes", "Size of the files in the lake's remote.", _of_remote("remote_bytes")),
    ("ksql_lake_unpushed_files", "Files that are not in the remote yet.", _of_remote("unpushed_files")),
    ("ksql_lake_oldest_unpushed_timestamp_seconds", "When the oldest of them was exported.", _oldest_unpushed),
    ("ksql_lake_quarantined_rows", "Rows that the feed's last run put into quarantine.", _of_run("quarantined")),
    ("ksql_lake_skipped_records", "Records of the topic that ksqlDB skipped, in the feed's last run from Kafka.",
     lambda summary: summary.last_run.passed_over if summary.last_run and summary.last_run.road == "kafka" else None),
)


def _findings(summaries: Sequence[FeedSummary]) -> Samples:
    for summary in summaries:
        count = Counter(finding.level for finding in summary.findings)
        for level in LEVELS:
            yield (*_labels(summary), ("level", level)), count[level]


def _results(summaries: Sequence[FeedSummary]) -> Samples:
    for summary in summaries:
        if summary.last_run:
            for result in RESULTS:
                yield (*_labels(summary), ("result", result)), summary.last_run.result == result


def _checks(summaries: Sequence[FeedSummary]) -> Samples:
    failed: Counter[Labels] = Counter()
    for summary in summaries:
        for check in summary.last_run.checks if summary.last_run else ():
            labels = (("check", check.check), ("column", check.column), ("level", check.level))
            failed[(*_labels(summary), *labels)] += check.failed  # the same check twice is one series
    return failed.items()


def _labels(summary: FeedSummary) -> Labels:
    return ("feed", summary.feed), ("type", summary.type)


def _seconds(moment: str) -> float:
    return dt.datetime.fromisoformat(moment).timestamp()


def _metric(name: str, help_text: str, samples: Samples) -> list[str]:
    """The lines of one metric; none when it has no sample."""
    lines = [f"{name}{_braces(labels)} {_number(value)}" for labels, value in samples]
    return [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", *lines] if lines else []


def _braces(labels: Labels) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return f"{int(value)}" if float(value).is_integer() else repr(float(value))
