"""`metadata_utils.py report`: what needs attention, one line for each feed, totals."""

from __future__ import annotations

import argparse
import json

from data_lake_config import Config
from ksql_lake.cli.hints import here
from ksql_lake.cli.loading import colour, load_feeds, now, only_feed, width
from ksql_lake.reporting import terminal
from ksql_lake.reporting.summary import as_json, summary_of


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    found = load_feeds(config.lake_dir, args.feed, reports=True, off=config.switched_off)
    moment = now()
    summaries = [summary_of(record, moment, config.max_delete_percent / 100) for record in found.records]
    if args.json:
        print(json.dumps([as_json(summary) for summary in summaries], indent=2))
    else:
        columns = width() or terminal.WIDTH
        print(terminal.report(config.lake_dir, summaries, moment, colour(), columns, here), end="")
    return found.code
