"""Whole exports that fail at every Nth call that changes the file system, in the way SQLite's authors test theirs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.maintain.verify import verify
from ksql_lake.store import metadata
from tests.conftest import ROOT

JAN15 = 1_736_899_200_000
TIMES = (
    "last_export", "created_at", "exported_at", "ended", "at", "run", "crc32", "bytes", "size_mb", "total_size_mb",
)


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        database.create_stream("S", "`ID` STRING, `V` DECIMAL(12, 2)", 2)
        for i in range(30):
            database.append("S", i % 2, JAN15 + i * 3_600_000 * 4, [f"e{i}", Decimal(i)])
        database.create_table("T", "`ID` STRING KEY, `V` INTEGER")
        for i in range(20):
            database.upsert("T", [f"k{i}", i])
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        yield database


def prepare(lake: Path, kind: str, ksqldb: EmbeddedKsqlDB) -> None:
    """A lake that holds an earlier export, and something new at the source."""
    name = "s" if kind == "stream" else "t"
    assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
    assert export_to_data_lake.main([f"--{kind}", name]) == 0
    for i in range(30, 44):
        ksqldb.append("S", i % 2, JAN15 + i * 3_600_000 * 4, [f"e{i}", Decimal(i)])
    ksqldb.upsert("T", ["k99", 99])


def drive(base: Path, work: Path, fault: str, step: int, *argv: str) -> list[dict[str, Any]]:
    work.mkdir()
    command = [sys.executable, "-m", "tests.fault_driver", str(base), str(work), fault, str(step), "400", "--", *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def content(lake: Path, kind: str) -> list[tuple[Any, ...]]:
    """Every row that a reader who looks at the directory sees, sorted; fails on a torn file."""
    rows: list[tuple[Any, ...]] = []
    for path in sorted((lake / f"{kind}s").rglob("*.parquet")):
        table = pq.ParquetFile(path).read()
        rows += [(path.parent.relative_to(lake).as_posix(), *map(str, row.values())) for row in table.to_pylist()]
    return sorted(rows)


def comparable(value: Any) -> Any:
    """Metadata without times, run ids and what follows from them; lists of files in the order of what they hold."""
    if isinstance(value, dict):
        named_by_run = ("path",) if "crc32" in value else ("salt", "hash") if "rowtime" in value else ()
        return {key: comparable(item) for key, item in value.items() if key not in (*TIMES, *named_by_run)}
    if isinstance(value, list):
        return sorted((comparable(item) for item in value), key=repr)
    return value


def state(lake: Path, kind: str) -> Any:
    name = "s" if kind == "stream" else "t"
    dataset = metadata.Dataset(lake, name, kind)
    loaded = metadata.load(dataset)
    assert loaded is not None
    assert verify(dataset, loaded, deep=True) == []
    shown = comparable(loaded.to_json())
    # one more commit is what a run makes that finds the work done already
    return {key: item for key, item in shown.items() if key not in ("sequence", "last_run")}


def strays(lake: Path) -> list[str]:
    return [path.as_posix() for path in lake.rglob("*") if path.name.endswith(".inprogress")] + [
        path.as_posix() for path in (lake / ".staging").glob("*/*")
    ]


@pytest.mark.parametrize("kind", ["stream", "table"])
@pytest.mark.parametrize(("fault", "step"), [
    ("kill", 4), ("ENOSPC", 5), ("EIO", 5), ("EACCES", 6),
    *(pytest.param(fault, step, marks=pytest.mark.slow)
      for fault, step in (("kill", 1), ("ENOSPC", 3), ("EIO", 3), ("EACCES", 3))),
])
def test_an_export_failing_at_every_nth_call(
    kind: str, fault: str, step: int, ksqldb: EmbeddedKsqlDB, tmp_path: Path
) -> None:
    """Old state or new state for every reader; one good run later nothing is lost, doubled or left over."""
    lake, name = tmp_path / "lake", "s" if kind == "stream" else "t"
    prepare(lake, kind, ksqldb)
    base = Path(shutil.copytree(lake, tmp_path / "base"))
    assert export_to_data_lake.main([f"--{kind}", name]) == 0
    wanted, wanted_state = content(lake, kind), state(lake, kind)
    tries = drive(base, tmp_path / "work", fault, step, "export_to_data_lake", f"--{kind}", name)
    assert len(tries) > 12 and not tries[-1]["fired"]
    for attempt in tries:
        copy = Path(attempt["lake"])
        if fault != "kill" and attempt["fired"]:
            assert "bug" not in attempt["error"] and "Traceback" not in attempt["error"], attempt
            assert attempt["code"] != 0 or not attempt["error"], attempt
        assert attempt["again"] == 0, attempt
        if kind == "stream":
            assert content(copy, kind) == wanted, attempt
            assert state(copy, kind) == wanted_state, attempt
        else:
            versions = {row[0] for row in content(copy, kind)}
            assert versions <= {f"tables/t/version=v{n}" for n in (1, 2, 3)}, attempt
            newest = [row[1:] for row in content(copy, kind) if row[0] == max(versions)]
            assert newest == [row[1:] for row in wanted if row[0] == "tables/t/version=v2"], attempt
            state(copy, kind)
        assert strays(copy) == [], attempt
        shutil.rmtree(copy)
    os.environ.pop("DATA_LAKE_DIR", None)
