"""Commands that read and write feed files."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError
from ksql_lake.base.files import fsync_dir, make_dirs
from ksql_lake.base.text import shown
from ksql_lake.cli import context, server
from ksql_lake.cli.hints import here
from ksql_lake.model import feeds, names
from ksql_lake.model.feeds import Feed


def sync(config: Config, now: str, *, dry_run: bool = False, keep_all: bool = False) -> list[str]:
    """Write the configured feeds that have no file; files that exist are the user's and stay. Returns the plan.

    Args:
        keep_all: without their rules of retention.
    """
    plan = []
    directory = context.active(config)
    for kind, mapping in (("stream", data_lake_config.STREAMS), ("table", data_lake_config.TABLES)):
        for name, settings in mapping.items():
            path = directory / f"{name}.json"
            if name in config.switched_off:
                continue
            if path.exists():
                plan.append(f"keep    {name}{_other_than(path, settings)}")
                continue
            if (context.archived(config) / path.name).exists():
                plan.append(f"leave   {name} (archived)")
                continue
            plan.append(f"write   {name}")
            context.free(config, name)
            if not dry_run:
                make_dirs(directory)
                source = settings.get("ksqldb_source", name)
                left_out = {"ksqldb_source", *(("retention_days", "retention_versions") if keep_all else ())}
                rest = {key: value for key, value in settings.items() if key not in left_out}
                feeds.save(path, feeds.new(name, kind, source, now, **rest))
    return plan


def _other_than(path: Path, settings: dict[str, Any]) -> str:
    """What a person has set otherwise than the config: it stays."""
    try:
        raw = feeds.read(path)
    except FeedError:
        return " (broken; see: python manage_feeds.py check)"
    differ = (key for key, value in settings.items() if raw.get(key) != value)
    other = [f"{key} is {raw.get(key, 'not set')}, in the config {settings[key]}" for key in differ]
    return f" ({'; '.join(other)})" if other else ""


def sync_command(config: Config, args: argparse.Namespace) -> int:
    print("\n".join(map(here, sync(config, context.now(), dry_run=args.dry_run))))
    return ExitCode.OK


def add(config: Config, args: argparse.Namespace) -> int:
    path = context.free(config, args.name)
    kind = server.kind_of(config, args.source, args.type)
    raw = feeds.new(
        args.name, kind, args.source, context.now(), description=args.description, retention_days=args.retention_days,
        retention_versions=args.retention_versions, timezone=args.timezone, access=args.access,
    )
    make_dirs(path.parent)
    context.save(path, None, _with(path, raw, args.settings))
    print(f"added {path}")
    return ExitCode.OK


def listed(config: Config) -> tuple[list[dict[str, Any]], list[feeds.FeedProblem]]:
    """A line for each feed, active and archived, and the files that cannot be used."""
    rows, problems = [], []
    for state, directory in (("active", context.active(config)), ("archived", context.archived(config))):
        for feed in feeds.load_all(directory, patterns=False):
            if not isinstance(feed, Feed):
                problems.append(feed)
                continue
            shown = "disabled" if state == "active" and not feed.enabled else state
            if state == "active" and feed.name in config.switched_off:
                shown = "off"  # by CONFIG_FEEDS
            versions = f"{feed.retention_versions or '-'} versions"
            keep = f"{feed.retention_days} days" if feed.retention_days else versions
            rows.append({"name": feed.name, "type": feed.type, "source": feed.source, "state": shown, "keep": keep})
    return rows, problems


def list_command(config: Config, args: argparse.Namespace) -> int:
    rows, problems = listed(config)
    for problem in problems:
        for line in problem.message.splitlines():
            print(f"error: {here(line)}", file=sys.stderr)
    if args.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(here("no feeds yet; add those of your server with: python manage_feeds.py discover --add, or write those "
                   "of data_lake_config.py with: python manage_feeds.py sync"))
    for row in rows if not args.json else ():
        print(f"{row['name']:<32} {row['type']:<7} {row['state']:<9} {row['keep']:<11} {shown(row['source'])}")
    return ExitCode.FINDINGS if problems else ExitCode.OK


def show(config: Config, args: argparse.Namespace) -> int:
    path = context.existing(config, args.name)
    print(feeds.text_of(path), end="")
    metadata = config.lake_dir / f"{feeds.load(path).type}s" / args.name / "_metadata.json"
    history = json.loads(metadata.read_bytes()).get("schema_history", []) if metadata.exists() else []
    for entry in history:
        print(f"# schema {entry['version']} since {entry['at']}: {', '.join(entry['added'])}")
    return ExitCode.OK


def check(config: Config, args: argparse.Namespace) -> int:
    if args.name:
        loaded: list[object] = [feeds.load(context.existing(config, args.name))]
    else:
        loaded = list(feeds.load_all(context.active(config)))
    bad = [problem for problem in loaded if isinstance(problem, feeds.FeedProblem)]
    for problem in bad:
        for line in problem.message.splitlines():
            print(f"error: {here(line)}", file=sys.stderr)
    if args.online:
        return server.check_online(config, [feed for feed in loaded if isinstance(feed, Feed)], bool(bad))
    good = len(loaded) - len(bad)
    print(f"{good} feed{' is' if good == 1 else 's are'} right, {len(bad)} {'is' if len(bad) == 1 else 'are'} wrong")
    return ExitCode.FINDINGS if bad else ExitCode.OK


def update(config: Config, args: argparse.Namespace) -> int:
    path = context.existing(config, args.name)
    raw = feeds.read(path)
    changed = context.save(path, raw, _with(path, raw, args.settings))
    print(f"{args.name} is {'updated' if changed else 'unchanged'}")
    return ExitCode.OK


def _with(path: Path, raw: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
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


def remove(config: Config, args: argparse.Namespace) -> int:
    archived = context.archived(config) / f"{context.named(args.name)}.json"
    path = archived if archived.exists() else context.existing(config, args.name)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError("remove: needs a terminal to confirm; add --yes")
        if input(f"remove {path}? Its data stays in the lake. [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return ExitCode.OK
    os.unlink(path)
    fsync_dir(path.parent)
    print(f"{args.name} is removed; its data stays in the lake")
    return ExitCode.OK


def enable(config: Config, args: argparse.Namespace) -> int:
    return max(context.switch(config, name, True) for name in _all_there(config, args.name))


def disable(config: Config, args: argparse.Namespace) -> int:
    return max(context.switch(config, name, False) for name in _all_there(config, args.name))


def _all_there(config: Config, given: Sequence[str]) -> Sequence[str]:
    """The names, when each is an active feed: of a list with a slip in it nothing is done."""
    for name in given:
        context.existing(config, name)
    return given


def archive(config: Config, args: argparse.Namespace) -> int:
    word = "archived; its data stays in the lake, and retention leaves it alone until it is restored"
    return _move(context.existing(config, args.name), context.archived(config), word)


def restore(config: Config, args: argparse.Namespace) -> int:
    path = context.archived(config) / f"{context.named(args.name)}.json"
    if not path.exists():
        raise FeedError(f"{path}: no such archived feed; see: python manage_feeds.py list")
    return _move(path, context.active(config), "active again")


def _move(path: Path, directory: Path, word: str) -> int:
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


def completion(config: Config, args: argparse.Namespace) -> int:
    words = " ".join(sorted(args.commands))
    directory = shlex.quote(str(context.active(config)))
    print(f"""_manage_feeds() {{
  local names=$(cd {directory} 2>/dev/null && ls *.json 2>/dev/null | sed 's/[.]json$//')
  COMPREPLY=($(compgen -W "$([ $COMP_CWORD -le ${{_manage_feeds_at:-2}} ] && echo {words} || echo $names)" -- \
    "${{COMP_WORDS[COMP_CWORD]}}"))
}}
_python_manage_feeds() {{
  case "${{COMP_WORDS[1]}}" in *manage_feeds.py) _manage_feeds_at=2 _manage_feeds;; *) COMPREPLY=($(compgen -f -- \
    "${{COMP_WORDS[COMP_CWORD]}}"));; esac
}}
_script_manage_feeds() {{ _manage_feeds_at=1 _manage_feeds; }}
complete -F _python_manage_feeds python python3
complete -F _script_manage_feeds manage_feeds.py ./manage_feeds.py""")
    return ExitCode.OK
