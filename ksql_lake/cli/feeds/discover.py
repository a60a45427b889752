"""`manage_feeds.py discover`: the sources on the server that have no feed, and feeds for them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, FeedError
from ksql_lake.base.figures import counted
from ksql_lake.base.text import shown
from ksql_lake.cli import context, server
from ksql_lake.cli.feeds.check import exported, leave_out
from ksql_lake.cli.hints import here
from ksql_lake.model import feeds, names
from ksql_lake.model.feeds import Feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--add", nargs="*", metavar="SOURCE", help="add a feed for these, or for all")


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.sources.ksqldb.client import Client

    active = [feed for feed in feeds.load_all(context.active(config)) if isinstance(feed, Feed)]
    archived = [feed for feed in feeds.load_all(context.archived(config)) if isinstance(feed, Feed)]
    with Client(server.server_of(config)) as client:
        there = {name: kind for name, kind, _ in client.sources()}
    known = {_source(feed.source, there) for feed in (*active, *archived)}
    free = {name: kind for name, kind in there.items() if name not in known}
    chosen = free if not args.add else {name: kind for name, kind in free.items() if name.upper() in _upper(args.add)}
    missing = _upper(args.add or ()) - _upper(chosen)
    if missing:
        raise FeedError(f"discover: {', '.join(sorted(missing))}: not on the server, or there is a feed for it already")
    if not free:
        print("every source has a feed")
    if args.add is None:
        for name, kind in free.items():
            print(f"{kind:<7} {shown(name)}", flush=True)
    added = [_add(config, name, kind) for name, kind in chosen.items()] if args.add is not None else []
    absent = [feed.name for feed in exported(config, active) if _source(feed.source, there) is None]
    if absent:
        has = "active feed has" if len(absent) == 1 else "active feeds have"
        print(f"{len(absent)} {has} no source on this server; {here(leave_out(absent))}")
    elif free and args.add is None:
        print(f"add {counted(len(free), 'feed')} with: python manage_feeds.py discover --add", file=sys.stderr)
    return ExitCode.OK if all(added) else ExitCode.FINDINGS


def _upper(given: Collection[str]) -> set[str]:
    return {name.upper() for name in given}


def _source(name: str, there: Collection[str]) -> str | None:
    """The source of a feed, found as an export finds it: by its exact name, in upper case, or by the only name that
    differs in case alone."""
    folded = [one for one in there if one.upper() == name.upper()]
    exact = next((one for one in (name, name.upper()) if one in there), None)
    return exact or (folded[0] if len(folded) == 1 else None)


def _add(config: Config, source: str, kind: str) -> bool:
    """Add a feed named after its source, in lower case; returns whether that worked."""
    name = re.sub(r"[^a-z0-9_.-]", "_", source.lower()).lstrip("_.-")[: names.LONGEST] or "feed"
    try:
        path = context.free(config, name)
    except FeedError:
        other = next(one for one in (f"{name[:190]}_{n}" for n in range(2, 10**6)) if _is_free(config, one))
        command = f"python manage_feeds.py add --source {source} --name {other}"
        print(f"error: {shown(source)}: there is already a feed called {name}, and names must not differ only in "
              f"case; add it under another name: {command}", file=sys.stderr)
        return False
    feeds.save(path, feeds.new(name, kind, source, context.now()))
    print(f"added {path}")
    return True


def _is_free(config: Config, name: str) -> bool:
    try:
        return bool(context.free(config, name))
    except FeedError:
        return False
