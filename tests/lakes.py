"""Lakes of metadata only, as large as one likes: what a report reads, without the Parquet files it does not."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ksql_lake.model.partitions import day_path
from ksql_lake.model.state import FeedState
from ksql_lake.store.history import Run
from ksql_lake.store.metadata import as_text

LAST = dt.date(2025, 1, 17)


def a_run(**line: Any) -> Run:
    """A run as a line of the history tells it."""
    run = Run.read({"feed": "s", "ended": "2025-01-18T01:00:00Z", **line})
    assert run is not None
    return run


def many_feeds(number: int) -> list[str]:
    return [f"feed_{i:04d}" for i in range(number)]


def write_lake(lake: Path, names: Sequence[str], days: int) -> None:
    """Streams with one file on each of `days` days up to LAST, and one good run of each."""
    runs = []
    for number, name in enumerate(names):
        directory = lake / "streams" / name
        directory.mkdir(parents=True)
        files = [_file(LAST - dt.timedelta(days=days - 1 - step), number + step) for step in range(days)]
        state = {
            "source": name.upper(), "type": "stream", "storage_mode": "append", "format": "parquet",
            "last_export": "2025-01-18T01:00:00Z", "sequence": 1, "timezone": "UTC", "current": None, "findings": [],
            "files": files, "generation": 1, "schema_version": "1.0",
            "columns": [{"name": "ID", "disk_name": "ID", "ksql_type": "STRING", "arrow_type": "string", "key": False,
                         "since": "1.0"}],
            "schema_history": [{"version": "1.0", "at": "2024-01-01T00:00:00Z", "added": ["ID STRING"]}],
        }
        (directory / "_metadata.json").write_text(as_text(FeedState.from_json(state)))
        runs.append({"run": "r1", "feed": name, "type": "stream", "ended": "2025-01-18T01:00:00Z", "seconds": 1.5,
                     "result": "ok", "rows": 10, "bytes": 1000, "retries": 0, "findings": [],
                     "offsets": {"0": [5, 14]}})
    (lake / "logs").mkdir()
    (lake / "logs" / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))


def _file(day: dt.date, number: int) -> dict[str, object]:
    path = day_path(day)
    end = int(dt.datetime.combine(day, dt.time(23, 59), dt.UTC).timestamp() * 1000)
    return {
        "path": f"{path}/data_{day:%Y%m%d}_{number:06d}_0001.parquet", "partition": path, "rows": 100 + number % 7,
        "bytes": 2000 + number, "crc32": number, "compression": "snappy", "rowtime_min": end - 86_000_000,
        "rowtime_max": end, "offsets": {"0": [number, number + 99]}, "generation": 1, "run": "r1", "origin": "export",
        "schema_version": "1.0", "exported_at": f"{day + dt.timedelta(days=1)}T01:00:00Z",
    }
