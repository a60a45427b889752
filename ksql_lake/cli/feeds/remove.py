"""`manage_feeds.py remove`: delete a feed file; its data stays."""

from __future__ import annotations

import argparse
import os
import sys

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode
from ksql_lake.base.files import fsync_dir
from ksql_lake.cli import context


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(config: Config, args: argparse.Namespace) -> int:
    archived = context.archived(config) / f"{context.named(args.name)}.json"
    path = archived if archived.exists() else context.existing(config, args.name)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError("remove: needs a terminal to confirm; add --yes")
        if input(f"remove {path}? Its data stays in the lake. [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return ExitCode.OK
    os.unlink(path)
    fsync_dir(path.parent)
    print(f"{args.name} is removed; its data stays in the lake")
    return ExitCode.OK
