"""One rule for the names of feeds: a name is a file name, a directory name and the name of a table in SQL.

Names of feeds begin with a letter or a digit. Names of files that belong to the lake as a whole begin with `_` or `.`,
so no feed can ever have the name of one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ksql_lake.base.text import shown

LONGEST = 200  # characters; with the endings of state files and temporary files a file name stays below 255
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def problem_of(name: str) -> str | None:
    """What is wrong with the name of a feed, as one line; None when it is valid."""
    if len(name) > LONGEST:
        return f"a feed name of {len(name)} characters is too long; at most {LONGEST} are allowed"
    if not NAME.fullmatch(name):
        return f"{shown(name)!r} cannot be a feed name; use letters, digits, _ . - and begin with a letter or digit"
    return None


def twin(name: str, others: Iterable[str]) -> str | None:
    """Another name that differs from this one only in case: readers and SQL cannot tell the two apart."""
    return next((other for other in others if other != name and other.lower() == name.lower()), None)


def twins(name: str, other: str) -> str:
    """The message about two such names."""
    return f"the names {name} and {other} differ only in case, which SQL and some file systems ignore; rename one"
