"""Completes the commands in messages for this lake and for the way this process was started.

Messages name a command as one types it in a clone: `python manage_feeds.py list`. Where something else is needed, such
as `.venv/bin/python` or `--lake DIR`, it is put in when the message is shown: always on stderr, and by `here` in what
goes to stdout. Logs and metadata keep the plain form.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from ksql_lake.base.text import guarded

P = ParamSpec("P")
R = TypeVar("R")

SCRIPTS = {  # -> the matching subcommand of `ksql-lake`
    "export_to_data_lake.py": "export", "manage_feeds.py": "feeds", "metadata_utils.py": "",
    "data_lake_config.py": "config",
}
STOPS = r"(?!(?:or|and|then|to|for)\b)"  # words with which the sentence continues after a command
COMMAND = re.compile(rf"(?<![\w/])python ({'|'.join(map(re.escape, SCRIPTS))})\b((?:(?<!\w\.) +{STOPS}[^\s;,()`]+)*)")
CLONE = Path(__file__).resolve().parents[2]


@dataclass
class Caller:
    """How this process was started; set once, by the command that runs."""

    lake: Path | None = None  # as --lake named it
    console: bool = False  # as `ksql-lake`


caller = Caller()


def called(lake: Path | None, console: bool | None = None) -> None:
    """Remember how this process was started."""
    caller.lake = lake
    if console is not None:
        caller.console = console


def here(text: str) -> str:
    """A message whose commands work as they are shown."""
    return COMMAND.sub(lambda match: command(match[1], match[2]), text)


def guards_output(main: Callable[P, R]) -> Callable[P, R]:
    """For the main function of a script: what it prints is escaped, and commands in its messages are complete."""

    @wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with guarded(here):
            return main(*args, **kwargs)

    return wrapped


def command(script: str, words: str = "") -> str:
    """A command line that runs one of the scripts on the lake at hand.

    Args:
        words: what follows the script's name, a space in front of each word.
    """
    words, dot = (words[:-1], ".") if words.endswith(".") else (words, "")
    lake = f" --lake {shlex.quote(str(near(caller.lake)))}" if caller.lake and " --lake " not in words else ""
    before, behind = (lake, "") if words.startswith(" remote") else ("", lake)
    if caller.console:
        return f"{f'ksql-lake {SCRIPTS[script]}'.rstrip()}{before}{words}{behind}{dot}"
    path = script if Path.cwd() == CLONE else shlex.quote(str(near(CLONE / script)))
    return f"{python()} {path}{before}{words}{behind}{dot}"


def python() -> str:
    """This interpreter as one would type it: `python` where that starts it, else its path."""
    found = shutil.which("python")
    if found and os.path.samefile(found, sys.executable) and _environment(found) == _environment(sys.executable):
        return "python"
    return shlex.quote(str(near(Path(sys.executable))))


def _environment(python: str) -> str:
    """Two virtual environments may share one interpreter: only the directory distinguishes them."""
    return os.path.dirname(os.path.abspath(python))


def near(path: Path) -> Path:
    """A path as a person would type it: relative below the current directory, else whole."""
    path = Path(os.path.abspath(path))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
