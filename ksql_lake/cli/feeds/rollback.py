"""`manage_feeds.py rollback`: make another version of a table the current one."""

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
    from ksql_lake.maintain.versions import rollback

    dataset, version = changing.table(config, args.name), context.version_name(args.version)
    with hold_feed(dataset) as (state, run):
        if state is None:
            raise StateError(f"{args.name}: was never exported")
        changed = rollback(dataset, state, version, run, **context.signed())
        number = state.last_version + 1
    print(f"{args.name}: {version} is current{'' if changed else ' already'}; the next export makes v{number}")
    return ExitCode.OK
