"""States of feeds that were never exported, for what needs no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ksql_lake.model.entries import FileEntry, FileSet
from ksql_lake.model.recorded import RecordedColumn
from ksql_lake.model.state import FeedState


def made_state(kind: str, columns: Mapping[str, str] = {}, paths: Sequence[str] = ()) -> FeedState:  # noqa: B006
    """A stream or table with columns (name: type of ksqlDB) and a file of one row in each partition."""
    files = [
        FileEntry(f"{path}/{i}.parquet", path, 1, 100, 0, "r1", "export", "1.0", "2025-01-20T00:00:00Z")
        for i, path in enumerate(paths)
    ]
    recorded = tuple(RecordedColumn(name, name, type_, "", False, "1.0") for name, type_ in columns.items())
    return FeedState("S", kind, "2025-01-20T00:00:00Z", sequence=1, columns=recorded, files=FileSet(files))
