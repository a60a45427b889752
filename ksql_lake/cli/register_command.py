"""`metadata_utils.py register CATALOG`: the lake's feeds as tables of a catalog."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from data_lake_config import Config
from ksql_lake.base.errors import CatalogError, ConfigError, ExitCode, LakeError
from ksql_lake.base.files import exclusive_lock
from ksql_lake.cli.looking import look, only_feed
from ksql_lake.model.state import FeedState


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("register", choices=("glue",), metavar="CATALOG", help="glue")
    parser.add_argument("--database", metavar="NAME", required=True, help="made when it is not there")
    parser.add_argument("--location", metavar="URI", help="where the lake lies for those who query: s3://bucket/lake")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and why")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    found = look(config.lake_dir, args.feed)
    return max(_register(args, config.lake_dir, found.states), found.code)


def _register(args: argparse.Namespace, lake: Path, states: dict[str, FeedState]) -> int:
    """The lake's feeds as tables of a Glue database; one that cannot be is said and does not stop the others."""
    if not args.database:
        raise ConfigError("--register needs --database NAME")
    if args.location and not re.match(r"[a-z][a-z0-9]*://", args.location):
        raise ConfigError(f"--location is {args.location!r}; expected a URI such as s3://bucket/lake")
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ConfigError("--register glue needs boto3: pip install -r requirements-glue.txt") from None
    from ksql_lake.catalogs import glue

    location = args.location or lake.as_uri()
    if not args.location:
        print(f"note: tables will point at {location}; Athena needs --location s3://...", file=sys.stderr)
    tables, failures = [], []
    for name, state in states.items():
        try:
            tables.append(glue.wanted(name, state, location))
        except LakeError as error:
            failures.append(f"{args.database}.{name}: {error}")
    try:
        client = boto3.client("glue")
    except (BotoCoreError, ValueError) as error:  # no region, no profile of that name, an endpoint that is no URL
        raise ConfigError(f"Glue: {_one_line(error)}") from None
    try:
        with exclusive_lock(lake / glue.LOCK, "the Glue catalog"):
            registry = glue.Registry(client, lake, args.database.lower())
            done = glue.register(registry, tables, print, args.dry_run)
    except (BotoCoreError, ClientError) as error:  # no credentials, no permission, no way there
        raise CatalogError(f"Glue: {_one_line(error)}") from None
    failures += done.failures
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    would = "would change" if args.dry_run else "changed"
    print(f"{len(states)} tables, {done.changed} {would}, {len(failures)} failed")
    return ExitCode.FINDINGS if failures else ExitCode.OK


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
