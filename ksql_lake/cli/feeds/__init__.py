"""Manage the feeds of the data lake: one JSON file per stream or table in feeds/active.

Commands that change data (retention, undo, rollback, pin) commit like an export, and a crash does as little harm.

exit codes: 0 done; 1 a feed is missing or wrong, or a plan was refused; 2 usage or configuration; 3 another run
holds the lock.
"""

# Each command is the module of its name in this directory: `arguments(parser)` where it has any, and
# `run(config, args)`. Only the command that is asked for is imported, so that `list` starts at once.

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import data_lake_config
from ksql_lake import __version__
from ksql_lake.base.errors import LakeError
from ksql_lake.base.settings import lake_path
from ksql_lake.cli import hints, start
from ksql_lake.cli.hints import guards_output

COMMANDS = {
    "sync": "write the feeds of data_lake_config.py that have no file yet",
    "add": "add a feed",
    "update": "change settings of a feed",
    "remove": "remove a feed file; its data stays",
    "discover": "sources on the server that have no feed",
    "completion": 'print a completion script: eval "$(... completion)"',
    "permissions": "file modes that differ from what the feed's access asks for",
    "list": "list the feeds",
    "show": "show a feed file",
    "check": "check the feed files, or one",
    "enable": "export it again",
    "disable": "leave it out of --all",
    "archive": "move it to feeds/archived; its data stays",
    "restore": "bring an archived feed back",
    "retention": "move what is too old into the trash, with reasons",
    "undo": "bring back what retention last moved into the trash",
    "erase": "delete every row of one person from the lake, its trash included",
    "compact": "merge the small files of days that are over",
    "quarantine": "list the rows that checks quarantined, or import them again",
    "versions": "list the versions of a table",
    "rollback": "make another version of a table the current one",
    "pin": "protect a version from retention",
    "unpin": "let retention remove a pinned version again",
    "reload": "read days of a stream again and replace what the lake has of them",
    "reset": "start a feed afresh: its data goes to the trash, undo brings it back",
    "remote": "a second home of the lake: s3://bucket/prefix or az://container/prefix",
}


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


class _Command(argparse.ArgumentParser):
    """The parser of one command; imports the command's module only when that command is given."""

    name: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.name:
            module = importlib.import_module(f"{__name__}.{self.name}")
            self.name = None
            if hasattr(module, "arguments"):
                module.arguments(self)
            if hasattr(module, "run"):
                self.set_defaults(run=module.run)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"ksql-lake {__version__}")
    parser.add_argument("--lake", metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        command.add_argument("--lake", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.name = name
    return parser
