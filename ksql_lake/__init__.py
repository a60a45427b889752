"""What the four scripts share: ksqlDB's bytes in, a data lake of Parquet files out.

Rooms, from the ground up; a room imports only rooms below its line:

    base                            errors, atomic files, the native library
    model                           plain typed values
    sources    store                where rows come from; where files are kept and how a change is made
    quality    remote               checks and quarantine; the lake's second home in a bucket
    maintain   query   catalogs     what happens to data; reading it; catalogs of other systems
    ingest                          the export of one feed
    reporting                       reports for people and monitors
    cli                             the commands of the scripts
    embedded                        the ksqlDB of demo and tests

Each directory's docstring says what it owns; `tests/test_architecture.py` keeps the arrows.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036  said here, before anything is imported that an older one does not have
    print(f"error: Python 3.11 or newer is needed; this is {sys.version.split()[0]}, {sys.executable}", file=sys.stderr)
    raise SystemExit(2)

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    Filters: TypeAlias = pc.Expression | Sequence[tuple[str, str, Any]] | Sequence[Sequence[tuple[str, str, Any]]]

__all__ = ["export", "feeds", "read", "report"]
__version__ = "0.1.0"


@overload
def read(
    name: str, *, lake: str | Path | None = ..., filters: Filters | None = ..., columns: Sequence[str] | None = ...,
    version: int | str | None = ..., as_of: dt.date | str | None = ..., arrow: Literal[False] = ...,
) -> pd.DataFrame: ...
@overload
def read(
    name: str, *, lake: str | Path | None = ..., filters: Filters | None = ..., columns: Sequence[str] | None = ...,
    version: int | str | None = ..., as_of: dt.date | str | None = ..., arrow: Literal[True],
) -> pa.Table: ...
def read(
    name: str,
    *,
    lake: str | Path | None = None,
    filters: Filters | None = None,
    columns: Sequence[str] | None = None,
    version: int | str | None = None,
    as_of: dt.date | str | None = None,
    arrow: bool = False,
) -> pd.DataFrame | pa.Table:
    """A stream or a table of the lake, as a pandas DataFrame or a pyarrow Table.

    Every file is read under the full schema (a column that came later is null in older files), and only the
    files that the metadata own: never a stray or half-published one, and never half a change, whatever is
    exported, compacted, erased or removed meanwhile.

    Args:
        name: the feed; also one that is archived, or whose feed file was removed.
        lake: the lake's directory; DATA_LAKE_DIR (of the environment or settings.toml) unless given, else `data_lake`
            below the current directory.
        filters: rows to keep: [("year", "=", 2025), ("AMOUNT", ">", 10)], where all must hold; a list of such
            lists, of which one must hold; or a pyarrow expression. Comparisons: =, ==, !=, <, <=, >, >=, in,
            not in. `year`, `month`, `day` and `version` compare as integers, a TIMESTAMP also with ISO text,
            in UTC when it names no zone. Values are compared as they are, also where the column cannot hold them
            (half a millisecond, 1.5 for an INTEGER). No comparison holds for a null, as in SQL: neither != nor
            not in. Files that cannot match are not opened.
        columns: columns to return, in this order, by their name on disk or in the source, in any case (what
            is spelled exactly wins). The result has the names on disk, each once; as many rows without a column
            for []. Default: all, then the partition keys.
        version: of a table, such as 5 or "v5"; default: the current one.
        as_of: what the lake held at a time: a datetime or ISO text (UTC when it names no zone), or a day, which
            means the end of that day in UTC. Of a table the version that was current; of a stream the rows
            exported by then, under the schema of today. What retention or an erasure took since stays away.
        arrow: return a pyarrow.Table.

    Returns:
        In pandas INTEGER, BIGINT and BOOLEAN are the nullable Int32, Int64 and boolean, so that no number is
        rounded because another one is null; ROWPARTITION, ROWOFFSET and the partition keys, never null, are
        int32 and int64. DECIMAL are Decimal objects, TIMESTAMP datetime64 in UTC, DATE and TIME objects of
        datetime, STRUCT dicts, ARRAY arrays, MAP lists of pairs. A DOUBLE that is null is NaN; Arrow keeps
        the two apart.

    Raises:
        ksql_lake.base.errors.LakeError: no such feed, column or version; nothing was exported by `as_of`, or the
            state log does not reach back so far; metadata are missing or damaged.
    """
    from ksql_lake.query import reader

    dataset = reader.find(_lake(lake), name)
    table = reader.read(dataset, reader.Request(filters, columns, version, as_of))
    return table if arrow else reader.to_pandas(dataset, table)


def export(
    feeds: Sequence[str] | str | None = None,
    *,
    lake: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    days: Sequence[dt.date | str] = (),
    since: dt.date | str | None = None,
    source: Literal["auto", "rest", "kafka"] | None = None,
    allow_shrink: bool = False,
    accept_cluster: bool = False,
    wait: bool = False,
) -> list[dict[str, Any]]:
    """Export what is new in ksqlDB, as `export_to_data_lake.py` does.

    Args:
        feeds: one name or several; None for every enabled feed, after which retention is applied and the lake's remote
            is brought up to date, as after `--all`.
        lake: as for `read`.
        settings: settings by their names, such as {"KSQLDB_URL": "http://ksqldb:8088"}; they go before the environment.
        days: only events of these days (streams).
        since: the first export of a stream leaves out events of earlier days, for good.
        source: where streams are read; by default what each feed says, else "auto".
        allow_shrink: accept a table that is empty or much smaller than before.
        accept_cluster: fill the lake from another Kafka cluster than so far; its streams count as recreated.
        wait: wait for a feed that another run is exporting, instead of returning "busy" for it.

    Returns:
        A dict for each feed, by name: feed, type, result (ok, findings, failed or busy), rows, files, bytes, seconds,
        version, messages, findings, exit_code and what else `--json` prints. A feed that failed raises nothing, nor
        does a server that cannot be reached: then every feed has failed. What went wrong in the lake's remote is a
        dict whose feed is "".

    Raises:
        ksql_lake.base.errors.LakeError: a setting is wrong.
    """
    from ksql_lake.cli import api

    wishes = api.Wishes(days, since, source, allow_shrink, accept_cluster, wait)
    return api.export(feeds, lake, settings, wishes)


def feeds(
    *, lake: str | Path | None = None, settings: Mapping[str, object] | None = None
) -> list[dict[str, Any]]:
    """The feeds of a lake, by name: name, type, source, state (active, disabled, off, archived or broken) and keep."""
    from ksql_lake.cli import api

    return api.feeds(lake, settings)


def report(
    feed: str | None = None, *, lake: str | Path | None = None, settings: Mapping[str, object] | None = None
) -> list[dict[str, Any]]:
    """Every feed at a glance, as `metadata_utils.py --report --json` prints it: size, age, last run, findings."""
    from ksql_lake.cli import api

    return api.report(feed, lake, settings)


def _lake(lake: str | Path | None) -> Path:
    if lake is not None:
        return Path(lake)
    from ksql_lake.cli import api

    return api.lake_of(None)


def __dir__() -> list[str]:
    return ["__version__", *__all__]
