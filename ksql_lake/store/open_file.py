"""One Parquet file that is being written in staging: how it is encoded, its bytes, and what is known of its rows."""

from __future__ import annotations

import contextlib
import io
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksql_lake.base.arrays import milliseconds, numbers
from ksql_lake.base.errors import SchemaError, StateError
from ksql_lake.model.entries import FileEntry
from ksql_lake.store.encodings import bloom_filters, delta_columns, dictionary_columns

LEVEL = "ksql_lake.compression_level"  # in the footer: the file itself names the codec only
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


class OpenFile:
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
                **bloom_filters(options.bloom_filter_columns, options.row_group_rows),
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
