"""`manage_feeds.py archive`: move a feed file to feeds/archived; its data stays."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.cli import context


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def run(config: Config, args: argparse.Namespace) -> int:
    word = "archived; its data stays in the lake, and retention leaves it alone until it is restored"
    return context.move(context.existing(config, args.name), context.archived(config), word)
