"""`metadata_utils.py html FILE`: the report as one HTML page that works offline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError
from ksql_lake.base.outputs import write_out
from ksql_lake.cli.hints import here
from ksql_lake.cli.loading import load_feeds, now, only_feed
from ksql_lake.reporting.summary import summary_of


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("html", metavar="FILE", help="- is stdout")
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.reporting.html.page import page

    found = load_feeds(config.lake_dir, args.feed, reports=True, off=config.switched_off)
    moment = now()
    summaries = [summary_of(record, moment, config.max_delete_percent / 100) for record in found.records]
    made = page(config.lake_dir.name, found.records, summaries, moment, here)
    is_file = write_out(args.html, made.encode(errors="replace"))
    if is_file:
        print(f"wrote {args.html}")
    if args.open:
        _show(args.html, is_file)
    return found.code


def _show(file: str, is_file: bool) -> None:
    import webbrowser

    if not is_file:
        raise ConfigError("--open needs the name of a file")
    if not webbrowser.open(Path(file).expanduser().resolve().as_uri()):
        print(f"note: no browser was found to show it; open {file} yourself", file=sys.stderr)
