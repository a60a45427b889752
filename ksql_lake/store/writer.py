"""Batches -> staged Parquet files: many partitions at once, in bounded memory, with few files open.

Rows wait per partition until a row group is full; when all waiting rows exceed `buffer_bytes`, the largest partition
is written first. A Parquet file cannot be reopened, so after a file that is closed early (full, or least recently
used) the partition simply gets another one. Encoding runs in a separate thread, one row group behind, while the caller
decodes the next rows: both spend their time in C++, outside Python's lock.
"""

from __future__ import annotations

import contextlib
import io
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksql_lake.base.arrays import indices, milliseconds, numbers
from ksql_lake.base.errors import SchemaError, StateError
from ksql_lake.base.files import fsync_dir, make_dirs
from ksql_lake.model.entries import FileEntry

LEVEL = "ksql_lake.compression_level"  # in the footer: the file itself names the codec only
_SAMPLE_ROWS = 65_536
_DICTIONARY_RATIO = 0.5
_FEW_ROWS, _FEW_DISTINCT, _ALL_DISTINCT = 8192, 0.25, 0.99
_SMALL_BATCHES = 64
_LARGE_BATCH = 256 << 10  # bytes
_SINK_BUFFER = 1 << 18  # of each open file


@dataclass(frozen=True)
class StagedFile:
    """One finished file in staging. `offsets` is Kafka partition -> (lowest, highest, rows); ROWTIME in epoch ms."""

    staged: Path
    name: str
    partition: str
    rows: int
    bytes: int
    crc32: int
    rowtime_min: int | None
    rowtime_max: int | None
    offsets: dict[int, tuple[int, int, int]]

    def entry(
        self, *, run: str, origin: str, schema_version: str, exported_at: str, generation: int | None = None,
        compression: str | None = None, compression_level: int | None = None, path: str | None = None,
        reasons: Mapping[str, int] | None = None,
    ) -> FileEntry:
        """The file as the metadata keep it.

        Args:
            generation: of a stream; None for a table.
            path: where it goes, when not into its partition of the feed's directory.
        """
        stream = generation is not None
        return FileEntry(
            path or f"{self.partition}/{self.name}", self.partition, self.rows, self.bytes, self.crc32, run, origin,
            schema_version, exported_at, compression, compression_level, self.rowtime_min if stream else None,
            self.rowtime_max if stream else None, self.offsets if stream else None, generation, reasons,
        )


