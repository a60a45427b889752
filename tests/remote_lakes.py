"""Lakes with a remote home: made once for each process, copied for each test, driven through the scripts."""

from __future__ import annotations

import datetime as dt
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.store.remote.seam import ObjectStore

DAY = dt.date(2025, 1, 15)
START = int(dt.datetime(2025, 1, 15, tzinfo=dt.UTC).timestamp() * 1000)
DAY_MS = 86_400_000
SETTINGS = {"IDLE_SECONDS": "0.1", "KSQLDB_TIMEOUT": "2"}


def fill(database: EmbeddedKsqlDB, night: int) -> None:
    """Rows of three days, six persons; of a table five totals."""
    for i in range(12):
        database.append("S", i % 2, START + i % 3 * DAY_MS + night, [f"e{night}_{i}", f"user_{i % 6}", Decimal(i)])
    for i in range(5):
        database.upsert("T", [f"k{i}", night * 10 + i], START + night)


def database() -> EmbeddedKsqlDB:
    made = EmbeddedKsqlDB()
    made.create_stream("S", "`ID` STRING, `USER_ID` STRING, `V` DECIMAL(12, 2)", 2)
    made.create_table("T", "`K` STRING KEY, `N` INTEGER")
    return made


@functools.cache
def _made() -> Path:
    """Two nights of a stream and a table."""
    lake = Path(tempfile.mkdtemp(prefix="remote_lake_")) / "lake"
    with pytest.MonkeyPatch.context() as patch, database() as server:
        for name, value in {**SETTINGS, "DATA_LAKE_DIR": str(lake), "KSQLDB_URL": server.url}.items():
            patch.setenv(name, value)
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s", "--access", "open"]) == 0
        assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "t"]) == 0
        for night in range(2):
            fill(server, night)
            assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    return lake


def lake_in(directory: Path) -> Path:
    """A copy of its own."""
    shutil.copytree(_made(), directory / "lake", symlinks=True)
    return directory / "lake"


def quarantine_two(lake: Path, patch: pytest.MonkeyPatch) -> None:
    """A third night, with a check that two of its twelve rows fail; they are in two files."""
    path = lake / "feeds" / "active" / "s.json"
    check = {"check": "range", "column": "V", "max": 9, "level": "quarantine"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checks": [check]}))
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url, "DATA_LAKE_DIR": str(lake)}.items():
            patch.setenv(name, value)
        assert export_to_data_lake.main(["--stream", "s", "--quiet"]) in (0, 1)


def remote(*command: str) -> int:
    """`manage_feeds.py remote ...` on the lake of the environment."""
    return manage_feeds.main(["remote", *command])


def use(store: ObjectStore, patch: pytest.MonkeyPatch, url: str = "s3://memory/lake") -> None:
    """Let the scripts find this store behind REMOTE."""
    patch.setenv("REMOTE", url)
    patch.setattr("ksql_lake.store.remote.connect.connect", lambda address, env: store)


def rows(lake: Path, name: str = "s") -> list[tuple[Any, ...]]:
    """What a reader sees of a feed, wherever it lies."""
    frame: pd.DataFrame = ksql_lake.read(name, lake=lake)
    return sorted(frame.astype(str).itertuples(index=False, name=None))


def metadata(lake: Path, name: str = "streams/s") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((lake / name / "_metadata.json").read_text())
    return found


def files_of(lake: Path, name: str = "streams/s") -> list[str]:
    """Parquet files on this disk, relative to the feed."""
    top = lake / name
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*.parquet"))


def data_keys(keys: Callable[[], list[str]]) -> list[str]:
    return [key for key in keys() if key.endswith(".parquet")]
