"""`manage_feeds.py update`: change settings of a feed."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.cli import context
from ksql_lake.model import feeds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="an empty VALUE removes the key")


def run(config: Config, args: argparse.Namespace) -> int:
    path = context.existing(config, args.name)
    raw = feeds.read(path)
    changed = context.save(path, raw, context.with_settings(path, raw, args.settings))
    print(f"{args.name} is {'updated' if changed else 'unchanged'}")
    return ExitCode.OK
