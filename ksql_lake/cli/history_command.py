"""`metadata_utils.py history`: the runs."""

from __future__ import annotations

import argparse
import json

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.cli.export_options import day
from ksql_lake.cli.looking import colour, only_feed
from ksql_lake.reporting import terminal
from ksql_lake.store import history

EVERYTHING = 1 << 40  # bytes of the run history


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--since", type=day, metavar="YYYY-MM-DD", help="this day and later ones")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    first = str(args.since or "")
    runs = [
        one for one in history.runs(config.lake_dir, EVERYTHING)
        if args.feed in (None, one["feed"]) and str(one.get("ended", "")) >= first
    ]
    print(json.dumps(runs, indent=2) if args.json else terminal.history(runs, colour()), end="\n" if args.json else "")
    return ExitCode.OK
