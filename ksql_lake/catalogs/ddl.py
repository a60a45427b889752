"""SQL for other systems: views for DuckDB, external tables for Hive, Athena, Spark and BigQuery."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ksql_lake.base.errors import ConfigError
from ksql_lake.base.figures import counted
from ksql_lake.catalogs.hive import (
    KEYS,
    TEXT_KEYS,
    columns_of,
    hive_type,
    holds_time,
    partition_values,
    table_name,
    tick,
    versions_name,
)
from ksql_lake.model.state import FeedState

DIALECTS = ("duckdb", "hive", "athena", "spark", "bigquery")
AT_ONCE = 100  # partitions in one statement: Athena takes 262,144 characters
_CLOUDS = {"athena": "s3://", "bigquery": "gs://"}
_NEWER = (
    "For a column that was added since: drop the table (an external table's files stay) and run this again.\n"
    "-- Also drop, once, a table made by an earlier version: its rows would be counted twice where SHOW PARTITIONS\n"
    "-- says month=1 instead of month=01, and it takes no new versions where version is an int."
)
_HEAD = {
    "duckdb": "Views follow the lake (new files, a table's current version); run again for columns that were added "
              "since.",
    "hive": f"Hive 4 or later; for Spark use --sql spark. Run again after each export for new partitions. {_NEWER}",
    "athena": f"One statement at a time. Run again after each export for new partitions. {_NEWER}",
    "spark": f"Run again after each export for new partitions. {_NEWER}",
    "bigquery": "Give a dataset: bq query --dataset_id=... Run again after each export of a table.",
}


@dataclass(frozen=True)
class _Place:
    """Where queries find a feed; `remote`: the place of the days that are not on the lake's disk."""

    directory: str
    remote: str | None
    away: frozenset[str]

    @classmethod
    def of(cls, feed: str, state: FeedState, root: str, remote: str | None) -> _Place:
        below = f"{state.type}s/{feed}"
        away = frozenset(file.partition for file in state.files if not file.local)
        return cls(f"{root}/{below}", f"{remote}/{below}" if remote else None, away if remote else frozenset())

    def partition(self, path: str) -> str:
        return f"{self.remote if path in self.away else self.directory}/{path}"


def script(
    dialect: str, states: Mapping[str, FeedState], lake: Path, location: str | None = None, remote: str | None = None
) -> str:
    """The SQL that makes every feed readable by its name; a statement ends with a semicolon at the end of a line.

    Args:
        dialect: one of DIALECTS.
        states: the feeds' metadata, by name.
        lake: the lake's directory, absolute.
        location: where queries find the lake, if not here, such as s3://bucket/lake.
        remote: the place of days that are not on the lake's disk, in the dialect's own form.

    Raises:
        ConfigError: the dialect cannot read from there, or two feeds would get the same name.
    """
    cloud = _CLOUDS.get(dialect)
    if cloud and not (location or "").startswith(cloud):
        raise ConfigError(f"--sql {dialect} reads only from {cloud}; say where the lake is: --location "
                          f"{cloud}bucket/lake")
    root = (location or (str(lake) if dialect == "duckdb" else f"file://{lake}")).rstrip("/")
    names = _names(dialect, states)
    parts = [f"-- {_HEAD[dialect]}"]
    for feed, state in sorted(states.items()):
        if not _readable(state):
            parts.append(f"-- {feed}: no file yet")
            continue
        parts.append(_WRITERS[dialect](names[feed], state, _Place.of(feed, state, root, remote)))
    return "\n\n".join(parts) + "\n"


def _readable(state: FeedState) -> bool:
    return len(state.files) > 0 and (not state.is_table or state.current is not None)


def _names(dialect: str, states: Mapping[str, FeedState]) -> dict[str, str]:
    """Feeds by the name of their table; DuckDB takes any name."""
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for feed, state in states.items():
        names[feed] = feed if dialect == "duckdb" else table_name(feed)
        makes = [names[feed]]
        if state.is_table and dialect in ("hive", "athena", "spark"):
            makes.append(versions_name(names[feed]))
        for name in makes:
            other = taken.setdefault(name.casefold(), feed)
            if other != feed:
                raise ConfigError(f"{other} and {feed} would both be {name}; take one at a time with --feed")
    return names


def _duckdb(name: str, state: FeedState, place: _Place) -> str:
    """A view of the columns that some file has: DuckDB refuses a column that no file has yet.

    Files that are only in the remote are listed one by one: a pattern would also match those that are here as well.
    """
    newest = max(_version_order(file.schema_version) for file in state.files)
    late = {c.disk_name for c in state.columns if _version_order(c.since) > newest}
    columns = [_duck_name(column) for column in columns_of(state) if column not in late]
    glob = re.sub(r"([*?[])", r"[\1]", place.directory)
    if state.is_table:
        columns.append("CAST(substr(version, 2) AS INTEGER) AS version")
        types, pattern = "version: VARCHAR", f"{glob}/version=*/*.parquet"
        metadata = f"read_text({_duck_text(glob + '/_metadata.json')})"
        where = f"\nWHERE version = (SELECT json_extract_string(content, '$.current.version') FROM {metadata})"
    else:
        columns += [key for key, _ in KEYS["stream"]]
        types, pattern = "year: INTEGER, month: INTEGER, day: INTEGER", f"{glob}/year=*/month=*/day=*/*.parquet"
        where = ""
    files = [file for file in state.files if not state.is_table or not state.current or
             file.partition == state.current.path]
    paths = [pattern] if any(file.local for file in files) or not place.remote else []
    paths += [f"{place.remote}/{file.path}" for file in files if not file.local and place.remote]
    listed = _duck_text(paths[0]) if len(paths) == 1 else f"[{', '.join(map(_duck_text, paths))}]"
    return (
        f"CREATE OR REPLACE VIEW {_duck_name(name)} AS\nSELECT {', '.join(columns)}\nFROM read_parquet(\n"
        f"    {listed},\n    union_by_name = true, hive_partitioning = true, hive_types = {{{types}}}\n"
        f"){where};"
    )


