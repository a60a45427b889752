"""Column schemas of the embedded server: parsing SQL types and writing them as the server does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ALIASES = {"INT": "INTEGER", "VARCHAR": "STRING", "BOOL": "BOOLEAN"}
_TOKEN = re.compile(r"\s*(?:`((?:[^`]|``)*)`|([A-Za-z_][A-Za-z0-9_]*)|(\d+)|([<>(),]))")
_PLAIN = re.compile(r"[A-Z_][A-Z0-9_]*\Z")


@dataclass(frozen=True)
class Type:
    """One SQL type; `items` holds the ARRAY item, or the MAP value, `key` the MAP key."""

    base: str
    precision: int = 0
    scale: int = 0
    item: Type | None = None
    key: Type | None = None
    fields: tuple[tuple[str, Type], ...] = ()

    def text(self, quoted: bool = True) -> str:
        """The canonical text, as in `header.schema` (quoted) or in a CREATE statement (quoted where needed)."""
        if self.base == "DECIMAL":
            return f"DECIMAL({self.precision}, {self.scale})"
        if self.base == "ARRAY" and self.item:
            return f"ARRAY<{self.item.text(quoted)}>"
        if self.base == "MAP" and self.item and self.key:
            return f"MAP<{self.key.text(quoted)}, {self.item.text(quoted)}>"
        if self.base == "STRUCT":
            inner = ", ".join(f"{name_text(n, quoted)} {t.text(quoted)}" for n, t in self.fields)
            return f"STRUCT<{inner or ' '}>"
        return self.base

    def describe(self) -> dict[str, object]:
        """The `schema` object of DESCRIBE: keys in the server's order."""
        fields = [{"name": n, "schema": t.describe()} for n, t in self.fields] if self.base == "STRUCT" else None
        member = self.item.describe() if self.item else None
        out: dict[str, object] = {"type": self.base, "fields": fields, "memberSchema": member}
        if self.base == "DECIMAL":
            out["parameters"] = {"precision": self.precision, "scale": self.scale}
        return out


@dataclass(frozen=True)
class Column:
    """A column: raw name, type, and whether it is (part of) the key."""

    name: str
    type: Type
    key: bool = False


def name_text(name: str, quoted: bool = True) -> str:
    """`NAME` as the server prints it: not escaped, and outside of headers quoted only where it must be."""
    return f"`{name}`" if quoted or not _PLAIN.match(name) else name


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.at = text, _tokens(text), 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, value: str | None = None) -> tuple[str, str]:
        token = self.peek()
        if token[0] == "end" or (value is not None and token[1] != value):
            raise ValueError(f"schema text: expected {value or 'more'!r} after token {self.at} of {self.text!r}")
        self.at += 1
        return token

    def accept(self, value: str) -> bool:
        if self.peek()[0] in ("word", "op") and self.peek()[1].upper() == value:
            self.at += 1
            return True
        return False

    def name(self) -> str:
        kind, value = self.take()
        return value if kind == "quoted" else value.upper()

    def type(self) -> Type:
        base = self.take()[1].upper()
        base = _ALIASES.get(base, base)
        if base == "DECIMAL":
            self.take("(")
            precision = int(self.take()[1])
            self.take(",")
            scale = int(self.take()[1])
            self.take(")")
            return Type("DECIMAL", precision, scale)
        if base in ("ARRAY", "MAP"):
            self.take("<")
            first = self.type()
            out = Type("ARRAY", item=first)
            if base == "MAP":
                self.take(",")
                out = Type("MAP", item=self.type(), key=first)
            self.take(">")
            return out
        if base == "STRUCT":
            return self._struct()
        return Type(base)

    def _struct(self) -> Type:
        self.take("<")
        fields: list[tuple[str, Type]] = []
        while not self.accept(">"):
            if fields:
                self.take(",")
            name = self.name()
            fields.append((name, self.type()))
        return Type("STRUCT", fields=tuple(fields))


def _tokens(text: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    at = 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match:
            raise ValueError(f"schema text: cannot read {text[at:at + 20]!r}")
        quoted, word, number, op = match.groups()
        if quoted is not None:
            out.append(("quoted", quoted.replace("``", "`")))
        elif word is not None:
            out.append(("word", word))
        else:
            out.append(("number", number) if number is not None else ("op", op))
        at = match.end()
    return out


def parse_columns(text: str) -> tuple[Column, ...]:
    """Columns of a text such as "`ID` BIGINT KEY, `V` STRING"; ValueError says where it cannot be read."""
    parser = _Parser(text)
    out: list[Column] = []
    while parser.peek()[0] != "end":
        if out:
            parser.take(",")
        name = parser.name()
        kind = parser.type()
        parser.accept("PRIMARY")
        out.append(Column(name, kind, parser.accept("KEY")))
    return tuple(out)


def header_text(columns: Sequence[Column], keys: bool) -> str:
    """`header.schema`; only table pulls mark the keys."""
    return ", ".join(f"{name_text(c.name)} {c.type.text()}{' KEY' if keys and c.key else ''}" for c in columns)
