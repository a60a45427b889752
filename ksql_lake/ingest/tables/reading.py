"""One attempt at a complete copy of a table: by a pull query, or by its changelog folded to the latest row per key.

A pull query is trusted only if its array is closed, its last HTTP chunk came, no error row was in it, no key came
twice, and the server is still there afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import mask
from ksql_lake.base.errors import AnswerCut, KsqlError, KsqlUnavailable, RowNotSent, SchemaError, SourceError
from ksql_lake.ingest.tables.fold import Fold
from ksql_lake.ingest.tables.job import TableJob
from ksql_lake.ingest.tables.sink import Sink, Snapshot
from ksql_lake.model.columns import refuse_forbidden
from ksql_lake.model.types import Column
from ksql_lake.quality.keys import KeyHashes
from ksql_lake.sources.ksqldb.answers import AnswerRows
from ksql_lake.sources.ksqldb.client import Answer, Client, Source, quote
from ksql_lake.sources.ksqldb.rows import Tombstone
from ksql_lake.sources.row_source import Flawed

WINDOW_KEYS = ("WINDOWSTART", "WINDOWEND")
UNAUTHORIZED = 401

Begin = Callable[[Sequence[Column]], Sink]


def read_table(
    client: Client, job: TableJob, source: Source, begin: Begin, note: Callable[[str], None]
) -> Snapshot:
    """Stage a complete copy; what an earlier attempt staged is discarded.

    Args:
        begin: creates the sink for these columns.
        note: takes a line on how it was read.

    Raises:
        LakeError: it cannot be read; KsqlUnavailable when another attempt may succeed.
    """
    directory = job.dataset.staged(job.run)
    job.dataset.storage.delete(directory)
    job.dataset.storage.make(directory)
    try:
        return _read(client, job, source, begin, note)
    except RowNotSent as error:
        raise SourceError(
            f"{error}: a row holds a value that the server cannot send, such as a TIME of 24:00; fix it at the source, "
            "or leave the column out with a table of your own"
        ) from None


def _read(client: Client, job: TableJob, source: Source, begin: Begin, note: Callable[[str], None]) -> Snapshot:
    if not source.queryable or source.window == "SESSION":
        return _changelog(client, job, source, begin)
    try:
        return _pull(client, job, source, begin)
    except KsqlError as error:
        if not refuses_pull(error):
            raise
        refusal = error
    note(f"{source.name}: read from its changelog, because the pull query was refused: {refusal}")
    try:
        return _changelog(client, job, source, begin)
    except KsqlUnavailable:
        raise
    except KsqlError as error:
        raise KsqlError(f"{refusal}; its changelog cannot be read either: {error}", status=error.status) from None


def refuses_pull(error: KsqlError) -> bool:
    """Whether the server refuses this pull query, in whatever words, although the table exists."""
    if isinstance(error, KsqlUnavailable) or not 400 <= error.status < 500 or error.status == UNAUTHORIZED:
        return False
    return "does not exist" not in str(error)


def _pull(client: Client, job: TableJob, source: Source, begin: Begin) -> Snapshot:
    with client.query(f"SELECT * FROM {quote(source.name)};") as answer:
        columns = _columns(job, answer, source)
        keys = KeyHashes([i for i, column in enumerate(columns) if column.key])
        sink = begin(columns)
        for rows in _rows(answer, job, source).whole(job.limits):
            if isinstance(rows, pa.RecordBatch):
                sink.write(rows)
                keys.add(rows)
            elif isinstance(rows, Flawed):
                sink.write(rows.batch, rows.flaws)
                keys.add(_with_keys(rows, columns, job))
    if keys.twice():
        raise AnswerCut(f"{source.name}: a key came twice, as happens when a node fails in the middle")
    return sink.close()


def _changelog(client: Client, job: TableJob, source: Source, begin: Begin) -> Snapshot:
    with client.query(f"SELECT * FROM {quote(source.name)} EMIT CHANGES;", earliest=True) as answer:
        columns = _columns(job, answer, source)
        keys = [i for i, column in enumerate(columns) if column.key]
        if not keys:
            raise SourceError(f"{source.name}: the server names no key column, so its changelog cannot be folded")
        rows = _rows(answer, job, source)
        spill, latest = (job.dataset.scratch(job.run, name) for name in ("changelog.arrow", "latest.sqlite"))
        fold = Fold(spill, latest, rows.decoder.schema, keys, [c.name for c in columns])
        try:
            _fold(rows, fold, job, source)
            fold.prepare()
            sink = begin(columns)
            for batch, flaws in fold.batches():
                sink.write(batch, flaws)
            return sink.close()
        finally:
            fold.close()


def _rows(answer: Answer, job: TableJob, source: Source) -> AnswerRows:
    return AnswerRows(answer, source.name, job.batch_size, job.on_bad_value != "fail")


def _fold(rows: AnswerRows, fold: Fold, job: TableJob, source: Source) -> None:
    """Read until the whole query is silent; a part is never used."""
    longest, before = 0.0, rows.started
    for elements in rows.endless():
        for element in elements:
            if isinstance(element, pa.RecordBatch):
                fold.add(element)
            elif isinstance(element, Flawed):
                fold.add(element.batch, element.flaws)
            elif isinstance(element, Tombstone):
                fold.remove(element)
        now = time.monotonic()
        if elements:
            longest = max(longest, rows.heard - before) if fold.count else 0.0
            rows.heard = before = now  # the server was not silent while these rows were handled
        wait = max(job.limits.idle, 3 * longest) if fold.count else job.limits.first_row
        if now - rows.heard >= wait:
            return
        if now - rows.started > job.limits.duration:
            limit = f"{job.limits.duration:.0f} s (MAX_DURATION_SECONDS)"
            raise KsqlError(f"{source.name}: rows of its changelog kept coming for {limit}")


def _columns(job: TableJob, answer: Answer, source: Source) -> list[Column]:
    """The header's columns with their keys marked: push headers do not mark them, so DESCRIBE and windowType decide."""
    refuse_forbidden(job.dataset.feed, answer.columns, job.forbidden_columns)
    keys = {*source.keys, *(WINDOW_KEYS if source.window else ())}
    return [Column(c.name, c.type, c.key or c.name in keys) for c in answer.columns]


def _with_keys(flawed: Flawed, columns: Sequence[Column], job: TableJob) -> pa.RecordBatch:
    """The rows with a valid key; a key cannot be null."""
    names = {column.name for column in columns if column.key}
    bad = [flaw for flaw in flawed.flaws if flaw.column in names]
    if bad and job.on_bad_value == "null":
        raise SchemaError(f'{bad[0]}; it is a key, which cannot be null: set "on_bad_value" to "quarantine"')
    there = np.ones(len(flawed.batch), bool)
    there[[flaw.row for flaw in bad]] = False
    return flawed.batch.filter(mask(there))
