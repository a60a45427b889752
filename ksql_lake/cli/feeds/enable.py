"""`manage_feeds.py enable`: export feeds again."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.cli import context


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="+")


def run(config: Config, args: argparse.Namespace) -> int:
    return max(context.switch(config, name, True) for name in context.all_active(config, args.name))
