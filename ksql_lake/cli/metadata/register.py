"""`metadata_utils.py register CATALOG`: the lake's feeds as tables of a catalog."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.cli.loading import load_feeds, only_feed
from ksql_lake.cli.metadata.flags import CATALOGS


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("register", choices=CATALOGS, metavar="CATALOG", help=" or ".join(CATALOGS))
    parser.add_argument("--database", metavar="NAME", help="created if it does not exist")
    parser.add_argument("--location", metavar="URI", help="where queries find the lake: s3://bucket/lake")
    parser.add_argument("--uri", metavar="URI", help="of hive: thrift://HOST:PORT; of iceberg: http://... or SQL")
    parser.add_argument("--warehouse", metavar="URI", help="of iceberg: where the catalog's own files go")
    parser.add_argument(
        "--without-time", action="store_true", help="of hive: leave out columns of type TIME, which Trino cannot read"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and why")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.cli.register import register

    found = load_feeds(config.lake_dir, args.feed)
    return max(register(args, config.lake_dir, found.states), found.code)
