"""`manage_feeds.py unpin`: let retention remove a pinned version of a table again."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.cli.feeds.pin import arguments, set_pinned

__all__ = ["arguments", "run"]


def run(config: Config, args: argparse.Namespace) -> int:
    return set_pinned(config, args, False)
