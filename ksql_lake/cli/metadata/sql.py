"""`metadata_utils.py sql DIALECT`: views or external tables of every feed, as SQL."""

from __future__ import annotations

import argparse
import os
import sys

from data_lake_config import Config
from ksql_lake.cli.loading import load_feeds, only_feed
from ksql_lake.cli.metadata.flags import DIALECTS


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sql", choices=DIALECTS, metavar="DIALECT", help=", ".join(DIALECTS))
    parser.add_argument(
        "--location", metavar="URI", help="where queries find the lake, such as s3://bucket/lake"
    )
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.catalogs.ddl import script
    from ksql_lake.store.remote.places import sql_root

    found = load_feeds(config.lake_dir, args.feed)
    remote = sql_root(config.lake_dir, args.sql, os.environ)
    sys.stdout.write(script(args.sql, found.states, config.lake_dir, args.location, remote))
    return found.code
