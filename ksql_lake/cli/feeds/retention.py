"""`manage_feeds.py retention`: move what is too old into the trash, with reasons."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections import Counter

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.base.figures import counted, size
from ksql_lake.cli import changing, context
from ksql_lake.cli.changing import hold_feed
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="*", help="only these feeds (default: all active ones)")
    parser.add_argument("--dry-run", action="store_true", help="only show the plan")
    parser.add_argument(
        "--max-delete", type=_percent, metavar="PERCENT", help="of a feed's bytes (default: MAX_DELETE_PERCENT)"
    )
    parser.add_argument(
        "--allow", action="append", default=[], choices=("clock", "stale", "amount"),
        help="lift a guard; see docs/retention.md",
    )


def run(config: Config, args: argparse.Namespace) -> int:
    names = args.name or [feed.name for feed in feeds.load_all(context.active(config)) if isinstance(feed, Feed)]
    total = Counter[str]()
    code = changing.each(names, lambda name: _retain(config, args, name, total))
    word = "would go" if args.dry_run else f"moved to the trash, for {counted(config.trash_days, 'day')}"
    print(f"{counted(total['rows'], 'row')}, {counted(total['bytes'], 'byte')} {word}")
    return code


def _retain(config: Config, args: argparse.Namespace, name: str, total: Counter[str]) -> int:
    from ksql_lake.maintain import retention
    from ksql_lake.store import trash

    share = (config.max_delete_percent if args.max_delete is None else args.max_delete) / 100
    feed, code = context.feed_of(config, name), ExitCode.OK
    rule = retention.Rule(feed.retention_days, feed.retention_versions, share, frozenset(args.allow))
    dataset, moment = changing.dataset(config, name), dt.datetime.now(dt.UTC)
    with hold_feed(dataset, args.dry_run) as (state, run):
        if state is None:
            return code
        plan = retention.plan(name, state, rule, moment)
        for decision in plan.decisions:
            if args.dry_run or decision in plan.going:
                word = "goes " if decision.goes else "stays"
                rows, held = counted(decision.rows, "row"), size(decision.bytes)
                print(f"{name:<32} {word} {decision.partition:<24} {rows:>14} {held:>7}  {decision.reason}")
        if plan.refusal:
            print(f"refused: {plan.refusal}", file=sys.stderr)
            code = ExitCode.FINDINGS
        total.update(rows=plan.rows, bytes=plan.bytes)
        if args.dry_run:
            return code
        retention.remember(dataset, state, plan, rule, f"{run}n", **context.signed())
        for path in retention.apply(dataset, state, plan, run, **context.signed()):
            print(f"{path}: a symbolic link is in the way; it was left alone", file=sys.stderr)
            code = ExitCode.FINDINGS
        for path in trash.empty(dataset, config.trash_days, moment.date()):
            print(f"{name}  removed {path} for good")
    return code


def _percent(text: str) -> float:
    """A number from 0 to 100."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 100")
    return number
