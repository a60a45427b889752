"""`manage_feeds.py permissions`: modes that differ from what the feed's access asks for."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.cli import changing


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="correct them")


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.store.rights import apply, drift

    found = []
    for dataset in changing.datasets(config, []):
        found += list(drift(dataset))
    for one in found:
        print(f"{one.path}  {one.found:o} -> {one.wanted:o}")
    if args.apply:
        apply(found)
    print(f"{len(found)} {'fixed' if args.apply else 'are not as they should be'}")
    return ExitCode.OK if args.apply or not found else ExitCode.FINDINGS
