"""Report on the data lake, count what is in it, and verify it against its metadata.

    metadata_utils.py COMMAND [options]     see the list below, and COMMAND --help
    metadata_utils.py --report              every command is an option, too

exit codes: 0 done, without a finding of verify or reconcile; 1 with such a finding, or metadata that cannot be used;
2 usage or configuration; 3 another run holds the lock (rebuild).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import data_lake_config
from data_lake_config import Config
from ksql_lake import __version__
from ksql_lake.base.errors import ConfigError, LakeError
from ksql_lake.base.settings import lake_path
from ksql_lake.cli import hints, start
from ksql_lake.cli.hints import guards_output

COMMANDS = {  # each is the module of that name, which has `arguments` and `run`
    "report": "what needs attention, one line for each feed, totals",
    "html": "the report as one HTML page that works offline",
    "stats": "rows and sizes of each day or version; --deep: of columns",
    "csv": "a CSV file with one row per partition",
    "history": "the runs: when, feed, result, rows, size, seconds",
    "verify": "check files against metadata",
    "rebuild": "restore metadata that is missing or corrupt from footers and state log",
    "reconcile": "count a stream's rows per day at the source and compare",
    "compare": "rows of a table added, removed and changed between two versions, by key",
    "sql": "views or external tables of every feed, as SQL",
    "register": "create or update tables and partitions of a catalog: only what changed",
    "delta": "the Delta Lake logs of feeds that have one: sync, verify, rebuild, checkpoint",
}


@guards_output
def main(argv: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    place = next((i for i, word in enumerate(given) if word in COMMANDS and _before_any_option(given[:i])), None)
    if place is None:
        from ksql_lake.cli.metadata import flags

        args = flags.parse(given, __doc__, COMMANDS)
    else:
        command = given[place]
        args = _parser(command).parse_args([*given[:place], *given[place + 1 :]])
        args.command = command
    return run(args)


def _before_any_option(words: Sequence[str]) -> bool:
    """Whether nothing but --lake comes before the command."""
    return all(word.startswith("--lake") or (i and words[i - 1] == "--lake") for i, word in enumerate(words))


def _parser(command: str) -> argparse.ArgumentParser:
    prog = f"{os.path.basename(sys.argv[0])} {command}" if not hints.caller.console else f"ksql-lake {command}"
    parser = argparse.ArgumentParser(prog=prog, description=COMMANDS[command].capitalize() + ".")
    parser.add_argument("--version", action="version", version=f"ksql-lake {__version__}")
    parser.add_argument("--lake", metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    module(command).arguments(parser)
    return parser


def module(command: str) -> Any:
    return importlib.import_module(f"{__name__}.{command}")


def run(args: argparse.Namespace) -> int:
    """Carry out a command whose options were read."""
    try:
        config = configured(args.lake)
        if not config.lake_dir.is_dir():
            raise ConfigError(
                f"{config.lake_dir}: no such directory; set --lake or DATA_LAKE_DIR, or create it: python "
                "data_lake_config.py"
            )
        return int(module(args.command).run(config, args))
    except (LakeError, OSError) as error:
        return start.refused(error)


def configured(lake: str | None) -> Config:
    """The settings in force, with the lake that --lake names."""
    config = data_lake_config.load(os.environ)
    if lake:
        config = replace(config, lake_dir=lake_path("--lake", lake))
    hints.called(config.lake_dir if lake else None)
    return config
