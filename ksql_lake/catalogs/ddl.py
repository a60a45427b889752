"""The lake in the SQL of other systems: DuckDB's views, the external tables of Hive, Athena, Spark and BigQuery."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ksql_lake.base.errors import ConfigError, SchemaError
from ksql_lake.model.partitions import disk_names, parse_day, parse_version
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import SqlType, parse_type

_HIVE = {
    "BOOLEAN": "boolean",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "DOUBLE": "double",
    "STRING": "string",
    "BYTES": "binary",
    "DATE": "date",
    "TIME": "int",
    "TIMESTAMP": "timestamp",
}
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
# Words that Hive, Athena or Spark take as a name only between backticks.
_RESERVED = frozenset(
    """all alter and anti array as authorization between bigint binary boolean both by cache case cast char column
    commit conf constraint create cross cube current current_date current_timestamp cursor database date dayofweek
    decimal delete describe distinct double drop else end escape except exchange exists extended external extract
    false fetch first float floor following for foreign from full function global grant group grouping having if
    import in inner insert int integer intersect interval into is join last lateral left less like local macro map
    minus more natural next none not null nulls numeric of offset on only or order out outer over partialscan
    partition percent preceding precision preserve primary procedure range reads real reduce references regexp
    revoke right rlike rollback rollup row rows select semi session session_user set smallint some start struct sync
    table tablesample then time timestamp to trailing transform trigger true truncate unbounded union unique
    uniquejoin unknown update user using utc_timestamp values varchar views when where window with""".split()
)


def hive_type(kind: SqlType, *, quoted: bool = True) -> str:
    """The Hive type that reads what the exporter writes for a ksqlDB type, nested to any depth.

    A TIME is `int`, milliseconds since midnight: Hive has no time of day, and that is what the Parquet file
    holds. A TIMESTAMP is `timestamp`, which Hive and Athena show in UTC and Spark in the session's time zone.

    Args:
        quoted: put backticks around field names of a STRUCT that DDL would not take without. A catalog's
            API (Glue, the Hive metastore) wants them bare.

    Raises:
        SchemaError: no Parquet file can hold the type (an empty STRUCT).
    """
    if kind.base in _HIVE:
        return _HIVE[kind.base]
    if kind.base == "DECIMAL":
        return f"decimal({kind.precision},{kind.scale})"
    if kind.base == "ARRAY" and kind.element:
        return f"array<{hive_type(kind.element, quoted=quoted)}>"
    if kind.base == "MAP" and kind.key and kind.element:
        return f"map<{hive_type(kind.key, quoted=quoted)},{hive_type(kind.element, quoted=quoted)}>"
    if kind.base == "STRUCT" and kind.fields:
        names = disk_names([name for name, _ in kind.fields], (), {})  # as in the files
        fields = [
            f"{_name(names[name]) if quoted else names[name]}:{hive_type(inner, quoted=quoted)}"
            for name, inner in kind.fields
        ]
        return f"struct<{','.join(fields)}>"
    raise SchemaError(f"type {kind} cannot be stored in Parquet")


def _name(name: str) -> str:
    """A name as DDL takes it: bare where that is safe."""
    bare = _PLAIN.fullmatch(name) and name.casefold() not in _RESERVED
    return name if bare else "`" + name.replace("`", "``") + "`"


DIALECTS = ("duckdb", "hive", "athena", "spark", "bigquery")
PSEUDO = {"ROWTIME": "TIMESTAMP", "ROWPARTITION": "INTEGER", "ROWOFFSET": "BIGINT"}
KEYS = {"stream": ("year", "month", "day"), "table": ("version",)}
AT_ONCE = 100  # partitions in one statement: Athena takes 262,144 characters
_CLOUDS = {"athena": "s3://", "bigquery": "gs://"}
_NEWER = "A column that came since: drop the table (an external table's files stay) and run this again."
_HEAD = {
    "duckdb": "Views follow the lake (new files, a table's current version); run again for columns that came since.",
    "hive": f"Hive 4 or later (timestamps of Parquet). Run again after each export for new partitions. {_NEWER}",
    "athena": f"One statement at a time. Run again after each export for new partitions. {_NEWER}",
    "spark": f"Run again after each export for new partitions. {_NEWER}",
    "bigquery": "Give a dataset: bq query --dataset_id=... Run again after each export of a table.",
}


def script(dialect: str, states: Mapping[str, FeedState], lake: Path, location: str | None = None) -> str:
    """The SQL that makes every feed readable by its name; a statement ends with a semicolon at the end of a line.

    Args:
        dialect: one of DIALECTS.
        states: the feeds' metadata, by name.
        lake: the lake's directory, absolute.
        location: where else the lake lies, such as s3://bucket/lake.

    Raises:
        ConfigError: the dialect cannot read from there, or two feeds would have one name.
    """
    cloud = _CLOUDS.get(dialect)
    if cloud and not (location or "").startswith(cloud):
        raise ConfigError(f"--sql {dialect} reads from {cloud} only; say where the lake lies: --location "
                          f"{cloud}bucket/lake")
    root = (location or (str(lake) if dialect == "duckdb" else f"file://{lake}")).rstrip("/")
    names = _names(dialect, states)
    parts = [f"-- {_HEAD[dialect]}"]
    for feed, state in sorted(states.items()):
        if not _readable(state):
            parts.append(f"-- {feed}: no file yet")
            continue
        parts.append(_WRITERS[dialect](names[feed], state, f"{root}/{state.type}s/{feed}"))
    return "\n\n".join(parts) + "\n"


def _readable(state: FeedState) -> bool:
    return len(state.files) > 0 and (not state.is_table or state.current is not None)


def _names(dialect: str, states: Mapping[str, FeedState]) -> dict[str, str]:
    """Feeds by the name of their table; other systems than DuckDB take letters, digits and underscores."""
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for feed, state in states.items():
        names[feed] = feed if dialect == "duckdb" else re.sub(r"\W", "_", feed, flags=re.ASCII)
        makes = [names[feed]]
        if state.is_table and dialect in ("hive", "athena", "spark"):
            makes.append(_versions(names[feed]))
        for name in makes:
            other = taken.setdefault(name.casefold(), feed)
            if other != feed:
                raise ConfigError(f"{other} and {feed} would both be {name}; take one at a time with --feed")
    return names


def _versions(name: str) -> str:
    return f"{name}_versions"


def _columns(state: FeedState) -> dict[str, SqlType]:
    """Columns by name on disk, without partition keys."""
    pseudo = {name: parse_type(text) for name, text in PSEUDO.items()} if not state.is_table else {}
    return pseudo | {c.disk_name: parse_type(c.ksql_type) for c in state.columns}


def _duckdb(name: str, state: FeedState, directory: str) -> str:
    """A view of the columns that some file has: one that no file has yet would not bind."""
    newest = max(_version_order(file.schema_version) for file in state.files)
    late = {c.disk_name for c in state.columns if _version_order(c.since) > newest}
    columns = [_duck_name(column) for column in _columns(state) if column not in late]
    glob = re.sub(r"([*?[])", r"[\1]", directory)
    if state.is_table:
        columns.append("CAST(substr(version, 2) AS INTEGER) AS version")
        types, pattern = "version: VARCHAR", f"{glob}/version=*/*.parquet"
        metadata = f"read_text({_duck_text(glob + '/_metadata.json')})"
        where = f"\nWHERE version = (SELECT json_extract_string(content, '$.current.version') FROM {metadata})"
    else:
        columns += KEYS["stream"]
        types, pattern = "year: INTEGER, month: INTEGER, day: INTEGER", f"{glob}/year=*/month=*/day=*/*.parquet"
        where = ""
    return (
        f"CREATE OR REPLACE VIEW {_duck_name(name)} AS\nSELECT {', '.join(columns)}\nFROM read_parquet(\n"
        f"    {_duck_text(pattern)},\n    union_by_name = true, hive_partitioning = true, hive_types = {{{types}}}\n"
        f"){where};"
    )


def _version_order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _duck_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _duck_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _hive(name: str, state: FeedState, directory: str) -> str:
    return _external(name, state, directory, _stored_as_parquet, _tick)


def _athena(name: str, state: FeedState, directory: str) -> str:
    """DDL in Hive's words, the view in Trino's, which quotes as DuckDB does."""
    return _external(name, state, directory, _stored_as_parquet, _duck_name)


def _spark(name: str, state: FeedState, directory: str) -> str:
    return _external(name, state, directory, _using_parquet, _tick)


def _external(
    name: str, state: FeedState, directory: str, create: Callable[[str, Sequence[str], Sequence[str]], str],
    quote: Callable[[str], str],
) -> str:
    """The table with its partitions; of a table of ksqlDB all versions, and a view of the current one."""
    table = name if not state.is_table else _versions(name)
    columns = [f"{_tick(column)} {hive_type(kind)}" for column, kind in _columns(state).items()]
    made = [f"{create(table, columns, KEYS[state.type])}\nLOCATION {_text(directory + '/')};"]
    made += _partitions(table, state, directory)
    if state.current is not None:
        number = parse_version(state.current.path)
        made.append(
            f"CREATE OR REPLACE VIEW {quote(name)} AS\nSELECT * FROM {quote(table)} WHERE version = {number};"
        )
    return "\n".join(made)


def _stored_as_parquet(table: str, columns: Sequence[str], keys: Sequence[str]) -> str:
    inside, typed = ",\n  ".join(columns), ", ".join(f"{_tick(key)} int" for key in keys)
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {_tick(table)} (\n  {inside}\n)\nPARTITIONED BY ({typed})\n"
        "STORED AS PARQUET"
    )


def _using_parquet(table: str, columns: Sequence[str], keys: Sequence[str]) -> str:
    """Spark's own table, which needs no Hive; with a location it is external."""
    inside = ",\n  ".join([*columns, *(f"{_tick(key)} int" for key in keys)])
    return (
        f"CREATE TABLE IF NOT EXISTS {_tick(table)} (\n  {inside}\n)\nUSING PARQUET\n"
        f"PARTITIONED BY ({', '.join(map(_tick, keys))})"
    )


