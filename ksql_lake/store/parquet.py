"""Opens the Parquet files of a lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def open_parquet(source: Path | Any) -> pq.ParquetFile:
    """A file on this disk, or an open file of another file system; a context manager.

    Raises:
        FileNotFoundError: it is gone: names are never used again, so the metadata changed meanwhile.
        ArrowException, OSError: it is torn.
    """
    return pq.ParquetFile(source)
