"""`manage_feeds.py versions`: the versions of a table."""

from __future__ import annotations

import argparse
import json

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.base.figures import size
from ksql_lake.cli import changing
from ksql_lake.cli.changing import hold_feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(config: Config, args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ksql_lake.maintain.versions import versions

    with hold_feed(changing.table(config, args.name), True) as (state, _):
        found = versions(state) if state else []
    if args.json:
        print(json.dumps([asdict(version) for version in found], indent=2))
        return ExitCode.OK
    for version in found:
        marks = " ".join(word for word, so in (("current", version.current), ("pinned", version.pinned)) if so)
        held = size(version.size_mb * 1e6)
        print(f"{version.name:<6} {version.rows:>12,} rows {held:>7}  {version.exported_at}  {marks}".rstrip())
    return ExitCode.OK
