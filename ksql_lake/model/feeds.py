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

from ksql_lake.base.errors import FeedError
from ksql_lake.base.files import atomic_write, read_regular
from ksql_lake.base.text import shown
from ksql_lake.model import checks, names
from ksql_lake.model.recorded import MILLISECONDS, UNITS

SCHEMA_FILE = "feed.schema.json"
LARGEST = 1 << 20  # bytes of a feed file
SHOWN = 60  # characters of a wrong value in a message
STREAMS_ONLY = (
    "retention_days", "source_retention_days", "timezone", "timestamp_column", "read_from", "exact_values"
)
FRESHNESS = 26  # hours: a nightly export, with two to spare
DAYS, VERSIONS, HOURS = 100_000, 1_000_000, 1_000_000  # the largest numbers of each that a feed file may say
LEVELED = {"zstd": 22, "gzip": 9}  # codecs that have levels, and the highest
REMOTE_TIERS = ("STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE",
                "Cool", "Cold", "Archive")
REQUIRED = ("feed_name", "feed_type", "ksqldb_source")
WORDS = {
    str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "an object",
    list: "a list of column names",
}


@dataclass(frozen=True)
class Key:
    """The values that a key may have; `least` and `most` are the smallest and largest number allowed."""

    types: tuple[type, ...]
    says: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


KEYS: dict[str, Key] = {
    "$schema": Key((str,), "The JSON Schema of feed files, for editors"),
    "feed_name": Key((str,), "Name of the feed, of its file and of its directory in the lake"),
    "feed_type": Key((str,), "What the source is", ("stream", "table")),
    "ksqldb_source": Key((str,), "The stream or table in ksqlDB"),
    "description": Key((str,), "What a reader of the lake should know"),
    "partitioning": Key((dict,), "year, month, day for streams; version for tables"),
    "storage_mode": Key((str,), "append for streams, overwrite for tables", ("append", "overwrite")),
    "format": Key((str,), "Format of the files", ("parquet",)),
    "retention_days": Key(
        (int,), "Streams: a day is removed when it ended more than this many days ago", least=1, most=DAYS
    ),
    "retention_versions": Key((int,), "Tables: how many of the newest versions are kept", least=1, most=VERSIONS),
    "keep_versions": Key((int,), "Another name of retention_versions", least=1, most=VERSIONS),
    "local_days": Key(
        (int,), "Days to keep on this disk once they are in the remote (default: all)", least=1, most=DAYS
    ),
    "tier_after_days": Key((int,), "Days after which the remote's files move to remote_tier", least=1, most=DAYS),
    "remote_tier": Key((str,), "Tier of older files in the remote, of S3 or of Azure", REMOTE_TIERS),
    "source_retention_days": Key(
        (int,), "Streams: days the topic keeps its records (default 7)", least=1, most=DAYS
    ),
    "enabled": Key((bool,), "false leaves the feed out of --all"),
    "created_at": Key((str,), "When the feed was added"),
    "timezone": Key((str,), "IANA zone that a day is counted in (default UTC)"),
    "timestamp_column": Key((str,), "Streams: column that decides the day (default ROWTIME)"),
    "access": Key((str,), "restricted: 750 and 640; open: 755 and 644", ("restricted", "open")),
    "max_shrink": Key(
        (int, float), "Tables: share of the last version's rows that a new one may lack (default 0.5)", least=0
    ),
    "idle_seconds": Key((int, float), "Streams: silence after which the stream counts as read", least=0.1, most=86400),
    "freshness_hours": Key(
        (int, float), "Hours that the newest data may be old (default 26) before the report has a finding; 0: any age",
        least=0, most=HOURS,
    ),
    "forbidden_columns": Key(
        (list,), "Columns, or fields of a STRUCT, that must never be exported; an export refuses them"
    ),
    "compression": Key((str,), "Compression of this feed's files", ("snappy", "zstd", "lz4", "gzip", "none")),
    "compression_level": Key((int,), "Level, for zstd and gzip", least=1),
    "bloom_filter_columns": Key((list,), "Columns with a Parquet bloom filter, for look-ups by value"),
    "timestamps": Key((str,), "Unit of ROWTIME and TIMESTAMP columns in the files, fixed at the first export: ms "
                      "(default), or us (microseconds), which Iceberg needs", UNITS),
    "delta": Key((bool,), "Keep a Delta Lake log beside the files (default: the setting DELTA)"),
    "read_from": Key((str,), "Streams: kafka reads the topic, rest asks ksqlDB, auto (default) takes Kafka if it can",
                     ("auto", "rest", "kafka")),
    "exact_values": Key((bool,), "Streams from Kafka: keep what ksqlDB's REST API loses (TIME below a second, ...)"),
    "on_bad_value": Key((str,), "What to do with a value that its type cannot hold: fail stops the feed (default), "
                                "null stores null, "
                        "quarantine moves the row to the quarantine", ("fail", "null", "quarantine")),
    "checks": Key((list,), "Checks of the new rows before they are published: warn, fail or quarantine"),
}


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
    for path in sorted(directory.glob("*.json")):
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
        raw = _parse(path, text)
        found = _problems(path, raw, patterns)
        problems = [f"{_shown(path)}:{_position(text, key)}: {problem}" for key, problem in found]
    except RecursionError:
        raise FeedError(f"{_shown(path)}: lists or objects are nested too deeply") from None
    if problems:
        raise FeedError("\n".join(problems))
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
        return _parse(path, text_of(path))
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


