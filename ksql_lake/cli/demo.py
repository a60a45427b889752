"""`export_to_data_lake.py --demo`: a complete export over real HTTP, from an embedded ksqlDB into a lake of its own."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import ConfigError
from ksql_lake.base.files import make_dirs
from ksql_lake.cli import context, hints
from ksql_lake.cli.feeds.sync import sync

if TYPE_CHECKING:
    from ksql_lake.embedded import EmbeddedKsqlDB

DAYS = 3
MOST = 30_000  # events that the embedded broker keeps
MARK = ".demo.json"  # in a lake that the demo created: the numbers it was created with
SEED = 1


def run(args: argparse.Namespace, lake: Path, export: Callable[[Config], int]) -> int:
    """Fill an embedded ksqlDB, export it, and say what to look at.

    Raises:
        ConfigError: the directory holds a lake that is not the demo's.
    """
    from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo, live_demo

    now = dt.datetime.now(dt.UTC)
    end = None if args.start else _end(lake, args, now)
    start = args.start or (end or now).date() - dt.timedelta(days=DAYS - 1)
    numbers = {"events": args.events, "start": str(start), "end": end and end.isoformat()}
    prepare(lake, numbers)
    make_dirs(lake)
    (lake / MARK).write_text(json.dumps(numbers) + "\n", encoding="utf-8")
    with EmbeddedKsqlDB() as database:
        fill_demo(database, args.events, SEED, start, DAYS, end)
        topics = _topics(args, database)
        environment = {**os.environ, "DATA_LAKE_DIR": str(lake), "KSQLDB_URL": database.url, **topics.settings}
        environment.setdefault("IDLE_SECONDS", "1")
        config = data_lake_config.load({**environment, "CONFIG_FEEDS": "on"})
        data_lake_config.create(config)
        sync(config, context.now(), keep_all=args.start is not None)  # retention would remove days of long ago
        args.all = True
        stop = threading.Event()
        if args.follow:
            args.limit, args.every = args.limit or 60.0, min(args.every, 2.0)
            live = (database, stop, topics.publish, args.events)
            threading.Thread(target=live_demo, args=live, daemon=True).start()
        try:
            code = export(config)
        finally:
            stop.set()
    if not args.quiet and not args.json and not args.dry_run:
        print(_what_next(lake, start + dt.timedelta(days=DAYS - 1)))
    return code


@dataclass(frozen=True)
class Topics:
    """The demo's Kafka: the settings that point to it, and a function that copies a stream to its topic."""

    settings: dict[str, str]
    publish: Callable[[str], None]


def _topics(args: argparse.Namespace, database: EmbeddedKsqlDB) -> Topics:
    """With --source kafka the demo's streams are topics too, on the broker that comes with confluent-kafka."""
    if args.source != "kafka":
        return Topics({"KAFKA_BOOTSTRAP_SERVERS": "", "KAFKA_CONFIG_FILE": ""}, lambda name: None)
    if args.events > MOST:
        raise ConfigError(
            f"--demo --source kafka: the demo's broker holds at most {MOST} events; use --events {MOST} or fewer"
        )
    from ksql_lake.sources.kafka.connection import library

    library()
    from ksql_lake.embedded.topics import Topics as Broker

    broker = Broker(database)
    for name, source in list(database.sources.items()):
        if source.kind == "STREAM":
            broker.publish(name)
    return Topics({"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap, "KAFKA_CONFIG_FILE": ""}, broker.publish)


def _end(lake: Path, args: argparse.Namespace, now: dt.datetime) -> dt.datetime:
    """When the events end: now, or when those of this demo lake ended, so that running it again adds nothing."""
    made = _made_of(lake) or {}
    if made.get("events") == args.events and made.get("end"):
        before = dt.datetime.fromisoformat(str(made["end"]))
        if now - before < dt.timedelta(days=1):
            return before
    return now.replace(microsecond=0)


def prepare(lake: Path, numbers: dict[str, object]) -> None:
    """Make room for a demo with these numbers: a demo lake with others is removed, any other lake is left alone.

    Raises:
        ConfigError: there is a lake that the demo did not create.
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
    """Commands to copy, for somebody who has never seen the lake."""
    near, python = hints.near(lake), hints.python()
    day = f"year={last.year}/month={last.month:02d}/day={last.day:02d}"
    path = f"{near}/streams/transaction_flattened/{day}"
    return f"""
The lake is in {lake}. Look into it, for instance:
  {python} -c "import pandas as pd; print(pd.read_parquet('{path}').head())"
  {hints.here("python metadata_utils.py report")}"""
