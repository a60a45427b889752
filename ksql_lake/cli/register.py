"""`metadata_utils.py --register`: the lake's feeds as tables of a catalog."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from ksql_lake.base.errors import ConfigError, ExitCode
from ksql_lake.base.figures import counted
from ksql_lake.catalogs.targets import Target, checked_location, register_with
from ksql_lake.model.state import FeedState


def register(args: argparse.Namespace, lake: Path, states: Mapping[str, FeedState]) -> int:
    """Create or update what differs; exit code 1 when that failed for a table."""
    target = _target(args)
    changed, failures = register_with(target, lake, states, print, dry_run=args.dry_run)
    if not target.location:
        where = "; Athena needs --location s3://..." if target.kind == "glue" else ""
        print(f"note: tables point at {lake.as_uri()}{where}", file=sys.stderr)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    would = "would change" if args.dry_run else "changed"
    print(f"{counted(_tables(target, states), 'table')}, {changed} {would}, {len(failures)} failed")
    return ExitCode.FINDINGS if failures else ExitCode.OK


def _tables(target: Target, states: Mapping[str, FeedState]) -> int:
    """How many tables the feeds have there: in Hive a table of ksqlDB has two once it has a version."""
    return len(states) + sum(target.kind == "hive" and state.current is not None for state in states.values())


def _target(args: argparse.Namespace) -> Target:
    if not args.database:
        raise ConfigError("--register needs --database NAME")
    location, database = checked_location(args.location), args.database.lower()
    if args.register == "glue":
        if args.uri or args.without_time:
            raise ConfigError("--uri and --without-time go with --register hive")
        return Target("glue", database, "", location, False)
    if not args.uri:
        raise ConfigError("--register hive needs --uri thrift://HOST:PORT")
    return Target("hive", database, args.uri, location, not args.without_time)
