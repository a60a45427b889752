"""Retention as a plan over a fixed calendar, carried out, undone, and killed in between; versions and their pointer."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.maintain.retention import Rule, plan
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.partitions import day_path, version_path
from ksql_lake.model.state import Current, FeedState, new_stream, new_table
from tests.test_crash import comparable, drive, state, strays

GOLDEN = Path(__file__).parent / "golden"
DAY_MS = 86_400_000


def entry(partition: str, rows: int = 1, size: int = 1) -> FileEntry:
    return FileEntry.from_json({
        "path": f"{partition}/f.parquet", "partition": partition, "rows": rows, "bytes": size, "exported_at": "t"
    })


def calendar(timezone: str = "UTC") -> FeedState:
    """400 days from 2024-01-20 (a leap day among them), every 50th missing, 100 rows and 1,000 bytes a day."""
    made = new_stream("s", timezone, None, "2024-01-20T02:00:00Z")
    for i in range(400):
        if i % 50 == 49:
            continue
        path = day_path(dt.date(2024, 1, 20) + dt.timedelta(days=i))
        made.files.add([entry(path, 100, 1000)])
    made.last_export = "2025-02-23T02:00:00Z"
    return made


def shown(*plans: Any) -> str:
    """A plan as a golden file holds it: every day that goes, the days around the border, the refusal."""
    lines = []
    for title, made in plans:
        lines += [f"# {title}", f"refused: {made.refusal}" if made.refusal else "not refused"]
        lines.append(f"goes: {len(made.going)} partitions, {made.rows} rows, {made.bytes} bytes")
        said = [f"{'goes ' if d.goes else 'stays'} {d.partition}  {d.reason}" for d in made.decisions]
        border = [i for i in range(1, len(said)) if said[i][:5] != said[i - 1][:5]]
        leap = [i for i, d in enumerate(made.decisions) if d.partition.endswith("month=02/day=29")]
        near = {0, len(said) - 1, *(i + j for i in [*border, *leap] for j in (-2, -1, 0, 1))}
        lines += [said[i] for i in sorted(near) if 0 <= i < len(said)]
    return "\n".join(lines) + "\n"


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def test_the_calendar_of_400_days() -> None:
    night, paris = calendar(), calendar("Europe/Paris")
    got = shown(
        ("365 days, the night after the last export", plan("s", night, Rule(365), moment("2025-02-24T02:00:00Z"))),
        ("361 days: the leap day stays", plan("s", night, Rule(361), moment("2025-02-24T02:00:00Z"))),
        ("360 days: the leap day goes too", plan("s", night, Rule(360), moment("2025-02-24T02:00:00Z"))),
        ("Paris, half past midnight there", plan("s", paris, Rule(365), moment("2025-02-23T23:30:00Z"))),
        ("the clock is a year behind", plan("s", night, Rule(30), moment("2024-02-24T02:00:00Z"))),
        ("the clock is a year ahead", plan("s", night, Rule(365), moment("2026-02-24T02:00:00Z"))),
        ("nothing is said of days", plan("s", night, Rule(), moment("2025-02-24T02:00:00Z"))),
    )
    golden = GOLDEN / "retention_400_days.txt"
    assert got == golden.read_text(), "the plan over the calendar changed"


@pytest.mark.parametrize(("rule", "now", "words"), [
    (Rule(100), "2025-02-24T02:00:00Z", "is the most at a time"),
    (Rule(30), "2025-02-10T02:00:00Z", "in the future by this machine's clock"),
    (Rule(30), "2025-06-24T02:00:00Z", "last good export was at 2025-02-23T02:00:00Z"),
])
def test_guards_and_how_they_are_lifted(rule: Rule, now: str, words: str) -> None:
    refused = plan("s", calendar(), rule, moment(now))
    assert refused.refusal and words in refused.refusal and not refused.going and refused.rows == 0
    guards = frozenset(("clock", "stale", "amount"))
    lifted = plan("s", calendar(), Rule(rule.days, allow=guards), moment(now))
    assert lifted.refusal is None and lifted.going


def test_an_event_of_the_future_is_a_clock_to_look_at() -> None:
    night = calendar()
    path = day_path(dt.date(2031, 1, 1))
    night.files.add([entry(path)])
    refused = plan("s", night, Rule(380), moment("2025-02-24T02:00:00Z"))
    assert refused.refusal and "is this machine's clock right?" in refused.refusal
    assert plan("s", night, Rule(380, allow=frozenset(["clock"])), moment("2025-02-24T02:00:00Z")).going


def test_versions_stay_newest_current_and_pinned() -> None:
    made = new_table("t", "x")
    for number in range(1, 13):
        path = version_path(number)
        made.files.add([entry(path)])
    made.current, made.last_version, made.pinned = Current("v2", "version=v2"), 12, ("v3",)
    made.last_export = "2025-01-01T00:00:00Z"
    decided = plan("t", made, Rule(versions=7, max_share=0.5), moment("2030-01-01T00:00:00Z"))
    assert [d.partition for d in decided.going] == [f"version=v{n}" for n in (1, 4, 5)]
    reasons = {d.partition: d.reason for d in decided.decisions}
    assert reasons["version=v2"] == "the current version" and reasons["version=v3"] == "pinned"
    assert reasons["version=v12"] == "the newest version" and reasons["version=v6"] == "one of the newest 7"


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        yield database


def fill(ksqldb: EmbeddedKsqlDB, days: int = 20) -> None:
    """A stream with one event on each of the last days and 10 days kept; a table with four versions, two kept."""
    today = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
    ksqldb.create_stream("S", "`ID` STRING, `V` DECIMAL(12, 2)", 2)
    for i in range(days):
        ksqldb.append("S", i % 2, today - (days - 1 - i) * DAY_MS, [f"e{i}", Decimal(i)])
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER")
    add = ["add", "--type", "stream", "--name", "s", "--source", "s", "--retention-days", "10"]
    assert manage_feeds.main(add) == 0
    add = ["add", "--type", "table", "--name", "t", "--source", "t", "--retention-versions", "2"]
    assert manage_feeds.main(add) == 0
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    for i in range(4):
        ksqldb.upsert("T", [f"k{i}", i])
        assert export_to_data_lake.main(["--table", "t"]) == 0


def ids(lake: Path) -> list[str]:
    return sorted(pd.read_parquet(lake / "streams" / "s")["ID"])


def test_retention_moves_what_is_too_old_and_undo_brings_it_back(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    lake = tmp_path / "lake"
    fill(ksqldb)
    everything = ids(lake)
    assert manage_feeds.main(["retention", "s"]) == 1, "45 % of the bytes"
    assert "is the most at a time" in capsys.readouterr().err and ids(lake) == everything
    assert manage_feeds.main(["retention", "s", "--dry-run", "--max-delete", "50"]) == 0
    plan_text = capsys.readouterr().out
    assert plan_text.count(" goes ") == 9 and "10 are kept" in plan_text and "9 rows" in plan_text
    assert ids(lake) == everything
    assert manage_feeds.main(["retention", "s", "--max-delete", "50"]) == 0
    assert len(ids(lake)) == 11 and metadata_utils.main(["--verify", "--deep"]) == 0
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    assert len(ids(lake)) == 11, "what retention took does not come back by itself"
    capsys.readouterr()
    assert manage_feeds.main(["undo", "--list"]) == 0
    assert "9 rows" in capsys.readouterr().out
    assert manage_feeds.main(["undo"]) == 0
    assert ids(lake) == everything and metadata_utils.main(["--verify", "--deep"]) == 0
    assert not list((lake / ".trash").rglob("*.*")) and manage_feeds.main(["undo"]) == 1


def test_a_night_takes_what_is_too_old_and_empties_the_trash(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    lake = tmp_path / "lake"
    fill(ksqldb, 12)
    old = lake / ".trash" / "2020-01-01" / "s" / "r"
    old.mkdir(parents=True)
    assert export_to_data_lake.main(["--all"]) == 1, "two versions of four at once"
    assert "t: retention: " in capsys.readouterr().err
    assert len(ids(lake)) == 11 and not old.exists() and not old.parents[2].joinpath("2020-01-01").exists()
    assert len(list((lake / "tables" / "t").glob("version=*"))) == 5
    monkeypatch.setenv("MAX_DELETE_PERCENT", "90")
    assert export_to_data_lake.main(["--all"]) == 0
    assert sorted(p.name for p in (lake / "tables" / "t").glob("version=*")) == ["version=v5", "version=v6"]
    monkeypatch.setenv("RETENTION", "off")
    assert export_to_data_lake.main(["--all"]) == 0
    assert len(list((lake / "tables" / "t").glob("version=*"))) == 3
    assert metadata_utils.main(["--verify", "--deep"]) == 0


def test_a_link_in_the_lake_is_never_followed(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    lake = tmp_path / "lake"
    fill(ksqldb, 12)
    oldest = min((lake / "streams" / "s").rglob("day=*"), key=str)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(oldest, elsewhere)
    oldest.symlink_to(elsewhere)
    assert manage_feeds.main(["retention", "s"]) == 1
    assert "symbolic link is in the way" in capsys.readouterr().err
    assert len(list(elsewhere.glob("*.parquet"))) == 1


def test_versions_rollback_pin(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    lake = tmp_path / "lake"
    fill(ksqldb, 3)
    assert manage_feeds.main(["rollback", "t", "v9"]) == 1
    assert "has no version v9; its versions: v1, v2, v3, v4" in capsys.readouterr().err
    assert manage_feeds.main(["rollback", "t", "v1"]) == 0 and manage_feeds.main(["pin", "t", "v2"]) == 0
    capsys.readouterr()
    assert manage_feeds.main(["versions", "t", "--json"]) == 0
    found = {v["name"]: v for v in json.loads(capsys.readouterr().out)}
    assert found["v1"]["current"] and found["v2"]["pinned"] and not found["v4"]["current"]
    known = json.loads((lake / "tables/t/_metadata.json").read_text())
    assert [c["what"] for c in known["changes"]] == ["rollback: current is v1, was v4", "pin: v2"]
    assert all(c["by"] and c["at"] for c in known["changes"])
    assert export_to_data_lake.main(["--table", "t"]) == 0
    assert json.loads((lake / "tables/t/_metadata.json").read_text())["current"]["version"] == "v5"
    assert manage_feeds.main(["rollback", "s", "v1"]) == 1
    assert metadata_utils.main(["--rebuild", "--feed", "t"]) == 0
    after = json.loads((lake / "tables/t/_metadata.json").read_text())
    assert after["pinned"] == ["v2"] and after["current"]["version"] == "v5"


COMMANDS = {
    "retention_s": ("s", ["retention", "s", "--max-delete", "90"]),
    "retention_t": ("t", ["retention", "t", "--max-delete", "90"]),
    "undo": ("s", ["undo", "s"]),
    "rollback": ("t", ["rollback", "t", "v2"]),
    "pin": ("t", ["pin", "t", "v1"]),
}


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.parametrize(("fault", "step"), [
    ("kill", 3), ("ENOSPC", 4), ("EIO", 4), ("EACCES", 4), pytest.param("kill", 1, marks=pytest.mark.slow),
])
def test_a_change_failing_at_every_nth_call(
    name: str, fault: str, step: int, ksqldb: EmbeddedKsqlDB, tmp_path: Path
) -> None:
    """Each file is where it was or where it goes; one good run later the lake is as if nothing had failed."""
    lake = tmp_path / "lake"
    feed, command = COMMANDS[name]
    kind = "stream" if feed == "s" else "table"
    fill(ksqldb, 13)
    if name == "undo":
        assert manage_feeds.main(["retention", "s"]) == 0
    base = Path(shutil.copytree(lake, tmp_path / "base"))
    assert manage_feeds.main(command) == 0
    wanted, wanted_state, files = content(lake, kind), state(lake, kind), trash_content(lake)
    before = content(base, kind)
    tries = drive(base, tmp_path / "work", fault, step, "manage_feeds", *command)
    assert len(tries) > 5 and not tries[-1]["fired"]
    for attempt in tries:
        copy = Path(attempt["lake"])
        if attempt["fired"]:
            assert "Traceback" not in attempt["error"], attempt
            # an undo that was done but for its clean-up finds nothing more to bring back
            assert attempt["again"] == 0 or (name == "undo" and attempt["again"] == 1), attempt
        got = content(copy, kind)
        assert got == wanted, (attempt, len(got), len(before))
        assert state(copy, kind) == wanted_state and trash_content(copy) == files, attempt
        assert strays(copy) == [], attempt
        shutil.rmtree(copy)


def content(lake: Path, kind: str) -> list[str]:
    """Every file a reader finds, and what it holds."""
    return sorted(
        f"{path.relative_to(lake)} {len(pd.read_parquet(path))}" for path in (lake / f"{kind}s").rglob("*.parquet")
    )


def trash_content(lake: Path) -> list[str]:
    """Without the day and the run it went."""
    trash = lake / ".trash"
    return sorted("/".join(path.relative_to(trash).parts[3:]) for path in trash.rglob("*.parquet"))


def test_comparable_leaves_who_did_what() -> None:
    assert comparable({"changes": [{"at": "x", "by": "me", "what": "pin: v1"}]}) == {
        "changes": [{"by": "me", "what": "pin: v1"}]
    }


def test_a_reconciliation_explains_what_retention_took(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    fill(ksqldb, 13)
    assert manage_feeds.main(["retention", "s"]) == 0
    capsys.readouterr()
    assert metadata_utils.main(["--reconcile", "s"]) == 0
    assert capsys.readouterr().out.count("1 removed from the lake by retention or erasure") == 2
    assert manage_feeds.main(["undo", "s"]) == 0
    assert metadata_utils.main(["--reconcile", "s"]) == 0


def test_a_failed_export_stands_in_report_and_history(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    fill(ksqldb, 3)
    ksqldb.drop("S")
    assert export_to_data_lake.main(["--all"]) == 1
    capsys.readouterr()
    assert metadata_utils.main(["--report"]) == 0
    report = capsys.readouterr().out
    assert "! failed      s: no such stream" in report and " failed " in report and " findings " in report
    lines = [json.loads(line) for line in (tmp_path / "lake/logs/runs.jsonl").read_text().splitlines()]
    assert [line["result"] for line in lines if line["feed"] == "s"] == ["ok", "failed"]
    assert all(line["run"] and line["tool"] and line["started"] <= line["ended"] for line in lines)
