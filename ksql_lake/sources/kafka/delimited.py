"""DELIMITED: a record of text, as ksqlDB reads it with commons-csv 1.4 (CSVFormat.DEFAULT with a delimiter)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ksql_lake.model.types import Column, SqlType
from ksql_lake.sources.kafka import java_text
from ksql_lake.sources.kafka.json_values import time_of
from ksql_lake.sources.kafka.verdicts import Skipped, Unsure

Parse: TypeAlias = Callable[[str], Any]
_OFF = "\ufffe"
_END = ""  # what is read after the last character
_JAVA_WHITESPACE = frozenset("\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009"
                             "\u200a\u2028\u2029\u205f\u3000")  # Character.isWhitespace


class DelimitedReader:
    """Reads the fields of records for the given columns; every column has a scalar type."""

    def __init__(self, columns: Sequence[Column], delimiter: str) -> None:
        self._parsers = [_parser(column.type) for column in columns]
        self._delimiter = delimiter

    def read(self, data: bytes) -> list[Any]:
        """The values of the columns.

        Raises:
            Skipped: ksqlDB refuses the record.
            Unsure: it holds a character of which it is not known what comes of it.
        """
        text = java_text.utf8(data)
        if _OFF in text:
            raise Unsure("the character U+FFFE, by which commons-csv knows that escapes and comments are off")
        records = split(text, self._delimiter)
        if not records:
            raise Skipped("no fields in the record")
        fields = records[0]
        if len(fields) != len(self._parsers):
            raise Skipped(f"{len(fields)} fields instead of {len(self._parsers)}")
        return [parse(field) if field else None for parse, field in zip(self._parsers, fields, strict=True)]


def _parser(kind: SqlType) -> Parse:
    if kind.base == "DECIMAL":
        return lambda text: java_text.fitted(java_text.big_decimal(text), kind.precision, kind.scale)
    return SCALARS[kind.base]


def _folded(text: str) -> str:
    """equalsIgnoreCase compares character by character; no other letter than T, R, U and E gives one of them."""
    return text.lower() if text.isascii() else text


SCALARS: dict[str, Parse] = {
    "BOOLEAN": lambda text: _folded(text) == "true",
    "INTEGER": lambda text: java_text.whole(text, 32),
    "BIGINT": lambda text: java_text.whole(text, 64),
    "DOUBLE": java_text.real,
    "STRING": lambda text: text,
    "BYTES": java_text.basic_base64,
    "DATE": lambda text: java_text.whole(text, 32),
    "TIME": time_of(lambda text: java_text.whole(text, 64)),
    "TIMESTAMP": lambda text: java_text.whole(text, 64),
}


def split(text: str, delimiter: str) -> list[list[str]]:
    """All records of a text; a mistake in a later one spoils the first as well, since ksqlDB reads them all."""
    return _Lexer(text, delimiter).records()


class _Lexer:
    """The states of commons-csv's Lexer: simple and quoted fields, empty lines skipped, no escapes."""

    def __init__(self, text: str, delimiter: str) -> None:
        self._text, self._delimiter, self._at = text, delimiter, 0

    def records(self) -> list[list[str]]:
        records: list[list[str]] = []
        while self._skip_empty_lines():
            fields: list[str] = []
            while self._field(fields) == self._delimiter:
                pass
            records.append(fields)
        return records

    def _skip_empty_lines(self) -> bool:
        while self._text[self._at : self._at + 1] in ("\r", "\n"):
            self._at += 1
        return self._at < len(self._text)

    def _read(self) -> str:
        found = self._text[self._at : self._at + 1]
        self._at += 1
        if found == "\r":
            self._at += self._text[self._at : self._at + 1] == "\n"
            return "\n"
        return found

    def _field(self, fields: list[str]) -> str:
        """Read one field; returns what ended it: the delimiter, a line end, or the end of the text."""
        if self._text[self._at : self._at + 1] == '"':
            self._at += 1
            fields.append(self._quoted())
            return self._after_quotes()
        start = self._at
        while True:
            at, read = self._at, self._read()
            if read in (_END, "\n", self._delimiter):
                fields.append(self._text[start:at])
                return read

    def _quoted(self) -> str:
        pieces = []
        while True:
            end = self._text.find('"', self._at)
            if end < 0:
                raise Skipped("quotes that are not closed")
            pieces.append(self._text[self._at : end])
            self._at = end + 1
            if self._text[self._at : self._at + 1] != '"':
                return "".join(pieces)
            pieces.append('"')
            self._at += 1

    def _after_quotes(self) -> str:
        while True:
            read = self._read()
            if read in (_END, "\n", self._delimiter):
                return read
            if read not in _JAVA_WHITESPACE:
                raise Skipped("something is between the quotes and the delimiter")
