"""`metadata_utils.py sql DIALECT`: views or external tables of every feed, as SQL."""

from __future__ import annotations

import argparse
import sys

from data_lake_config import Config
from ksql_lake.cli.looking import look, only_feed
from ksql_lake.cli.metadata_flags import DIALECTS


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sql", choices=DIALECTS, metavar="DIALECT", help=", ".join(DIALECTS))
    parser.add_argument(
        "--location", metavar="URI", help="where the lake lies for those who query, such as s3://bucket/lake"
    )
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.catalogs.ddl import script

    found = look(config.lake_dir, args.feed)
    sys.stdout.write(script(args.sql, found.states, config.lake_dir, args.location))
    return found.code
