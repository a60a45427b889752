"""`manage_feeds.py restore`: bring an archived feed back."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.base.errors import FeedError
from ksql_lake.cli import context
from ksql_lake.model import feeds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def run(config: Config, args: argparse.Namespace) -> int:
    path = feeds.file_of(context.archived(config), context.named(args.name))
    if not feeds.is_there(path):
        raise FeedError(f"{path}: no such archived feed; see: python manage_feeds.py list")
    return context.move(path, context.active(config), "active again")
