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

URIS = {"hive": "thrift://HOST:PORT", "iceberg": "http://HOST:PORT of a REST catalog, or sqlite:////srv/catalog.db"}


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
    """How many tables the feeds have there: in Hive and Glue a table of ksqlDB has two once it has a version."""
    return len(states) + sum(target.kind != "iceberg" and state.current is not None for state in states.values())


def _target(args: argparse.Namespace) -> Target:
    if not args.database:
        raise ConfigError("--register needs --database NAME")
    location, database = checked_location(args.location), args.database.lower()
    for option, kinds in (("uri", ("hive", "iceberg")), ("without_time", ("hive",)), ("warehouse", ("iceberg",))):
        if getattr(args, option) and args.register not in kinds:
            raise ConfigError(f"--{option.replace('_', '-')} can only go with --register {' and '.join(kinds)}")
    if args.register == "glue":
        return Target("glue", database, "", location, False)
    if not args.uri:
        raise ConfigError(f"--register {args.register} needs --uri {URIS[args.register]}")
    if args.register == "iceberg":
        return Target("iceberg", database, args.uri, location, False, checked_location(args.warehouse))
    return Target("hive", database, args.uri, location, not args.without_time)