def _version_order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _duck_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _duck_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _hive(name: str, state: FeedState, place: _Place) -> str:
    return _external(name, state, place, _stored_as_parquet, tick, TEXT_KEYS)


def _athena(name: str, state: FeedState, place: _Place) -> str:
    """DDL in Hive's SQL, the view in Trino's, which quotes like DuckDB. Without columns of type TIME."""
    left_out = [column for column, kind in columns_of(state).items() if holds_time(kind)]
    said = f"-- left out, since Athena cannot read a TIME: {', '.join(map(_one_line, left_out))}\n" if left_out else ""
    return said + _external(name, state, place, _stored_as_parquet, _duck_name, KEYS, left_out)


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _spark(name: str, state: FeedState, place: _Place) -> str:
    return _external(name, state, place, _using_parquet, tick, TEXT_KEYS)


def _external(
    name: str, state: FeedState, place: _Place, create: Callable[[str, Sequence[str], Sequence[str]], str],
    quote: Callable[[str], str], typed_keys: Mapping[str, Sequence[tuple[str, str]]], left_out: Sequence[str] = (),
) -> str:
    """The table with its partitions; of a table of ksqlDB all versions, and a view of the current one."""
    table = name if not state.is_table else versions_name(name)
    columns = [
        f"{tick(column)} {hive_type(kind)}" for column, kind in columns_of(state).items() if column not in left_out
    ]
    keys = [f"{tick(key)} {type_}" for key, type_ in typed_keys[state.type]]
    made = [f"{create(table, columns, keys)}\nLOCATION {_text(place.directory + '/')};"]
    made += _partitions(table, state, place)
    if state.current:
        _, current = partition_values(state.current.path)[0]
        made.append(
            f"CREATE OR REPLACE VIEW {quote(name)} AS\nSELECT * FROM {quote(table)} WHERE version = {_text(current)};"
        )
    return "\n".join(made)


def _stored_as_parquet(table: str, columns: Sequence[str], keys: Sequence[str]) -> str:
    inside = ",\n  ".join(columns)
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {tick(table)} (\n  {inside}\n)\nPARTITIONED BY ({', '.join(keys)})\n"
        "STORED AS PARQUET"
    )


def _using_parquet(table: str, columns: Sequence[str], keys: Sequence[str]) -> str:
    """Spark's own table, which needs no Hive; with a location it is external."""
    inside, named = ",\n  ".join([*columns, *keys]), ", ".join(key.partition(" ")[0] for key in keys)
    return (
        f"CREATE TABLE IF NOT EXISTS {tick(table)} (\n  {inside}\n)\nUSING PARQUET\n"
        f"PARTITIONED BY ({named})"
    )


def _partitions(table: str, state: FeedState, place: _Place) -> list[str]:
    """Each partition with its place; one that is known with an old place is moved."""
    paths = [partition.path for partition in state.partitions]
    made = []
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        lines = [f"  PARTITION ({_values(path)}) LOCATION {_text(f'{place.partition(path)}/')}" for path in some]
        made.append("\n".join([f"ALTER TABLE {tick(table)} ADD IF NOT EXISTS", *lines]) + ";")
    made += [
        f"ALTER TABLE {tick(table)} PARTITION ({_values(path)}) SET LOCATION {_text(f'{place.partition(path)}/')};"
        for path in paths if path in place.away
    ]
    return made


def _values(path: str) -> str:
    return ", ".join(f"{key} = {_text(value)}" for key, value in partition_values(path))


def _bigquery(name: str, state: FeedState, place: _Place) -> str:
    """BigQuery takes the columns from the last file by name, which for a stream is in the newest day."""
    table, options = state.is_table, ["format = 'PARQUET'"]
    path = f"{place.directory}/{state.current.path}" if state.current else place.directory
    options.append(f"uris = [{_text(path + '/*.parquet')}]")
    if not table:
        options.append(f"hive_partition_uri_prefix = {_text(place.directory)}")
        options.append("require_hive_partition_filter = false")
    options.append("enable_list_inference = true")
    keys = "" if table else "\nWITH PARTITION COLUMNS (year INT64, month INT64, day INT64)"
    inside = ",\n  ".join(options)
    missed = sum(partition.path in place.away for partition in state.partitions)
    said = f"-- not seen by BigQuery: {counted(missed, 'partition')} only in {place.remote}\n" if missed else ""
    return f"{said}CREATE OR REPLACE EXTERNAL TABLE {tick(name)}{keys}\nOPTIONS (\n  {inside}\n);"


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_WRITERS: dict[str, Callable[[str, FeedState, _Place], str]] = {
    "duckdb": _duckdb, "hive": _hive, "athena": _athena, "spark": _spark, "bigquery": _bigquery,
}
