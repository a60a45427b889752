"""What the four scripts share: ksqlDB's bytes in, a data lake of Parquet files out.

One module, one noun; imports point down this list only:

    export, cluster                        the turn of one feed; the workers of a Dask cluster
    page, page_feed, page_style, charts    the lake as a web page; its style; its charts
    report                                 the lake on a terminal
    metrics                                what is known of the feeds, as Prometheus text
    summary, findings                      each feed at a glance; what is wrong with it, by kind
    reader                                 a feed as one table, now or as it was
    rebuild, reconcile                     metadata made again from footers and log; days counted at the source
    streams, tables, verify                one export, one check, start to end
    reading                                a stream read to its present end, through cuts
    staged, compare, column_stats          what a reading left to be published; two versions of a table; columns
    glue                                   the lake in an AWS Glue catalog
    retention, versions, permissions       what is too old to stay; which version of a table is read; who may read
    erase, compact                         one person's rows, everywhere; small files of a day merged
    quarantine                             rows that a check set aside, and back
    quality                                the checks of a feed, run on its batches
    rules                                  a check bound to the columns it judges
    anchors, fold, keys                    what a stream's rows prove; a changelog's latest rows; a key that came twice
    merges                                 which small files belong together
    trash                                  what was taken out, and back
    moments                                what a feed held at a time
    metadata                               _metadata.json and the commit journal
    writer, rows, ksqldb, retry            Parquet files; rows of an answer; the REST client; when to ask again
    native_rows, blocks                    plain rows by the megabyte: natively; by pyarrow
    predicates                             columns and rows that are asked for
    ddl                                    the lake in the SQL of other systems
    partitions, types, body, feeds, pace   days and versions; types; HTTP bodies; feed files; the end of a query
    alerts                                 who learns how a run went
    history, checks, figures               one line for each run; the checks a feed declares; figures in few characters
    native, arrays                         the native library, where it is built; numbers between Arrow and NumPy
    files, errors                          atomic writes and locks; the error family

Scripts import `data_lake_config` and this package; the config imports `errors`, and `native` to tell whether
it is there; this package imports neither scripts nor config: values are passed in. For users of a lake it has
one function, `read`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    Filters: TypeAlias = pc.Expression | Sequence[tuple[str, str, Any]] | Sequence[Sequence[tuple[str, str, Any]]]

__all__ = ["read"]
__version__ = "0.1.0"


@overload
def read(
    name: str, *, lake: str | Path = ..., filters: Filters | None = ..., columns: Sequence[str] | None = ...,
    version: int | str | None = ..., as_of: dt.date | str | None = ..., arrow: Literal[False] = ...,
) -> pd.DataFrame: ...
@overload
def read(
    name: str, *, lake: str | Path = ..., filters: Filters | None = ..., columns: Sequence[str] | None = ...,
    version: int | str | None = ..., as_of: dt.date | str | None = ..., arrow: Literal[True],
) -> pa.Table: ...
def read(
    name: str,
    *,
    lake: str | Path = "data_lake",
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
        lake: the lake's directory; `data_lake` below the current directory unless given. DATA_LAKE_DIR is a
            setting of the scripts, and not read here.
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
        ksql_lake.errors.LakeError: no such feed, column or version; nothing was exported by `as_of`, or the
            state log does not reach back so far; metadata are missing or damaged.
    """
    from ksql_lake import reader

    dataset = reader.find(Path(lake), name)
    table = reader.read(dataset, reader.Request(filters, columns, version, as_of))
    return table if arrow else reader.to_pandas(dataset, table)
