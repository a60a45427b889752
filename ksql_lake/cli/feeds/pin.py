"""`manage_feeds.py pin`: protect a version of a table from retention."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, StateError
from ksql_lake.cli import changing, context
from ksql_lake.cli.changing import hold_feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("version", help="such as v5 or 5")


def run(config: Config, args: argparse.Namespace) -> int:
    return set_pinned(config, args, True)


def set_pinned(config: Config, args: argparse.Namespace, pinned: bool) -> int:
    from ksql_lake.maintain.versions import pin

    dataset, version = changing.table(config, args.name), context.version_name(args.version)
    with hold_feed(dataset) as (state, run):
        if state is None:
            raise StateError(f"{args.name}: was never exported")
        pin(dataset, state, version, run, pinned=pinned, **context.signed())
    print(f"{args.name}: {version} is {'pinned' if pinned else 'not pinned'}")
    return ExitCode.OK
