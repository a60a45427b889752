"""`manage_feeds.py compact`: merge the small files of days that are over."""

from __future__ import annotations

import argparse
import datetime as dt
from collections import Counter

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, FeedError
from ksql_lake.base.figures import counted
from ksql_lake.cli import changing, context
from ksql_lake.cli.changing import hold_feed
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="*", help="only these streams (default: all active ones)")
    parser.add_argument(
        "--older-than", type=_days, default=2, metavar="DAYS",
        help="only days that ended at least this long ago (default: 2d)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be merged")


def run(config: Config, args: argparse.Namespace) -> int:
    active = [feed for feed in feeds.load_all(context.active(config)) if isinstance(feed, Feed)]
    names = args.name or [feed.name for feed in active if feed.type == "stream"]
    total = Counter[str]()
    code = changing.each(names, lambda name: _compact(config, args, name, total))
    print(f"{counted(total['before'], 'file')} {'would become' if args.dry_run else 'became'} {total['after']}")
    return code


def _compact(config: Config, args: argparse.Namespace, name: str, total: Counter[str]) -> int:
    from ksql_lake import __version__
    from ksql_lake.maintain.compact import compact
    from ksql_lake.maintain.merges import plan

    if context.feed_of(config, name).type != "stream":
        raise FeedError(f"{name}: is a table; each version is written as a whole, so there is nothing to merge")
    dataset = changing.dataset(config, name)
    with hold_feed(dataset, args.dry_run) as (state, run):
        merges = plan(state, args.older_than, dt.datetime.now(dt.UTC)) if state else []
        for number, merge in enumerate(merges):
            made = 1
            if not args.dry_run:
                made = compact(dataset, state, merge, f"{run}c{number}", tool=__version__, **context.signed())
            total.update(before=len(merge.files), after=made)
            print(f"{name}  {merge.partition}  {merge.rows:,} rows  {len(merge.files)} files into {made}")
    return ExitCode.OK


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of days such as 2d, 1 or more")
    return int(number)
