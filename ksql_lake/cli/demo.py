"""`export_to_data_lake.py --demo`: the whole road over real HTTP with no other machine, into a lake of its own."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import ConfigError
from ksql_lake.base.files import make_dirs
from ksql_lake.cli import context, hints
from ksql_lake.cli.feed_files import sync

DAYS = 3
MARK = ".demo.json"  # in a lake that the demo made: what it was made of
SEED = 1


def run(args: argparse.Namespace, lake: Path, export: Callable[[Config], int]) -> int:
    """Fill an embedded ksqlDB, export it, and say what to look at.

    Raises:
        ConfigError: the directory holds a lake that is not the demo's.
    """
    from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo

    now = dt.datetime.now(dt.UTC)
    end = None if args.start else _end(lake, args, now)
    start = args.start or (end or now).date() - dt.timedelta(days=DAYS - 1)
    numbers = {"events": args.events, "start": str(start), "end": end and end.isoformat()}
    prepare(lake, numbers)
    make_dirs(lake)
    (lake / MARK).write_text(json.dumps(numbers) + "\n", encoding="utf-8")
    with EmbeddedKsqlDB() as database:
        fill_demo(database, args.events, SEED, start, DAYS, end)
        environment = {**os.environ, "DATA_LAKE_DIR": str(lake), "KSQLDB_URL": database.url}
        environment.setdefault("IDLE_SECONDS", "1")
        config = data_lake_config.load({**environment, "CONFIG_FEEDS": "on"})
        data_lake_config.create(config)
        sync(config, context.now(), keep_all=args.start is not None)  # days of long ago would not stay
        args.all = True
        code = export(config)
    if not args.quiet and not args.json and not args.dry_run:
        print(_what_next(lake, start + dt.timedelta(days=DAYS - 1)))
    return code


def _end(lake: Path, args: argparse.Namespace, now: dt.datetime) -> dt.datetime:
    """When the events end: now, or where those of this demo lake ended, so that running it again adds nothing."""
    made = _made_of(lake) or {}
    if made.get("events") == args.events and made.get("end"):
        before = dt.datetime.fromisoformat(str(made["end"]))
        if now - before < dt.timedelta(days=1):
            return before
    return now.replace(microsecond=0)


def prepare(lake: Path, numbers: dict[str, object]) -> None:
    """Make room for a demo of these numbers: a demo lake of others is removed, any other lake is left alone.

    Raises:
        ConfigError: there is a lake that the demo has not made.
    """
    if not lake.exists() or not any(lake.iterdir()):
        return
    made = _made_of(lake)
    if made is None:
        raise ConfigError(
            f"{lake} is not a demo's lake, and the demo's events would be mixed with what is in it; give another "
            "directory with --lake, or remove it"
        )
    if made != numbers:
        shutil.rmtree(lake)


def _made_of(lake: Path) -> dict[str, object] | None:
    try:
        made = json.loads((lake / MARK).read_bytes())
    except (OSError, ValueError):
        return None
    return made if isinstance(made, dict) else None


def _what_next(lake: Path, last: dt.date) -> str:
    """Commands that work as they stand, for somebody who has never seen the lake."""
    near, python = hints.near(lake), hints.python()
    day = f"year={last.year}/month={last.month:02d}/day={last.day:02d}"
    path = f"{near}/streams/transaction_flattened/{day}"
    return f"""
The lake is in {lake}. Look into it, for instance:
  {python} -c "import pandas as pd; print(pd.read_parquet('{path}').head())"
  {hints.here("python metadata_utils.py")} --report
  {hints.here("python metadata_utils.py")} --html {near}.html --open"""
