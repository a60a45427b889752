"""The JSON of a feed file, as a person wrote it: parsed so that each problem can be shown with its line and column."""

from __future__ import annotations

import json
import re
from typing import Any

from ksql_lake.base.errors import FeedError


def parse(where: str, text: str) -> dict[str, Any]:
    """The object that a feed file holds.

    Args:
        where: the file, for messages.

    Raises:
        FeedError: it is no JSON object, or a key appears twice; names line and column.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise FeedError(f'{where}:{position(text, key)}: key "{key}" appears twice; keep one')
            seen[key] = value
        return seen

    def constant(word: str) -> float:
        raise FeedError(f"{where}:{_line_column(text, text.find(word))}: {word} is not JSON; expected a number")

    try:
        raw = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        before = text[: error.pos].rstrip()
        after = text[error.pos :].lstrip()
        if before.endswith(",") and after[:1] in ("}", "]"):
            comma: int | None = len(before) - 1
        else:
            comma = error.pos if after[:1] == "," and after[1:].lstrip()[:1] in ("}", "]") else None
        at = f"{where}:{_line_column(text, error.pos if comma is None else comma)}"
        if comma is not None:
            raise FeedError(f"{at}: trailing comma before a closing bracket; remove the comma") from None
        raise FeedError(f"{at}: not JSON: {error.msg}") from None
    except ValueError:  # Python converts no number of more than 4,300 digits
        long = re.search(r"[0-9]{300,}", text)
        at = _line_column(text, long.start() if long else 0)
        raise FeedError(f"{where}:{at}: a number has too many digits") from None
    if not isinstance(raw, dict):
        raise FeedError(f"{where}:1:1: expected an object with the keys of a feed")
    return raw


def position(text: str, key: str) -> str:
    """line:column of a key, or of the file's start for a missing one; `checks[1].level` is a key of a check."""
    inside = re.fullmatch(r"checks\[(\d+)\]\.?(.*)", key)
    start, end = _check_span(text, int(inside[1])) if inside else (0, len(text))
    name = inside[2] if inside else key
    match = re.compile(re.escape(json.dumps(name, ensure_ascii=False)) + r"\s*:").search(text, start, end)
    return _line_column(text, match.start() if match else start)


def _check_span(text: str, number: int) -> tuple[int, int]:
    """Where one of the checks begins and ends in the text of a feed file."""
    begin = re.search(r'"checks"\s*:\s*\[', text)
    at = end = begin.end() if begin else 0
    for _ in range(number + 1):
        separator = re.compile(r"[\s,]*").match(text, end)
        at = separator.end() if separator else end
        _, end = json.JSONDecoder().raw_decode(text, at)
    return at, end


def _line_column(text: str, at: int) -> str:
    return f"{text.count(chr(10), 0, at) + 1}:{at - text.rfind(chr(10), 0, at)}"
