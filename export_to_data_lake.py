"""Export ksqlDB streams and tables into the data lake.

Streams are appended to year=/month=/day= partitions, every event exactly once; tables become a new
version=vN snapshot, whole or not at all. A run may be killed or repeated at any point: the next one
makes it right.

exit codes: 0 all done; 1 a feed failed or left a finding (the others are committed); 2 nothing
attempted: usage or configuration; 3 another run holds the lock; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import difflib
import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import data_lake_config
from ksql_lake import __version__
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError, LakeError
from ksql_lake.base.files import make_dirs
from ksql_lake.base.retry import until_answered
from ksql_lake.base.text import LogFormatter, guards_output, unguarded
from ksql_lake.cli.follow import address, seconds
from ksql_lake.ingest.export import FeedResult, FeedTask, export_feed, file_error, now
from ksql_lake.ingest.run_record import INTERRUPTED, RunRecord
from ksql_lake.maintain.retention import Rule
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed, FeedProblem
from ksql_lake.model.findings import findings_of
from ksql_lake.reporting import alerts
from ksql_lake.sources.kafka.connection import connection, library
from ksql_lake.sources.ksqldb.client import Client, Server
from ksql_lake.sources.pace import Limits
from ksql_lake.store import cluster, history
from ksql_lake.store.writer import WriterOptions

if TYPE_CHECKING:
    from ksql_lake.embedded import EmbeddedKsqlDB

log = logging.getLogger("export_to_data_lake")
DEMO_START = dt.date(2025, 1, 15)
DEMO_MOST = 30_000  # events that the embedded broker keeps


@guards_output
def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    results: list[FeedResult] = []
    said: list[str] = []
    code = int(ExitCode.FINDINGS)  # what Python ends with after a bug
    started = time.monotonic()
    try:
        settings, lake = _alerts(args), _lake(args)
    except ConfigError as error:
        return _refused(error, said)
    try:
        code = _attempt(args, settings, results, said)
    except Exception as error:
        said.append(f"error: a bug: {type(error).__name__}: {error}")
        raise
    finally:
        failed = tuple(result.feed for result in results if result.exit_code)
        lines = [line for result in results for line in _complaints(result)]
        _tell_of(alerts.Ending(code, failed, (*lines, *said)), settings, lake, time.monotonic() - started)
    return code


def _attempt(
    args: argparse.Namespace, settings: data_lake_config.Alerts, results: list[FeedResult], said: list[str]
) -> int:
    """The run: its results as they come, and what else was said; every failure that is no bug is an exit code."""
    try:
        if settings.ping_url:
            _warn(alerts.Ping(settings.ping_url).start())
        if args.demo:
            return _demo(args, results)
        return _export(args, replace(_settings(args), lake_dir=_lake(args)), results)
    except LakeError as error:
        return _refused(error, said)
    except OSError as error:
        return _refused(ConfigError(file_error(error)), said)
    except KeyboardInterrupt:
        said.append(INTERRUPTED)
        print(said[-1], file=sys.stderr)
        return ExitCode.INTERRUPTED


def _tell_of(ending: alerts.Ending, settings: data_lake_config.Alerts, lake: Path, seconds: float) -> None:
    """Tell who is to learn of it how the run ended."""
    if settings.metrics_file:
        from ksql_lake.reporting import metrics

        run = metrics.ExportRun(ending.exit_code, dt.datetime.now(dt.UTC), seconds)
        _warn(metrics.write(settings.metrics_file, lake, run, __version__, _max_share()))
    if settings.ping_url:
        _warn(alerts.Ping(settings.ping_url).end(ending))
    if settings.on_failure and ending.exit_code:
        _warn(alerts.on_failure(settings.on_failure, ending, lake, os.environ))


def _max_share() -> float:
    """MAX_DELETE_PERCENT, by which the report counts findings; its default where the settings are wrong."""
    try:
        return data_lake_config.load(os.environ).max_delete_percent / 100
    except ConfigError:
        return data_lake_config.MAX_DELETE_PERCENT / 100


def _refused(error: LakeError, said: list[str]) -> int:
    said += [f"error: {line}" for line in str(error).splitlines()]
    print("\n".join(said), file=sys.stderr)
    return error.exit_code


def _alerts(args: argparse.Namespace) -> data_lake_config.Alerts:
    """Who learns of this run: options before settings; of a demo only who is named by an option."""
    settings = data_lake_config.Alerts() if args.demo else data_lake_config.load_alerts(os.environ)
    return data_lake_config.Alerts(
        args.metrics_file or settings.metrics_file,
        data_lake_config.ping_url("--ping-url", args.ping_url) if args.ping_url else settings.ping_url,
        args.on_failure or settings.on_failure,
    )


def _lake(args: argparse.Namespace) -> Path:
    if args.lake or args.demo:
        return Path(args.lake or "demo_lake").resolve()
    return data_lake_config.lake_dir(os.environ)


def _warn(warning: str | None) -> None:
    if warning:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
        if logging.getLogger().handlers:  # without one, logging would print it a second time
            log.warning("%s", warning)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    what = parser.add_argument_group("what to export")
    what.add_argument("--all", action="store_true", help="every enabled feed in feeds/active")
    what.add_argument("--stream", action="append", default=[], metavar="NAME", help="one stream feed; may be repeated")
    what.add_argument("--table", action="append", default=[], metavar="NAME", help="one table feed; may be repeated")
    what.add_argument(
        "--date", action="append", default=[], type=_day, metavar="YYYY-MM-DD",
        help="only events of this day (streams); may be repeated. Never doubles a row, in any order",
    )
    what.add_argument("--from", dest="first", type=_day, metavar="YYYY-MM-DD", help="first day of a range")
    what.add_argument("--to", dest="last", type=_day, metavar="YYYY-MM-DD", help="last day of a range, included")
    what.add_argument("--demo", action="store_true", help="export an embedded ksqlDB's sources into demo_lake/")
    how = parser.add_argument_group("how")
    how.add_argument("--lake", type=Path, metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    how.add_argument("--wait", action="store_true", help="wait for a lock another run holds (default: exit code 3)")
    how.add_argument("--jobs", type=_jobs, metavar="N", help="feeds to export at the same time (default: 1)")
    how.add_argument(
        "--cluster", metavar="ADDRESS", help="let the workers of this Dask scheduler read (tcp://scheduler:8786)"
    )
    how.add_argument("--allow-shrink", action="store_true", help="accept a table that is empty or much smaller")
    how.add_argument(
        "--accept-cluster", action="store_true",
        help="fill the lake from another Kafka cluster than so far; its streams count as recreated",
    )
    how.add_argument(
        "--reconcile", action="store_true", help="then count streams' rows per day at the source and compare"
    )
    how.add_argument(
        "--source", choices=("auto", "rest", "kafka"),
        help="where streams are read: kafka reads their topics, rest asks ksqlDB, auto takes Kafka where it can "
        "(default: read_from of each feed, else auto)",
    )
    how.add_argument("--follow", action="store_true", help="keep exporting in small batches until SIGTERM or Ctrl-C")
    how.add_argument("--every", type=seconds, default=60.0, metavar="TIME", help="a batch of --follow (default: 60s)")
    how.add_argument(
        "--tables-every", type=seconds, default=3600.0, metavar="TIME", help="tables of --follow (default: 1h)"
    )
    how.add_argument("--batch-rows", type=int, default=200_000, metavar="N", help="or earlier, when so many rows wait")
    how.add_argument("--batch-mb", type=float, default=64.0, metavar="MB", help="or about so many MB of files")
    how.add_argument("--listen", type=address, metavar="HOST:PORT", help="serve /healthz and /metrics of --follow")
    how.add_argument("--for", dest="limit", type=seconds, metavar="TIME", help="end --follow after this time")
    how.add_argument("--events", type=int, default=10_000, metavar="N", help="events of the demo (default: 10000)")
    how.add_argument("--json", action="store_true", help="results as JSON on stdout")
    how.add_argument("--quiet", action="store_true", help="say nothing unless something is wrong")
    told = parser.add_argument_group("who learns how it went (default: METRICS_FILE, PING_URL, ON_FAILURE)")
    told.add_argument(
        "--metrics-file", type=Path, metavar="FILE", help="write Prometheus text for node_exporter's textfile collector"
    )
    told.add_argument("--ping-url", metavar="URL", help="post to URL/start, then URL, or URL/fail with the last lines")
    told.add_argument(
        "--on-failure", metavar="COMMAND", help="run by the shell after another exit code than 0, messages on its stdin"
    )
    return parser


def _day(text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; expected YYYY-MM-DD such as 2025-01-15") from None


def _jobs(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 64")
    return int(text)


def _days(args: argparse.Namespace) -> tuple[dt.date, ...]:
    days = set(args.date)
    if (args.first is None) != (args.last is None):
        raise ConfigError("--from and --to go together")
    if args.first is not None:
        if args.last < args.first:
            raise ConfigError(f"--from {args.first} is after --to {args.last}")
        days |= {args.first + dt.timedelta(days=i) for i in range((args.last - args.first).days + 1)}
    return tuple(sorted(days))


def _export(args: argparse.Namespace, config: data_lake_config.Config, results: list[FeedResult]) -> int:
    days = _days(args)
    chosen, problems = _choose(args, config.lake_dir / "feeds" / "active")
    if days:
        if args.table:
            raise ConfigError("--date is for streams; a table is always exported whole")
        chosen = [feed for feed in chosen if feed.type == "stream"]
    _log_to(config.lake_dir, config.log_level, config.log_format)
    names = (*((p.path.stem, "?") for p in problems), *((feed.name, feed.type) for feed in chosen))
    with RunRecord(config.lake_dir, _run_name(), names, days, results) as record:
        for p in problems:
            found = tuple(findings_of(p.path.stem, "feed file", p.message))
            _say(record.add(FeedResult(p.path.stem, "?", "failed", findings=found, exit_code=1)), args)
        known = _known_runs(config, chosen)
        tasks = [_task(args, config, feed, record.run, days, known) for feed in chosen]
        if not args.follow:
            _turns(args, tasks, record)
    if args.follow:
        return _follow(args, config, tasks)
    after = _to_remote(args, config, results, days)
    if args.json:
        print(json.dumps([result.as_json() for result in results], indent=2))
    return _exit_code(results) or (ExitCode.FINDINGS if after else ExitCode.OK)


def _to_remote(
    args: argparse.Namespace, config: data_lake_config.Config, results: Sequence[FeedResult], days: tuple[dt.date, ...]
) -> list[str]:
    """Bring the remote home of the lake up to date; what went wrong there, told as findings."""
    if not args.all or args.demo or days or not config.remote_after_export:
        return []
    from ksql_lake.cli import remote

    lines = remote.after_export(config, {result.feed for result in results if result.result in ("failed", "busy")})
    for line in lines:
        print(line, file=sys.stderr, flush=True)
        log.warning("%s", line)
    return lines


def _follow(args: argparse.Namespace, config: data_lake_config.Config, tasks: list[FeedTask]) -> int:
    """Batch after batch until it is told to stop."""
    from ksql_lake.cli import follow

    if args.date or args.first or args.cluster or args.reconcile:
        raise ConfigError("--follow goes with neither --date, --from, --cluster nor --reconcile")
    if not tasks:
        raise ConfigError("nothing to follow: every feed is disabled or broken")
    rhythm = follow.Rhythm(args.every, args.batch_rows, int(args.batch_mb * (1 << 20)), args.tables_every)

    def tell(result: FeedResult) -> None:
        record = RunRecord(config.lake_dir, _run_name(), ((result.feed, result.type),))
        _say(record.add(result), args)

    return follow.run(tasks, rhythm, args.listen, tell, lambda text: None if args.quiet else _tell(text), args.limit)


def _turns(args: argparse.Namespace, tasks: Sequence[FeedTask], record: RunRecord) -> None:
    """Each feed's turn, once the server answers; where it does not, every feed has failed."""
    if not tasks:
        return
    try:
        server = tasks[0].server
        with Client(server) as client:
            info = until_answered(client.server_info, server.timeout, lambda note: None if args.quiet else _tell(note))
        moved = cluster.admit(record.lake, info.kafka_cluster_id, server.url, now(), accept=args.accept_cluster)
    except LakeError as error:
        for result in record.rest("failed", str(error), error.exit_code):
            _say(result, args)
        return
    if moved:
        log.warning("%s", moved)
        _tell(moved)
    for result in _results(args, tasks):
        _say(record.add(result), args)


