"""Manage the feeds of the data lake: one JSON file per stream or table in feeds/active.

What changes data (retention, undo, rollback, pin) is a commit of its own, as safe against a crash as an export.

exit codes: 0 done; 1 a feed is missing or wrong, or a plan was refused; 2 usage or configuration; 3 another run
holds the lock.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import data_lake_config
from ksql_lake import __version__
from ksql_lake.base.errors import LakeError
from ksql_lake.base.settings import lake_path
from ksql_lake.base.text import guards_output
from ksql_lake.cli import data, erasure, feed_files, hints, reload, remote, server, start


@guards_output
def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        config = data_lake_config.load(os.environ)
        if args.lake:
            config = replace(config, lake_dir=lake_path("--lake", args.lake))
        hints.called(config.lake_dir if args.lake else None)
        return int(args.run(config, args))
    except (LakeError, OSError) as error:
        return start.refused(error)


class _Commands:
    """Adds commands, each of which also takes --lake behind its name."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")

    @property
    def choices(self) -> Any:
        return self._commands.choices

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:
        command = self._commands.add_parser(name, help=help)
        command.add_argument("--lake", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return command


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"ksql-lake {__version__}")
    parser.add_argument("--lake", metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    commands = _Commands(parser)
    sync_ = commands.add_parser("sync", help="write the feeds of data_lake_config.py that have no file yet")
    sync_.add_argument("--dry-run", action="store_true", help="only show what would be written")
    sync_.set_defaults(run=feed_files.sync_command)
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
    add.set_defaults(run=feed_files.add)
    update = commands.add_parser("update", help="change settings of a feed")
    update.add_argument("name")
    update.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="an empty VALUE removes the key")
    update.set_defaults(run=feed_files.update)
    remove = commands.add_parser("remove", help="remove a feed file; its data stays")
    remove.add_argument("name")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    remove.set_defaults(run=feed_files.remove)
    discover = commands.add_parser("discover", help="sources on the server that have no feed")
    discover.add_argument("--add", nargs="*", metavar="SOURCE", help="add a feed for these, or for all")
    discover.set_defaults(run=server.discover)
    completion = commands.add_parser("completion", help="print a completion script: eval \"$(... completion)\"")
    completion.set_defaults(run=feed_files.completion, commands=commands.choices)
    permissions = commands.add_parser("permissions", help="modes that are not as the feed's access says")
    permissions.add_argument("--apply", action="store_true", help="correct them")
    permissions.set_defaults(run=data.permissions)
    list_ = commands.add_parser("list", help="list the feeds")
    list_.add_argument("--json", action="store_true", help="as JSON")
    list_.set_defaults(run=feed_files.list_command)
    for name, what in (
        ("show", "show a feed file"), ("check", "check the feed files, or one"), ("enable", "export it again"),
        ("disable", "leave it out of --all"), ("archive", "move it to feeds/archived; its data stays"),
        ("restore", "bring an archived feed back"),
    ):
        command = commands.add_parser(name, help=what)
        several = {"check": "?", "enable": "+", "disable": "+"}
        command.add_argument("name", nargs=several.get(name))
        if name == "check":
            command.add_argument("--online", action="store_true", help="also ask the server")
        command.set_defaults(run=getattr(feed_files, name))
    _lake_commands(commands)
    remote.add_to(commands)
    reload.add_to(commands)
    return parser


def _lake_commands(commands: _Commands) -> None:
    """What changes the data of a feed rather than its file."""
    retention = commands.add_parser("retention", help="move what is too old into the trash, with reasons")
    retention.add_argument("name", nargs="*", help="only these feeds (default: all active ones)")
    retention.add_argument("--dry-run", action="store_true", help="only show the plan")
    retention.add_argument(
        "--max-delete", type=data.percent, metavar="PERCENT", help="of a feed's bytes (default: MAX_DELETE_PERCENT)"
    )
    retention.add_argument(
        "--allow", action="append", default=[], choices=("clock", "stale", "amount"), help="lift a guard; see README"
    )
    retention.set_defaults(run=data.retention)
    undo = commands.add_parser("undo", help="bring back what retention last moved into the trash")
    undo.add_argument("name", nargs="?", help="the last run's of this feed (default: the last day's, of all)")
    undo.add_argument("--list", action="store_true", help="only show what is in the trash")
    undo.set_defaults(run=data.undo)
    erase = commands.add_parser("erase", help="take every row of one person out of the lake, its trash included")
    erase.add_argument(
        "--where", required=True, type=erasure.condition, metavar="COLUMN=VALUE",
        help="such as user_id=user_42; also fields at any depth (customer.ip_address=...)",
    )
    erase.add_argument("--feeds", nargs="+", default=[], metavar="NAME", help="only these (default: all in the lake)")
    erase.add_argument("--dry-run", action="store_true", help="only show where the rows are")
    erase.add_argument(
        "--later", choices=("drop", "keep"), help="what becomes of this person's events and rows that come later"
    )
    erase.add_argument("--wait", action="store_true", help="wait for a feed that is being exported")
    erase.set_defaults(run=erasure.erase_command)
    compact = commands.add_parser("compact", help="merge the small files of days that are over")
    compact.add_argument("name", nargs="*", help="only these streams (default: all active ones)")
    compact.add_argument(
        "--older-than", type=data.days, default=2, metavar="DAYS", help="days that ended so long ago (default: 2d)"
    )
    compact.add_argument("--dry-run", action="store_true", help="only show what would be merged")
    compact.set_defaults(run=data.compact)
    quarantine = commands.add_parser("quarantine", help="rows that a check quarantined: how many, why, and back again")
    quarantine.add_argument("name")
    quarantine.add_argument("--import", dest="back", action="store_true", help="bring back those that pass by now")
    quarantine.add_argument("--force", action="store_true", help="with --import: also those that still fail")
    quarantine.add_argument("--run", dest="of", metavar="RUN", help="only rows that this run quarantined")
    quarantine.add_argument("--json", action="store_true", help="as JSON")
    quarantine.set_defaults(run=data.quarantine)
    versions = commands.add_parser("versions", help="list the versions of a table")
    versions.add_argument("name")
    versions.add_argument("--json", action="store_true", help="as JSON")
    versions.set_defaults(run=data.versions)
    for name, what in (
        ("rollback", "make another version of a table the current one"), ("pin", "keep a version against retention"),
        ("unpin", "let a pinned version go with the others"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("name")
        command.add_argument("version", help="such as v5 or 5")
        command.set_defaults(run=data.rollback if name == "rollback" else data.pin, pinned=name == "pin")
