"""`manage_feeds.py discover`: the sources on the server that have no feed, and feeds for them."""

from __future__ import annotations

import argparse
import re
import sys

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, FeedError
from ksql_lake.base.files import make_dirs
from ksql_lake.base.text import shown
from ksql_lake.cli import context, server
from ksql_lake.model import feeds, names
from ksql_lake.model.feeds import Feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--add", nargs="*", metavar="SOURCE", help="add a feed for these, or for all")


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.sources.ksqldb.client import Client

    known = {
        feed.source.upper()
        for directory in (context.active(config), context.archived(config))
        for feed in feeds.load_all(directory)
        if isinstance(feed, Feed)
    }
    with Client(server.server_of(config)) as client:
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
                print(f"error: {name}: {error}; {advice}", file=sys.stderr)
                code = ExitCode.FINDINGS
                continue
            make_dirs(path.parent)
            feeds.save(path, feeds.new(feed, kind, name, context.now()))
            print(f"added {path}")
    if not free:
        print("every source has a feed")
    return code
