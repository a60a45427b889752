"""The feed files: one JSON file per stream or table, written by `manage_feeds.py`, edited by people."""

from __future__ import annotations

import difflib
import json
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksql_lake.errors import FeedError
from ksql_lake.files import atomic_write

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
TYPES: dict[str, tuple[type, ...]] = {
    "$schema": (str,), "feed_name": (str,), "feed_type": (str,), "ksqldb_source": (str,), "description": (str,),
    "partitioning": (dict,), "storage_mode": (str,), "format": (str,), "retention_days": (int,),
    "retention_versions": (int,), "enabled": (bool,), "created_at": (str,), "timezone": (str,),
    "timestamp_column": (str,), "access": (str,), "max_shrink": (int, float), "idle_seconds": (int, float),
}
REQUIRED = ("feed_name", "feed_type", "ksqldb_source")
CHOICES: dict[str, tuple[str, ...]] = {
    "feed_type": ("stream", "table"), "access": ("restricted", "open"), "format": ("parquet",),
    "storage_mode": ("append", "overwrite"),
}
WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}


@dataclass(frozen=True)
class Feed:
    """One feed; `raw` is the file as it was read, keys in its order."""

    name: str
    type: str
    source: str
    description: str
    retention_days: int | None
    retention_versions: int | None
    timezone: str
    timestamp_column: str | None
    access: str
    enabled: bool
    max_shrink: float
    idle_seconds: float | None
    path: Path
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class FeedProblem:
    """A feed file that cannot be used; the message names file, line and column."""

    path: Path
    message: str


def load_all(directory: Path) -> list[Feed | FeedProblem]:
    """Every feed file of a directory, by name; a broken one never hides the others."""
    found: list[Feed | FeedProblem] = []
    for path in sorted(directory.glob("*.json")):
        try:
            found.append(load(path))
        except FeedError as error:
            found.append(FeedProblem(path, str(error)))
    return found


def load(path: Path) -> Feed:
    """Read and check one feed file.

    Raises:
        FeedError: all problems of the file, each as file:line:column.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FeedError(f"{path}: no such feed; see: python manage_feeds.py list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FeedError(f"{path}: cannot be read ({error})") from None
    raw = _parse(path, text)
    problems = [f"{path}:{_position(text, key)}: {problem}" for key, problem in _problems(path, raw)]
    if problems:
        raise FeedError("; ".join(problems))
    table = raw["feed_type"] == "table"
    return Feed(
        name=raw["feed_name"],
        type=raw["feed_type"],
        source=raw["ksqldb_source"],
        description=raw.get("description", ""),
        retention_days=raw.get("retention_days"),
        retention_versions=raw.get("retention_versions"),
        timezone=raw.get("timezone", "UTC"),
        timestamp_column=raw.get("timestamp_column"),
        access=raw.get("access", "open" if table else "restricted"),
        enabled=raw.get("enabled", True),
        max_shrink=raw.get("max_shrink", 0.5),
        idle_seconds=raw.get("idle_seconds"),
        path=path,
        raw=raw,
    )


def _parse(path: Path, text: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise FeedError(f'{path}:{_position(text, key)}: key "{key}" stands there twice; keep one')
            seen[key] = value
        return seen

    try:
        raw = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        before = text[: error.pos].rstrip()
        after = text[error.pos :].lstrip()
        if before.endswith(",") and after[:1] in ("}", "]"):
            comma: int | None = len(before) - 1
        else:
            comma = error.pos if after[:1] == "," and after[1:].lstrip()[:1] in ("}", "]") else None
        where = f"{path}:{_line_column(text, error.pos if comma is None else comma)}"
        if comma is not None:
            raise FeedError(f"{where}: trailing comma before a closing bracket; remove the comma") from None
        raise FeedError(f"{where}: not JSON: {error.msg}") from None
    if not isinstance(raw, dict):
        raise FeedError(f"{path}:1:1: expected an object with the keys of a feed")
    return raw


def _position(text: str, key: str) -> str:
    """line:column of a key, or of the file's start for a missing one."""
    match = re.search(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text)
    return _line_column(text, match.start() if match else 0)


def _line_column(text: str, at: int) -> str:
    return f"{text.count(chr(10), 0, at) + 1}:{at - text.rfind(chr(10), 0, at)}"


def _problems(path: Path, raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, what is wrong with it), all of them."""
    problems = [(key, f'key "{key}" is missing') for key in REQUIRED if key not in raw]
    for key, value in raw.items():
        if key not in TYPES:
            close = difflib.get_close_matches(key, TYPES, 1)
            hint = f': did you mean "{close[0]}"?' if close else f"; known are {', '.join(TYPES)}"
            problems.append((key, f'unknown key "{key}"{hint}'))
        elif not isinstance(value, TYPES[key]) or (isinstance(value, bool) and bool not in TYPES[key]):
            problems.append((key, f'"{key}" is {json.dumps(value)}; expected {WORDS[TYPES[key][-1]]}'))
        elif key in CHOICES and value not in CHOICES[key]:
            problems.append((key, f'"{key}" is "{value}"; expected {" or ".join(CHOICES[key])}'))
        elif key.startswith("retention_") and isinstance(value, int) and value < 1:
            problems.append((key, f'"{key}" is {value}; expected 1 or more'))
        elif key == "timezone" and not _is_zone(str(value)):
            problems.append((key, f'"timezone" is "{value}"; expected an IANA name such as Europe/Paris'))
    name = raw.get("feed_name")
    if isinstance(name, str) and name != path.stem:
        problems.append(("feed_name", f'"feed_name" is "{name}" but the file is {path.name}; rename one'))
    return problems


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def save(path: Path, raw: Mapping[str, Any]) -> bool:
    """Write a feed file atomically; False, and nothing touched, when it holds just that already."""
    data = (json.dumps(raw, indent=2, ensure_ascii=False) + "\n").encode()
    if path.exists() and path.read_bytes() == data:
        return False
    atomic_write(path, data)
    return True


def new(name: str, kind: str, source: str, created_at: str, **settings: Any) -> dict[str, Any]:
    """The content of a new feed file, in the order of the user's own example."""
    if not NAME.fullmatch(name):
        raise FeedError(f"{name!r} cannot be a feed name; use letters, digits, _ . -")
    date = kind == "stream"
    return {
        "feed_name": name,
        "feed_type": kind,
        "ksqldb_source": source,
        "description": settings.pop("description", ""),
        "partitioning": {
            "type": "date" if date else "version", "columns": ["year", "month", "day"] if date else ["version"]
        },
        "storage_mode": "append" if date else "overwrite",
        "format": "parquet",
        **{key: value for key, value in settings.items() if value is not None},
        "enabled": True,
        "created_at": created_at,
    }


def problems_of(path: Path, raw: Mapping[str, Any]) -> list[str]:
    """What is wrong with the content of a feed file that is about to be written."""
    return [f"{path.name}: {problem}" for _, problem in _problems(path, raw)]