def _run_name() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"


def _settings(args: argparse.Namespace) -> data_lake_config.Config:
    """The settings in force; where they are wrong, the feeds that should have had their turn have failed."""
    try:
        return data_lake_config.load(os.environ)
    except ConfigError as error:
        active = _lake(args) / "feeds" / "active"
        loaded = feeds.load_all(active, patterns=False) if active.is_dir() else []
        wanted = [feed for feed in loaded if isinstance(feed, Feed) and (feed.enabled if args.all else feed.name in (
            *args.stream, *args.table))]
        if wanted:
            _log_to(_lake(args))
            with RunRecord(_lake(args), _run_name(), tuple((feed.name, feed.type) for feed in wanted)) as record:
                record.rest("failed", f"nothing was exported: {error}", error.exit_code)
        raise


def _choose(args: argparse.Namespace, active: Path) -> tuple[list[Feed], list[FeedProblem]]:
    if args.all and (args.stream or args.table) and not args.demo:
        raise ConfigError("--all is every enabled feed; give it alone, or --stream and --table without it")
    if not (args.all or args.stream or args.table):
        raise ConfigError("nothing to export: give --all, --stream NAME or --table NAME (see --help)")
    loaded = feeds.load_all(active)
    if not loaded:
        raise ConfigError(f"{active}: no feed; write them with: python manage_feeds.py sync")
    good = [feed for feed in loaded if isinstance(feed, Feed)]
    bad = [feed for feed in loaded if isinstance(feed, FeedProblem)]
    if args.all:
        return [feed for feed in good if feed.enabled], bad
    chosen, problems = [], []
    for kind, names in (("stream", args.stream), ("table", args.table)):
        for name in dict.fromkeys(names):
            match = next((feed for feed in good if feed.name == name), None)
            broken = [problem for problem in bad if problem.path.stem == name]
            problems += broken
            if match is None and not broken:
                raise FeedError(f"{active / name}.json: no such feed{_elsewhere(active, name)}")
            if match is not None and match.type != kind:
                raise ConfigError(f"{name} is a {match.type}; use --{match.type} {name}")
            if match is not None:
                chosen.append(match)
    return chosen, problems