def _parse(path: Path, text: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise FeedError(f'{_shown(path)}:{_position(text, key)}: key "{key}" appears twice; keep one')
            seen[key] = value
        return seen

    def constant(word: str) -> float:
        where = _line_column(text, text.find(word))
        raise FeedError(f"{_shown(path)}:{where}: {word} is not JSON; expected a number")

    try:
        raw = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        before = text[: error.pos].rstrip()
        after = text[error.pos :].lstrip()
        if before.endswith(",") and after[:1] in ("}", "]"):
            comma: int | None = len(before) - 1
        else:
            comma = error.pos if after[:1] == "," and after[1:].lstrip()[:1] in ("}", "]") else None
        where = f"{_shown(path)}:{_line_column(text, error.pos if comma is None else comma)}"
        if comma is not None:
            raise FeedError(f"{where}: trailing comma before a closing bracket; remove the comma") from None
        raise FeedError(f"{where}: not JSON: {error.msg}") from None
    except ValueError:  # Python converts no number of more than 4,300 digits
        long = re.search(r"[0-9]{300,}", text)
        where = _line_column(text, long.start() if long else 0)
        raise FeedError(f"{_shown(path)}:{where}: a number has too many digits") from None
    if not isinstance(raw, dict):
        raise FeedError(f"{_shown(path)}:1:1: expected an object with the keys of a feed")
    return raw


def _position(text: str, key: str) -> str:
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


def _problems(path: Path, raw: Mapping[str, Any], patterns: bool = True) -> list[tuple[str, str]]:
    """(key, what is wrong with it), all of them."""
    problems = [(key, f'key "{key}" is missing') for key in REQUIRED if key not in raw]
    problems += [(key, problem) for key, value in raw.items() if (problem := _problem(key, value))]
    if "checks" in raw:
        problems += checks.problems(raw["checks"], raw.get("feed_type", ""), patterns=patterns)
    if "retention_versions" in raw and "keep_versions" in raw:
        problems.append(("keep_versions", '"keep_versions" is another name of "retention_versions"; keep one of them'))
    if ("tier_after_days" in raw) != ("remote_tier" in raw):
        alone = "tier_after_days" if "tier_after_days" in raw else "remote_tier"
        missing = "remote_tier" if alone == "tier_after_days" else "tier_after_days"
        problems.append((alone, f'"{alone}" needs "{missing}" as well'))
    highest = LEVELED.get(str(raw.get("compression")), 0)
    level = raw.get("compression_level", 0)
    if "compression_level" in raw and not highest:
        problems.append(("compression_level", '"compression_level" needs "compression": "zstd" or "gzip"'))
    elif isinstance(level, int) and level > highest:
        found = f'"compression_level" is {level}; the highest level of {raw["compression"]} is {highest}'
        problems.append(("compression_level", found))
    other = {"stream": ("retention_versions", "keep_versions", "max_shrink"), "table": STREAMS_ONLY}
    for key in other.get(str(raw.get("feed_type")), ()):
        if key in raw:
            problems.append((key, f'"{key}" does not apply to {raw["feed_type"]}s; remove it'))
    name = raw.get("feed_name")
    if isinstance(name, str):
        if wrong := names.problem_of(name):
            problems.append(("feed_name", wrong))
        elif name != path.stem:
            file = shown(path.name)
            problems.append(("feed_name", f'"feed_name" is "{name}" but the file is {file}; rename one'))
    return problems


def _problem(key: str, value: object) -> str | None:
    known = KEYS.get(key)
    if known is None:
        close = difflib.get_close_matches(key, KEYS, 1)
        hint = f': did you mean "{close[0]}"?' if close else f"; expected one of {', '.join(KEYS)}"
        return f'unknown key "{key}"{hint}'
    if key == "checks":
        return None  # a language of its own
    text = json.dumps(value, ensure_ascii=False)
    found = f'"{key}" is {shown(text if len(text) <= SHOWN else text[:SHOWN] + " ...")}; expected '
    if not isinstance(value, known.types) or (isinstance(value, bool) and bool not in known.types):
        return found + WORDS[known.types[-1]]
    if isinstance(value, list) and not all(isinstance(item, str) and item for item in value):
        return found + WORDS[list]
    if known.choices and value not in known.choices:
        return found + " or ".join(known.choices)
    if known.least is not None and isinstance(value, int | float) and value < known.least:
        return f"{found}{known.least:g} or more"
    if isinstance(value, int | float) and (value != value or value > (known.most or 1e308)):
        return f"{found}at most {known.most or 1e308:,.0f}"
    if key == "timezone" and not _is_zone(str(value)):
        return f"{found}an IANA name such as Europe/Paris"
    return None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a feed file, from the same table that `load` checks by."""
    words = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}
    properties: dict[str, Any] = {}
    for key, known in KEYS.items():
        entry: dict[str, Any] = {"description": known.says, "type": words[known.types[-1]]}
        if known.choices:
            entry["enum"] = list(known.choices)
        if known.least is not None:
            entry["minimum"] = known.least
        if known.most is not None:
            entry["maximum"] = known.most
        if list in known.types:
            entry["items"] = {"type": "string", "minLength": 1}
        if key == "feed_name":
            entry |= {"pattern": f"^{names.NAME.pattern}$", "maxLength": names.LONGEST}
        properties[key] = {**entry, **checks.json_schema()} if key == "checks" else entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A feed of the ksqlDB data lake",
        "type": "object", "required": list(REQUIRED), "additionalProperties": False, "properties": properties,
    }


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def save(path: Path, raw: Mapping[str, Any]) -> bool:
    """Write a feed file atomically; False, and nothing touched, when it holds just that already.

    Raises:
        FeedError: the file is a link, whose target must not be overwritten.
    """
    if path.is_symlink():
        raise FeedError(f"{_shown(path)}: is a link to {path.resolve()}; edit that file instead")
    data = (json.dumps(raw, indent=2, ensure_ascii=False) + "\n").encode()
    if path.exists() and path.read_bytes() == data:
        return False
    atomic_write(path, data)
    schema = path.parent.parent / SCHEMA_FILE
    described = (json.dumps(json_schema(), indent=2) + "\n").encode()
    if not schema.exists() or schema.read_bytes() != described:
        atomic_write(schema, described)
    return True


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
    return [f"{path.name}: {problem}" for _, problem in _problems(path, raw)]
