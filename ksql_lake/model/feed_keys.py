"""What a feed file may say: a table of its keys, what is wrong with a file by it, and its JSON Schema."""

from __future__ import annotations

import difflib
import json
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ksql_lake.base.text import shown
from ksql_lake.model import checks, names
from ksql_lake.model.recorded import UNITS

SHOWN = 60  # characters of a wrong value in a message
STREAMS_ONLY = (
    "retention_days", "source_retention_days", "timezone", "timestamp_column", "read_from", "exact_values"
)
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


def problems(file: str, raw: Mapping[str, Any], patterns: bool = True) -> list[tuple[str, str]]:
    """(key, what is wrong with it), all of them.

    Args:
        file: the file's name.
        patterns: compile the patterns of checks, for which Arrow is loaded.
    """
    found = [(key, f'key "{key}" is missing') for key in REQUIRED if key not in raw]
    found += [(key, problem) for key, value in raw.items() if (problem := _problem(key, value))]
    if "checks" in raw:
        found += checks.problems(raw["checks"], raw.get("feed_type", ""), patterns=patterns)
    if "retention_versions" in raw and "keep_versions" in raw:
        found.append(("keep_versions", '"keep_versions" is another name of "retention_versions"; keep one of them'))
    if ("tier_after_days" in raw) != ("remote_tier" in raw):
        alone = "tier_after_days" if "tier_after_days" in raw else "remote_tier"
        missing = "remote_tier" if alone == "tier_after_days" else "tier_after_days"
        found.append((alone, f'"{alone}" needs "{missing}" as well'))
    highest = LEVELED.get(str(raw.get("compression")), 0)
    level = raw.get("compression_level", 0)
    if "compression_level" in raw and not highest:
        found.append(("compression_level", '"compression_level" needs "compression": "zstd" or "gzip"'))
    elif isinstance(level, int) and level > highest:
        high = f'"compression_level" is {level}; the highest level of {raw["compression"]} is {highest}'
        found.append(("compression_level", high))
    other = {"stream": ("retention_versions", "keep_versions", "max_shrink"), "table": STREAMS_ONLY}
    for key in other.get(str(raw.get("feed_type")), ()):
        if key in raw:
            found.append((key, f'"{key}" does not apply to {raw["feed_type"]}s; remove it'))
    name = raw.get("feed_name")
    if isinstance(name, str):
        if wrong := names.problem_of(name):
            found.append(("feed_name", wrong))
        elif f"{name}.json" != file:
            found.append(("feed_name", f'"feed_name" is "{name}" but the file is {shown(file)}; rename one'))
    return found


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
    """The JSON Schema of a feed file, from the same table that `problems` looks at."""
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