@dataclass(frozen=True)
class WriterOptions:
    """How files are written. A file ends at about `file_bytes`; the rest are upper limits.

    `lease`: a file without which no more files are created (see `staged.lease`).
    """

    compression: str = "snappy"
    compression_level: int | None = None
    bloom_filter_columns: tuple[str, ...] = ()
    row_group_rows: int = 131_072
    file_rows: int = 1_000_000
    file_bytes: int = 128 << 20
    buffer_bytes: int = 80 << 20
    max_open: int = 64
    file_mode: int = 0o644
    dir_mode: int = 0o755
    lease: Path | None = None

    def check_lease(self) -> None:
        """Check the lease before a file or directory is created.

        Raises:
            StateError: the lease is gone, so the run that asked for the files is over.
        """
        if self.lease is not None and not self.lease.exists():
            raise StateError(f"{self.lease}: gone; the run that asked for these files is over")

    def __post_init__(self) -> None:
        for name in ("row_group_rows", "file_rows", "file_bytes", "buffer_bytes", "max_open"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


def options_like(parquet: pq.ParquetFile, entry: FileEntry, file_mode: int) -> WriterOptions:
    """Options for rewriting a file: the same codec and bloom filters, everything in one file.

    Args:
        entry: the file's entry in the metadata.
    """
    group = parquet.metadata.row_group(0) if parquet.metadata.num_row_groups else None
    columns = [group.column(i) for i in range(group.num_columns)] if group else []
    filtered = [c.path_in_schema for c in columns if getattr(c, "bloom_filter_offset", None) is not None]
    return WriterOptions(
        compression=entry.compression or "snappy", compression_level=entry.compression_level,
        bloom_filter_columns=tuple(filtered), file_rows=1 << 60, file_bytes=1 << 60, file_mode=file_mode,
    )


class PartitionWriter:
    """Writes one run of one feed; either `close` or `abort` ends it. As a context manager it aborts on an error.

    Args:
        directory: the staging directory of the run; created.
        schema: the full current schema, with the names on disk.
        run: what makes the file names of this run unique.
        stem: "data" for streams, "snapshot" for tables.
        footer: key-value metadata for every file.
    """

    def __init__(
        self, directory: Path, schema: pa.Schema, run: str, stem: str, options: WriterOptions, footer: Mapping[str, str]
    ) -> None:
        self._directory, self._schema, self._run, self._stem = directory, schema, run, stem
        self._options, self._footer = options, dict(footer)
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_bytes = 0
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()  # least recently used first
        self._made: set[Path] = set()
        self._staged: list[StagedFile] = []
        self._sequence = 0
        self._ended = False
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._encoding: Future[None] | None = None
        self._options = replace(options, bloom_filter_columns=_resolved(options.bloom_filter_columns, schema))
        options.check_lease()
        make_dirs(directory, options.dir_mode)

    def __enter__(self) -> PartitionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended:
            self.abort()

    @property
    def open_files(self) -> int:
        return len(self._open)

    @property
    def buffered_bytes(self) -> int:
        return self._waiting_bytes

    def write(self, batch: pa.RecordBatch, partition: str, day: str) -> None:
        """Take rows of one partition; `day` (`20250115`) goes into the file's name.

        A snapshot's batch without rows still makes its file: an empty table is a version too.

        Raises:
            ValueError: the batch has a different schema, or the writer was closed: a bug in the caller.
            OSError: the disk refused; call `abort`.
        """
        if self._ended:
            raise ValueError("this writer has been closed")
        if not batch.schema.equals(self._schema, check_metadata=False):
            raise ValueError(f"the batch has the schema {batch.schema}, the file has {self._schema}")
        if batch.num_rows == 0 and self._stem != "snapshot":
            return
        waiting = self._waiting.setdefault(partition, _Waiting(self._schema, day))
        self._waiting_bytes += waiting.add(batch)
        while waiting.rows >= self._options.row_group_rows:
            self._write_group(partition)
        while self._waiting_bytes > self._options.buffer_bytes:
            self._write_group(max(self._waiting, key=lambda name: self._waiting[name].bytes))

    def close(self, footer: Mapping[str, str] | None = None) -> list[StagedFile]:
        """Finish all files, durably.

        Args:
            footer: more key-value metadata, known only now. Every file that is still open carries it, and
                where there is a file at all, at least one is: full files are rolled only when rows follow.
        """
        # Files that are open go first, so that the rest never need more than one place.
        for partition in [*self._open, *(name for name in self._waiting if name not in self._open)]:
            while (waiting := self._waiting.get(partition)) is not None and waiting.pending:
                self._write_group(partition, footer)
            self._finish(partition, footer)
        for directory in sorted(self._made):
            fsync_dir(directory)
        self._ended = True
        self._encoder.shutdown()
        return sorted(self._staged, key=lambda file: file.name.rpartition("_")[2])

    def abort(self) -> None:
        """Discard everything; the caller removes what is in staging."""
        self._ended = True
        self._encoder.shutdown()
        for file in self._open.values():
            file.discard()
        self._open.clear()
        self._waiting.clear()
        self._waiting_bytes = 0

    def _write_group(self, partition: str, footer: Mapping[str, str] | None = None) -> None:
        """Write up to one row group of the rows that wait for a partition."""
        self._encoded()
        file = self._open.get(partition)
        if file is not None and file.is_full(self._options):
            self._finish(partition, footer)
            file = None
        waiting = self._waiting[partition]
        room = self._options.file_rows - (file.rows if file else 0)
        before = waiting.bytes
        table = waiting.take(min(self._options.row_group_rows, room))
        self._waiting_bytes += waiting.bytes - before
        if file is None:
            file = self._open_file(partition, waiting.day)
        self._open.move_to_end(partition)
        self._encoding = self._encoder.submit(file.write, table)
        if not waiting.pending:
            del self._waiting[partition]

    def _encoded(self) -> None:
        """Wait until the row group before this one is written.

        Raises:
            OSError: the disk refused it.
        """
        encoding, self._encoding = self._encoding, None
        if encoding is not None:
            encoding.result()

    def _open_file(self, partition: str, day: str) -> _OpenFile:
        while len(self._open) >= self._options.max_open:
            self._finish(next(iter(self._open)), None)
        self._options.check_lease()
        directory = self._directory / partition
        if directory not in self._made:
            make_dirs(directory, self._options.dir_mode)
            self._made.add(directory)
        self._sequence += 1
        path = directory / f"{self._stem}_{day}_{self._run}_{self._sequence:04d}.parquet"
        self._open[partition] = file = _OpenFile(path, partition, self._options)
        return file

    def _finish(self, partition: str, footer: Mapping[str, str] | None) -> None:
        self._encoded()
        # Stays in `_open` until it is finished: after an error `abort` still has its descriptor to close.
        self._staged.append(self._open[partition].finish({**self._footer, **(footer or {})}))
        del self._open[partition]


class _Waiting:
    """The rows that wait for one partition, in their order."""

    def __init__(self, schema: pa.Schema, day: str) -> None:
        self.day = day
        self.rows = 0
        self.bytes = 0
        self.pending = False
        self._schema = schema
        self._large: list[pa.RecordBatch] = []
        self._small: list[pa.RecordBatch] = []

    def add(self, batch: pa.RecordBatch) -> int:
        """Append rows; returns how many more bytes are held now."""
        if batch.get_total_buffer_size() > 2 * batch.nbytes + 4096:
            # A slice keeps the whole batch it was cut from alive, which `nbytes` does not count: copy it.
            batch = batch.take(indices(batch.num_rows))
        size = int(batch.nbytes)
        self._small.append(batch)
        self.pending = True
        self.rows += batch.num_rows
        self.bytes += size
        if len(self._small) == 1 and size >= _LARGE_BATCH:
            self._large.append(self._small.pop())
        elif len(self._small) >= _SMALL_BATCHES:
            # Thousands of tiny batches cost more in Arrow's own objects than their rows do.
            self._large += self._table(self._small).combine_chunks().to_batches()
            self._small = []
        return size

    def take(self, rows: int) -> pa.Table:
        """Remove the first rows, at most so many."""
        table = self._table([*self._large, *self._small])
        rest = table.slice(rows)
        self._large, self._small = (rest.to_batches(), []) if rest.num_rows else ([], [])
        self.rows, self.bytes, self.pending = rest.num_rows, rest.nbytes if rest.num_rows else 0, rest.num_rows > 0
        return table.slice(0, rows)

    def _table(self, batches: list[pa.RecordBatch]) -> pa.Table:
        return pa.Table.from_batches(batches, schema=self._schema)


class _OpenFile:
    """One Parquet file that is being written, and what is known of its rows."""

    def __init__(self, path: Path, partition: str, options: WriterOptions) -> None:
        self._path, self._partition, self._options = path, partition, options
        self._range = _Range()
        self.rows = 0
        self._sink = _Sink(path, options.file_mode)
        self._parquet: pq.ParquetWriter | None = None  # made by the encoder's thread, from the first rows

    def _begin(self, first: pa.Table) -> pq.ParquetWriter:
        options, dictionary = self._options, dictionary_columns(first)
        try:
            return pq.ParquetWriter(
                self._sink,
                first.schema,
                compression=options.compression,
                compression_level=options.compression_level,
                use_dictionary=dictionary,
                column_encoding=delta_columns(first.schema, dictionary),
                write_statistics=True,
                **_bloom_filters(options),
            )
        except TypeError:
            raise SchemaError("bloom_filter_columns: this pyarrow cannot write bloom filters; update it") from None

    def is_full(self, options: WriterOptions) -> bool:
        return self.rows >= options.file_rows or self._sink.tell() >= options.file_bytes

    def write(self, table: pa.Table) -> None:
        if self._parquet is None:
            self._parquet = self._begin(table)
        if table.num_rows:
            self._parquet.write_table(table, row_group_size=table.num_rows)
            self._range.add(table)
            self.rows += table.num_rows

    def finish(self, footer: Mapping[str, str]) -> StagedFile:
        assert self._parquet is not None, "a file is finished after its first rows"
        level = {LEVEL: str(self._options.compression_level)} if self._options.compression_level is not None else {}
        self._parquet.add_key_value_metadata({**footer, **level})
        self._parquet.close()
        self._sink.finish()
        known = self._range
        return StagedFile(
            staged=self._path,
            name=self._path.name,
            partition=self._partition,
            rows=self.rows,
            bytes=self._sink.tell(),
            crc32=self._sink.crc32,
            rowtime_min=known.rowtime_min,
            rowtime_max=known.rowtime_max,
            offsets=dict(sorted(known.offsets.items())),
        )

    def discard(self) -> None:
        # pyarrow writes a footer whenever it lets go of a writer; the sink must swallow it.
        self._sink.discard()
        if self._parquet is not None:
            with contextlib.suppress(Exception):
                self._parquet.close()
            self._parquet.is_open = False


class _Sink(io.RawIOBase):
    """An append-only file that counts and sums what it is given, in writes of about 256 KiB."""

    def __init__(self, path: Path, mode: int) -> None:
        self.crc32 = 0
        self._size = 0
        self._buffer = bytearray()
        self._handle: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        os.fchmod(self._handle, mode)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        if self._handle is not None:
            self.crc32 = zlib.crc32(view, self.crc32)
            self._buffer += view
            if len(self._buffer) >= _SINK_BUFFER:
                self._drain(self._handle)
        self._size += len(view)
        return len(view)

    def finish(self) -> None:
        """Make the content durable and close the file."""
        if self._handle is not None:
            self._drain(self._handle)
            os.fsync(self._handle)
            self.discard()

    def discard(self) -> None:
        """Close the file as it is; anything written later is discarded."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._buffer = bytearray()
            os.close(handle)

    def _drain(self, handle: int) -> None:
        with memoryview(self._buffer) as whole:
            done = 0
            while done < len(whole):
                done += os.write(handle, whole[done:])
        self._buffer = bytearray()


@dataclass
class _Range:
    """ROWTIME and Kafka offsets of the rows of one file, where its schema has them."""

    rowtime_min: int | None = None
    rowtime_max: int | None = None
    offsets: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        names = table.schema.names
        if "ROWTIME" in names and pa.types.is_timestamp(table.schema.field("ROWTIME").type):
            self._add_times(milliseconds(table.column("ROWTIME")))
        if "ROWPARTITION" in names and "ROWOFFSET" in names:
            known = table.select(["ROWPARTITION", "ROWOFFSET"]).drop_null()
            if known.num_rows and all(pa.types.is_integer(kind) for kind in known.schema.types):
                self._add_offsets(*(numbers(column.combine_chunks()) for column in known.columns))

    def _add_times(self, times: pa.ChunkedArray) -> None:
        bounds = pc.min_max(times).as_py()
        if bounds["min"] is not None:
            low, high = self.rowtime_min, self.rowtime_max
            self.rowtime_min = bounds["min"] if low is None else min(low, bounds["min"])
            self.rowtime_max = bounds["max"] if high is None else max(high, bounds["max"])

    def _add_offsets(self, partitions: np.ndarray[Any, Any], offsets: np.ndarray[Any, Any]) -> None:
        order = np.argsort(partitions, kind="stable")
        numbers, starts, counts = np.unique(partitions[order], return_index=True, return_counts=True)
        lowest = np.minimum.reduceat(offsets[order], starts)
        highest = np.maximum.reduceat(offsets[order], starts)
        for number, low, high, count in zip(
            numbers.tolist(), lowest.tolist(), highest.tolist(), counts.tolist(), strict=True
        ):
            before = self.offsets.get(number, (low, high, 0))
            self.offsets[number] = (min(before[0], low), max(before[1], high), before[2] + count)


def dictionary_columns(table: pa.Table) -> list[str]:
    """The Parquet columns worth a dictionary, measured on the first rows of a file.

    A dictionary of nearly unique values costs time and space (measured: -21 % time, -3 % size without).
    Nested columns keep it, unmeasured.
    """
    sample = table.slice(0, _SAMPLE_ROWS)
    chosen: list[str] = []
    for column, kind in zip(sample.schema, sample.schema.types, strict=True):
        if pa.types.is_nested(kind):
            chosen += _leaves(column.name, kind)
        elif not pa.types.is_boolean(kind):
            if _repeats(sample.column(column.name)):
                chosen.append(column.name)
    return chosen


def _repeats(sample: pa.ChunkedArray) -> bool:
    """Whether half of the values or more are repetitions; a few rows tell where it is clear."""
    few = _distinct(sample.slice(0, _FEW_ROWS)) if len(sample) > _FEW_ROWS else _DICTIONARY_RATIO
    if few <= _FEW_DISTINCT or few >= _ALL_DISTINCT:
        return few <= _FEW_DISTINCT
    return _distinct(sample) <= _DICTIONARY_RATIO


def _distinct(sample: pa.ChunkedArray) -> float:
    return float(pc.count_distinct(sample, mode="only_valid").as_py() / max(len(sample), 1))


def _resolved(names: Sequence[str], schema: pa.Schema) -> tuple[str, ...]:
    """These columns of the file, whatever the case of their names; pyarrow would ignore unknown names."""
    there = {name.casefold(): name for name in schema.names}
    unknown = [name for name in names if name.casefold() not in there]
    if unknown:
        raise SchemaError(
            f"bloom_filter_columns: {', '.join(unknown)} not among the columns: {', '.join(schema.names)}"
        )
    return tuple(there[name.casefold()] for name in names)


def _bloom_filters(options: WriterOptions) -> dict[str, Any]:
    """One filter for each row group; one in a hundred absent values passes it."""
    if not options.bloom_filter_columns:
        return {}
    one = {"ndv": options.row_group_rows, "fpp": 0.01}
    return {"bloom_filter_options": dict.fromkeys(options.bloom_filter_columns, one)}


def delta_columns(schema: pa.Schema, dictionary: Sequence[str]) -> dict[str, str]:
    """Offsets and times hardly differ from row to row: delta encoding saves 8 % of space (measured), at no cost."""
    return {
        field.name: "DELTA_BINARY_PACKED"
        for field in schema
        if field.name not in dictionary and (pa.types.is_int64(field.type) or pa.types.is_timestamp(field.type))
    }


def _leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    """The names Parquet gives to the leaves of a column."""
    if pa.types.is_struct(kind):
        for inner in kind:
            yield from _leaves(f"{path}.{inner.name}", inner.type)
    elif pa.types.is_map(kind):
        yield from _leaves(f"{path}.key_value.key", kind.key_type)
        yield from _leaves(f"{path}.key_value.value", kind.item_type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path
