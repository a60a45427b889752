"""Opens the Parquet files of a lake."""

from __future__ import annotations

import zlib
from pathlib import PurePath

import pyarrow as pa
import pyarrow.parquet as pq

from ksql_lake.model.footer import Footer
from ksql_lake.store.layout import storage_of

PIECE = 1 << 20  # bytes that are read at a time


def open_parquet(place: PurePath) -> pq.ParquetFile:
    """A file of the lake, or one that is staged; a context manager.

    Raises:
        FileNotFoundError: it is gone: names are never used again, so the metadata changed meanwhile.
        ArrowException, OSError: it is torn.
    """
    return storage_of(place).parquet(place)


def footer_of(place: PurePath) -> Footer | None:
    """What a file says of itself; None of somebody else's. Raises as `open_parquet`."""
    with open_parquet(place) as parquet:
        return Footer.read(parquet.metadata.metadata or {})


def checksum_of(place: PurePath) -> int:
    """The CRC-32 of a whole file."""
    checksum = 0
    with storage_of(place).open(place) as raw:
        while piece := raw.read(PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def as_parquet(table: pa.Table) -> bytes:
    """A small table as the content of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy")
    return bytes(sink.getvalue().to_pybytes())
