"""What the commands of `manage_feeds.py` do: feed files, the server, the data, an erasure; and what they share.

Part of that script, cut where it reads best. Takes the config and the parsed arguments, prints, and returns an exit
code. Heavy modules are imported where they are used, so that `list` starts at once.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import FeedError
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed


def active(config: Config) -> Path:
    return config.lake_dir / "feeds" / "active"


def archived(config: Config) -> Path:
    return config.lake_dir / "feeds" / "archived"


def now() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def signed() -> dict[str, str]:
    """When a change is made and by whom: what `ksql_lake` remembers of it."""
    return {"now": now(), "by": data_lake_config.operator()}


def existing(config: Config, name: str) -> Path:
    path = active(config) / f"{name}.json"
    if not path.exists():
        raise FeedError(f"{path}: no such feed; see: python manage_feeds.py list")
    return path


def feed_of(config: Config, name: str) -> Feed:
    """A feed that is active or archived."""
    kept = archived(config) / f"{name}.json"
    return feeds.load(kept if kept.exists() else active(config) / f"{name}.json")
