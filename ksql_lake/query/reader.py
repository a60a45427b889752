"""Reads a feed as one table: exactly the files in its metadata, in the full schema, now or as they were."""

from __future__ import annotations

import datetime as dt
import difflib
import operator
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs

from ksql_lake.base.arrays import beyond_datetime, mask, numbers, pylist
from ksql_lake.base.errors import ConfigError, StateError
from ksql_lake.model.anchor import Coverage, Covered
from ksql_lake.model.columns import rows_schema, schema_of
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.partitions import parse_day, parse_version, version_path
from ksql_lake.model.predicates import Filters, Names, expression
from ksql_lake.model.recorded import MILLISECONDS
from ksql_lake.model.state import FeedState
from ksql_lake.model.types import pseudo_fields, timestamp_type
from ksql_lake.model.values import utc
from ksql_lake.query import moments
from ksql_lake.query.moments import Spans
from ksql_lake.store import metadata
from ksql_lake.store.layout import KINDS, storage_of
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.remote.places import Places

if TYPE_CHECKING:
    import pandas as pd

PLACE = ("ROWPARTITION", "ROWOFFSET")
DAY_KEYS = pa.schema([("year", pa.int32()), ("month", pa.int32()), ("day", pa.int32())])
VERSION_KEY = pa.schema([("version", pa.int32())])
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.0, 2.0)  # seconds, while a change of the feed swaps files


@dataclass(frozen=True)
class Request:
    """What to read of a feed."""

    filters: Filters | None = None
    columns: Sequence[str] | None = None
    version: int | str | None = None
    as_of: dt.date | str | None = None


@dataclass
class _Part:
    """Files that one scan reads; `covered` selects the rows that the lake held at the requested time."""

    files: list[FileEntry] = field(default_factory=list)
    covered: dict[int, Spans] | None = None


