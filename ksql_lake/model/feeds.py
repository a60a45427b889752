"""The feed files: one JSON file per stream or table, written by `manage_feeds.py`, edited by people.

`feed_keys` says what may be in one, `feed_text` where in its text something is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import FeedError
from ksql_lake.base.files import atomic_write, fsync_dir, make_dirs, read_regular
from ksql_lake.base.text import shown
from ksql_lake.model import checks, names
from ksql_lake.model.feed_keys import json_schema, problems
from ksql_lake.model.feed_text import parse, position
from ksql_lake.model.recorded import MILLISECONDS

SCHEMA_FILE = "feed.schema.json"
LARGEST = 1 << 20  # bytes of a feed file
FRESHNESS = 26  # hours: a nightly export, with two to spare


@dataclass(frozen=True)
class Feed:
    """One feed; `raw` is the file as it was read, keys in its order."""

    name: str
    type: str
    source: str
    description: str
    retention_days: int | None
    retention_versions: int | None
    local_days: int | None
    tier_after_days: int | None
    remote_tier: str | None
    timezone: str
    timestamp_column: str | None
    access: str
    enabled: bool
    max_shrink: float
    idle_seconds: float | None
    source_retention_days: int
    freshness_hours: float | None
    forbidden_columns: tuple[str, ...]
    compression: str | None
    compression_level: int | None
    bloom_filter_columns: tuple[str, ...]
    timestamps: str
    delta: bool | None
    checks: tuple[checks.Check, ...]
    on_bad_value: str
    read_from: str
    exact_values: bool
    path: Path
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class FeedProblem:
    """A feed file that cannot be used; each line of the message names file, line and column."""

    path: Path
    message: str


def load_all(directory: Path, *, patterns: bool = True) -> list[Feed | FeedProblem]:
    """Every feed file of a directory, by name; a broken one never hides the others."""
    found: list[Feed | FeedProblem] = []
    loaded: list[str] = []
    for path in files(directory):
        try:
            feed = load(path, patterns=patterns)
            if other := names.twin(feed.name, loaded):
                raise FeedError(f"{_shown(path)}: {names.twins(feed.name, other)}")
            loaded.append(feed.name)
            found.append(feed)
        except FeedError as error:
            found.append(FeedProblem(path, str(error)))
    return found


def load(path: Path, *, patterns: bool = True) -> Feed:
    """Read and check one feed file.

    Args:
        patterns: compile the patterns of its checks, for which Arrow is loaded.

    Raises:
        FeedError: all problems of the file, each as file:line:column.
    """
    text = text_of(path)
    try:
        raw = parse(_shown(path), text)
        found = problems(path.name, raw, patterns)
        lines = [f"{_shown(path)}:{position(text, key)}: {problem}" for key, problem in found]
    except RecursionError:
        raise FeedError(f"{_shown(path)}: lists or objects are nested too deeply") from None
    if lines:
        raise FeedError("\n".join(lines))
    table = raw["feed_type"] == "table"
    return Feed(
        name=raw["feed_name"],
        type=raw["feed_type"],
        source=raw["ksqldb_source"],
        description=raw.get("description", ""),
        retention_days=raw.get("retention_days"),
        retention_versions=raw.get("retention_versions", raw.get("keep_versions")),
        local_days=raw.get("local_days"),
        tier_after_days=raw.get("tier_after_days"),
        remote_tier=raw.get("remote_tier"),
        timezone=raw.get("timezone", "UTC"),
        timestamp_column=raw.get("timestamp_column"),
        access=raw.get("access", "open" if table else "restricted"),
        enabled=raw.get("enabled", True),
        max_shrink=raw.get("max_shrink", 0.5),
        idle_seconds=raw.get("idle_seconds"),
        source_retention_days=raw.get("source_retention_days", 7),
        freshness_hours=raw.get("freshness_hours", FRESHNESS) or None,
        forbidden_columns=tuple(raw.get("forbidden_columns", ())),
        compression=raw.get("compression"),
        compression_level=raw.get("compression_level"),
        bloom_filter_columns=tuple(raw.get("bloom_filter_columns", ())),
        timestamps=raw.get("timestamps", MILLISECONDS),
        delta=raw.get("delta"),
        checks=checks.parse(raw.get("checks", ())),
        on_bad_value=raw.get("on_bad_value", "fail"),
        read_from=raw.get("read_from", "auto"),
        exact_values=raw.get("exact_values", False),
        path=path,
        raw=raw,
    )


def read(path: Path) -> dict[str, Any]:
    """The content of a feed file, unchecked: for changing one key and keeping all others, even unknown ones.

    Raises:
        FeedError: it does not exist, or is not a JSON object; names line and column.
    """
    try:
        return parse(_shown(path), text_of(path))
    except RecursionError:
        raise FeedError(f"{_shown(path)}: lists or objects are nested too deeply") from None


def text_of(path: Path) -> str:
    """What a feed file holds; a FIFO or a device is not waited for.

    Raises:
        FeedError: it does not exist, is not a file, is too large, or is not UTF-8.
    """
    where = _shown(path)
    try:
        return read_regular(path, LARGEST).decode()
    except FileNotFoundError:
        raise FeedError(f"{where}: no such feed; see: python manage_feeds.py list") from None
    except UnicodeDecodeError as error:
        raise FeedError(f"{where}: is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
    except OSError as error:
        raise FeedError(f"{where}: cannot be read: {error.strerror}") from None


def _shown(path: Path) -> str:
    return shown(str(path))


def file_of(directory: Path, name: str) -> Path:
    """The file of a feed, among the active or the archived ones."""
    return directory / f"{name}.json"


def is_there(path: Path) -> bool:
    return path.exists()


def files(directory: Path) -> list[Path]:
    """All feed files of a directory, by name; each is called like its feed."""
    return sorted(directory.glob("*.json"))


def save(path: Path, raw: Mapping[str, Any]) -> bool:
    """Write a feed file atomically; False, and nothing touched, when it holds just that already.

    Raises:
        FeedError: the file is a link, whose target must not be overwritten.
    """
    if path.is_symlink():
        raise FeedError(f"{_shown(path)}: is a link to {path.resolve()}; edit that file instead")
    make_dirs(path.parent)
    data = (json.dumps(raw, indent=2, ensure_ascii=False) + "\n").encode()
    if path.exists() and path.read_bytes() == data:
        return False
    atomic_write(path, data)
    schema = path.parent.parent / SCHEMA_FILE
    described = (json.dumps(json_schema(), indent=2) + "\n").encode()
    if not schema.exists() or schema.read_bytes() != described:
        atomic_write(schema, described)
    return True


def move(path: Path, directory: Path) -> None:
    """Move a feed file to the active or the archived ones.

    Raises:
        FeedError: there is one of this name, or of one that differs only in case.
    """
    make_dirs(directory)
    target = directory / path.name
    if target.exists() or target.is_symlink():
        raise FeedError(f"{target}: already exists; move it away first")
    if other := names.twin(path.stem, (found.stem for found in files(directory))):
        raise FeedError(f"{target}: {names.twins(path.stem, other)}")
    os.rename(path, target)
    fsync_dir(directory)
    fsync_dir(path.parent)


def remove(path: Path) -> None:
    """Delete a feed file."""
    os.unlink(path)
    fsync_dir(path.parent)


def new(name: str, kind: str, source: str, created_at: str, **settings: Any) -> dict[str, Any]:
    """The content of a new feed file, in the order of the user's own example.

    Raises:
        FeedError: the name cannot be that of a feed.
    """
    if wrong := names.problem_of(name):
        raise FeedError(wrong)
    date = kind == "stream"
    return {
        "$schema": f"../{SCHEMA_FILE}",
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
    return [f"{path.name}: {problem}" for _, problem in problems(path.name, raw)]
