"""`manage_feeds.py sync`: write the feeds of data_lake_config.py that have no file yet."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, FeedError
from ksql_lake.cli import context
from ksql_lake.cli.hints import here
from ksql_lake.model import feeds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only show what would be written")


def run(config: Config, args: argparse.Namespace) -> int:
    print("\n".join(map(here, sync(config, context.now(), dry_run=args.dry_run))))
    return ExitCode.OK


def sync(config: Config, now: str, *, dry_run: bool = False, keep_all: bool = False) -> list[str]:
    """Write a file for each configured feed that has none; existing files are left as they are. Returns the plan.

    Args:
        keep_all: leave out their retention rules.
    """
    plan = []
    directory = context.active(config)
    for kind, mapping in (("stream", data_lake_config.STREAMS), ("table", data_lake_config.TABLES)):
        for name, settings in mapping.items():
            path = feeds.file_of(directory, name)
            if name in config.switched_off:
                continue
            if feeds.is_there(path):
                plan.append(f"keep    {name}{_other_than(path, settings)}")
                continue
            if feeds.is_there(feeds.file_of(context.archived(config), name)):
                plan.append(f"leave   {name} (archived)")
                continue
            plan.append(f"write   {name}")
            context.free(config, name)
            if not dry_run:
                source = settings.get("ksqldb_source", name)
                left_out = {"ksqldb_source", *(("retention_days", "retention_versions") if keep_all else ())}
                rest = {key: value for key, value in settings.items() if key not in left_out}
                feeds.save(path, feeds.new(name, kind, source, now, **rest))
    return plan


def _other_than(path: Path, settings: dict[str, Any]) -> str:
    """The settings in which an existing feed file differs from the config; they are kept."""
    try:
        raw = feeds.read(path)
    except FeedError:
        return " (broken; see: python manage_feeds.py check)"
    differ = (key for key, value in settings.items() if raw.get(key) != value)
    other = [f"{key} is {raw.get(key, 'not set')}, but {settings[key]} in the config" for key in differ]
    return f" ({'; '.join(other)})" if other else ""