def find(lake: Path, name: str) -> Dataset:
    """The feed of that name; `streams/x` or `tables/x` where a stream and a table have the same.

    Raises:
        ConfigError: there is no such lake or feed, or there are two.
    """
    if storage_of(lake).stat(lake) is None:
        raise ConfigError(f"{lake.resolve()}: no such directory; lake= names the data lake")
    there = feeds(lake)
    folder, _, plain = name.rpartition("/")
    found = [one for one in there if one.feed == plain and folder in ("", f"{one.kind}s")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{name}: there is a stream and a table of this name; write streams/{name} or tables/{name}")
    names = sorted({one.feed for one in there})
    near = difflib.get_close_matches(plain, names, 3)
    hint = f"did you mean {', '.join(near)}" if near else f"exported feeds: {', '.join(names) or 'none'}"
    raise ConfigError(f"{name}: no feed of this name was exported into {lake}; {hint}")


def read(dataset: Dataset, request: Request) -> pa.Table:
    """The rows asked for; see `ksql_lake.read`.

    Metadata is read once and lists every file. If a file is gone when it is opened (names are never reused), the
    metadata changed meanwhile: it is read again, and everything starts over.
    """
    for pause in (*PAUSES, None):
        state = metadata.load(dataset)
        if state is None:
            raise StateError(f"{dataset.metadata}: missing; restore it with: "
                             f"python metadata_utils.py --rebuild --feed {dataset.feed}")
        try:
            return _scan(dataset, state, request)
        except FileNotFoundError as error:
            if pause is None:
                named = re.search(r"'([^']+\.parquet)'", str(error))
                raise StateError(
                    f"{named[1] if named else dataset.directory}: a file that the metadata list is gone from the lake; "
                    "the next export finishes a change that was interrupted, else this names the command that helps: "
                    f"python metadata_utils.py --verify --feed {dataset.feed}"
                ) from None
            time.sleep(pause)
    raise AssertionError("not reached")


def to_pandas(dataset: Dataset, table: pa.Table) -> pd.DataFrame:
    """A data frame in which no value is rounded and no type depends on whether there are nulls.

    INTEGER, BIGINT and BOOLEAN become pandas' nullable Int32, Int64 and boolean; what is never null (partition
    keys, a stream's ROWPARTITION and ROWOFFSET) plain int32 and int64. DECIMAL are Decimal objects, TIMESTAMP
    datetime64 in UTC. A column with a time outside of the years 1 to 9999 becomes objects: datetime where that can
    hold the value, else ISO 8601 text such as "+10000-01-01T00:00:00.000Z".
    """
    import pandas as pd

    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    absurd = [i for i, column in enumerate(table.columns) if beyond_datetime(column)]
    shown = table
    for i in absurd:
        shown = shown.set_column(i, table.field(i).name, pa.nulls(len(table)))
    frame = shown.to_pandas(types_mapper=nullable.get, integer_object_nulls=True, ignore_metadata=True)
    for i in absurd:
        frame.isetitem(i, pd.Series(pylist(table.column(i)), frame.index, dtype=object))
    added = VERSION_KEY if dataset.kind == "table" else (*pseudo_fields(MILLISECONDS), *DAY_KEYS)  # not the source's
    never_null = {field.name: str(field.type) for field in added if pa.types.is_integer(field.type)}
    return frame.astype({name: kind for name, kind in never_null.items() if name in frame.columns})


def feeds(lake: Path) -> list[Dataset]:
    """Every feed that was exported into a lake, whether or not it still has a feed file."""
    return [
        Dataset(lake, path.parent.name, kind)
        for kind in KINDS
        for path in storage_of(lake).list(lake, f"{kind}s/*/{metadata.METADATA}")
    ]


def full_schema(state: FeedState) -> pa.Schema:
    """All columns a feed has or ever had, as they are on disk, and its partition keys."""
    if state.is_table:
        return pa.schema([*schema_of(state), *VERSION_KEY])
    return pa.schema([*rows_schema(state), *DAY_KEYS])


def _scan(dataset: Dataset, state: FeedState, request: Request) -> pa.Table:
    schema = full_schema(state)
    own = {column.name: column.disk_name for column in state.columns}
    names = Names(dataset.feed, schema.names, own)
    asked = [request.columns] if isinstance(request.columns, str) else request.columns
    columns = schema.names if asked is None else [*dict.fromkeys(map(names.resolve, asked))]
    read = columns or schema.names[-1:]  # rows of no columns are counted by a partition key, which no file holds
    wanted = expression(request.filters, names, schema)
    places = Places(dataset)
    tables = [_read_part(places, part, schema, read, wanted) for part in _parts(dataset, state, request)]
    return pa.concat_tables([pa.schema([schema.field(name) for name in read]).empty_table(), *tables]).select(columns)


def _read_part(
    places: Places, part: _Part, schema: pa.Schema, columns: Sequence[str], wanted: pc.Expression | None
) -> pa.Table:
    form, fragments = ds.ParquetFileFormat(), {}
    for entry in sorted(part.files, key=lambda entry: entry.path):
        files, path = places.of(entry)
        fragments[path] = form.make_fragment(path, files, partition_expression=_known(entry, schema)), entry
    read = columns if part.covered is None else [*columns, *(name for name in PLACE if name not in columns)]
    try:
        every = ds.FileSystemDataset(
            [fragment for fragment, _ in fragments.values()], schema, form, pyarrow.fs.LocalFileSystem()
        )
        if any(not entry.local for _, entry in fragments.values()):
            places.refuse_archived(fragments[one.path][1] for one in every.get_fragments(filter=wanted))
        table = every.to_table({name: pc.field(name) for name in read}, filter=wanted)
    except pa.ArrowInvalid as error:
        if "FieldRef" in str(error):
            raise ConfigError(f"{places.dataset.feed}: filters: {str(error).splitlines()[0]}") from None
        raise
    except FileNotFoundError:
        raise
    except OSError as error:
        raise (error if all(entry.local for entry in part.files) else places.failed(error)) from None
    return table if part.covered is None else table.filter(_held_then(table, part.covered)).select(columns)


def _held_then(table: pa.Table, covered: Mapping[int, Spans]) -> pa.Array:
    """A mask of the rows that one generation's coverage includes: an Arrow expression of 20,000 ranges crashes."""
    partitions, offsets = (numbers(table[name].combine_chunks()) for name in PLACE)
    held = np.zeros(len(table), bool)
    for partition, spans in covered.items():
        here = np.flatnonzero(partitions == partition)
        held[here] = spans.mask(offsets[here])
    return mask(held)


def _known(entry: FileEntry, schema: pa.Schema) -> pc.Expression:
    """What the metadata says about all rows of a file, so that Arrow opens no file that cannot match."""
    number, day = parse_version(entry.partition), parse_day(entry.partition)
    if number is not None:
        return pc.field("version") == pa.scalar(number, pa.int32())
    assert day is not None, entry.partition
    keys = [pc.field(name) == pa.scalar(getattr(day, name), pa.int32()) for name in DAY_KEYS.names]
    times = pa.array([entry.rowtime_min, entry.rowtime_max], timestamp_type(MILLISECONDS))
    first, last = times.cast(schema.field("ROWTIME").type)
    return reduce(operator.and_, [*keys, pc.field("ROWTIME") >= first, pc.field("ROWTIME") <= last])


def _parts(dataset: Dataset, state: FeedState, request: Request) -> list[_Part]:
    """The files to read: those of one version, or those with rows that were held at the time asked for.

    Coverage includes quarantined rows: the lake has held them since their import, which their files record.
    """
    if request.version is not None and request.as_of is not None:
        raise ConfigError(f"{dataset.feed}: version and as_of both choose a state; give only one of them")
    then, files = state, list(state.files)
    if request.as_of is not None:
        when = moments.moment(request.as_of)
        then = moments.state_at(dataset, state, when)
        files = [entry for entry in files if entry.origin != "quarantine" or utc(entry.exported_at) <= when]
    if dataset.kind == "table":
        return [_version(dataset, state, then, request)]
    if request.version is not None:
        raise ConfigError(f"{dataset.feed}: is a stream and has no versions; use as_of with a time")
    return [_Part(files)] if then is state else _held(files, then.coverage)


def _version(dataset: Dataset, state: FeedState, then: FeedState, request: Request) -> _Part:
    there = sorted({parse_version(entry.partition) or 0 for entry in state.files})
    if request.version is None:
        number = int(then.current.version.removeprefix("v")) if then.current else None
    else:
        text = str(request.version).removeprefix("v")
        number = int(text) if text.isdecimal() else -1
    if number is None or (state.current and state.current.version == f"v{number}" and number not in there):
        return _Part()  # never exported, or a version without a row, which has no file
    if number not in there:
        asked = request.version if request.as_of is None else f"v{number}, which was current at {request.as_of}"
        names = ", ".join(f"v{one}" for one in there)
        raise ConfigError(f"{dataset.feed}: has no version {asked}; its versions: {names or 'none'}")
    return _Part([entry for entry in state.files if entry.partition == version_path(number)])


def _held(files: Sequence[FileEntry], coverage: Coverage) -> list[_Part]:
    """Files whose rows all were covered then, and, for each generation, those of which some were."""
    whole, partly = _Part(), list[_Part]()
    for day, covered, those in _by_day(files, coverage):
        partitions = sorted({partition for entry in those for partition in entry.spans})
        spans = {partition: Spans.of(covered, partition, day) for partition in partitions}
        some = _Part(covered=spans)
        for entry in those:
            ends = [(spans[partition], low, high) for partition, (low, high, _) in entry.spans.items()]
            if all(one.hold(low, high) for one, low, high in ends):
                whole.files.append(entry)
            elif any(one.meet(low, high) for one, low, high in ends):
                some.files.append(entry)
        if some.files:
            partly.append(some)
    return [whole, *partly]


def _by_day(
    files: Sequence[FileEntry], coverage: Coverage
) -> Iterator[tuple[str, Mapping[int, Covered], list[FileEntry]]]:
    """The files of each generation, day by day where its coverage knows of days."""
    for generation, covered in coverage.items():
        groups: dict[str, list[FileEntry]] = {}
        dated = any(one.days for one in covered.values())
        for entry in files:
            if entry.generation == generation:
                groups.setdefault(str(parse_day(entry.partition)) if dated else "", []).append(entry)
        for day, those in groups.items():
            yield day, covered, those
