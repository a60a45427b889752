"""A lake that an earlier version wrote loads, verifies, is read, reported, rebuilt and exported on as it is."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.store import metadata, state_log
from ksql_lake.store.metadata import Dataset

OLD = Path(__file__).parent / "old_lake" / "lake.zip"
JAN15 = 1_736_899_200_000
QUARANTINED = {f"e{i}" for i in range(69, 75)}
ERASED = {"e5"}


def rows(database: EmbeddedKsqlDB, first: int, last: int) -> None:
    for i in range(first, last):
        amount = None if i % 7 == 0 else Decimal(i) / 4
        values: list[Any] = [f"e{i}", amount, i, {"CITY": f"c{i % 3}"}, [i, None]]
        database.append("EVENTS", i % 2, JAN15 + i * 3_600_000, values)


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    """The source as it was when the old lake was last exported."""
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.2"), ("KSQLDB_TIMEOUT", "2"),
                            ("RETENTION", "off")):
            monkeypatch.setenv(name, value)
        database.create_stream(
            "EVENTS", "`ID` STRING, `AMOUNT` DECIMAL(10, 2), `N` BIGINT, `WHERE` STRUCT<`CITY` STRING>, "
            "`TAGS` ARRAY<BIGINT>", 2,
        )
        database.create_table("TOTALS", "`K` STRING KEY, `TOTAL` DECIMAL(12, 2)")
        rows(database, 0, 75)
        database.append("EVENTS", 0, JAN15, ["e5", None, 1, None, None])
        for i in range(4):
            database.upsert("TOTALS", [f"k{i}", Decimal(i)])
        database.upsert("TOTALS", ["k9", Decimal("9.99")])
        yield database


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    lake = tmp_path / "lake"
    with zipfile.ZipFile(OLD) as old:
        old.extractall(lake)
    for path in lake.rglob("*"):  # a ZIP file keeps no modes
        path.chmod(0o750 if path.is_dir() else 0o640)
    return lake


def ids(lake: Path) -> list[str]:
    return sorted(ksql_lake.read("events", lake=lake)["ID"])


def expected(last: int) -> list[str]:
    return sorted({f"e{i}" for i in range(last)} - QUARANTINED - ERASED)


def test_it_is_read_verified_and_reported(lake: Path, capsys: Any) -> None:
    assert ids(lake) == expected(75)
    assert len(pd.read_parquet(lake / "streams" / "events")) == len(expected(75))
    assert len(ksql_lake.read("totals", lake=lake)) == 5 and len(ksql_lake.read("totals", lake=lake, version=1)) == 4
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) in (0, 1)
    out = capsys.readouterr().out
    assert not [line for line in out.splitlines() if ".parquet" in line and "mode" not in line], out
    assert metadata_utils.main(["--report", "--json", "--lake", str(lake)]) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert "events" in json.dumps(told) and "totals" in json.dumps(told)


def test_its_state_loses_nothing_when_it_is_written_again(lake: Path) -> None:
    for kind, name in (("stream", "events"), ("table", "totals")):
        dataset = Dataset(lake, name, kind)
        old = json.loads(dataset.metadata.read_text())
        state = metadata.load(dataset)
        assert state is not None and json.loads(metadata.as_text(state)) == old
        logged = list(state_log.states(dataset.log))
        assert logged[-1].sequence == state.sequence == len(logged)
        assert logged[-1].typed().resume == state.resume


def test_it_is_exported_on(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    assert export_to_data_lake.main(["--all"]) in (0, 1)
    assert ids(lake) == expected(75), "nothing twice, nothing lost"
    rows(ksqldb, 75, 76)
    ksqldb.append("EVENTS", 0, JAN15, ["new", None, 1, None, None])
    ksqldb.append("EVENTS", 0, JAN15, ["e5", None, 1, None, None])
    assert export_to_data_lake.main(["--all"]) == 1, "row 75 is above the range of its check"
    assert ids(lake) == sorted([*expected(75), "new"]), "the erased person does not come back"
    assert ksql_lake.read("totals", lake=lake, version=5) is not None
    assert manage_feeds.main(["undo", "events"]) in (0, 1)
    assert metadata_utils.main(["--verify", "--deep"]) in (0, 1)


def test_it_is_rebuilt(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    before = metadata.load(Dataset(lake, "events", "stream"))
    (lake / "streams" / "events" / "_metadata.json").unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "events"]) == 0
    after = metadata.load(Dataset(lake, "events", "stream"))
    assert before is not None and after is not None
    assert (after.resume, after.coverage, after.total_records) == (before.resume, before.coverage, before.total_records)
    shutil.rmtree(lake / ".state")
    (lake / "streams" / "events" / "_metadata.json").unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "events"]) == 0
    assert ids(lake) == expected(75)
    assert export_to_data_lake.main(["--stream", "events"]) in (0, 1)
    assert set(ids(lake)) >= set(expected(75)) and len(ids(lake)) == len(set(ids(lake)))
