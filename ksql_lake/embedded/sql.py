"""The few statements the embedded server understands, and WHERE clauses evaluated by SQLite."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal

_TOKEN = re.compile(r"\s*(?:(`(?:[^`]|``)*`)|('(?:[^']|'')*')|(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)"
                    r"|(->|<>|!=|<=|>=|[-+*/%=<>(),;.]))", re.ASCII)
_WORDS = {"AND", "OR", "NOT", "CASE", "WHEN", "THEN", "ELSE", "END", "IS", "NULL", "BETWEEN", "IN", "LIKE", "TRUE",
          "FALSE", "DISTINCT", "FROM"}
_FUNCTIONS = {"ABS": "abs", "COALESCE": "coalesce", "IFNULL": "ifnull", "UCASE": "upper", "LCASE": "lower",
              "LEN": "length"}
_STATEMENTS = {"SELECT", "LIST", "SHOW", "DESCRIBE"}


class StatementError(Exception):
    """An answer with an error body: HTTP status, error code, text and how its headers look."""

    def __init__(self, message: str, *, status: int = 400, code: int = 40001, late: bool = False,
                 generic: bool = False) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.late, self.generic = message, status, code, late, generic


@dataclass(frozen=True)
class Token:
    """A token: kind (name, quoted, text, number, op), value and column in the statement, from 1."""

    kind: str
    value: str
    column: int


@dataclass(frozen=True)
class Select:
    """A SELECT: items ("*" or names), source, WHERE tokens, push or pull, LIMIT."""

    items: tuple[Token, ...]
    source: str
    where: tuple[Token, ...]
    push: bool
    limit: int | None


def tokens(text: str) -> list[Token]:
    """Split a statement; names outside of backticks become upper case."""
    out: list[Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if not match:
            column = at + 1 + len(text[at:]) - len(text[at:].lstrip())
            raise syntax(text, column, f"Unexpected '{text[column - 1]}'")
        kind = ("quoted", "text", "number", "name", "op")[(match.lastindex or 1) - 1]
        value = match.group(match.lastindex or 1)
        column = match.start(match.lastindex or 1) + 1
        if kind == "quoted":
            value = value[1:-1].replace("``", "`")
        out.append(Token(kind, value.upper() if kind == "name" else value, column))
        at = match.end()
    return out


def syntax(text: str, column: int, what: str) -> StatementError:
    """A syntax error as the server words it."""
    where = f"line 1:{column}"
    return StatementError(f"{where}: Syntax Error\n{what}\nStatement: {text}\nCaused by: {where}: "
                          f"Syntax error at {where}")


def single(text: str) -> list[Token]:
    """The tokens of exactly one statement, without its semicolon; StatementError otherwise."""
    if not text.strip():
        raise StatementError('"ksql" field must be populated', code=40000, generic=True)
    all_tokens = tokens(text)
    first = all_tokens[0]
    if first.value not in _STATEMENTS:
        raise syntax(text, first.column, f"Unknown statement '{text[first.column - 1:].split()[0]}'"
                     + ("\nDid you mean 'SELECT'?" if first.value.startswith("SEL") else ""))
    if all_tokens[-1].value != ";":
        raise syntax(text, len(text) + 1, "missing ';' at '<EOF>'")
    count = sum(t.kind == "op" and t.value == ";" for t in all_tokens)
    if count > 1:
        raise StatementError(f"Expected exactly one KSQL statement; found {count} instead")
    return all_tokens[:-1]


def _is(token: Token, word: str) -> bool:
    return token.kind == "name" and token.value == word


def parse_select(text: str) -> Select:
    """Parse SELECT items FROM source [WHERE ...] [EMIT CHANGES] [LIMIT n];"""
    parts = single(text)
    limit: int | None = None
    if len(parts) > 2 and _is(parts[-2], "LIMIT") and parts[-1].kind == "number":
        limit, parts = int(parts[-1].value), parts[:-2]
    push = len(parts) > 2 and _is(parts[-2], "EMIT") and _is(parts[-1], "CHANGES")
    if push:
        parts = parts[:-2]
    at = next((i for i, t in enumerate(parts) if _is(t, "FROM")), None)
    if at is None or at < 2 or at + 1 >= len(parts) or not _is(parts[0], "SELECT"):
        raise syntax(text, parts[-1].column, f"Unexpected '{parts[-1].value}'")
    rest = parts[at + 2:]
    if rest and not _is(rest[0], "WHERE"):
        raise syntax(text, rest[0].column, f"Unexpected '{rest[0].value}'")
    items = parts[1:at]
    if any(t.value != "," for t in items[1::2]) or len(items) % 2 == 0:
        raise syntax(text, items[-1].column, "the embedded server selects columns only, no expressions")
    return Select(tuple(items[::2]), parts[at + 1].value, tuple(rest[1:]), push, limit)


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, (date, time)):
        return value.isoformat()
    return value if isinstance(value, (int, float, str, bytes)) or value is None else None


Getter = Callable[[object], object]


class Filter:
    """A WHERE clause over rows; `keep(rows)` tells which of a batch it lets through.

    `resolve` gives the getter of a column by its name (None: unknown). Evaluated in batches by an in-memory
    SQLite table of just the columns that the clause names.
    """

    def __init__(self, text: str, where: Sequence[Token], resolve: Callable[[str], Getter | None]) -> None:
        self.getters: list[Getter] = []
        names: dict[str, int] = {}
        out: list[str] = []
        at = 0
        while at < len(where):
            token = where[at]
            if token.kind == "quoted" or (token.kind == "name" and token.value not in _WORDS):
                path, at = _path(where, at)
                out.append(self._column(text, token, path, names, resolve))
            else:
                out.append(token.value)
                at += 1
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        columns = "".join(f", c{i}" for i in range(len(self.getters)))
        self._db.execute(f"CREATE TABLE r (n INTEGER PRIMARY KEY{columns})")
        self._insert = f"INSERT INTO r VALUES (?{', ?' * len(self.getters)})"
        self._select = f"SELECT n FROM r WHERE {' '.join(out)} ORDER BY n"
        try:
            self._db.execute(self._select)
        except sqlite3.Error as error:
            raise syntax(text, where[0].column if where else len(text), str(error)) from error

    def _column(self, text: str, token: Token, path: tuple[str, ...], names: dict[str, int],
                resolve: Callable[[str], Getter | None]) -> str:
        shown = "->".join(path)
        if token.kind == "name" and path[0] in _FUNCTIONS and resolve(path[0]) is None:
            return _FUNCTIONS[path[0]]
        if shown not in names:
            getter = resolve(path[0])
            if getter is None:
                raise StatementError(f"Line: 1, Col: {token.column}: WHERE column '{path[0]}' cannot be resolved.",
                                     late=True)
            names[shown] = len(self.getters)
            self.getters.append(_descend(getter, path[1:]))
        return f"c{names[shown]}"

    def keep(self, rows: Sequence[object]) -> list[int]:
        """Positions of the rows that the clause lets through, in order."""
        getters = self.getters
        self._db.execute("DELETE FROM r")
        self._db.executemany(self._insert, [(i, *[_plain(g(row)) for g in getters]) for i, row in enumerate(rows)])
        return [n for (n,) in self._db.execute(self._select)]


def _path(where: Sequence[Token], at: int) -> tuple[tuple[str, ...], int]:
    path = [where[at].value]
    at += 1
    while at + 1 < len(where) and where[at].value == "->":
        path.append(where[at + 1].value)
        at += 2
    return tuple(path), at


def _descend(getter: Getter, path: tuple[str, ...]) -> Getter:
    def get(row: object) -> object:
        value = getter(row)
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return value
    return get if path else getter
