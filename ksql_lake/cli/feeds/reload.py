"""`manage_feeds.py reload`: read days of a stream again from its source."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from typing import Any

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError
from ksql_lake.base.figures import counted
from ksql_lake.cli import context
from ksql_lake.cli.changing import hold_feed
from ksql_lake.cli.observing import observed
from ksql_lake.model.feeds import Feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--date", action="append", default=[], type=_day, metavar="YYYY-MM-DD", help="may be repeated")
    parser.add_argument("--from", dest="first", type=_day, metavar="YYYY-MM-DD", help="first day of a range")
    parser.add_argument("--to", dest="last", type=_day, metavar="YYYY-MM-DD", help="last day of a range, included")
    parser.add_argument("--all-missing", action="store_true", help="the days of which a file is gone or damaged")
    parser.add_argument(
        "--generation", type=int, metavar="N", help="only if the topic has not been recreated since generation N"
    )
    parser.add_argument(
        "--allow-loss", action="store_true",
        help="accept the loss of rows that are neither in a readable file nor at the source",
    )


def run(config: Config, args: argparse.Namespace) -> int:
    """`manage_feeds.py reload NAME --date D`."""
    feed = context.feed_of(config, args.name)
    if feed.type != "stream":
        raise FeedError(
            f"{feed.name}: is a table, and each export copies all of it: python export_to_data_lake.py --table "
            f"{feed.name}"
        )
    days = _days(args)
    from ksql_lake.ingest.streams.reload import missing_days, reload_days, with_days
    from ksql_lake.sources.ksqldb.client import Client, Server
    from ksql_lake.sources.ksqldb.push_rows import PushSource
    from ksql_lake.store.lake import find

    dataset = observed(config, find(config.lake_dir, feed.name))
    with hold_feed(dataset) as (state, run):
        if state is None:
            raise FeedError(f"{feed.name}: was never exported: python export_to_data_lake.py --stream {feed.name}")
        if args.generation not in (None, state.generation):
            raise FeedError(
                f"{feed.name}: the topic is now in generation {state.generation}; rows of generation "
                f"{args.generation} are no longer at the source"
            )
        job = _job(config, feed, dataset, run)
        if args.all_missing:
            days += [day for day in missing_days(job, state) if day not in days]
        if not days:
            print(f"{feed.name}: no file is gone or damaged")
            return ExitCode.OK
        server = Server(config.url, config.user, config.password, config.ca_cert, config.timeout)
        with Client(server) as client:
            source = client.resolve(feed.source, "stream")
            rows = PushSource(client, source, job.limits, job.batch_size, job.on_bad_value != "fail")
            done = reload_days(
                rows, with_days(job, days), state, allow_loss=args.allow_loss, **context.signed()
            )
    shown = ", ".join(map(str, sorted(days)[:5])) + (f" and {len(days) - 5} more days" if len(days) > 5 else "")
    print(f"{feed.name}: {shown}: {counted(done.read, 'row')} read again, "
          f"{done.carried:,} kept because the source no longer has them, {counted(done.files, 'file')}")
    for partition, lost in done.lost.items():
        print(f"{feed.name}: {partition}: {lost:,} rows are lost", file=sys.stderr)
    return ExitCode.OK


def _days(args: argparse.Namespace) -> list[dt.date]:
    days = set(args.date)
    if (args.first is None) != (args.last is None):
        raise ConfigError("--from and --to go together")
    if args.first is not None:
        if args.last < args.first:
            raise ConfigError(f"--from {args.first} is after --to {args.last}")
        days |= {args.first + dt.timedelta(days=i) for i in range((args.last - args.first).days + 1)}
    if not days and not args.all_missing:
        raise ConfigError("reload: say which days: --date, --from and --to, or --all-missing")
    return sorted(days)


def _job(config: Config, feed: Feed, dataset: Any, run: str) -> Any:
    from ksql_lake.ingest.streams.job import StreamJob
    from ksql_lake.sources.pace import Limits
    from ksql_lake.store.writer import WriterOptions

    limits = Limits(
        first_row=config.timeout, idle=feed.idle_seconds or config.idle_seconds,
        anchor=max(2 * config.timeout, config.idle_seconds), duration=config.max_duration, retry=config.timeout * 4,
    )
    options = WriterOptions(
        compression=feed.compression or config.compression,
        compression_level=feed.compression_level if feed.compression else config.compression_level,
        bloom_filter_columns=feed.bloom_filter_columns, file_rows=config.file_rows,
        file_mode=dataset.file_mode, dir_mode=dataset.dir_mode,
    )
    return StreamJob(
        dataset, feed.source, run, limits, options, feed.timezone, feed.timestamp_column,
        source_retention_days=feed.source_retention_days, batch_size=config.batch_size,
        forbidden_columns=feed.forbidden_columns, on_bad_value=feed.on_bad_value,
    )


def _day(text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; expected YYYY-MM-DD such as 2025-01-15") from None
