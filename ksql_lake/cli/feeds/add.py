"""`manage_feeds.py add`: a new feed file."""

from __future__ import annotations

import argparse
import sys

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode
from ksql_lake.cli import context, server
from ksql_lake.model import feeds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="name of the feed and of its directory")
    parser.add_argument("--type", choices=("stream", "table"), help="needed only when the server cannot be asked")
    parser.add_argument("--source", required=True, help="the stream or table in ksqlDB")
    parser.add_argument("--description", default="")
    parser.add_argument("--retention-days", type=int, metavar="N", help="streams: days to keep")
    parser.add_argument(
        "--retention-versions", "--keep-versions", type=int, metavar="N", help="tables: versions to keep"
    )
    parser.add_argument("--timezone", metavar="ZONE", help="IANA zone that a day is counted in (default: UTC)")
    parser.add_argument("--access", choices=("restricted", "open"), help="750/640 or 755/644")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="any other key of a feed file")


def run(config: Config, args: argparse.Namespace) -> int:
    path = context.free(config, args.name)
    kind = _kind_of(config, args.source, args.type)
    raw = feeds.new(
        args.name, kind, args.source, context.now(), description=args.description, retention_days=args.retention_days,
        retention_versions=args.retention_versions, timezone=args.timezone, access=args.access,
    )
    context.save(path, None, context.with_settings(path, raw, args.settings))
    print(f"added {path}")
    return ExitCode.OK


def _kind_of(config: Config, source: str, given: str | None) -> str:
    """Stream or table: as the server says, or as given when it cannot be asked."""
    from ksql_lake.base.errors import KsqlError, SourceError
    from ksql_lake.sources.ksqldb.client import Client

    try:
        with Client(server.server_of(config, 3.0)) as client:
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
