"""Guards that end by themselves, and commands over many feeds of which one is busy or broken."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.files import exclusive_lock
from ksql_lake.embedded import EmbeddedKsqlDB

DAY_MS = 86_400_000


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2")):
            monkeypatch.setenv(name, value)
        yield database


def add(name: str, kind: str, keep: int) -> None:
    unit = "days" if kind == "stream" else "versions"
    assert manage_feeds.main(["add", "--type", kind, "--name", name, "--source", name, f"--retention-{unit}",
                              str(keep)]) == 0


def stream(database: EmbeddedKsqlDB, name: str, ages: list[int], keep: int = 10) -> None:
    """A stream with an event of each age in days, exported."""
    database.create_stream(name.upper(), "`N` INTEGER", 1)
    now = int(time.time() * 1000)
    for age in ages:
        database.append(name.upper(), 0, now - age * DAY_MS, [age])
    add(name, "stream", keep)


def tomorrow(lake: Path, feed: str) -> list[str]:
    """What was remembered today was yesterday."""
    path = lake / feed / "_metadata.json"
    state = json.loads(path.read_text())
    days = [str(dt.date.fromisoformat(day) - dt.timedelta(days=1)) for day in state["retention_refused"]["days"]]
    state["retention_refused"]["days"] = days
    path.write_text(json.dumps(state))
    return days


def ages(lake: Path, name: str) -> list[int]:
    return sorted(pd.read_parquet(lake / "streams" / name)["N"].tolist())


def nights(lake: Path, feed: str, argv: list[str], words: str, capsys: Any) -> None:
    """Refused and told for three days, and then carried out."""
    for left in (3, 2, 1):
        for _ in range(2):
            capsys.readouterr()
            assert export_to_data_lake.main(argv) == 1
            said = capsys.readouterr().err
            assert words in said and f"is carried out after {left} more day" in said, said
        assert len(tomorrow(lake, feed)) == 4 - left
    assert export_to_data_lake.main(argv) == 0
    assert "retention_refused" not in json.loads((lake / feed / "_metadata.json").read_text())
    assert metadata_utils.main(["--verify", "--deep"]) == 0


def test_a_first_export_of_old_events(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    stream(ksqldb, "s", list(range(40)))
    nights(lake, "streams/s", ["--all", "--quiet"], "is the most at a time", capsys)
    assert ages(lake, "s") == list(range(11))
    assert manage_feeds.main(["undo", "s"]) == 0 and ages(lake, "s") == list(range(40))


def test_a_table_exported_by_hand(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any, monkeypatch: Any) -> None:
    """The number of versions to be taken grows from night to night; the refusal ends all the same."""
    ksqldb.create_table("T", "`K` STRING KEY")
    ksqldb.upsert("T", ["a"])
    add("t", "table", 2)
    for _ in range(3):
        assert export_to_data_lake.main(["--table", "t", "--quiet"]) == 0
    nights(lake, "tables/t", ["--all", "--quiet"], "is the most at a time", capsys)
    assert len(list((lake / "tables" / "t").glob("version=*"))) == 2


def test_one_absurd_time(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """Microseconds taken for milliseconds: the far day stays, and the others go as they should."""
    stream(ksqldb, "s", [12, *range(10)])
    ksqldb.append("S", 0, int(time.time() * 1_000_000), [-1])
    path = lake / "feeds" / "active" / "s.json"
    checks = [{"check": "freshness", "hours": 26}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": checks, "freshness_hours": 26}))
    nights(lake, "streams/s", ["--all", "--quiet"], "is this machine's clock right?", capsys)
    assert ages(lake, "s") == [-1, *range(10)]
    ksqldb.append("S", 0, int(time.time() * 1000) - 13 * DAY_MS, [13])
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0, "that day is no reason any more"
    assert ages(lake, "s") == [-1, *range(10)]
    ksqldb.append("S", 0, int(time.time() * 1000) - 13 * DAY_MS, [13])
    ksqldb.append("S", 0, int(time.time() * 1000) + 300 * DAY_MS, [-2])
    assert export_to_data_lake.main(["--all", "--quiet"]) == 1, "another one is"
    assert manage_feeds.main(["retention", "s", "--allow", "clock"]) == 0
    capsys.readouterr()
    assert metadata_utils.main(["--report"]) == 0
    said = capsys.readouterr().out
    assert "no rows on 2 days" in said and "9999-12-3" not in said.split("no rows on")[1].splitlines()[0], said


def test_another_rule_begins_anew(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    stream(ksqldb, "s", list(range(40)))
    assert export_to_data_lake.main(["--all", "--quiet"]) == 1
    tomorrow(lake, "streams/s")
    path = lake / "feeds" / "active" / "s.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "retention_days": 5}))
    capsys.readouterr()
    assert export_to_data_lake.main(["--all", "--quiet"]) == 1
    assert "after 3 more days" in capsys.readouterr().err
    assert manage_feeds.main(["retention", "s", "--max-delete", "100"]) == 0
    assert ages(lake, "s") == list(range(6)), "by hand at once"


def test_a_clock_that_was_ahead_counts_for_nothing(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    stream(ksqldb, "s", list(range(40)))
    assert export_to_data_lake.main(["--all", "--quiet"]) == 1
    path = lake / "streams" / "s" / "_metadata.json"
    state = json.loads(path.read_text())
    state["retention_refused"]["days"] = ["2090-01-01", "2090-01-02", "2090-01-03"]
    path.write_text(json.dumps(state))
    assert export_to_data_lake.main(["--all", "--quiet"]) == 1
    assert "after 3 more days" in capsys.readouterr().err and len(ages(lake, "s")) == 40
    assert len(json.loads(path.read_text())["retention_refused"]["days"]) == 1


@pytest.mark.parametrize(("argv", "done"), [
    (["retention", "--max-delete", "100"], "retention"), (["compact", "--older-than", "1d"], "compact"),
])
@pytest.mark.parametrize(("trouble", "code"), [("busy", 3), ("broken", 1), ("both", 1)])
def test_each_feed_by_itself(
    argv: list[str], done: str, trouble: str, code: int, ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any
) -> None:
    for name in ("a", "b", "c"):
        stream(ksqldb, name, [12, 11, 5, 5, 1])
        for _ in range(2):
            ksqldb.append(name.upper(), 0, int(time.time() * 1000) - 5 * DAY_MS, [5])
            assert export_to_data_lake.main(["--stream", name, "--quiet"]) == 0
    if trouble != "busy":
        (lake / "streams" / "b" / "_metadata.json").write_text("{")
    locks = [lake / ".state" / "a.lock"] if trouble != "broken" else []
    capsys.readouterr()
    for lock in locks:
        with exclusive_lock(lock, "a"):
            assert manage_feeds.main(argv) == code
    if not locks:
        assert manage_feeds.main(argv) == code
    said = capsys.readouterr()
    if trouble != "broken":
        assert "error: a: another run (pid" in said.err
    if trouble != "busy":
        assert "streams/b/_metadata.json: not readable as JSON" in said.err
    assert "c  " in said.out and ("a  " in said.out) == (trouble == "broken")
    assert len(ages(lake, "c")) == (5 if done == "retention" else 7)
    assert len(list((lake / "streams" / "c").rglob("*.parquet"))) == (3 if done == "retention" else 4)


def test_a_busy_feed_named_alone(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    stream(ksqldb, "a", [1])
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    with exclusive_lock(lake / ".state" / "a.lock", "a"):
        assert manage_feeds.main(["retention", "a"]) == 3 and manage_feeds.main(["compact", "a"]) == 3
