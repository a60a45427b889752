"""`manage_feeds.py check`: are the feed files valid, and do they match their sources?

With --online, a feed that no export takes (disabled, or left out by CONFIG_FEEDS) is checked only when it is named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_lake_config import STREAMS, TABLES, Config
from ksql_lake.base.errors import ExitCode, LakeError
from ksql_lake.base.figures import counted, several
from ksql_lake.cli import context, server
from ksql_lake.cli.hints import here
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed
from ksql_lake.model.findings import Finding

if TYPE_CHECKING:
    from ksql_lake.sources.ksqldb.client import Client
    from ksql_lake.sources.ksqldb.described import Source


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?")
    parser.add_argument("--online", action="store_true", help="also ask the server")


def run(config: Config, args: argparse.Namespace) -> int:
    if args.name:
        loaded: list[object] = [feeds.load(context.existing(config, args.name))]
    else:
        loaded = list(feeds.load_all(context.active(config)))
    bad = [problem for problem in loaded if isinstance(problem, feeds.FeedProblem)]
    for problem in bad:
        for line in problem.message.splitlines():
            print(f"error: {line}", file=sys.stderr)
    if args.online:
        good = [feed for feed in loaded if isinstance(feed, Feed)]
        return _check_online(config, good if args.name else exported(config, good), bool(bad))
    right = len(loaded) - len(bad)
    print(f"{counted(right, 'feed file')} OK, {len(bad)} with errors")
    return ExitCode.FINDINGS if bad else ExitCode.OK


def exported(config: Config, found: Sequence[Feed]) -> list[Feed]:
    """The feeds that `--all` takes."""
    return [feed for feed in found if feed.enabled and feed.name not in config.switched_off]


def _check_online(config: Config, good: Sequence[Feed], bad: bool) -> int:
    """Compare each feed with its source: is it there, a stream or table as expected, readable, with types that can be
    stored and column names that do not collide?"""
    from ksql_lake.sources.ksqldb.client import Client

    wrong: dict[str, list[str]] = {}  # problem -> feeds that have it
    with Client(server.server_of(config)) as client:
        there = {name.upper() for name, _, _ in client.sources()}
        for feed in good:
            try:
                print(_fit(config, client, feed))
            except LakeError as error:
                wrong.setdefault(Finding("feed file", str(error), feed=feed.name).said, []).append(feed.name)
    for said, names in wrong.items():
        print(f"error: {several(names)}: {said}", file=sys.stderr)
    print(f"{len(good) - sum(map(len, wrong.values()))} of {counted(len(good), 'feed')} match their source")
    missing = [feed.name for feed in good if feed.enabled and feed.source.upper() not in there]
    if missing:
        _offer_to_disable(config, missing)
    return ExitCode.FINDINGS if wrong or bad else ExitCode.OK


def _fit(config: Config, client: Client, feed: Feed) -> str:
    """A line about a feed that matches its source."""
    from ksql_lake.ingest.streams.job import RESERVED
    from ksql_lake.model.columns import refuse_forbidden
    from ksql_lake.model.partitions import disk_names
    from ksql_lake.model.types import arrow_schema
    from ksql_lake.quality.checker import fits
    from ksql_lake.sources.ksqldb.client import quote

    source = client.resolve(feed.source, feed.type)
    with client.query(f"SELECT * FROM {quote(source.name)} EMIT CHANGES;") as answer:
        columns = answer.columns
    arrow_schema(columns)
    refuse_forbidden(feed.name, columns, feed.forbidden_columns)
    fits(feed.name, feed.checks, columns, feed.type)
    names = disk_names([c.name for c in columns], RESERVED if feed.type == "stream" else ("version",), {})
    renamed = ", ".join(f"{name} as {disk}" for name, disk in names.items() if name != disk)
    how = "" if feed.type == "stream" or source.queryable else "; read as a changelog"
    road = _road(config, client, source, feed)
    return f"{feed.name}: {counted(len(columns), 'column')}{how}{'; stored ' + renamed if renamed else ''}{road}"


def _road(config: Config, client: Client, source: Source, feed: Feed) -> str:
    """How the rows of a stream would be read, where there is more than one way."""
    from ksql_lake.ingest.streams.road import foretold
    from ksql_lake.sources.kafka.connection import connection

    kafka = connection(config.kafka_servers, config.kafka_config_file, config.timeout)
    if feed.type != "stream" or (kafka is None and feed.read_from == "auto" and not feed.exact_values):
        return ""
    return f"; {foretold(client, source, feed, kafka, config.idle_seconds)}"


def without_config_feeds(missing: Sequence[str]) -> bool:
    """Whether these are all the feeds of data_lake_config.py: then this server is not the one they were written for."""
    return {*STREAMS, *TABLES} <= set(missing)


def leave_out(missing: Sequence[str]) -> str:
    """How to export without feeds that have no source."""
    if without_config_feeds(missing):
        own = [name for name in missing if name not in (*STREAMS, *TABLES)]
        rest = f", and: python manage_feeds.py disable {' '.join(own)}" if own else ""
        return f'leave out the feeds of data_lake_config.py with a line in settings.toml: CONFIG_FEEDS = "off"{rest}'
    return f"disable with: python manage_feeds.py disable {' '.join(missing)}"


def _offer_to_disable(config: Config, missing: Sequence[str]) -> None:
    """Feeds without a source fail every night; on a terminal, offer to disable them."""
    have = "feed has" if len(missing) == 1 else "feeds have"
    print(f"{len(missing)} {have} no source on {config.url}: {' '.join(missing)}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or without_config_feeds(missing):
        print(here(leave_out(missing)))
        return
    if input(f"disable {'it' if len(missing) == 1 else 'them'}? [y/N] ").strip().lower() in ("y", "yes"):
        for name in missing:
            context.switch(config, name, False)
