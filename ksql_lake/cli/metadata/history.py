"""`metadata_utils.py history`: the runs."""

from __future__ import annotations

import argparse
import sys
from itertools import chain

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.base.figures import counted
from ksql_lake.cli.export_options import day
from ksql_lake.cli.loading import colour, now, only_feed, width
from ksql_lake.reporting import terminal
from ksql_lake.store import history, layout, running


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--since", type=day, metavar="YYYY-MM-DD", help="this day and later ones")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    """Print each run as it is read: the history of years does not fit into memory."""
    lake = config.lake_dir
    start = history.since(lake, args.since) if args.since else 0
    unreadable = history.Unreadable()
    runs = (
        one for one in chain(history.read(lake, start, unreadable), running.dead_runs(lake, now()))
        if args.feed in (None, one.feed) and one.ended[:10] >= str(args.since or "")
    )
    if args.json:
        shown = terminal.json_list(one.as_json() for one in runs)
    else:
        shown = terminal.history(runs, colour(), width())
    sys.stdout.writelines(shown)
    if unreadable.lines:
        print(
            f"note: {layout.runs(lake)}: skipped {counted(unreadable.lines, 'line')} that cannot be read as a "
            "run", file=sys.stderr
        )
    return ExitCode.OK
