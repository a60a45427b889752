"""Batches -> staged Parquet files: many partitions at once, in bounded memory, with few files open.

Rows wait per partition until a row group is full; when all waiting rows exceed `buffer_bytes`, the largest partition
is written first. A Parquet file cannot be reopened, so after a file that is closed early (full, or least recently
used) the partition simply gets another one. Encoding runs in a separate thread, one row group behind, while the caller
decodes the next rows: both spend their time in C++, outside Python's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from ksql_lake.base.arrays import indices
from ksql_lake.base.files import fsync_dir, make_dirs
from ksql_lake.store.encodings import resolved
from ksql_lake.store.open_file import LEVEL, OpenFile, StagedFile, WriterOptions, options_like

__all__ = ["LEVEL", "PartitionWriter", "StagedFile", "WriterOptions", "options_like"]
_SMALL_BATCHES = 64
_LARGE_BATCH = 256 << 10  # bytes


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
        self._open: OrderedDict[str, OpenFile] = OrderedDict()  # least recently used first
        self._made: set[Path] = set()
        self._staged: list[StagedFile] = []
        self._sequence = 0
        self._ended = False
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._encoding: Future[None] | None = None
        self._options = replace(options, bloom_filter_columns=resolved(options.bloom_filter_columns, schema))
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

    def _open_file(self, partition: str, day: str) -> OpenFile:
        while len(self._open) >= self._options.max_open:
            self._finish(next(iter(self._open)), None)
        self._options.check_lease()
        directory = self._directory / partition
        if directory not in self._made:
            make_dirs(directory, self._options.dir_mode)
            self._made.add(directory)
        self._sequence += 1
        path = directory / f"{self._stem}_{day}_{self._run}_{self._sequence:04d}.parquet"
        self._open[partition] = file = OpenFile(path, partition, self._options)
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
