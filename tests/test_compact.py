"""Small files of a day that is over become one; same rows, in order, never twice, killed anywhere."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.maintain.merges import plan
from ksql_lake.model.entries import FileSet
from tests.test_crash import content, drive, state, strays
from tests.test_retention import calendar

JAN15 = 1_736_899_200_000
DAY = 86_400_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    """Four nights that each touch the same two days; a column comes in between."""
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        database.create_stream("S", "`ID` STRING, `V` DECIMAL(12, 2)", 2)
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        for night in range(4):
            for i in range(10):
                database.append("S", i % 2, JAN15 + i % 2 * DAY, [f"e{night}_{i}", Decimal(i)])
            dates = ["--date", "2025-01-15"] if night == 3 else []
            assert export_to_data_lake.main(["--stream", "s", *dates, "--quiet"]) == 0
        yield database


def rows(lake: Path) -> list[tuple[str, int, int]]:
    frame = pd.read_parquet(lake / "streams" / "s")
    return sorted(zip(frame["ID"], frame["ROWPARTITION"], frame["ROWOFFSET"], strict=True))


def test_a_day_that_is_over_is_one_file(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    lake = tmp_path / "lake"
    before, metadata = rows(lake), lake / "streams" / "s" / "_metadata.json"
    known = json.loads(metadata.read_text())
    capsys.readouterr()
    assert manage_feeds.main(["compact", "--dry-run"]) == 0
    assert "7 files would become 2" in capsys.readouterr().out and rows(lake) == before
    assert manage_feeds.main(["compact", "--older-than", "2d"]) == 0
    files = sorted((lake / "streams").rglob("*.parquet"))
    assert len(files) == 2 and rows(lake) == before
    for path in files:
        table = pq.ParquetFile(path).read()
        order = list(zip(table["ROWPARTITION"].to_pylist(), table["ROWOFFSET"].to_pylist(), strict=True))
        assert order == sorted(order)
    after = json.loads(metadata.read_text())
    assert [after[key] for key in ("resume", "coverage", "total_records")] == [
        known[key] for key in ("resume", "coverage", "total_records")
    ]
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    assert manage_feeds.main(["compact"]) == 0 and "0 files became 0" in capsys.readouterr().out
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    wanted = sorted(f"e{night}_{i}" for night in range(4) for i in range(10))
    assert [row[0] for row in rows(lake)] == wanted, "nothing came twice, and what --date left came"


def test_the_small_files_stay_in_the_trash_for_some_days(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    lake = tmp_path / "lake"
    before = {path.name: path.read_bytes() for path in (lake / "streams").rglob("*.parquet")}
    assert manage_feeds.main(["compact"]) == 0
    assert {path.name: path.read_bytes() for path in (lake / ".trash").rglob("*.parquet")} == before
    assert manage_feeds.main(["undo"]) == 1, "bringing them back would double their rows"
    assert manage_feeds.main(["erase", "--where", "id=e0_0", "--later", "drop"]) == 0
    assert "2 rows erased" in capsys.readouterr().out
    for path in lake.rglob("*.parquet"):
        assert "e0_0" not in pq.ParquetFile(path).read()["ID"].to_pylist(), path
    assert len(rows(lake)) == 39 - 5, "30 of three nights less one, and the 5 that --date brought"
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    (lake / ".trash" / next((lake / ".trash").iterdir()).name).rename(lake / ".trash" / "2025-01-01")
    assert manage_feeds.main(["retention"]) == 0
    assert not list((lake / ".trash").rglob("*.parquet"))


@pytest.mark.parametrize("log", [True, False])
def test_metadata_are_rebuilt_from_merged_files(log: bool, ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    assert manage_feeds.main(["compact"]) == 0
    metadata = lake / "streams" / "s" / "_metadata.json"
    known = json.loads(metadata.read_text())
    metadata.unlink()
    if not log:
        (lake / ".state" / "s.jsonl").unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    after = json.loads(metadata.read_text())
    assert after["resume"] == known["resume"] and after["coverage"] == known["coverage"]
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    assert len(rows(lake)) == len({row[1:] for row in rows(lake)}) == 40


def test_only_small_files_of_days_that_are_over() -> None:
    made = calendar()
    first = [replace(file, generation=1) for file in made.files]
    twice = [replace(file, path=file.path + "2") for file in first]
    made.files = FileSet([*first, *twice])
    now = dt.datetime.fromisoformat("2025-02-22T12:00:00Z")
    merges = plan(made, 2, now)
    assert len(merges) == 391 and merges[-1].partition == "year=2025/month=02/day=20"
    assert all(len(merge.files) == 2 for merge in merges)
    assert plan(made, 2, now, target=1500) == [] and plan(made, 2, now, target=2100)[0].rows == 200
    made.files = FileSet([*first, *(replace(file, generation=2) for file in twice)])
    assert plan(made, 2, now) == [], "rows of two generations never share a file"


@pytest.mark.parametrize(("fault", "step"), [
    ("kill", 5), ("ENOSPC", 9), pytest.param("kill", 1, marks=pytest.mark.slow),
    pytest.param("ENOSPC", 5, marks=pytest.mark.slow),
])
def test_a_compaction_failing_at_every_nth_call(fault: str, step: int, ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    base = Path(shutil.copytree(lake, tmp_path / "base"))
    assert manage_feeds.main(["compact"]) == 0
    wanted, wanted_state = content(lake, "stream"), state(lake, "stream")
    tries = drive(base, tmp_path / "work", fault, step, "manage_feeds", "compact")
    assert len(tries) > 10 and not tries[-1]["fired"]
    for attempt in tries:
        copy = Path(attempt["lake"])
        assert attempt["again"] == 0 and "Traceback" not in attempt["error"], attempt
        assert content(copy, "stream") == wanted and strays(copy) == [], attempt
        assert state(copy, "stream") == wanted_state, attempt
        shutil.rmtree(copy)
