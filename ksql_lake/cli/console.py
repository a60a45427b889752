"""The console command `ksql-lake`: the scripts as subcommands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from ksql_lake.cli import hints

GROUPS = {  # word -> (module, what it is)
    "export": ("export", "export ksqlDB streams and tables into the data lake"),
    "feeds": ("feeds", "manage the feeds: add, list, check, discover, retention, erase ..."),
    "config": ("settings", "create the lake and show the settings in force; --check"),
}


def entry() -> NoReturn:
    """The entry point of the installed package; ends the process."""
    from ksql_lake.cli.start import launch

    launch("ksql_lake.cli.console")


def main() -> int:
    return run(sys.argv[1:])


def usage() -> str:
    from ksql_lake.cli.metadata import COMMANDS

    lines = [f"  {word:<11} {says}" for word, (_, says) in GROUPS.items()]
    lines += [f"  {word:<11} {says}" for word, says in COMMANDS.items()]
    return (
        "usage: ksql-lake COMMAND [options]\n\n" + "\n".join(lines)
        + "\n\nRun ksql-lake COMMAND --help for the options of a command."
    )


def run(argv: Sequence[str]) -> int:
    """Carry out a command line of `ksql-lake`, without that word."""
    import importlib

    from ksql_lake import __version__

    hints.called(None, console=True)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"ksql-lake {__version__}")
        return 0
    if argv[0] in GROUPS:
        sys.argv[0] = f"ksql-lake {argv[0]}"
        return int(importlib.import_module(f"ksql_lake.cli.{GROUPS[argv[0]][0]}").main(argv[1:]))
    from ksql_lake.cli import metadata

    if argv[0] not in metadata.COMMANDS and not argv[0].startswith("--"):
        print(f"error: ksql-lake has no command {argv[0]}\n\n{usage()}", file=sys.stderr)
        return 2
    return metadata.main(argv)