def _elsewhere(active: Path, name: str) -> str:
    if (active.parent / "archived" / f"{name}.json").exists():
        return f"; it is archived: python manage_feeds.py restore {name}"
    close = difflib.get_close_matches(name, [path.stem for path in active.glob("*.json")], 1)
    return f"; did you mean {close[0]}?" if close else "; see: python manage_feeds.py list"


def _task(
    args: argparse.Namespace, config: data_lake_config.Config, feed: Feed, run: str, days: tuple[dt.date, ...],
    known: Sequence[history.Run],
) -> FeedTask:
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
    server = Server(config.url, config.user, config.password, config.ca_cert, config.timeout)
    rule = Rule(feed.retention_days, feed.retention_versions, config.max_delete_percent / 100)
    return FeedTask(
        feed, config.lake_dir, server, run, limits, options, days, args.wait, args.allow_shrink, args.reconcile,
        config.batch_size, rule if config.retention and args.all and not days else None, config.trash_days,
        data_lake_config.operator(), history.same_weekday(known, feed.name, dt.datetime.now(dt.UTC)),
        connection(config.kafka_servers, config.kafka_config_file, config.timeout), args.source,
    )


def _known_runs(config: data_lake_config.Config, chosen: Sequence[Feed]) -> list[history.Run]:
    """The run history, of feeds with a check that compares with it."""
    counted = {feed.name for feed in chosen if any(check.check == "row_count" for check in feed.checks)}
    return history.runs(config.lake_dir, 64 << 20, counted) if counted else []  # months, also of hundreds of feeds


