"""An export from beginning to end, for the command line and for Python: every feed's turn, and the run's record."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, LakeError
from ksql_lake.base.logs import LogFormatter, also_to
from ksql_lake.base.retry import until_answered
from ksql_lake.cli.observing import observers
from ksql_lake.ingest.export import FeedResult, FeedTask, export_feed, now
from ksql_lake.ingest.progress import Progress
from ksql_lake.ingest.run_record import RunRecord
from ksql_lake.ingest.workers import Workers
from ksql_lake.maintain.retention import Rule
from ksql_lake.model.feeds import Feed, FeedProblem
from ksql_lake.model.findings import findings_of
from ksql_lake.sources.kafka.connection import connection
from ksql_lake.sources.ksqldb.client import Client, Server
from ksql_lake.sources.pace import Limits
from ksql_lake.store import cluster, history, layout
from ksql_lake.store.layout import storage_of
from ksql_lake.store.storage import CLOSED
from ksql_lake.store.writer import WriterOptions

log = logging.getLogger("export_to_data_lake")
LOGGERS = ("export_to_data_lake", "ksql_lake")  # what an export logs to


@dataclass(frozen=True)
class Order:
    """What to export and how.

    Attributes:
        feeds, problems: the feeds to export, and the feed files that cannot be used.
        days: only these days of streams; none for everything.
        everything: it is a run of all feeds, after which retention is due.
        jobs: feeds at the same time.
        accept_cluster: the lake may be filled from a different Kafka cluster than before.
        cluster: the address of a Dask scheduler whose workers read.
        source: auto, rest or kafka; overrides the feeds' own setting.
        since: a stream's first export skips events of earlier days, for good.
    """

    feeds: tuple[Feed, ...]
    problems: tuple[FeedProblem, ...] = ()
    days: tuple[dt.date, ...] = ()
    everything: bool = False
    wait: bool = False
    allow_shrink: bool = False
    reconcile: bool = False
    accept_cluster: bool = False
    jobs: int | None = None
    cluster: str | None = None
    source: str | None = None
    since: dt.date | None = None


@dataclass(frozen=True)
class Listener:
    """Who follows a run: each result as it comes, notes, and the progress of each feed."""

    result: Callable[[FeedResult], None] = lambda result: None
    note: Callable[[str], None] = lambda note: None
    progress: Callable[[str], Progress] = lambda feed: Progress()
    done: Callable[[str], None] = lambda feed: None
    stopped: Callable[[Sequence[FeedResult], str], None] | None = None  # one cause that stopped all; else `result`


Turns = Callable[[Order, Sequence[FeedTask], RunRecord, Listener], None]


def carry_out(
    config: Config, order: Order, listener: Listener, results: list[FeedResult], turns: Turns | None = None
) -> None:
    """Export; `results` gets a result for each feed and each problem, also of a run that is interrupted.

    Args:
        turns: what to do with the feeds' tasks instead of exporting each once.
    """
    lake, storage = config.lake_dir, storage_of(config.lake_dir)
    storage.guard(lake, (layout.runs(lake), layout.running(lake)))
    storage.close(layout.state(lake), CLOSED)
    named = (p for p in order.problems if p.path.is_absolute())
    names = (*((p.path.stem, "?") for p in named), *((feed.name, feed.type) for feed in order.feeds))
    with RunRecord(config.lake_dir, run_name(), names, order.days, results) as record:
        for problem in order.problems:
            found = tuple(findings_of(problem.path.stem, "feed file", problem.message))
            broken = FeedResult(problem.path.stem, "?", "failed", findings=found, exit_code=ExitCode.FINDINGS)
            if problem.path.is_absolute():
                listener.result(record.add(broken))
            else:  # a mistyped name, and no feed of the lake
                results.append(broken)
                listener.result(broken)
        known = _known_runs(config, order.feeds)
        tasks = [task_of(config, order, feed, record.run, known) for feed in order.feeds]
        (turns or _turns)(order, tasks, record, listener)


def _turns(order: Order, tasks: Sequence[FeedTask], record: RunRecord, listener: Listener) -> None:
    """Each feed's turn, once the server answers; if it does not, every feed has failed."""
    if not tasks:
        return
    try:
        server = tasks[0].server
        with Client(server) as client:
            info = until_answered(client.server_info, server.timeout, listener.note)
        moved = cluster.admit(
            tasks[0].lake, info.kafka_cluster_id, server.url, now(), accept=order.accept_cluster
        )
    except LakeError as error:
        stopped = record.rest("failed", str(error), error.exit_code)
        if listener.stopped is not None:
            listener.stopped(stopped, str(error))
        for result in stopped if listener.stopped is None else ():
            listener.result(result)
        return
    if moved:
        log.warning("%s", moved)
        listener.note(moved)
    for result in _results(order, tasks, listener):
        listener.result(record.add(result))


