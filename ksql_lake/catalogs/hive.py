"""Types, names and partition keys of Hive, which Athena, Spark, Glue and the Hive metastore share."""

from __future__ import annotations

import re

import pyarrow as pa

from ksql_lake.base.errors import SchemaError
from ksql_lake.model.partitions import disk_names
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import SCALARS, SqlType, parse_type

PSEUDO = {"ROWTIME": "TIMESTAMP", "ROWPARTITION": "INTEGER", "ROWOFFSET": "BIGINT"}
# A version is text (`v3`), as its directory says: a repair of a table whose key is a number would break it.
KEYS = {"stream": (("year", "int"), ("month", "int"), ("day", "int")), "table": (("version", "string"),)}
# A Hive metastore may compare integer keys as text: Spark 4.0.5 on metastore 4.0.1 finds no row of `01` by month = 1.
TEXT_KEYS = {"stream": (("year", "string"), ("month", "string"), ("day", "string")), "table": KEYS["table"]}
_HIVE: dict[pa.DataType, str] = {  # by the Arrow type, which says what is in the files
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date",
    pa.time32("ms"): "int",
    pa.timestamp("ms", "UTC"): "timestamp",
}
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
# Words that Hive, Athena or Spark accept as a name only between backticks.
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
        quoted: put backticks around field names of a STRUCT where DDL needs them. A catalog's API (Glue, the Hive
            metastore) takes names without.

    Raises:
        SchemaError: no Parquet file can hold the type (an empty STRUCT).
    """
    if kind.base in SCALARS:
        return _HIVE[SCALARS[kind.base]]
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
    """A name for DDL: without backticks where that is safe."""
    bare = _PLAIN.fullmatch(name) and name.casefold() not in _RESERVED
    return name if bare else "`" + name.replace("`", "``") + "`"


def holds_time(kind: SqlType) -> bool:
    """Whether there is a TIME in the type, at any depth: Trino and Athena cannot read such a column."""
    inner = [kind for kind in (kind.key, kind.element, *(field for _, field in kind.fields)) if kind]
    return SCALARS.get(kind.base) == pa.time32("ms") or any(map(holds_time, inner))


def columns_of(state: FeedState) -> dict[str, SqlType]:
    """Columns by name on disk, pseudo columns first, without partition keys."""
    pseudo = {name: parse_type(text) for name, text in PSEUDO.items()} if not state.is_table else {}
    return pseudo | {c.disk_name: parse_type(c.ksql_type) for c in state.columns}


def table_name(feed: str) -> str:
    """The name of a feed's table in SQL and in catalogs, which accept letters, digits and underscores."""
    return re.sub(r"\W", "_", feed, flags=re.ASCII)


def versions_name(name: str) -> str:
    """The name of the table that has all versions of a table of ksqlDB."""
    return f"{name}_versions"


def partition_values(path: str) -> tuple[tuple[str, str], ...]:
    """Keys and values as in the path: `year=2025/month=01` -> (("year", "2025"), ("month", "01")).

    Catalogs get them with their zeros, so that a repair, which reads paths, finds the same partitions.
    """
    parts = (part.partition("=") for part in path.split("/"))
    return tuple((key, value) for key, _, value in parts)


def tick(name: str) -> str:
    """A name between backticks."""
    return "`" + name.replace("`", "``") + "`"
