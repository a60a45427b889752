"""Commands that ask the server: what it has, and whether a feed fits its source."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError, LakeError
from ksql_lake.base.files import make_dirs
from ksql_lake.base.text import shown
from ksql_lake.cli import context
from ksql_lake.cli.hints import here
from ksql_lake.model import feeds, names
from ksql_lake.model.feeds import Feed
from ksql_lake.model.findings import Finding

if TYPE_CHECKING:
    from ksql_lake.sources.ksqldb.client import Client
    from ksql_lake.sources.ksqldb.described import Source


def kind_of(config: Config, source: str, given: str | None) -> str:
    """Stream or table: as the server says, or as given when it cannot be asked."""
    from ksql_lake.base.errors import KsqlError, SourceError
    from ksql_lake.sources.ksqldb.client import Client

    try:
        with Client(server_of(config, 3.0)) as client:
            listed = {name.upper(): kind for name, kind, _ in client.sources()}
    except KsqlError as error:
        if given is None:
            raise ConfigError(f"add: say --type stream or --type table; the server cannot be asked: {error}") from None
        return given
    found = listed.get(source.upper())
    if found is None and given is None:
        raise SourceError(f"{source}: not on {config.url}; see: python manage_feeds.py discover, or say --type")
    if found is None:
        print(f"note: {source} is not on {config.url} yet", file=sys.stderr)
    elif given not in (None, found):
        raise SourceError(f"{source} is a {found} on {config.url}, not a {given}")
    return found or str(given)


def server_of(config: Config, timeout: float | None = None) -> Any:
    from ksql_lake.sources.ksqldb.client import Server

    seconds = min(timeout or config.timeout, config.timeout)
    return Server(config.url, config.user, config.password, config.ca_cert, seconds)


def check_online(config: Config, good: Sequence[Feed], bad: bool) -> int:
    """Each feed against its source: there, of its kind, readable, of types that can be stored, names that collide."""
    from ksql_lake.sources.ksqldb.client import Client

    wrong = 0
    with Client(server_of(config)) as client:
        there = {name.upper() for name, _, _ in client.sources()}
        for feed in good:
            try:
                print(_fit(config, client, feed))
            except LakeError as error:
                found = Finding("feed file", str(error), feed=feed.name)
                print(f"error: {here(found.line)}", file=sys.stderr)
                wrong += 1
    print(f"{len(good) - wrong} of {len(good)} feeds fit their source")
    missing = [feed.name for feed in good if feed.enabled and feed.source.upper() not in there]
    if missing:
        _offer_to_disable(config, missing)
    return ExitCode.FINDINGS if wrong or bad else ExitCode.OK


def _fit(config: Config, client: Client, feed: Feed) -> str:
    """One feed in a line, when it fits its source."""
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
    return f"{feed.name}: {len(columns)} columns{how}{'; stored ' + renamed if renamed else ''}{road}"


def _road(config: Config, client: Client, source: Source, feed: Feed) -> str:
    """Which road the rows of a stream would take, where there is more than one."""
    from ksql_lake.ingest.streams.road import foretold
    from ksql_lake.sources.kafka.connection import connection

    kafka = connection(config.kafka_servers, config.kafka_config_file, config.timeout)
    if feed.type != "stream" or (kafka is None and feed.read_from == "auto" and not feed.exact_values):
        return ""
    return f"; {foretold(client, source, feed, kafka, config.idle_seconds)}"


def _offer_to_disable(config: Config, missing: Sequence[str]) -> None:
    """Feeds without a source fail every night; on a terminal they are disabled at once, when that is wanted."""
    have = "feed has" if len(missing) == 1 else "feeds have"
    print(f"{len(missing)} {have} no source on {config.url}: {' '.join(missing)}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(here(f"disable with: python manage_feeds.py disable {' '.join(missing)}"))
        return
    if input(f"disable {'it' if len(missing) == 1 else 'them'}? [y/N] ").strip().lower() in ("y", "yes"):
        for name in missing:
            context.switch(config, name, False)


def discover(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.sources.ksqldb.client import Client

    known = {
        feed.source.upper()
        for directory in (context.active(config), context.archived(config))
        for feed in feeds.load_all(directory)
        if isinstance(feed, Feed)
    }
    with Client(server_of(config)) as client:
        free = [(name, kind) for name, kind, _ in client.sources() if name.upper() not in known]
    wanted = None if args.add is None else {name.upper() for name in args.add} or {name.upper() for name, _ in free}
    missing = (wanted or set()) - {name.upper() for name, _ in free}
    if missing:
        raise FeedError(f"discover: {', '.join(sorted(missing))}: not on the server, or it has a feed already")
    code = ExitCode.OK
    for name, kind in free:
        if wanted is None:
            print(f"{kind:<7} {shown(name)}")
        elif name.upper() in wanted:
            feed = re.sub(r"[^a-z0-9_.-]", "_", name.lower()).lstrip("_.-")[: names.LONGEST] or "feed"
            try:
                path = context.free(config, feed)
            except FeedError as error:
                advice = f"add it with: python manage_feeds.py add --source {name} --name ..."
                print(here(f"error: {name}: {error}; {advice}"), file=sys.stderr)
                code = ExitCode.FINDINGS
                continue
            make_dirs(path.parent)
            feeds.save(path, feeds.new(feed, kind, name, context.now()))
            print(f"added {path}")
    if not free:
        print("every source has a feed")
    return code
