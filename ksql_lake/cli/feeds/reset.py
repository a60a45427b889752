"""`manage_feeds.py reset`: start a feed afresh."""

from __future__ import annotations

import argparse
import sys

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError
from ksql_lake.base.figures import counted
from ksql_lake.cli import context
from ksql_lake.cli.changing import hold_feed
from ksql_lake.cli.hints import here
from ksql_lake.cli.observing import observed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument(
        "--generation", type=int, metavar="N",
        help="only the data of generation N of the topic, which was recreated since",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(config: Config, args: argparse.Namespace) -> int:
    """`manage_feeds.py reset NAME`."""
    from ksql_lake.maintain.reset import reset
    from ksql_lake.store.lake import find

    feed = context.feed_of(config, args.name)
    if args.generation is not None and feed.type != "stream":
        raise FeedError(f"{feed.name}: --generation does not apply to tables; leave it out")
    which = f"{feed.name}'s data" + (f" of generation {args.generation} of its topic" if args.generation else "")
    if not args.yes and not _agreed(f"Move all of {which} to the trash and start afresh? "):
        print("nothing was changed")
        return ExitCode.OK
    dataset = observed(config, find(config.lake_dir, feed.name))
    with hold_feed(dataset) as (state, run):
        if state is None:
            raise FeedError(f"{feed.name}: was never exported, so there is nothing to reset")
        rows = reset(dataset, state, args.generation, run, **context.signed())
    print(here(f"{feed.name}: {counted(rows, 'row')} moved to the trash, where they stay for "
               f"{counted(config.trash_days, 'day')}; bring them back "
               f"with: python manage_feeds.py undo {feed.name}"))
    return ExitCode.OK


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("reset asks before it acts; without a terminal give --yes")
    return input(f"{question}[y/N] ").strip().lower() in ("y", "yes")
