"""`manage_feeds.py list`: every feed in a line."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.base.text import shown
from ksql_lake.cli import context
from ksql_lake.cli.hints import here
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(config: Config, args: argparse.Namespace) -> int:
    rows, problems = listed(config)
    for problem in problems:
        for line in problem.message.splitlines():
            print(f"error: {line}", file=sys.stderr)
    if args.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(here("no feeds yet; add the sources of your server with: python manage_feeds.py discover --add, or "
                   "write the feeds "
                   "of data_lake_config.py with: python manage_feeds.py sync"))
    if rows and not args.json and sys.stdout.isatty():  # in a pipe each line is a feed
        print(f"{'feed':<32} {'type':<7} {'state':<9} {'keeps':<12} source")
    for row in rows if not args.json else ():
        print(f"{row['name']:<32} {row['type']:<7} {row['state']:<9} {row['keep']:<12} {shown(row['source'])}")
    return ExitCode.FINDINGS if problems else ExitCode.OK


def listed(config: Config) -> tuple[list[dict[str, Any]], list[feeds.FeedProblem]]:
    """A line for each feed, active and archived, and the files that cannot be used."""
    rows, problems = [], []
    for state, directory in (("active", context.active(config)), ("archived", context.archived(config))):
        for feed in feeds.load_all(directory, patterns=False):
            if not isinstance(feed, Feed):
                problems.append(feed)
                continue
            shown = "disabled" if state == "active" and not feed.enabled else state
            if state == "active" and feed.name in config.switched_off:
                shown = "off"  # by CONFIG_FEEDS
            kept = feed.retention_days if feed.type == "stream" else feed.retention_versions
            keep = f"{kept or 'all'} {'days' if feed.type == 'stream' else 'versions'}"
            rows.append({"name": feed.name, "type": feed.type, "source": feed.source, "state": shown, "keep": keep})
    return rows, problems
