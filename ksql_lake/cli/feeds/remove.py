"""`manage_feeds.py remove`: delete a feed file; its data stays."""

from __future__ import annotations

import argparse
import sys

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode
from ksql_lake.cli import context
from ksql_lake.model import feeds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(config: Config, args: argparse.Namespace) -> int:
    archived = feeds.file_of(context.archived(config), context.named(args.name))
    path = archived if feeds.is_there(archived) else context.existing(config, args.name)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError("remove: needs a terminal to confirm; add --yes")
        if input(f"remove {path}? Its data stays in the lake. [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return ExitCode.OK
    feeds.remove(path)
    print(f"{args.name} is removed; its data stays in the lake")
    return ExitCode.OK