def _results(order: Order, tasks: Sequence[FeedTask], listener: Listener) -> Iterator[FeedResult]:
    """The feeds' results as they come: some at a time, or as many as a cluster has threads."""
    if order.cluster:
        from ksql_lake.ingest.cluster import workers

        with workers(order.cluster, tasks[0].lake) as there:
            yield from _side_by_side(tasks, order.jobs or there.threads, listener, there)
        return
    jobs = order.jobs or 1
    with ThreadPoolExecutor(jobs, "part") as readers:  # of a large topic; a thread is started when there is one
        parts = Workers(readers, jobs, remote=False) if jobs > 1 else None
        if len(tasks) == 1 or jobs == 1:
            for task in tasks:
                yield _turn(task, listener, parts)
        else:
            yield from _side_by_side(tasks, jobs, listener, parts)


def _turn(task: FeedTask, listener: Listener, workers: Workers | None) -> FeedResult:
    progress = listener.progress(task.feed.name)
    try:
        return export_feed(task, progress, workers)
    finally:
        listener.done(task.feed.name)


def _side_by_side(
    tasks: Sequence[FeedTask], jobs: int, listener: Listener, workers: Workers | None
) -> Iterator[FeedResult]:
    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed([pool.submit(_turn, task, listener, workers) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def task_of(config: Config, order: Order, feed: Feed, run: str, known: Sequence[history.Run]) -> FeedTask:
    """One feed's turn under the settings in force."""
    limits = Limits(
        first_row=config.timeout,
        idle=feed.idle_seconds or config.idle_seconds,
        anchor=max(2 * config.timeout, config.idle_seconds),
        duration=config.max_duration,
        retry=config.timeout * 4,
    )
    level = feed.compression_level if feed.compression else config.compression_level
    options = WriterOptions(
        compression=feed.compression or config.compression, compression_level=level,
        bloom_filter_columns=feed.bloom_filter_columns, file_rows=config.file_rows,
    )
    rule = Rule(feed.retention_days, feed.retention_versions, config.max_delete_percent / 100)
    retains = config.retention and order.everything and not order.days
    return FeedTask(
        feed, config.lake_dir, server_of(config), run, limits, options, order.days, order.wait, order.allow_shrink,
        order.reconcile, config.batch_size, rule if retains else None, config.trash_days,
        data_lake_config.operator(), history.same_weekday(known, feed.name, dt.datetime.now(dt.UTC)),
        connection(config.kafka_servers, config.kafka_config_file, config.timeout), order.source,
        observers=observers(config), since=order.since,
    )


def server_of(config: Config) -> Server:
    return Server(config.url, config.user, config.password, config.ca_cert, config.timeout)


def _known_runs(config: Config, chosen: Sequence[Feed]) -> list[history.Run]:
    """The run history, of feeds with a check that compares with it."""
    counted = {feed.name for feed in chosen if any(check.check == "row_count" for check in feed.checks)}
    return history.runs(config.lake_dir, 64 << 20, counted) if counted else []  # months, also of hundreds of feeds


def note_refused(lake: Path, wanted: Sequence[Feed], error: LakeError) -> None:
    """Record in the history that these feeds failed because the settings are wrong."""
    log_to(lake, data_lake_config.LOG_LEVEL, data_lake_config.LOG_FORMAT)
    with RunRecord(lake, run_name(), tuple((feed.name, feed.type) for feed in wanted)) as record:
        record.rest("failed", f"nothing was exported: {error}", error.exit_code)


def run_name() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"


def exit_code(results: Sequence[FeedResult]) -> int:
    codes = {result.exit_code for result in results}
    if ExitCode.FINDINGS in codes:
        return ExitCode.FINDINGS
    return max(codes, default=ExitCode.OK)


def log_to(lake: Path, level: str, form: str) -> None:
    """Send what is logged to this month's log of the lake."""
    logging.raiseExceptions = False  # a full disk must not print a traceback for each line of the log
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(log_file(lake, form))
    root.setLevel(level)


@contextlib.contextmanager
def logged_beside(lake: Path, level: str, form: str) -> Iterator[None]:
    """Send what an export logs to this month's log of the lake, while the caller's own logging stays as it is."""
    file = log_file(lake, form)
    with contextlib.closing(file), contextlib.ExitStack() as added:
        for name in LOGGERS:
            added.enter_context(also_to(logging.getLogger(name), file, level))
        yield


def log_file(lake: Path, form: str) -> logging.FileHandler:
    """This month's log of the lake."""
    path = layout.log_file(lake, dt.datetime.now(dt.UTC))
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(LogFormatter(form))
    return file
