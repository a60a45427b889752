"""An export as a command: what it prints, whom it notifies, and its exit code."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import data_lake_config
from ksql_lake.base.errors import ConfigError, ExitCode, LakeError
from ksql_lake.base.figures import counted, several, size
from ksql_lake.base.settings import lake_path
from ksql_lake.base.text import unguarded
from ksql_lake.cli import hints, notifying
from ksql_lake.cli.export_options import choose, days
from ksql_lake.cli.progress import shown
from ksql_lake.cli.remote_export import to_remote
from ksql_lake.cli.run import Listener, Order, carry_out, exit_code, log_to, note_refused, run_name
from ksql_lake.ingest.export import FeedResult, FeedTask, file_error
from ksql_lake.ingest.run_record import INTERRUPTED, RunRecord
from ksql_lake.model import feeds
from ksql_lake.model.findings import findings_of
from ksql_lake.reporting import alerts
from ksql_lake.store import layout

log = logging.getLogger("export_to_data_lake")


def run(args: argparse.Namespace) -> int:
    results: list[FeedResult] = []
    said: list[str] = []  # messages on stderr, line by line
    code = int(ExitCode.FINDINGS)  # Python's exit code after an uncaught exception
    started = time.monotonic()
    try:
        lake = lake_of(args)
        hints.called(lake if args.lake or args.demo else None)
        settings = notifying.chosen(args)
    except ConfigError as error:
        code = _refused(error, said)
        _print_json(args, results, said, code)
        return code
    try:
        code = _attempt(args, settings, results, said)
    except Exception as error:
        said.append(f"error: a bug: {type(error).__name__}: {error}")
        raise
    finally:
        _print_json(args, results, said, code)
        failed = tuple(sorted(result.feed for result in results if result.exit_code and result.feed))
        notifying.end(alerts.Ending(code, failed, _by_feed(results, said)), settings, lake, time.monotonic() - started)
    return code


def _by_feed(results: Sequence[FeedResult], said: Sequence[str]) -> tuple[str, ...]:
    """Messages by feed: the order in which feeds that run side by side end means nothing."""
    lines = [line for result in sorted(results, key=lambda result: result.feed) for line in complaints(result)]
    return (*lines, *(line for line in said if line not in lines))


def lake_of(args: argparse.Namespace) -> Path:
    if args.lake or args.demo:
        return lake_path("--lake", args.lake or "demo_lake")
    return data_lake_config.lake_dir(os.environ)


def _attempt(
    args: argparse.Namespace, settings: data_lake_config.Alerts, results: list[FeedResult], said: list[str]
) -> int:
    """The run: its results as they come, other messages, and the exit code. Only a bug raises."""
    try:
        notifying.begin(settings)
        if args.demo:
            from ksql_lake.cli import demo

            return demo.run(args, lake_of(args), lambda config: export(args, config, results, said))
        return export(args, replace(_settings(args), lake_dir=lake_of(args)), results, said)
    except LakeError as error:
        return _refused(error, said)
    except OSError as error:
        return _refused(ConfigError(file_error(error)), said)
    except KeyboardInterrupt:
        said.append(INTERRUPTED)
        print(said[-1], file=sys.stderr)
        return ExitCode.INTERRUPTED


def _settings(args: argparse.Namespace) -> data_lake_config.Config:
    """The settings in force; where they are wrong, every feed of this run is recorded as failed."""
    try:
        return data_lake_config.load(os.environ)
    except ConfigError as error:
        active = layout.feed_files(lake_of(args))
        loaded = feeds.load_all(active, patterns=False)
        good = [feed for feed in loaded if isinstance(feed, feeds.Feed)]
        named = (*args.stream, *args.table)
        off = _switched_off()
        wanted = [
            feed for feed in good if (feed.enabled and feed.name not in off if args.all else feed.name in named)
        ]
        if wanted and not args.dry_run:
            note_refused(lake_of(args), wanted, error)
        raise


def _switched_off() -> tuple[str, ...]:
    try:
        return data_lake_config.switched_off(os.environ)
    except ConfigError:
        return ()


def _refused(error: LakeError, said: list[str]) -> int:
    lines = [f"error: {line}" for line in str(error).splitlines()]
    said += lines
    print("\n".join(lines), file=sys.stderr)
    return error.exit_code


def export(
    args: argparse.Namespace, config: data_lake_config.Config, results: list[FeedResult], said: list[str]
) -> int:
    """Export what the options ask for; returns the exit code."""
    order = _order(args, config)
    if args.dry_run:
        from ksql_lake.cli.dry_run import dry_run

        return dry_run(config, order)
    log_to(config.lake_dir, config.log_level, config.log_format)
    shows = [] if args.follow else [feed.name for feed in order.feeds]
    with shown(args, unguarded(sys.stderr), shows) as progress:
        def say(result: FeedResult) -> None:
            said.extend(complaints(result))
            with progress.aside():
                _say(result, args)

        def note(text: str) -> None:
            if not args.quiet:
                with progress.aside():
                    print(text, file=sys.stderr, flush=True)

        def stopped(results: Sequence[FeedResult], why: str) -> None:
            """One cause gives one line, however many feeds it stopped."""
            said.extend(line for result in results for line in complaints(result))
            names = several([result.feed for result in results])
            with progress.aside():
                print(f"error: {names}: {why}", file=sys.stderr, flush=True)

        listener = Listener(say, note, progress.of, progress.done, stopped)
        if args.follow:
            return _follow(args, config, order, listener)
        started = time.monotonic()
        carry_out(config, order, listener, results)
    if len(results) > 1 and not args.quiet and not args.json and sys.stdout.isatty():
        print(total(results, time.monotonic() - started))
    if not args.demo and (there := to_remote(config, order, results)) is not None:
        results.append(there)
        _say(there, args)
    return exit_code(results)


def _follow(args: argparse.Namespace, config: data_lake_config.Config, order: Order, listener: Listener) -> int:
    """Batch after batch until a signal stops it."""
    from ksql_lake.cli import follow

    if order.days or args.cluster or args.reconcile:
        raise ConfigError("--follow cannot be combined with --date, --from, --cluster or --reconcile")
    if not order.feeds:
        raise ConfigError("nothing to follow: every feed is disabled or broken")
    size = int(args.batch_mb * (1 << 20))
    rhythm = follow.Rhythm(args.every, args.batch_rows, size, args.tables_every, args.tidy_every)
    tasks: list[FeedTask] = []
    carry_out(config, order, listener, [], lambda _order, made, _record, _listener: tasks.extend(made))

    def tell(result: FeedResult) -> None:
        record = RunRecord(config.lake_dir, run_name(), ((result.feed, result.type),))
        listener.result(record.add(result))

    return follow.run(tasks, rhythm, args.listen, tell, listener.note, args.limit)


def _order(args: argparse.Namespace, config: data_lake_config.Config) -> Order:
    limited = days(args, dt.datetime.now(dt.UTC).date())
    chosen, problems = choose(args, layout.feed_files(config.lake_dir), config.switched_off)
    if limited and args.since:
        raise ConfigError("--since cannot be combined with --date or --from; use --from alone")
    if limited:
        if args.table:
            raise ConfigError("--date is for streams; a table is always exported whole")
        chosen = [feed for feed in chosen if feed.type == "stream"]
    return Order(
        tuple(chosen), tuple(problems), limited, args.all, args.wait, args.allow_shrink, args.reconcile,
        args.accept_cluster, args.jobs if args.cluster else args.jobs or config.jobs, args.cluster, args.source,
        args.since,
    )


def _say(result: FeedResult, args: argparse.Namespace) -> None:
    if not args.quiet and not args.json and result.feed and result.result in ("ok", "findings"):
        print(line_of(result, _roads(args)), flush=True)
    for line in result.reconciled if not args.quiet and not args.json else ():
        print(f"  {line}", flush=True)
    for line in complaints(result):
        print(line, file=sys.stderr, flush=True)


def _roads(args: argparse.Namespace) -> bool:
    """Whether rows can be read in more than one way, so that the output says which one was used."""
    return bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or os.environ.get("KAFKA_CONFIG_FILE") or args.source)


def line_of(result: FeedResult, roads: bool = False) -> str:
    """How a feed went, in one line."""
    version = f" as {result.version}" if result.version else ""
    wrote = f"{size(result.bytes)} in {counted(result.files, 'file')}" if result.files else "nothing new"
    aside = f"  {result.quarantined:,} quarantined" if result.quarantined else ""
    took = f"{result.seconds:.1f} s{_road(result, roads)}"
    return f"{result.feed:<32} {result.rows:>10,} rows{version}  {wrote}{aside}  {took}"


def total(results: Sequence[FeedResult], seconds: float) -> str:
    """How a run of several feeds went, below their lines."""
    bad = sum(result.result not in ("ok", "findings") for result in results)
    went = f"{counted(len(results), 'feed')}{f', {bad} not exported' if bad else ''}"
    rows, held = sum(result.rows for result in results), sum(result.bytes for result in results)
    return f"{went:<32} {rows:>10,} rows  {size(held)}  {seconds:.1f} s"


def _road(result: FeedResult, roads: bool) -> str:
    """Whether rows were read from Kafka or over REST and why, where both are possible."""
    if not result.road or not (roads or result.road == "kafka"):
        return ""
    passed = f", {counted(result.passed_over, 'record')} skipped by ksqlDB" if result.passed_over else ""
    return f"  by {'Kafka' if result.road == 'kafka' else 'REST'} ({result.why}{passed})"


def complaints(result: FeedResult) -> list[str]:
    return [f"{'finding' if result.result == 'findings' else 'error'}: {message}" for message in result.messages]


def _print_json(args: argparse.Namespace, results: Sequence[FeedResult], said: Sequence[str], code: int) -> None:
    """With --json always an array: a result for each feed, and one without a feed for the run as a whole."""
    if not args.json or args.dry_run:
        return
    shown_ = [result.as_json() for result in sorted(results, key=lambda result: result.feed)]
    known = {line for result in results for line in complaints(result)}
    if left := [line.removeprefix("error: ") for line in said if line not in known]:
        found = tuple(findings_of("", "failed", "\n".join(left)))
        word = "stopped" if code == ExitCode.INTERRUPTED else "failed"
        shown_.append(FeedResult("", "", word, findings=found, exit_code=code).as_json())
    print(json.dumps(shown_, indent=2), flush=True)