def _results(args: argparse.Namespace, tasks: Sequence[FeedTask]) -> Iterator[FeedResult]:
    """The feeds' results as they come: one after the other, --jobs at a time, or as many as a cluster has threads."""
    if args.cluster and tasks:
        from ksql_lake.ingest.cluster import workers

        with workers(args.cluster, tasks[0].lake) as there:
            yield from _side_by_side(tasks, args.jobs or there.threads, there.executor)
    elif (args.jobs or 1) > 1:
        yield from _side_by_side(tasks, args.jobs, None)
    else:
        for task in tasks:
            with _progress(args, task.feed.name) as progress:
                result = export_feed(task, progress.add)
            yield result


def _side_by_side(tasks: Sequence[FeedTask], jobs: int, workers: Executor | None) -> Iterator[FeedResult]:
    pool = ThreadPoolExecutor(jobs)
    try:
        for future in as_completed([pool.submit(export_feed, task, workers=workers) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Progress:
    """A running count on a terminal; silent elsewhere."""

    def __init__(self, name: str, shown: bool) -> None:
        self.name, self.shown, self.rows, self.drawn = name, shown, 0, 0.0

    def add(self, rows: int) -> None:
        self.rows += rows
        if self.shown and time.monotonic() - self.drawn > 0.2:
            self.drawn = time.monotonic()
            print(f"\r{self.name}: {self.rows:,} rows", end="", file=unguarded(sys.stderr), flush=True)


@contextlib.contextmanager
def _progress(args: argparse.Namespace, name: str) -> Iterator[_Progress]:
    progress = _Progress(name, sys.stderr.isatty() and not args.quiet)
    try:
        yield progress
    finally:
        if progress.drawn:
            print("\r\033[K", end="", file=unguarded(sys.stderr), flush=True)


def _say(result: FeedResult, args: argparse.Namespace) -> None:
    if not args.quiet and not args.json and result.result in ("ok", "findings"):
        version = f" as {result.version}" if result.version else ""
        size = f"{result.bytes / 1e6:.1f} MB in {result.files} files" if result.files else "nothing new"
        aside = f"  {result.quarantined:,} set aside" if result.quarantined else ""
        took = f"{result.seconds:.1f} s{_road(result, args)}"
        print(f"{result.feed:<32} {result.rows:>10,} rows{version}  {size}{aside}  {took}", flush=True)
    for line in result.reconciled if not args.quiet and not args.json else ():
        print(f"  {line}", flush=True)
    for line in _complaints(result):
        print(line, file=sys.stderr, flush=True)


def _road(result: FeedResult, args: argparse.Namespace) -> str:
    """Which road the rows took and why, where there is more than one."""
    configured = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or os.environ.get("KAFKA_CONFIG_FILE") or args.source
    if not result.road or not (configured or result.road == "kafka"):
        return ""
    passed = f", {result.passed_over:,} records passed over" if result.passed_over else ""
    return f"  by {'Kafka' if result.road == 'kafka' else 'REST'} ({result.why}{passed})"


def _complaints(result: FeedResult) -> list[str]:
    return [f"{'finding' if result.result == 'findings' else 'error'}: {message}" for message in result.messages]


def _tell(note: str) -> None:
    print(note, file=sys.stderr, flush=True)


def _exit_code(results: Sequence[FeedResult]) -> int:
    codes = {result.exit_code for result in results}
    if ExitCode.FINDINGS in codes:
        return ExitCode.FINDINGS
    return max(codes, default=ExitCode.OK)


def _log_to(lake: Path, level: str = data_lake_config.LOG_LEVEL, form: str = data_lake_config.LOG_FORMAT) -> None:
    logs = lake / "logs"
    make_dirs(logs)
    logging.raiseExceptions = False  # a full disk must not print a traceback for each line of the log
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    file = logging.FileHandler(logs / f"export_{dt.datetime.now(dt.UTC):%Y_%m}.log", encoding="utf-8")
    file.setFormatter(LogFormatter(form))
    root.addHandler(file)
    root.setLevel(level)


def _near(path: Path) -> Path:
    """A path as a person would type it: relative below the present directory, else whole."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _demo(args: argparse.Namespace, results: list[FeedResult]) -> int:
    """The whole road over real HTTP with no other machine: embedded ksqlDB -> demo_lake/."""
    import manage_feeds
    from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo, live_demo

    lake = _lake(args)
    with EmbeddedKsqlDB() as database:
        fill_demo(database, args.events, 1, DEMO_START, 3)
        publish = _demo_topics(args, database)
        environment = {**os.environ, "DATA_LAKE_DIR": str(lake), "KSQLDB_URL": database.url, **publish.settings}
        environment.setdefault("IDLE_SECONDS", "1")
        config = data_lake_config.load(environment)
        data_lake_config.create(config)
        manage_feeds.sync(config, now(), keep_all=True)  # events of 2025 are too old to stay by the feeds' own rules
        args.all = True
        stop = threading.Event()
        if args.follow:
            args.limit, args.every = args.limit or 60.0, min(args.every, 2.0)
            live = (database, stop, publish.publish, args.events)
            threading.Thread(target=live_demo, args=live, daemon=True).start()
        code = _export(args, config, results)
        stop.set()
    if not args.quiet and not args.json:
        day = "year=2025/month=01/day=15"
        print(f"\nThe lake is in {lake}. Look into it, for instance:")
        print("  python -c \"import pandas as pd; print(pd.read_parquet('"
              f"{_near(lake)}/streams/transaction_flattened/{day}').head())\"")
        print(f"  python metadata_utils.py --report --lake {_near(lake)}")
    return code


@dataclass(frozen=True)
class _DemoTopics:
    """The demo's Kafka: the settings that name it, and what copies a stream to its topic."""

    settings: dict[str, str]
    publish: Callable[[str], None]


def _demo_topics(args: argparse.Namespace, database: EmbeddedKsqlDB) -> _DemoTopics:
    """With --source kafka the demo's streams are topics too, on the broker that comes with confluent-kafka."""
    if args.source != "kafka":
        return _DemoTopics({"KAFKA_BOOTSTRAP_SERVERS": "", "KAFKA_CONFIG_FILE": ""}, lambda name: None)
    if args.events > DEMO_MOST:
        raise ConfigError(f"--demo --source kafka: its broker keeps no more than --events {DEMO_MOST}")
    library()
    from ksql_lake.embedded.topics import Topics

    topics = Topics(database)
    for name, source in list(database.sources.items()):
        if source.kind == "STREAM":
            topics.publish(name)
    return _DemoTopics({"KAFKA_BOOTSTRAP_SERVERS": topics.bootstrap, "KAFKA_CONFIG_FILE": ""}, topics.publish)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)  # as Ctrl-C: what stops a container or a service is told to those who wait
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # takes nothing apart, a fifth of the start-up; after Ctrl-C threads of --jobs may still be reading