def _partitions(table: str, state: FeedState, directory: str) -> list[str]:
    paths = [partition.path for partition in state.partitions]
    made = []
    for start in range(0, len(paths), AT_ONCE):
        some = paths[start : start + AT_ONCE]
        lines = [f"  PARTITION ({_values(path)}) LOCATION {_text(f'{directory}/{path}/')}" for path in some]
        made.append("\n".join([f"ALTER TABLE {_tick(table)} ADD IF NOT EXISTS", *lines]) + ";")
    return made


def _values(path: str) -> str:
    """`year=2025/month=01/day=15` as the partition of a statement."""
    day = parse_day(path)
    if day is None:
        return f"version = {parse_version(path)}"
    return f"year = {day.year}, month = {day.month}, day = {day.day}"


def _bigquery(name: str, state: FeedState, directory: str) -> str:
    """Columns are what BigQuery finds in the last file by name, of a stream the newest day's."""
    table, options = state.is_table, ["format = 'PARQUET'"]
    path = f"{directory}/{state.current.path}" if state.current else directory
    options.append(f"uris = [{_text(path + '/*.parquet')}]")
    if not table:
        options.append(f"hive_partition_uri_prefix = {_text(directory)}")
        options.append("require_hive_partition_filter = false")
    options.append("enable_list_inference = true")
    keys = "" if table else "\nWITH PARTITION COLUMNS (year INT64, month INT64, day INT64)"
    inside = ",\n  ".join(options)
    return f"CREATE OR REPLACE EXTERNAL TABLE {_tick(name)}{keys}\nOPTIONS (\n  {inside}\n);"


def _tick(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_WRITERS: dict[str, Callable[[str, FeedState, str], str]] = {
    "duckdb": _duckdb, "hive": _hive, "athena": _athena, "spark": _spark, "bigquery": _bigquery,
}
