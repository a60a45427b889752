"""`metadata_utils.py reconcile NAME`: a stream's rows per day at the source, compared with the lake."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.base.figures import counted
from ksql_lake.cli.export_options import day
from ksql_lake.store import metadata


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reconcile", metavar="NAME", help="a stream")
    parser.add_argument("--date", action="append", default=[], type=day, metavar="YYYY-MM-DD", help="only this day")


def run(config: Config, args: argparse.Namespace) -> int:
    """A line for each day; exit code 1 when a day differs without an explanation."""
    from ksql_lake.cli.server import server_of
    from ksql_lake.ingest.streams.reconcile import reconcile
    from ksql_lake.sources.ksqldb.client import Client
    from ksql_lake.sources.pace import Limits

    name = args.reconcile
    limits = Limits(first_row=config.timeout, retry=config.timeout * 4)
    with Client(server_of(config)) as client:
        counts = reconcile(client, metadata.Dataset(config.lake_dir, name, "stream"), args.date, limits)
    for count in counts:
        print(count)
    unexplained = sum(not count.explained for count in counts)
    differ = "differs" if unexplained == 1 else "differ"
    print(f"{name}: {counted(len(counts), 'day')}, {unexplained} {differ} without an explanation")
    return ExitCode.FINDINGS if unexplained else ExitCode.OK
