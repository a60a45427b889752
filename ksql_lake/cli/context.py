"""The feed files of a lake, as commands find, check, write and move them."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError
from ksql_lake.base.files import fsync_dir, make_dirs
from ksql_lake.model import feeds, names
from ksql_lake.model.feeds import Feed


def active(config: Config) -> Path:
    return config.lake_dir / "feeds" / "active"


def archived(config: Config) -> Path:
    return config.lake_dir / "feeds" / "archived"


def now() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def signed() -> dict[str, str]:
    """When a change is made and by whom, as a feed file records it."""
    return {"now": now(), "by": data_lake_config.operator()}


def named(name: str) -> str:
    """A feed's name as it was given, once it is known to be valid.

    Raises:
        FeedError: it is not valid, so no path may be built from it.
    """
    if wrong := names.problem_of(name):
        raise FeedError(wrong)
    return name


def free(config: Config, name: str) -> Path:
    """Where the file of a new active feed goes.

    Raises:
        FeedError: the name is not valid, is taken, or differs only in case from one that is taken.
    """
    path = active(config) / f"{named(name)}.json"
    known: dict[str, Path] = {}
    for directory in (active(config), archived(config)):
        known |= {found.stem: found for found in directory.glob("*.json")}
    for kind in ("streams", "tables"):
        known |= {found.name: found for found in (config.lake_dir / kind).glob("*") if found.name not in known}
    if name in known and known[name].suffix == ".json":
        raise FeedError(f"{known[name]}: already exists; choose another name, or restore or edit that feed")
    if other := names.twin(name, known):
        raise FeedError(f"{path}: {names.twins(name, other)}")
    return path


def existing(config: Config, name: str) -> Path:
    path = active(config) / f"{named(name)}.json"
    if not path.exists():
        raise FeedError(f"{path}: no such feed; see: python manage_feeds.py list")
    return path


def version_name(text: str) -> str:
    """The name of a version, which may be given as a bare number: v3 for 3."""
    return f"v{int(text)}" if text.isascii() and text.isdigit() and len(text) < 12 else text


def feed_of(config: Config, name: str) -> Feed:
    """A feed that is active or archived."""
    kept = archived(config) / f"{named(name)}.json"
    return feeds.load(kept if kept.exists() else active(config) / f"{name}.json")


def save(path: Path, before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
    """Write a feed file unless that adds new problems; what was wrong or unknown before stays as it is."""
    known = feeds.problems_of(path, before) if before is not None else []
    problems = [problem for problem in feeds.problems_of(path, after) if problem not in known]
    if problems:
        raise FeedError("\n".join(problems))
    for problem in known:
        print(f"note: {problem}", file=sys.stderr)
    return feeds.save(path, after)


def switch(config: Config, name: str, enabled: bool) -> int:
    """Enable or disable a feed, and say so."""
    path = existing(config, name)
    raw = feeds.read(path)
    changed = raw.get("enabled", True) != enabled and save(path, raw, {**raw, "enabled": enabled})
    word = "enabled" if enabled else "disabled"
    print(f"{name} is {word}" + ("" if changed else " already"))
    return ExitCode.OK


def with_settings(path: Path, raw: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The content of a feed file with KEY=VALUE settings; values are JSON, or else text."""
    made = dict(raw)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r}: expected KEY=VALUE")
        if key in ("feed_name", "feed_type"):
            raise FeedError(f"{path}: {key} cannot change; add another feed")
        try:
            made[key] = json.loads(text)
        except ValueError:
            made[key] = text
        if not text:
            del made[key]
    return made


def all_active(config: Config, given: Sequence[str]) -> Sequence[str]:
    """The names, all of which must be active feeds.

    Raises:
        FeedError: one is not, so that nothing is done when one of several names is misspelt.
    """
    for name in given:
        existing(config, name)
    return given


def move(path: Path, directory: Path, word: str) -> int:
    make_dirs(directory)
    target = directory / path.name
    if target.exists() or target.is_symlink():
        raise FeedError(f"{target}: already exists; move it away first")
    if other := names.twin(path.stem, (found.stem for found in directory.glob("*.json"))):
        raise FeedError(f"{target}: {names.twins(path.stem, other)}")
    os.rename(path, target)
    fsync_dir(directory)
    fsync_dir(path.parent)
    print(f"{path.stem} is {word}")
    return ExitCode.OK
