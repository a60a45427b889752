"""The feed files of a lake, as commands find, check, write and move them."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError
from ksql_lake.model import feeds, names
from ksql_lake.model.feeds import Feed
from ksql_lake.store import layout


def active(config: Config) -> Path:
    return layout.feed_files(config.lake_dir)


def archived(config: Config) -> Path:
    return layout.feed_files(config.lake_dir, "archived")


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
    from ksql_lake.store.lake import directories

    path = feeds.file_of(active(config), named(name))
    known: dict[str, Path] = {}
    for directory in (active(config), archived(config)):
        known |= {found.stem: found for found in feeds.files(directory)}
    for kind in layout.KINDS:
        known |= {one.name: Path(one) for one in directories(config.lake_dir, kind) if one.name not in known}
    if name in known and known[name].suffix == ".json":
        raise FeedError(f"{known[name]}: already exists; choose another name, or restore or edit that feed")
    if other := names.twin(name, known):
        raise FeedError(f"{path}: {names.twins(name, other)}")
    return path


def existing(config: Config, name: str) -> Path:
    path = feeds.file_of(active(config), named(name))
    if not feeds.is_there(path):
        raise FeedError(f"{path}: no such feed; see: python manage_feeds.py list")
    return path


def version_name(text: str) -> str:
    """The name of a version, which may be given as a bare number: v3 for 3."""
    return f"v{int(text)}" if text.isascii() and text.isdigit() and len(text) < 12 else text


def feed_of(config: Config, name: str) -> Feed:
    """A feed that is active or archived."""
    kept = feeds.file_of(archived(config), named(name))
    return feeds.load(kept if feeds.is_there(kept) else feeds.file_of(active(config), name))


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
    feeds.move(path, directory)
    print(f"{path.stem} is {word}")
    return ExitCode.OK
