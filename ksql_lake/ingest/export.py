"""The export of one feed: its lock, its client, the work, and a result that says how it went.

`stage` is the unit of work that an Executor runs, here or on another machine: plain values in, plain values out.
`export_feed` raises nothing, so that one failing feed never stops the next.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import secrets
import time
from concurrent.futures import Executor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import ExitCode, LakeBusyError, LakeError, QualityError, SourceError
from ksql_lake.base.figures import counted
from ksql_lake.ingest.progress import SILENT, Progress
from ksql_lake.ingest.staged import Outcome, Staged, lease, publish
from ksql_lake.ingest.streams.job import StreamJob
from ksql_lake.ingest.streams.reconcile import reconcile
from ksql_lake.ingest.streams.road import NotLarge
from ksql_lake.ingest.streams.stage import stage_stream
from ksql_lake.ingest.tables.job import TableJob
from ksql_lake.ingest.tables.stage import stage_table
from ksql_lake.ingest.workers import Workers
from ksql_lake.maintain import erase, retention
from ksql_lake.maintain.erased import Rules, lasting
from ksql_lake.model.checks import Result
from ksql_lake.model.feeds import Feed
from ksql_lake.model.findings import Finding, findings_of
from ksql_lake.model.state import FeedState, new_stream, new_table
from ksql_lake.sources.kafka.connection import Connection
from ksql_lake.sources.ksqldb.client import Client, Server
from ksql_lake.sources.ksqldb.long_push import LongPush
from ksql_lake.sources.pace import Limits
from ksql_lake.store import journal, layout, metadata, trash
from ksql_lake.store.dataset import Dataset, Observer
from ksql_lake.store.hold import hold
from ksql_lake.store.writer import WriterOptions

log = logging.getLogger("export_to_data_lake")


@dataclass(frozen=True)
class FeedTask:
    """What to export and how; `days` limits a stream to these days, `usual_rows` are those of earlier such runs.

    `kafka` is how to reach Kafka, and `read_from` (auto, rest or kafka) overrides the feed's own. `push` is the query
    that stays open between the commits of a follower. `since`: see `StreamJob`.
    """

    feed: Feed
    lake: Path
    server: Server
    run: str
    limits: Limits
    writer: WriterOptions
    days: tuple[dt.date, ...] = ()
    wait: bool = False
    allow_shrink: bool = False
    reconcile: bool = False
    batch_size: int = 10_000
    rule: retention.Rule | None = None
    trash_days: int = 7
    by: str = ""
    usual_rows: tuple[int, ...] = ()
    kafka: Connection | None = None
    read_from: str | None = None
    push: LongPush | None = None
    observers: tuple[Observer, ...] = ()
    since: dt.date | None = None


@dataclass(frozen=True)
class FeedResult:
    """How the export of one feed went; `result` is ok, findings, failed or busy."""

    feed: str
    type: str
    result: str
    rows: int = 0
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    version: str | None = None
    findings: tuple[Finding, ...] = ()
    exit_code: int = ExitCode.OK
    reconciled: tuple[str, ...] = ()
    retries: int = 0
    offsets: dict[str, list[int]] = field(default_factory=dict)
    checks: tuple[Result, ...] = ()
    quarantined: int = 0
    road: str = ""
    why: str = ""
    passed_over: int = 0

    @property
    def messages(self) -> tuple[str, ...]:
        """The findings as lines that begin with the feed's name."""
        return tuple(finding.line for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The form of `--json`: findings as objects, and their lines under `messages`."""
        return {
            **vars(self), "checks": [asdict(check) for check in self.checks], "messages": list(self.messages),
            "findings": [finding.as_json() for finding in self.findings], "exit_code": int(self.exit_code),
            "reconciled": list(self.reconciled),
        }


def export_feed(
    task: FeedTask,
    progress: Progress = SILENT,
    workers: Workers | None = None,
) -> FeedResult:
    """Export one feed; every failure becomes a result.

    Args:
        workers: these read and stage, or read parts of a large topic; None for this very thread. Only this process
            publishes.
    """
    started = time.monotonic()
    name = task.feed.name
    try:
        dataset = dataset_of(task)
        with hold(dataset, wait=task.wait):
            outcome = _export(task, dataset, progress, workers)
            _afterwards(task, dataset, outcome)
    except LakeBusyError as error:
        return _failed(task, error, started, "busy", ExitCode.LOCKED)
    except QualityError as error:
        return replace(_failed(task, error, started, "quality"), checks=error.results)
    except LakeError as error:
        return _failed(task, error, started)
    except OSError as error:
        return _failed(task, LakeError(file_error(error)), started)
    except Exception as error:
        log.exception("%s: a bug", name)
        text = f"a bug: {type(error).__name__}: {error}; the traceback is in {layout.runs(task.lake).parent}"
        return _failed(task, LakeError(text), started)
    for note in outcome.notes:
        log.info("%s: %s", name, note)
    for finding in outcome.findings:
        log.warning("%s", finding.line)
    log.info("%s: %s in %s", name, counted(outcome.rows, "row"), counted(outcome.files, "file"))
    return FeedResult(
        name,
        task.feed.type,
        "findings" if outcome.findings else "ok",
        outcome.rows,
        outcome.files,
        outcome.bytes,
        round(time.monotonic() - started, 3),
        outcome.version,
        tuple(outcome.findings),
        ExitCode.FINDINGS if outcome.findings else ExitCode.OK,
        tuple(outcome.reconciled),
        outcome.retries,
        outcome.offsets,
        tuple(outcome.checks),
        outcome.quarantined,
        outcome.road,
        outcome.why,
        outcome.passed_over,
    )


def _afterwards(task: FeedTask, dataset: Dataset, outcome: Outcome) -> None:
    """What follows a commit; a failure is only a finding, since the rows are in the lake."""
    try:
        if task.reconcile and task.feed.type == "stream":
            _reconcile(task, dataset, outcome)
        if task.rule is not None:
            _retain(task, dataset, outcome)
    except LakeError as error:
        outcome.findings += findings_of(task.feed.name, "run", f"the rows are exported, but afterwards: {error}")
    except OSError as error:
        outcome.findings += findings_of(
            task.feed.name, "run", f"the rows are exported, but afterwards: {file_error(error)}"
        )


def _retain(task: FeedTask, dataset: Dataset, outcome: Outcome) -> None:
    """Retention after a good export, under the same lock."""
    state = metadata.load(dataset)
    if state is None or task.rule is None:
        return
    moment = dt.datetime.now(dt.UTC)
    decided = retention.plan(dataset.feed, state, task.rule, moment)
    if decided.refusal:
        refusal = f"retention: {decided.refusal.removeprefix(f'{dataset.feed}: ')}"
        outcome.findings.append(Finding("retention", refusal, "warning", dataset.feed))
        retention.remember(dataset, state, decided, task.rule, f"{task.run}n", now=now(), by=task.by)
    if decided.going:
        linked = retention.apply(dataset, state, decided, f"{task.run}r", now=now(), by=task.by)
        outcome.notes.append(
            f"retention: {counted(decided.rows, 'row')}, {counted(decided.bytes, 'byte')} moved to the trash"
        )
        outcome.findings += [
            Finding(
                "link", f"{path}: old enough to be removed, but a symbolic link is in the way; it was left "
                        "alone", feed=dataset.feed
            )
            for path in linked
        ]
    for path in trash.empty(dataset, task.trash_days, moment.date()):
        outcome.notes.append(f"removed {path} for good")


def _failed(
    task: FeedTask, error: LakeError, started: float, kind: str = "failed", code: int = ExitCode.FINDINGS
) -> FeedResult:
    found = tuple(findings_of(task.feed.name, kind, str(error), error.partition, error.offset))
    for finding in found:
        log.error("%s", finding.line)
    seconds = round(time.monotonic() - started, 3)
    result = "busy" if kind == "busy" else "failed"
    return FeedResult(task.feed.name, task.feed.type, result, seconds=seconds, findings=found, exit_code=code)


def file_error(error: OSError) -> str:
    """An error of the file system in one line: which file, what, and that nothing is lost."""
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{where}{error.strerror or error}; nothing is lost; fix it and run again"


def dataset_of(task: FeedTask) -> Dataset:
    """Where the feed of a task lives in the lake."""
    feed = task.feed
    return Dataset(task.lake, feed.name, feed.type, feed.access == "restricted", task.observers)


def _export(
    task: FeedTask, dataset: Dataset, progress: Progress, workers: Workers | None
) -> Outcome:
    """Stage and publish, and again if the topic was recreated meanwhile. Call with the feed's lock held."""
    other = replace(dataset, kind="table" if dataset.kind == "stream" else "stream")
    if dataset.storage.stat(other.metadata) and not dataset.storage.stat(dataset.metadata):
        raise SourceError(
            f"{task.feed.name}: was exported as a {other.kind}, but is now a {dataset.kind}; change feed_type back, "
            "or add a feed under another name"
        )
    outcome = Outcome(notes=journal.recover(dataset))
    state = metadata.load_or_new(dataset, lambda: _new_state(task.feed))
    _refuse_other_unit(task.feed, state)
    journal.catch_up(dataset, state)  # an observer that fails here is reported by the commit that follows
    if (last := state.last_export) and last > now():
        message = f"the last export was at {last}, which is in the future by this machine's clock; set the clock"
        outcome.findings.append(Finding("clock", message, feed=task.feed.name))
    rules = lasting(dataset, state)
    while True:
        elsewhere = workers is not None and workers.remote
        staged = _elsewhere(workers, task, state) if workers and elsewhere else stage(task, state, progress, workers)
        state = publish(dataset, staged)
        outcome.add(staged.outcome)
        if not staged.again:
            break
    _erase_meanwhile(task, dataset, rules, outcome)
    return outcome


def _erase_meanwhile(task: FeedTask, dataset: Dataset, before: Rules, outcome: Outcome) -> None:
    """Take out rows of persons who were erased while this run was reading."""
    state = metadata.load(dataset)
    if state is None:
        return
    came = lasting(dataset, state).without(before)
    if came.known:
        rows = erase.catch_up(dataset, state, came, f"{task.run}x", now=now(), by=task.by)
        outcome.rows -= rows
        outcome.notes.append(f"{rows} rows of persons who were erased meanwhile were taken out")


def _new_state(feed: Feed) -> FeedState:
    if feed.type == "table":
        return new_table(feed.source, now(), feed.timestamps)
    return new_stream(feed.source, feed.timezone, feed.timestamp_column, now(), feed.timestamps)


def _refuse_other_unit(feed: Feed, state: FeedState) -> None:
    """Refuse a second unit of time: readers of a directory disagree on a column whose files use two."""
    if feed.timestamps != state.timestamps:
        raise SourceError(
            f"{feed.name}: timestamps was {state.timestamps} at the first export and is now {feed.timestamps}, but the "
            "files of a feed all have one unit; change the feed back, or archive it and add a new one under another "
            "name"
        )


def stage(
    task: FeedTask, state: FeedState, progress: Progress = SILENT, workers: Workers | None = None
) -> Staged:
    """Read a feed's source and stage what is new: the unit of work. Readers of the lake see no change.

    Args:
        workers: these read parts of a large topic.

    Raises:
        LakeError: nothing was staged, and why.
        NotLarge: workers on other machines would have no parts to read.
    """
    feed, dataset = task.feed, dataset_of(task)
    writer = replace(task.writer, file_mode=dataset.file_mode, dir_mode=dataset.dir_mode)
    with Client(task.server) as client:
        if feed.type == "table":
            table = TableJob(
                dataset, feed.source, task.run, task.limits, writer, feed.max_shrink, task.allow_shrink,
                task.batch_size, progress, feed.forbidden_columns, feed.checks, task.usual_rows,
                feed.on_bad_value,
            )
            return stage_table(client, table, state, now)
        stream = StreamJob(
            dataset, feed.source, task.run, task.limits, writer, feed.timezone, feed.timestamp_column, task.days,
            source_retention_days=feed.source_retention_days, batch_size=task.batch_size, progress=progress,
            forbidden_columns=feed.forbidden_columns, checks=feed.checks, usual_rows=task.usual_rows,
            on_bad_value=feed.on_bad_value, kafka=task.kafka, read_from=task.read_from or feed.read_from,
            exact_values=feed.exact_values, push=task.push, since=task.since,
        )
        return stage_stream(client, stream, state, now, workers)


def stage_on_worker(task: FeedTask, state: FeedState) -> Staged:
    """`stage` under a new name: a worker that was given up may still be writing under the last one."""
    return stage(replace(task, run=f"{task.run}w{secrets.token_hex(3)}"), state)


def _elsewhere(workers: Workers, task: FeedTask, state: FeedState) -> Staged:
    """Have a feed read on other machines: a large topic in parts, all else by one worker."""
    with lease(dataset_of(task)) as granted:
        given = replace(task, writer=replace(task.writer, lease=granted))
        if task.feed.type == "stream" and task.kafka is not None and task.read_from != "rest":
            with contextlib.suppress(NotLarge):
                return stage(given, state, workers=workers)
        return _whole(workers.executor, given, state)


def _whole(executor: Executor, task: FeedTask, state: FeedState) -> Staged:
    patience = 2 * (task.limits.duration + task.limits.retry)  # enough for a worker, and for another one after it
    future = executor.submit(stage_on_worker, task, state)
    if not wait([future], patience).done:
        future.cancel()
        raise LakeError(
            f"{task.feed.name}: no worker finished it within {patience:.0f} s; nothing is lost, the next run "
            "reads it again"
        )
    staged: Staged = future.result()
    return staged


def _reconcile(task: FeedTask, dataset: Dataset, outcome: Outcome) -> None:
    with Client(task.server) as client:
        counts = reconcile(client, dataset, task.days, task.limits)
    outcome.reconciled = [str(count) for count in counts]
    outcome.findings += [Finding("drift", str(count), feed=dataset.feed) for count in counts if not count.explained]


def now() -> str:
    """The present time, UTC, to the second."""
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
