"""Days read again from the source, and feeds begun anew: nothing that anybody still has is lost or stands twice."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, Fault

JAN15 = 1_736_899_200_000
HOUR = 3_600_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        database.create_stream("S", "`ID` STRING, `V` INTEGER", 2)
        produce(database, 0, 72)
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        yield database


def produce(database: EmbeddedKsqlDB, first: int, last: int, prefix: str = "e") -> None:
    for i in range(first, last):
        database.append("S", i % 2, JAN15 + i * HOUR, [f"{prefix}{i}", i])


def export(*argv: str) -> int:
    return export_to_data_lake.main(list(argv or ("--all",)))


def reload(*argv: str) -> int:
    return manage_feeds.main(["reload", "s", *argv])


def files(lake: Path, day: str = "") -> list[Path]:
    return sorted(path for path in (lake / "streams" / "s").rglob("*.parquet") if f"day={day}" in path.as_posix())


def ids(lake: Path) -> list[str]:
    return sorted(value for path in files(lake) for value in pq.ParquetFile(path).read(["ID"])["ID"].to_pylist())


def names(*spans: tuple[int, int]) -> list[str]:
    return sorted(f"e{i}" for first, last in spans for i in range(first, last))


def well(lake: Path) -> bool:
    return metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0


def state(lake: Path) -> dict[str, Any]:
    return dict(json.loads((lake / "streams" / "s" / "_metadata.json").read_text()))


@pytest.fixture
def lake(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> Path:
    assert export() == 0
    return tmp_path / "lake"


@pytest.mark.parametrize("how", ["gone", "torn", "altered"])
@pytest.mark.parametrize("choice", ["date", "range", "all-missing"])
def test_a_file_that_was_lost_or_damaged_is_read_again(
    ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any, how: str, choice: str
) -> None:
    path = files(lake, "16")[0]
    if how == "gone":
        path.unlink()
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.write_bytes(path.read_bytes()[:-40] + b"x" * 40)
    before = state(lake)
    produce(ksqldb, 72, 80)
    assert not well(lake)
    assert "reload s --date 2025-01-16" in capsys.readouterr().out
    chosen = {
        "date": ["--date", "2025-01-16"], "range": ["--from", "2025-01-16", "--to", "2025-01-17"],
        "all-missing": ["--all-missing"],
    }
    assert reload(*chosen[choice]) == 0
    assert ids(lake) == names((0, 72)) and well(lake), "rows that came since are left for the export"
    for key in ("resume", "heads", "coverage"):
        assert state(lake)[key] == before[key]
    assert len(pd.read_parquet(lake / "streams" / "s" / "year=2025" / "month=01" / "day=16")) == 24
    assert reload("--all-missing") == 0 and "no file is gone or damaged" in capsys.readouterr().out
    assert export() == 0 and ids(lake) == names((0, 80)) and well(lake)
    assert manage_feeds.main(["undo", "s"]) == 1, "the files it replaced would double their rows"


def test_a_day_that_is_well_is_swapped_for_the_same_rows(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    old = files(lake, "15")
    assert reload("--date", "2025-01-15") == 0
    assert files(lake, "15") != old and ids(lake) == names((0, 72)) and well(lake)
    assert state(lake)["changes"][-1]["what"] == "reload: 24 rows of 2025-01-15"


def test_rows_the_source_no_longer_has_are_carried_over(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """Half of the second day has expired; its file is well, that of the third day is gone."""
    for partition in (0, 1):
        ksqldb.expire("S", partition, 18)
    files(lake, "17")[0].unlink()
    assert reload("--date", "2025-01-16", "--date", "2025-01-17") == 0
    assert "36 rows read again, 12 kept because the source no longer has them" in capsys.readouterr().out
    assert ids(lake) == names((0, 72)) and well(lake) and export() == 0


def test_what_nobody_has_any_more_is_given_up_only_when_told(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    for partition in (0, 1):
        ksqldb.expire("S", partition, 18)
    files(lake, "16")[0].unlink()
    before = (lake / "streams" / "s" / "_metadata.json").read_bytes()
    assert reload("--date", "2025-01-16") == 1
    told = capsys.readouterr().err
    assert "s: 12 rows of 2025-01-16 are in no readable file and no longer at the source" in told
    assert (lake / "streams" / "s" / "_metadata.json").read_bytes() == before
    assert not list((lake / ".staging").glob("s/*"))
    assert reload("--date", "2025-01-16", "--allow-loss") == 0
    assert ids(lake) == names((0, 24), (36, 72)) and well(lake)
    assert state(lake)["changes"][-1]["what"].endswith("12 rows given up")


def test_erased_rows_stay_away(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    """Also where the person's later events are kept, and those that came since are kept by a reload as well."""
    assert manage_feeds.main(["erase", "--where", "id=e30", "--later", "keep"]) == 0
    assert manage_feeds.main(["erase", "--where", "id=e31", "--later", "drop"]) == 0
    for value in ("e30", "e31"):
        ksqldb.append("S", 0, JAN15 + 30 * HOUR, [value, 1000])
    assert export() == 0
    wanted = sorted([*names((0, 30), (32, 72)), "e30"])
    assert ids(lake) == wanted
    assert reload("--date", "2025-01-16") == 0
    assert ids(lake) == wanted and well(lake)


