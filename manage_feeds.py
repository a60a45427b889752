"""Manage the feeds of the data lake: one JSON file per stream or table in feeds/active.

What changes data (retention, undo, rollback, pin) is a commit of its own, as safe against a crash as an export.

exit codes: 0 done; 1 a feed is missing or wrong, or a plan was refused; 2 usage or configuration; 3 another run
holds the lock.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import re
import secrets
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import data_lake_config
from data_lake_config import Config
from ksql_lake import feeds
from ksql_lake.errors import ConfigError, ExitCode, FeedError, LakeBusyError, LakeError, StateError
from ksql_lake.feeds import Feed
from ksql_lake.files import exclusive_lock, fsync_dir, make_dirs


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        config = data_lake_config.load(os.environ)
        return int(args.run(config, args))
    except LakeError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}; mend it and run again", file=sys.stderr)
        return ExitCode.FINDINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sync_ = commands.add_parser("sync", help="write the feeds of data_lake_config.py that have no file yet")
    sync_.add_argument("--dry-run", action="store_true", help="only show what would be written")
    sync_.set_defaults(run=_sync)
    add = commands.add_parser("add", help="add a feed")
    add.add_argument("--name", required=True, help="name of the feed and of its directory")
    add.add_argument("--type", choices=("stream", "table"), help="needed only when the server cannot be asked")
    add.add_argument("--source", required=True, help="the stream or table in ksqlDB")
    add.add_argument("--description", default="")
    add.add_argument("--retention-days", type=int, metavar="N", help="streams: days to keep")
    add.add_argument(
        "--retention-versions", "--keep-versions", type=int, metavar="N", help="tables: versions to keep"
    )
    add.add_argument("--timezone", metavar="ZONE", help="IANA zone that a day is counted in (default: UTC)")
    add.add_argument("--access", choices=("restricted", "open"), help="750/640 or 755/644")
    add.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="any other key of a feed file")
    add.set_defaults(run=_add)
    update = commands.add_parser("update", help="change settings of a feed")
    update.add_argument("name")
    update.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="an empty VALUE takes the key out")
    update.set_defaults(run=_update)
    remove = commands.add_parser("remove", help="remove a feed file; the data stay")
    remove.add_argument("name")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    remove.set_defaults(run=_remove)
    discover = commands.add_parser("discover", help="sources on the server that have no feed")
    discover.add_argument("--add", nargs="*", metavar="SOURCE", help="add a feed for these, or for all")
    discover.set_defaults(run=_discover)
    completion = commands.add_parser("completion", help="print a completion script: eval \"$(... completion)\"")
    completion.set_defaults(run=_completion, commands=commands.choices)
    permissions = commands.add_parser("permissions", help="modes that are not as the feed's access says")
    permissions.add_argument("--apply", action="store_true", help="set them right")
    permissions.set_defaults(run=_permissions)
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
        if name == "check":
            command.add_argument("--online", action="store_true", help="also ask the server")
        command.set_defaults(run=globals()[f"_{name}"])
    _lake_commands(commands)
    return parser


def _lake_commands(commands: Any) -> None:
    """What changes the data of a feed rather than its file."""
    retention = commands.add_parser("retention", help="move what is too old into the trash, with reasons")
    retention.add_argument("name", nargs="*", help="only these feeds (default: all active ones)")
    retention.add_argument("--dry-run", action="store_true", help="only show the plan")
    retention.add_argument(
        "--max-delete", type=float, metavar="PERCENT", help="of a feed's bytes (default: MAX_DELETE_PERCENT)"
    )
    retention.add_argument(
        "--allow", action="append", default=[], choices=("clock", "stale", "amount"), help="lift a guard; see README"
    )
    retention.set_defaults(run=_retention)
    undo = commands.add_parser("undo", help="bring back what retention last moved into the trash")
    undo.add_argument("name", nargs="?", help="of this feed (default: of the last run, all its feeds)")
    undo.add_argument("--list", action="store_true", help="only show what is in the trash")
    undo.set_defaults(run=_undo)
    erase = commands.add_parser("erase", help="take every row of one person out of the lake, its trash included")
    erase.add_argument(
        "--where", required=True, type=_condition, metavar="COLUMN=VALUE",
        help="such as user_id=user_42; also fields at any depth (customer.ip_address=...)",
    )
    erase.add_argument("--feeds", nargs="+", default=[], metavar="NAME", help="only these (default: all in the lake)")
    erase.add_argument("--dry-run", action="store_true", help="only show where the rows are")
    erase.add_argument(
        "--later", choices=("drop", "keep"), help="what becomes of this person's events and rows that come later"
    )
    erase.set_defaults(run=_erase)
    compact = commands.add_parser("compact", help="merge the small files of days that are over")
    compact.add_argument("name", nargs="*", help="only these streams (default: all active ones)")
    compact.add_argument(
        "--older-than", type=_days, default=2, metavar="DAYS", help="days that ended so long ago (default: 2d)"
    )
    compact.add_argument("--dry-run", action="store_true", help="only show what would be merged")
    compact.set_defaults(run=_compact)
    quarantine = commands.add_parser("quarantine", help="rows that a check set aside: how many, why, and back again")
    quarantine.add_argument("name")
    quarantine.add_argument("--import", dest="back", action="store_true", help="bring back those that pass by now")
    quarantine.add_argument("--force", action="store_true", help="with --import: also those that still fail")
    quarantine.add_argument("--run", dest="of", metavar="RUN", help="only rows that this run set aside")
    quarantine.add_argument("--json", action="store_true", help="as JSON")
    quarantine.set_defaults(run=_quarantine)
    versions = commands.add_parser("versions", help="list the versions of a table")
    versions.add_argument("name")
    versions.add_argument("--json", action="store_true", help="as JSON")
    versions.set_defaults(run=_versions)
    for name, what in (
        ("rollback", "make another version of a table the current one"), ("pin", "keep a version against retention"),
        ("unpin", "let a pinned version go with the others"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("name")
        command.add_argument("version", help="such as v5")
        command.set_defaults(run=_rollback if name == "rollback" else _pin, pinned=name == "pin")


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
                plan.append(f"keep    {name}{_other_than(path, settings)}")
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


def _other_than(path: Path, settings: dict[str, Any]) -> str:
    """What a person has set otherwise than the config: it stays."""
    try:
        raw = feeds.read(path)
    except FeedError:
        return " (broken; see: python manage_feeds.py check)"
    differ = (key for key, value in settings.items() if raw.get(key) != value)
    other = [f"{key} is {raw.get(key, 'not set')}, in the config {settings[key]}" for key in differ]
    return f" ({'; '.join(other)})" if other else ""


def _sync(config: Config, args: argparse.Namespace) -> int:
    print("\n".join(sync(config, _now(), dry_run=args.dry_run)))
    return ExitCode.OK


def _add(config: Config, args: argparse.Namespace) -> int:
    path = _active(config) / f"{args.name}.json"
    for taken in (path, _archived(config) / path.name):
        if taken.exists():
            raise FeedError(f"{taken}: exists already; choose another name, or restore or edit that feed")
    kind = _kind(config, args.source, args.type)
    raw = feeds.new(
        args.name, kind, args.source, _now(), description=args.description, retention_days=args.retention_days,
        retention_versions=args.retention_versions, timezone=args.timezone, access=args.access,
    )
    make_dirs(path.parent)
    _save(path, None, _with(path, raw, args.settings))
    print(f"added {path}")
    return ExitCode.OK


def _list(config: Config, args: argparse.Namespace) -> int:
    rows, code = [], ExitCode.OK
    for state, directory in (("active", _active(config)), ("archived", _archived(config))):
        for feed in feeds.load_all(directory, patterns=False):
            if not isinstance(feed, Feed):
                for line in feed.message.splitlines():
                    print(f"error: {line}", file=sys.stderr)
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
    path = _existing(config, args.name)
    print(path.read_text(encoding="utf-8"), end="")
    metadata = config.lake_dir / f"{feeds.load(path).type}s" / args.name / "_metadata.json"
    history = json.loads(metadata.read_bytes()).get("schema_history", []) if metadata.exists() else []
    for entry in history:
        print(f"# schema {entry['version']} since {entry['at']}: {', '.join(entry['added'])}")
    return ExitCode.OK


def _check(config: Config, args: argparse.Namespace) -> int:
    if args.name:
        loaded: list[object] = [feeds.load(_existing(config, args.name))]
    else:
        loaded = list(feeds.load_all(_active(config)))
    bad = [problem for problem in loaded if isinstance(problem, feeds.FeedProblem)]
    for problem in bad:
        for line in problem.message.splitlines():
            print(f"error: {line}", file=sys.stderr)
    if args.online:
        return _check_online(config, [feed for feed in loaded if isinstance(feed, Feed)], bool(bad))
    print(f"{len(loaded) - len(bad)} feeds are right, {len(bad)} are wrong")
    return ExitCode.FINDINGS if bad else ExitCode.OK


def _kind(config: Config, source: str, given: str | None) -> str:
    """Stream or table: as the server says, or as given when it cannot be asked."""
    from ksql_lake.errors import KsqlError, SourceError
    from ksql_lake.ksqldb import Client

    try:
        with Client(_server(config, 3.0)) as client:
            listed = {name.upper(): kind for name, kind, _ in client.sources()}
    except KsqlError as error:
        if given is None:
            raise ConfigError(f"add: say --type stream or --type table; the server cannot be asked: {error}") from None
        return given
    found = listed.get(source.upper())
    if found is None and given is None:
        raise SourceError(f"{source}: not on {config.url}; see: python manage_feeds.py discover, or say --type")
    if found is None:
        print(f"note: {source} is not on {config.url} yet", file=sys.stderr)
    elif given not in (None, found):
        raise SourceError(f"{source} is a {found} on {config.url}, not a {given}")
    return found or str(given)


def _server(config: Config, timeout: float | None = None) -> Any:
    from ksql_lake.ksqldb import Server

    seconds = min(timeout or config.timeout, config.timeout)
    return Server(config.url, config.user, config.password, config.ca_cert, seconds)


def _check_online(config: Config, good: Sequence[Feed], bad: bool) -> int:
    """Each feed against its source: there, of its kind, readable, of types that can be stored, names that collide."""
    from ksql_lake.columns import refuse_forbidden
    from ksql_lake.ksqldb import Client, quote
    from ksql_lake.partitions import disk_names
    from ksql_lake.quality import fits
    from ksql_lake.streams import RESERVED
    from ksql_lake.types import arrow_schema

    wrong = 0
    with Client(_server(config)) as client:
        for feed in good:
            try:
                source = client.resolve(feed.source, feed.type)
                with client.query(f"SELECT * FROM {quote(source.name)} EMIT CHANGES;") as answer:
                    columns = answer.columns
                arrow_schema(columns)
                refuse_forbidden(feed.name, columns, feed.forbidden_columns)
                fits(feed.name, feed.checks, columns, feed.type)
            except LakeError as error:
                print(f"error: {feed.path}: {error}", file=sys.stderr)
                wrong += 1
                continue
            names = disk_names([c.name for c in columns], RESERVED if feed.type == "stream" else ("version",), {})
            renamed = ", ".join(f"{name} as {disk}" for name, disk in names.items() if name != disk)
            how = "" if feed.type == "stream" or source.queryable else "; read as a changelog"
            print(f"{feed.name}: {len(columns)} columns{how}{'; stored ' + renamed if renamed else ''}")
    print(f"{len(good) - wrong} of {len(good)} feeds fit their source")
    return ExitCode.FINDINGS if wrong or bad else ExitCode.OK


def _update(config: Config, args: argparse.Namespace) -> int:
    path = _existing(config, args.name)
    raw = feeds.read(path)
    changed = _save(path, raw, _with(path, raw, args.settings))
    print(f"{args.name} is {'updated' if changed else 'as it was'}")
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


def _save(path: Path, before: dict[str, Any] | None, after: dict[str, Any]) -> bool:
    """Write a feed file unless that brings new problems; what was wrong or unknown before stays as it is."""
    known = feeds.problems_of(path, before) if before is not None else []
    problems = [problem for problem in feeds.problems_of(path, after) if problem not in known]
    if problems:
        raise FeedError("\n".join(problems))
    for problem in known:
        print(f"note: {problem}", file=sys.stderr)
    return feeds.save(path, after)


def _remove(config: Config, args: argparse.Namespace) -> int:
    archived = _archived(config) / f"{args.name}.json"
    path = archived if archived.exists() else _existing(config, args.name)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ConfigError("remove: nobody to ask; say --yes")
        if input(f"remove {path}? Its data stay in the lake. [y/N] ").strip().lower() not in ("y", "yes"):
            print("left as it is")
            return ExitCode.OK
    os.unlink(path)
    fsync_dir(path.parent)
    print(f"{args.name} is removed; its data stay in the lake")
    return ExitCode.OK


def _discover(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.ksqldb import Client

    known = {
        feed.source.upper()
        for directory in (_active(config), _archived(config))
        for feed in feeds.load_all(directory)
        if isinstance(feed, Feed)
    }
    with Client(_server(config)) as client:
        free = [(name, kind) for name, kind, _ in client.sources() if name.upper() not in known]
    wanted = None if args.add is None else {name.upper() for name in args.add} or {name.upper() for name, _ in free}
    missing = (wanted or set()) - {name.upper() for name, _ in free}
    if missing:
        raise FeedError(f"discover: {', '.join(sorted(missing))}: no source without a feed of that name")
    for name, kind in free:
        if wanted is None:
            print(f"{kind:<7} {name}")
        elif name.upper() in wanted:
            feed = re.sub(r"[^a-z0-9_.-]", "_", name.lower()).lstrip("_.-") or "feed"
            path = _active(config) / f"{feed}.json"
            if path.exists():
                raise FeedError(f"{path}: exists already; add {name} under another name")
            make_dirs(path.parent)
            feeds.save(path, feeds.new(feed, kind, name, _now()))
            print(f"added {path}")
    if not free:
        print("every source has a feed")
    return ExitCode.OK


def _completion(config: Config, args: argparse.Namespace) -> int:
    commands = " ".join(sorted(args.commands))
    active = _active(config)
    print(f"""_manage_feeds() {{
  local names=$(cd {shlex.quote(str(active))} 2>/dev/null && ls *.json 2>/dev/null | sed 's/[.]json$//')
  COMPREPLY=($(compgen -W "$([ $COMP_CWORD -le ${{_manage_feeds_at:-2}} ] && echo {commands} || echo $names)" -- \
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


def _permissions(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.permissions import apply, drift

    found = []
    for dataset in _datasets(config, []):
        found += list(drift(dataset))
    for one in found:
        print(f"{one.path}  {one.found:o} -> {one.wanted:o}")
    if args.apply:
        apply(found)
    print(f"{len(found)} {'mended' if args.apply else 'are not as they should be'}")
    return ExitCode.OK if args.apply or not found else ExitCode.FINDINGS


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
    path = _existing(config, name)
    raw = feeds.read(path)
    changed = raw.get("enabled", True) != enabled and _save(path, raw, {**raw, "enabled": enabled})
    word = "enabled" if enabled else "disabled"
    print(f"{name} is {word}" + ("" if changed else " already"))
    return ExitCode.OK


def _archive(config: Config, args: argparse.Namespace) -> int:
    word = "archived; its data stay in the lake, and retention leaves them alone until it is restored"
    return _move(_existing(config, args.name), _archived(config), word)


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


def _retention(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake import retention, trash

    share = (config.max_delete_percent if args.max_delete is None else args.max_delete) / 100
    names = args.name or [feed.name for feed in feeds.load_all(_active(config)) if isinstance(feed, Feed)]
    code, rows, size = ExitCode.OK, 0, 0
    for name in names:
        feed = _feed(config, name)
        rule = retention.Rule(feed.retention_days, feed.retention_versions, share, frozenset(args.allow))
        dataset = _dataset(config, name)
        with _changing(dataset, args.dry_run) as (state, run):
            if state is None:
                continue
            plan = retention.plan(name, state, rule, dt.datetime.now(dt.UTC))
            for decision in plan.decisions:
                if decision.goes or args.dry_run:
                    word = "goes " if decision in plan.going else "stays"
                    print(f"{name}  {word} {decision.partition}  {decision.rows:,} rows  {decision.bytes:,} bytes  "
                          f"{decision.reason}")
            if plan.refusal:
                print(f"refused: {plan.refusal}", file=sys.stderr)
                code = ExitCode.FINDINGS
            rows, size = rows + plan.rows, size + plan.bytes
            if not args.dry_run:
                for path in retention.apply(dataset, state, plan, run, now=_now(), by=data_lake_config.operator()):
                    print(f"{path}: a symbolic link stands in the way; left alone", file=sys.stderr)
                    code = ExitCode.FINDINGS
                for path in trash.empty(dataset, config.trash_days, dt.datetime.now(dt.UTC).date()):
                    print(f"{name}  removed {path} for good")
    word = "would go" if args.dry_run else f"went into the trash for {config.trash_days} days"
    print(f"{rows:,} rows, {size:,} bytes {word}")
    return code


def _undo(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake import metadata, trash
    from ksql_lake.trash import COMPACTED

    if not args.list and _finish_interrupted(config, args.name):
        return ExitCode.OK
    held = trash.bundles(config.lake_dir, args.name)
    if args.list:
        for bundle in held:
            print(f"{bundle.at}  {bundle.feed:<32} {bundle.rows:>10,} rows  {len(bundle.files)} files  {bundle.why}")
        return ExitCode.OK
    held = [bundle for bundle in held if bundle.why != COMPACTED]  # the merged files have these rows
    if not held:
        raise StateError(f"{config.lake_dir / metadata.TRASH}: nothing of {args.name or 'any feed'} to bring back")
    last = held[-1].at if args.name else held[-1].at[:10]
    for bundle in held:
        if not bundle.at.startswith(last):
            continue
        dataset = _dataset(config, bundle.feed)
        with _changing(dataset) as (state, run):
            if state is None:
                raise StateError(f"{dataset.metadata}: missing, though the trash holds files of the feed")
            trash.undo(dataset, state, bundle, run, now=_now(), by=data_lake_config.operator())
        print(f"{bundle.feed}: {bundle.rows:,} rows back in {len(bundle.files)} files")
    print("raise retention_days or retention_versions, or the next --all takes them again")
    return ExitCode.OK


def _finish_interrupted(config: Config, name: str | None) -> bool:
    """Finish a change that was interrupted, perhaps this very one: going on from there would undo one more."""
    from ksql_lake import metadata

    staging = config.lake_dir / ".staging"
    journalled = {path.parents[1].name for path in staging.glob(f"{name or '*'}/*/{metadata.JOURNAL}")}
    for interrupted in sorted({path.parent.name for path in staging.glob(f"{name or '*'}/*/")}):
        try:
            with _changing(_dataset(config, interrupted)):
                pass
        except LakeBusyError:
            continue  # an export at work: it finishes what it finds itself
        if interrupted in journalled:
            print(f"{interrupted}: finished a change that was interrupted; run again to undo more")
    return bool(journalled)


def _days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of days such as 2d, 1 or more")
    return int(number)


def _compact(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake import __version__
    from ksql_lake.compact import compact
    from ksql_lake.merges import plan

    names = args.name or [f.name for f in feeds.load_all(_active(config)) if isinstance(f, Feed) and f.type == "stream"]
    before = after = 0
    for name in names:
        feed = _feed(config, name)
        if feed.type != "stream":
            raise FeedError(f"{name}: is a table; each version is written whole")
        dataset = _dataset(config, name)
        with _changing(dataset, args.dry_run) as (state, run):
            merges = plan(state, args.older_than, dt.datetime.now(dt.UTC)) if state else []
            for number, merge in enumerate(merges):
                before += len(merge.files)
                made = 1
                if not args.dry_run:
                    by = data_lake_config.operator()
                    made = compact(dataset, state, merge, f"{run}c{number}", tool=__version__, now=_now(), by=by)
                after += made
                print(f"{name}  {merge.partition}  {merge.rows:,} rows  {len(merge.files)} files into {made}")
    print(f"{before} files {'would become' if args.dry_run else 'became'} {after}")
    return ExitCode.OK


def _quarantine(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.quarantine import held

    dataset = _dataset(config, args.name)
    if args.back:
        return _import(config, args, dataset)
    if args.force:
        raise ConfigError("quarantine: --force goes with --import")
    with _changing(dataset, True) as (state, _):
        entries = held(state or {}, args.of)
    if args.json:
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return ExitCode.OK
    for entry in entries:
        reasons = ", ".join(f"{label} {rows:,}" for label, rows in entry["reasons"].items())
        print(f"{entry['run']}  {entry['partition']}  {entry['rows']:,} rows  {reasons}")
    print(f"{sum(entry['rows'] for entry in entries):,} rows set aside")
    return ExitCode.OK


def _import(config: Config, args: argparse.Namespace, dataset: Any) -> int:
    """Rows that were set aside back into their partitions, as one commit."""
    from ksql_lake import __version__
    from ksql_lake.quarantine import Import, held
    from ksql_lake.writer import WriterOptions

    if dataset.kind != "stream":
        raise FeedError(f"{args.name}: is a table, and a version is never changed; mend its checks and export it again")
    feed = _feed(config, args.name)
    options = WriterOptions(
        compression=feed.compression or config.compression,
        compression_level=feed.compression_level if feed.compression else config.compression_level,
        bloom_filter_columns=feed.bloom_filter_columns, file_rows=config.file_rows,
    )
    with _changing(dataset) as (state, run):
        entries = held(state or {}, args.of)
        move = Import(dataset, state, feed.checks, run, force=args.force, tool=__version__, options=options)
        done = move.carry_out(entries, now=_now(), by=data_lake_config.operator()) if entries else None
    rows, left = (done.rows, done.left) if done else (0, 0)
    print(f"{feed.name}: {rows:,} rows imported, {left:,} stay set aside")
    return ExitCode.FINDINGS if left else ExitCode.OK


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not column or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: expected COLUMN=VALUE")
    return column, value


def _erase(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake import erase

    if not args.later and not args.dry_run:
        raise ConfigError("erase: say what becomes of later events: --later drop, or --later keep")
    target = erase.Target(*args.where)
    if args.dry_run:
        return _erase_from(config, args, target, {})
    with exclusive_lock(erase.lock(config.lake_dir), "erase"):
        run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
        by = data_lake_config.operator()
        receipt = erase.begin(config.lake_dir, target, run, rule=args.later, now=_now(), by=by)
        return _erase_from(config, args, target, receipt)


def _erase_from(config: Config, args: argparse.Namespace, target: Any, receipt: dict[str, Any]) -> int:
    from ksql_lake import erase

    by = data_lake_config.operator()
    datasets = _datasets(config, args.feeds)
    seen, rows = 0, 0
    for dataset in datasets:
        with _changing(dataset, args.dry_run) as (state, run):
            if state is None or not erase.has_column(state, target):
                continue
            name = dataset.feed
            seen += 1
            found = list(erase.find(dataset, state, target))
            for file in found:
                print(f"{name}  {file.rows:,} rows in {file.path.relative_to(config.lake_dir)}")
            rows += sum(file.rows for file in found)
            number = receipt.get("receipt", "")
            told = any(e["receipt"] == number for e in state.get("erasures", ()))
            if not args.dry_run and (found or (args.later == "drop" and not told)):
                erase.erase(dataset, state, found, target, run, receipt=number, rule=args.later, now=_now(), by=by)
    if not seen:
        raise FeedError(f"erase: no feed has a column {target.column}; see: python manage_feeds.py list")
    if args.dry_run:
        print(f"{rows:,} rows would go; nothing was changed")
        return ExitCode.OK
    return _finish_erasure(config, datasets, target, receipt)


def _finish_erasure(config: Config, datasets: Sequence[Any], target: Any, receipt: dict[str, Any]) -> int:
    """Look again everywhere, and write down what was done."""
    from ksql_lake import erase

    left, lines = 0, []
    for dataset in datasets:
        with _changing(dataset, True) as (state, _):
            if state is None or not erase.has_column(state, target):
                continue
            left += sum(file.rows for file in erase.find(dataset, state, target))
            mine = (e for e in state.get("erasures", ()) if e["receipt"] == receipt["receipt"])
            lines += [{"feed": dataset.feed, "rows": e["rows"], "files": e["files"]} for e in mine]
    rows = sum(line["rows"] for line in lines)
    ended = None if left else _now()
    done = {**receipt, "ended": ended, "feeds": lines, "rows": rows, "rows_left": left}
    path = erase.write(config.lake_dir, done)
    print(f"{rows:,} rows erased in {len(lines)} feeds, {left} left; receipt {path}")
    return ExitCode.FINDINGS if left else ExitCode.OK


def _datasets(config: Config, names: Sequence[str]) -> list[Any]:
    """Every feed that has data in the lake, or those named: archived and removed ones too."""
    from ksql_lake.lake import datasets

    there = datasets(config.lake_dir)
    known = [dataset.feed for dataset in there]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise FeedError(f"{', '.join(unknown)}: nothing in the lake; there are {', '.join(known) or 'none'}")
    return [dataset for dataset in there if not names or dataset.feed in names]


def _versions(config: Config, args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ksql_lake.versions import versions

    with _changing(_table(config, args.name), True) as (state, _):
        found = versions(state) if state else []
    if args.json:
        print(json.dumps([asdict(version) for version in found], indent=2))
        return ExitCode.OK
    for version in found:
        marks = " ".join(word for word, so in (("current", version.current), ("pinned", version.pinned)) if so)
        print(f"{version.name:<6} {version.rows:>12,} rows {version.size_mb:>10.3f} MB  {version.exported_at}  {marks}")
    return ExitCode.OK


def _rollback(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.versions import rollback

    dataset = _table(config, args.name)
    with _changing(dataset) as (state, run):
        if state is None:
            raise StateError(f"{args.name}: was never exported")
        changed = rollback(dataset, state, args.version, run, now=_now(), by=data_lake_config.operator())
        number = state["last_version"] + 1
    print(f"{args.name}: {args.version} is current{'' if changed else ' already'}; the next export makes v{number}")
    return ExitCode.OK


def _pin(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.versions import pin

    dataset = _table(config, args.name)
    with _changing(dataset) as (state, run):
        if state is None:
            raise StateError(f"{args.name}: was never exported")
        pin(dataset, state, args.version, run, pinned=args.pinned, now=_now(), by=data_lake_config.operator())
    print(f"{args.name}: {args.version} is {'pinned' if args.pinned else 'not pinned'}")
    return ExitCode.OK


def _feed(config: Config, name: str) -> Feed:
    """A feed that is active or archived."""
    archived = _archived(config) / f"{name}.json"
    return feeds.load(archived if archived.exists() else _active(config) / f"{name}.json")


def _table(config: Config, name: str) -> Any:
    dataset = _dataset(config, name)
    if dataset.kind != "table":
        raise FeedError(f"{name}: is a stream; only tables have versions")
    return dataset


def _dataset(config: Config, name: str) -> Any:
    from ksql_lake.lake import find

    return find(config.lake_dir, name)


@contextlib.contextmanager
def _changing(dataset: Any, look: bool = False) -> Iterator[tuple[Any, str]]:
    """(state, run) of a feed with its lock held and interrupted work finished; only a look takes no lock."""
    from ksql_lake import metadata

    run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
    if look:
        yield metadata.load(dataset), run
        return
    with exclusive_lock(dataset.lock, dataset.feed):
        metadata.recover(dataset)
        yield metadata.load_or_new(dataset, dict) or None, run


if __name__ == "__main__":
    raise SystemExit(main())
