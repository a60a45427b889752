"""Manage the feeds of the data lake: one JSON file per stream or table in feeds/active.

exit codes: 0 done; 1 a feed file is missing or wrong; 2 usage or configuration.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import data_lake_config
from data_lake_config import Config
from ksql_lake import feeds
from ksql_lake.errors import ExitCode, FeedError, LakeError
from ksql_lake.feeds import Feed
from ksql_lake.files import fsync_dir, make_dirs


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        config = data_lake_config.load(os.environ)
        return int(args.run(config, args))
    except LakeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FINDINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sync_ = commands.add_parser("sync", help="write the feeds of data_lake_config.py that have no file yet")
    sync_.add_argument("--dry-run", action="store_true", help="only show what would be written")
    sync_.set_defaults(run=_sync)
    add = commands.add_parser("add", help="add a feed")
    add.add_argument("--name", required=True, help="name of the feed and of its directory")
    add.add_argument("--type", required=True, choices=("stream", "table"))
    add.add_argument("--source", required=True, help="the stream or table in ksqlDB")
    add.add_argument("--description", default="")
    add.add_argument("--retention-days", type=int, metavar="N", help="streams: days to keep")
    add.add_argument("--retention-versions", type=int, metavar="N", help="tables: versions to keep")
    add.add_argument("--timezone", metavar="ZONE", help="IANA zone that a day is counted in (default: UTC)")
    add.add_argument("--access", choices=("restricted", "open"), help="750/640 or 755/644")
    add.set_defaults(run=_add)
    list_ = commands.add_parser("list", help="list the feeds")
    list_.add_argument("--json", action="store_true", help="as JSON")
    list_.set_defaults(run=_list)
    for name, what in (
        ("show", "show a feed file"), ("check", "check the feed files, or one"), ("enable", "export it again"),
        ("disable", "leave it out of --all"), ("archive", "move it to feeds/archived; its data stay"),
        ("restore", "bring an archived feed back"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("name", nargs="?" if name == "check" else None)
        command.set_defaults(run=globals()[f"_{name}"])
    return parser


def _active(config: Config) -> Path:
    return config.lake_dir / "feeds" / "active"


def _archived(config: Config) -> Path:
    return config.lake_dir / "feeds" / "archived"


def _now() -> str:
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def sync(config: Config, now: str, *, dry_run: bool = False) -> list[str]:
    """Write the configured feeds that have no file; files that exist are the user's and stay. Returns the plan."""
    plan = []
    directory = _active(config)
    for kind, mapping in (("stream", data_lake_config.STREAMS), ("table", data_lake_config.TABLES)):
        for name, settings in mapping.items():
            path = directory / f"{name}.json"
            if path.exists():
                plan.append(f"keep    {name}")
                continue
            if (_archived(config) / path.name).exists():
                plan.append(f"leave   {name} (archived)")
                continue
            plan.append(f"write   {name}")
            if not dry_run:
                make_dirs(directory)
                source = settings.get("ksqldb_source", name)
                rest = {key: value for key, value in settings.items() if key != "ksqldb_source"}
                feeds.save(path, feeds.new(name, kind, source, now, **rest))
    return plan


def _sync(config: Config, args: argparse.Namespace) -> int:
    print("\n".join(sync(config, _now(), dry_run=args.dry_run)))
    return ExitCode.OK


def _add(config: Config, args: argparse.Namespace) -> int:
    path = _active(config) / f"{args.name}.json"
    for taken in (path, _archived(config) / path.name):
        if taken.exists():
            raise FeedError(f"{taken}: exists already; choose another name, or restore or edit that feed")
    raw = feeds.new(
        args.name, args.type, args.source, _now(), description=args.description, retention_days=args.retention_days,
        retention_versions=args.retention_versions, timezone=args.timezone, access=args.access,
    )
    problems = feeds.problems_of(path, raw)
    if problems:
        raise FeedError("; ".join(problems))
    make_dirs(path.parent)
    feeds.save(path, raw)
    print(f"added {path}")
    return ExitCode.OK


def _list(config: Config, args: argparse.Namespace) -> int:
    rows, code = [], ExitCode.OK
    for state, directory in (("active", _active(config)), ("archived", _archived(config))):
        for feed in feeds.load_all(directory):
            if not isinstance(feed, Feed):
                print(f"error: {feed.message}", file=sys.stderr)
                code = ExitCode.FINDINGS
                continue
            shown = "disabled" if state == "active" and not feed.enabled else state
            versions = f"{feed.retention_versions or '-'} versions"
            keep = f"{feed.retention_days} days" if feed.retention_days else versions
            rows.append({"name": feed.name, "type": feed.type, "source": feed.source, "state": shown, "keep": keep})
    if args.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("no feed yet; write them with: python manage_feeds.py sync")
    for row in rows if not args.json else ():
        print(f"{row['name']:<32} {row['type']:<7} {row['state']:<9} {row['keep']:<11} {row['source']}")
    return code


def _show(config: Config, args: argparse.Namespace) -> int:
    print((_existing(config, args.name)).read_text(encoding="utf-8"), end="")
    return ExitCode.OK


def _check(config: Config, args: argparse.Namespace) -> int:
    if args.name:
        loaded: list[object] = [feeds.load(_existing(config, args.name))]
    else:
        loaded = list(feeds.load_all(_active(config)))
    bad = [problem for problem in loaded if isinstance(problem, feeds.FeedProblem)]
    for problem in bad:
        print(f"error: {problem.message}", file=sys.stderr)
    print(f"{len(loaded) - len(bad)} feeds are right, {len(bad)} are wrong")
    return ExitCode.FINDINGS if bad else ExitCode.OK


def _existing(config: Config, name: str) -> Path:
    path = _active(config) / f"{name}.json"
    if not path.exists():
        raise FeedError(f"{path}: no such feed; see: python manage_feeds.py list")
    return path


def _enable(config: Config, args: argparse.Namespace) -> int:
    return _switch(config, args.name, True)


def _disable(config: Config, args: argparse.Namespace) -> int:
    return _switch(config, args.name, False)


def _switch(config: Config, name: str, enabled: bool) -> int:
    feed = feeds.load(_existing(config, name))
    changed = feeds.save(feed.path, {**feed.raw, "enabled": enabled}) if feed.enabled != enabled else False
    word = "enabled" if enabled else "disabled"
    print(f"{name} is {word}" + ("" if changed else " already"))
    return ExitCode.OK


def _archive(config: Config, args: argparse.Namespace) -> int:
    return _move(_existing(config, args.name), _archived(config), "archived; its data stay in the lake")


def _restore(config: Config, args: argparse.Namespace) -> int:
    path = _archived(config) / f"{args.name}.json"
    if not path.exists():
        raise FeedError(f"{path}: no such archived feed; see: python manage_feeds.py list")
    return _move(path, _active(config), "active again")


def _move(path: Path, directory: Path, word: str) -> int:
    make_dirs(directory)
    target = directory / path.name
    if target.exists():
        raise FeedError(f"{target}: exists already; move it away first")
    os.rename(path, target)
    fsync_dir(directory)
    fsync_dir(path.parent)
    print(f"{path.stem} is {word}")
    return ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