def test_rows_in_quarantine_stay_there(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    path = tmp_path / "lake" / "feeds" / "active" / "s.json"
    check = {"check": "range", "column": "V", "max": 29, "level": "quarantine"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": [check]}))
    assert export() == 1
    lake = tmp_path / "lake"
    files(lake, "16")[0].unlink()
    assert reload("--date", "2025-01-16") == 0
    assert ids(lake) == names((0, 30)) and well(lake)


@pytest.mark.parametrize("fault", [Fault(cut_after=5), Fault(error_after=20), Fault(complete_after=30)])
def test_a_reading_that_was_cut_is_made_again(ksqldb: EmbeddedKsqlDB, lake: Path, fault: Fault) -> None:
    files(lake, "16")[0].unlink()
    ksqldb.faults.add(fault)
    assert reload("--date", "2025-01-16") == 0
    assert ids(lake) == names((0, 72)) and well(lake)


class Killed(BaseException):
    """Stands for the power cut: no handler catches it."""


@pytest.mark.parametrize("command", [
    ["reload", "s", "--date", "2025-01-16", "--date", "2025-01-17"], ["reset", "s", "--yes"],
])
def test_killed_at_every_rename(
    ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    """The old rows or the new ones, never both; the next run of anything finishes what was begun."""
    real = os.rename
    for number in range(1, 40):
        left = [number]

        def dying(source: Any, target: Any, left: list[int] = left, **more: Any) -> None:
            left[0] -= 1
            if not left[0]:
                raise Killed
            real(source, target, **more)

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(os, "rename", dying)
            manage_feeds.main(command)
        before = ids(lake)
        assert len(before) == len(set(before)), "a row stands twice while the change is half done"
        assert export() == 0 and ids(lake) == names((0, 72)) and well(lake)
        assert not list((lake / ".staging").glob("s/*"))
        if left[0] > 0:
            return
    raise AssertionError("a command that makes 40 renames?")


def test_another_topic_cannot_stand_in(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    files(lake, "16")[0].unlink()
    ksqldb.recreate("S")
    produce(ksqldb, 0, 60, "n")
    assert reload("--date", "2025-01-16") == 1
    assert "the topic was recreated" in capsys.readouterr().err and len(ids(lake)) == 48
    assert export() == 1 and reload("--date", "2025-01-16", "--generation", "1") == 1
    assert "no longer at the source" in capsys.readouterr().err
    assert reload("--date", "2025-01-16", "--generation", "2") == 0
    assert len(ids(lake)) == 48 + 60


def test_days_of_a_feed_that_only_some_days_have_filled(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert export("--stream", "s", "--date", "2025-01-16") == 0
    files(tmp_path / "lake", "16")[0].unlink()
    assert reload("--date", "2025-01-16") == 0 and ids(tmp_path / "lake") == names((24, 48))
    assert reload("--date", "2025-01-17") == 1
    assert "python export_to_data_lake.py --stream s --date 2025-01-17" in capsys.readouterr().err
    assert export() == 0 and ids(tmp_path / "lake") == names((0, 72))


def test_what_reload_does_not_do(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    assert reload() == 2 and "say which days" in capsys.readouterr().err
    ksqldb.create_table("T", "`K` STRING KEY, `N` BIGINT")
    assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "t"]) == 0
    assert manage_feeds.main(["reload", "t", "--date", "2025-01-16"]) == 1
    assert "python export_to_data_lake.py --table t" in capsys.readouterr().err


def test_a_feed_begun_anew_reads_all_again(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    assert manage_feeds.main(["reset", "s"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert manage_feeds.main(["reset", "s", "--yes"]) == 0
    assert ids(lake) == [] and well(lake)
    assert manage_feeds.main(["undo", "s"]) == 0
    assert ids(lake) == names((0, 72)) and well(lake) and state(lake)["generation"] == 1
    produce(ksqldb, 72, 75)
    assert export() == 0 and ids(lake) == names((0, 75)), "it goes on where it was"
    assert manage_feeds.main(["reset", "s", "--yes"]) == 0
    assert export() == 0 and ids(lake) == names((0, 75)) and well(lake)
    assert manage_feeds.main(["undo", "s"]) == 1 and "be in the lake twice" in capsys.readouterr().err
    assert ids(lake) == names((0, 75))


def test_one_generation_of_a_topic(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    ksqldb.recreate("S")
    produce(ksqldb, 0, 40, "n")
    assert export() == 1 and len(ids(lake)) == 112
    assert manage_feeds.main(["reset", "s", "--generation", "1", "--yes"]) == 0
    assert ids(lake) == sorted(f"n{i}" for i in range(40)) and well(lake)
    assert export() == 0 and len(ids(lake)) == 40
    assert manage_feeds.main(["undo", "s"]) == 0 and len(ids(lake)) == 112 and well(lake)
    assert manage_feeds.main(["reset", "s", "--generation", "2", "--yes"]) == 0
    assert ids(lake) == names((0, 72)) and state(lake)["generation"] == 3
    assert export() == 0 and len(ids(lake)) == 112 and well(lake)
    assert manage_feeds.main(["reset", "s", "--generation", "7", "--yes"]) == 1
    assert "no data of generation 7" in capsys.readouterr().err


def test_a_table_begun_anew(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    ksqldb.create_table("T", "`K` STRING KEY, `N` BIGINT")
    for i in range(5):
        ksqldb.upsert("T", [f"k{i}", i])
    assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "t"]) == 0
    for _ in range(2):
        assert export("--table", "t") == 0
    assert manage_feeds.main(["reset", "t", "--yes"]) == 0
    assert not list((lake / "tables" / "t").rglob("*.parquet")) and well(lake)
    assert export("--table", "t") == 0
    assert [path.name for path in (lake / "tables" / "t").glob("version=*")] == ["version=v3"]
    assert manage_feeds.main(["undo", "t"]) == 0 and well(lake)
    assert len(list((lake / "tables" / "t").glob("version=*"))) == 3
