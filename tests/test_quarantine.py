"""Checks through the front door: warned of, refused, or set aside; counted, imported again, erased, killed anywhere."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.figures import counted
from ksql_lake.embedded import EmbeddedKsqlDB, Fault
from ksql_lake.model import feeds
from ksql_lake.store import state_log
from tests.test_crash import comparable, content, drive, strays

JAN15 = 1_736_899_200_000
DAY = 86_400_000
COLUMNS = "`ID` STRING, `USER_ID` STRING, `AMOUNT` DECIMAL(12, 2), `CUSTOMER` STRUCT<`COUNTRY` STRING>"
BAD = {  # three rows of the twenty, over two days
    3: ["tx_3", None, Decimal("-3.00"), {"COUNTRY": "XX"}],
    10: ["y10", None, Decimal("100000.01"), {"COUNTRY": "YY"}],
    11: ["y11", None, Decimal("-0.01"), {"COUNTRY": "XX"}],
}
TWELVE = [f"tx_{i}" for i in range(20) if i not in BAD]


def row(i: int) -> list[Any]:
    return [f"tx_{i}", f"user_{i % 5}", Decimal(i), {"COUNTRY": "FR"}]


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        database.create_stream("S", COLUMNS, 2)
        database.create_table("T", "`K` INTEGER KEY, " + COLUMNS)
        for i in range(20):
            database.append("S", i % 2, JAN15 + i // 10 * DAY, BAD.get(i, row(i)))
            database.upsert("T", [i, *BAD.get(i, row(i))])
        for name, kind in (("s", "stream"), ("t", "table")):
            assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
        yield database


@pytest.fixture
def lake(tmp_path: Path, ksqldb: EmbeddedKsqlDB) -> Path:
    return tmp_path / "lake"


def declare(lake: Path, *checks: dict[str, Any], name: str = "s", **settings: Any) -> None:
    path = lake / "feeds" / "active" / f"{name}.json"
    feeds.save(path, {**json.loads(path.read_text()), "checks": list(checks), **settings})


def export(name: str = "s", *more: str) -> int:
    return export_to_data_lake.main(["--table" if name == "t" else "--stream", name, *more])


def state(lake: Path, name: str = "s") -> dict[str, Any]:
    return json.loads((lake / ("tables" if name == "t" else "streams") / name / "_metadata.json").read_text())


def ids(lake: Path, name: str = "s") -> list[str]:
    """The ids that pandas sees, which DuckDB sees as well."""
    place = lake / "streams" / "s" if name == "s" else lake / "tables" / "t" / state(lake, "t")["current"]["path"]
    found = sorted(pd.read_parquet(place)["ID"]) if list(place.rglob("*.parquet")) else []
    if found:
        assert duckdb.sql(f"select ID from read_parquet('{place}/**/*.parquet') order by 1").fetchall() == [
            (one,) for one in found]
    return found


def aside(lake: Path, name: str = "s") -> list[dict[str, Any]]:
    paths = sorted((lake / "quarantine" / name).glob("*.parquet"))
    return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]


def last_run(lake: Path) -> dict[str, Any]:
    return json.loads((lake / "logs" / "runs.jsonl").read_text().splitlines()[-1])


ROW_CHECKS = [
    ({"check": "not_null", "column": "user_id"}, [3, 10, 11], "not_null USER_ID: 3 of 20 rows are null"),
    ({"check": "range", "column": "amount", "min": 0, "max": 100000}, [3, 10, 11],
     "range AMOUNT: 3 of 20 rows are below 0 or above 100000"),
    ({"check": "accepted_values", "column": "customer.country", "values": ["FR", "YY"]}, [3, 11],
     "accepted_values CUSTOMER.COUNTRY: 2 of 20 rows hold something other than FR, YY"),
    ({"check": "regex", "column": "id", "pattern": "^tx_"}, [10, 11], "regex ID: 2 of 20 rows do not match ^tx_"),
]
WHOLE_CHECKS = [
    ({"check": "unique", "column": "user_id"}, 12, "unique USER_ID: 12 of 20 rows repeat a value of the run"),
    ({"check": "unique", "columns": ["user_id", "customer.country"]}, 12, "unique USER_ID, CUSTOMER.COUNTRY: 12 of"),
]
EVERY = sorted([*TWELVE, *(values[0] for values in BAD.values())])


@pytest.mark.parametrize("name", ["s", "t"])
@pytest.mark.parametrize("level", ["warn", "fail", "quarantine"])
@pytest.mark.parametrize(("check", "bad", "message"), ROW_CHECKS)
def test_each_row_check_at_each_level(
    lake: Path, name: str, level: str, check: dict[str, Any], bad: list[int], message: str, capsys: Any
) -> None:
    declare(lake, {**check, "level": level}, name=name)
    assert export(name) == 1
    assert f"{name}: {message}" in capsys.readouterr().err
    run = last_run(lake)
    assert run["checks"] == [{
        "check": check["check"], "column": message.split(":")[0].split(" ", 1)[1], "level": level, "failed": len(bad),
        "rows": 20, "message": message.split(": ", 1)[1],
    }]
    if level == "fail":
        assert run["result"] == "failed" and not list(lake.rglob("*.parquet")) and not list(lake.rglob(".staging/*/*"))
        assert not (lake / ("tables" if name == "t" else "streams") / name / "_metadata.json").exists()
        declare(lake, name=name)
        assert export(name) == 0 and ids(lake, name) == EVERY
        return
    assert run["result"] == "findings" and state(lake, name)["checks"] == run["checks"]
    gone = sorted(BAD[i][0] for i in bad) if level == "quarantine" else []
    assert ids(lake, name) == [one for one in EVERY if one not in gone]
    assert sorted(one["ID"] for one in aside(lake, name)) == gone
    assert run["quarantined"] == len(gone) and run["rows"] == 20 - len(gone)
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    assert export(name) == (1 if name == "t" else 0)
    assert ids(lake, name) == [one for one in EVERY if one not in gone]
    assert len(aside(lake, name)) == len(gone) * (2 if name == "t" else 1), "a table answers with them again"


@pytest.mark.parametrize("name", ["s", "t"])
@pytest.mark.parametrize("level", ["warn", "fail"])
@pytest.mark.parametrize(("check", "failed", "message"), WHOLE_CHECKS)
def test_each_check_of_the_whole_at_each_level(
    lake: Path, name: str, level: str, check: dict[str, Any], failed: int, message: str, capsys: Any
) -> None:
    missing = {"check": "not_null", "column": "user_id", "level": "quarantine"}
    declare(lake, {**check, "level": level}, missing, name=name)
    assert export(name) == 1
    told = capsys.readouterr().err
    assert f"{name}: {message}" in told and last_run(lake)["checks"][0]["failed"] == failed
    assert len(list(lake.rglob("*.parquet"))) == (0 if level == "fail" else {"s": 4, "t": 2}[name])
    assert len(aside(lake, name)) == (0 if level == "fail" else 3), "it is judged over rows set aside as well"
    assert ("nothing was published" in told) == (level == "fail")


def test_a_failed_table_keeps_its_version_until_the_source_is_mended(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    assert export("t") == 0
    declare(lake, {"check": "not_null", "column": "user_id", "level": "fail"}, name="t")
    before = state(lake, "t")
    assert export("t") == 1 and state(lake, "t") == before
    for i in BAD:
        ksqldb.upsert("T", [i, *row(i)])
    assert export("t") == 0
    assert state(lake, "t")["current"]["version"] == "v2" and "y10" not in ids(lake, "t")
    assert state(lake, "t")["checks"] == [
        {"check": "not_null", "column": "USER_ID", "level": "fail", "failed": 0, "rows": 20, "message": ""}]


def test_a_failed_stream_keeps_its_resume_point(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    """Nothing is lost: what came meanwhile and what was refused comes with the next good run, once."""
    assert export() == 0
    declare(lake, {"check": "regex", "column": "id", "pattern": "^tx_", "level": "fail"})
    before = state(lake)
    ksqldb.append("S", 0, JAN15 + DAY, ["bad", "user_1", Decimal(1), None])
    for i in range(20, 23):
        ksqldb.append("S", 1, JAN15 + DAY, row(i))
        assert export() == 1 and state(lake) == before
    declare(lake, {"check": "regex", "column": "id", "pattern": "^tx_", "level": "quarantine"})
    assert export() == 1
    assert ids(lake) == sorted([*EVERY, "tx_20", "tx_21", "tx_22"]) and [r["ID"] for r in aside(lake)] == ["bad"]
    assert export() == 0 and len(ids(lake)) == 23


def test_days_asked_for_and_the_rest_later(lake: Path) -> None:
    declare(lake, {"check": "range", "column": "amount", "min": 0, "level": "quarantine"},
            {"check": "row_count", "level": "fail"}, {"check": "freshness", "hours": 1, "level": "warn"})
    assert export("s", "--date", "2025-01-16") == 1
    assert [r["ID"] for r in aside(lake)] == ["y11"] and len(ids(lake)) == 9
    checks = state(lake)["checks"]
    assert [c["rows"] for c in checks] == [10] * 3
    assert checks[1]["message"] == "not judged: only some days were asked for"
    assert export("s", "--date", "2025-01-16") == 0 and len(aside(lake)) == 1
    assert export() == 1
    assert sorted(r["ID"] for r in aside(lake)) == ["tx_3", "y11"] and len(ids(lake)) == 18
    assert [c["rows"] for c in state(lake)["checks"]] == [10] * 3, "rows exported before are not judged again"
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    days = [entry["partition"] for entry in state(lake)["quarantine"]]
    assert sorted(days) == ["year=2025/month=01/day=15", "year=2025/month=01/day=16"]


@pytest.mark.parametrize("where", ["between", "row"])
def test_a_cut_and_what_came_again(lake: Path, ksqldb: EmbeddedKsqlDB, where: Any) -> None:
    """Each row counts once: those of both queries, not those that came a second time."""
    declare(lake, {"check": "unique", "column": "user_id"}, {"check": "unique", "column": "id"},
            {"check": "not_null", "column": "user_id", "level": "quarantine"})
    ksqldb.faults.add(Fault(cut_after=13, cut_where=where), Fault(repeat_after=3, repeat_rows=2))
    assert export() == 1
    assert [c["failed"] for c in state(lake)["checks"]] == [12, 0, 3]
    assert state(lake)["checks"][0]["rows"] == 20
    assert len(ids(lake)) == 17 and sum(entry["rows"] for entry in state(lake)["quarantine"]) == 3


def test_a_recreated_topic_is_judged_by_itself(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    unique = {"check": "unique", "column": "id", "level": "fail"}
    amount = {"check": "range", "column": "amount", "min": 0, "level": "quarantine"}
    declare(lake, unique, amount, {"check": "row_count"})
    assert export() == 1
    ksqldb.recreate("S")
    for i in range(20):
        ksqldb.append("S", i % 2, JAN15, [f"n_{4 if i == 5 else i}", None, Decimal(-1 if i in BAD else 1), None])
    assert export() == 1, "the new topic holds n_4 twice"
    assert state(lake)["generation"] == 1 and len(ids(lake)) == 18
    declare(lake, {**unique, "level": "warn"}, amount)
    assert export() == 1
    assert state(lake)["generation"] == 2 and len(ids(lake)) == 35 and len(aside(lake)) == 5
    assert [(e["generation"], e["rows"]) for e in state(lake)["quarantine"]] == [(1, 1), (1, 1), (2, 3)]
    assert metadata_utils.main(["--verify", "--deep"]) == 0


def test_what_lies_there_and_its_permissions(lake: Path, capsys: Any) -> None:
    declare(lake, {"check": "range", "column": "amount", "min": 0, "max": 100000, "level": "quarantine"},
            {"check": "not_null", "column": "user_id", "level": "quarantine"}, access="restricted")
    assert export() == 1
    (first, second) = sorted((lake / "quarantine" / "s").iterdir())
    assert [path.stat().st_mode & 0o777 for path in (first, first.parent, first.parents[1])] == [0o640, 0o750, 0o755]
    assert first.name.endswith("g1a0_20250115_0001.parquet")
    table = pq.ParquetFile(first).read()
    assert table.schema.names == [
        "ROWTIME", "ROWPARTITION", "ROWOFFSET", "ID", "USER_ID", "AMOUNT", "CUSTOMER", "_reason"]
    assert table["_reason"].to_pylist() == ["range: AMOUNT is -3.00 (min 0, max 100000); not_null: USER_ID is null"]
    capsys.readouterr()
    assert manage_feeds.main(["quarantine", "s"]) == 0
    run = last_run(lake)["run"]
    assert capsys.readouterr().out.splitlines() == [
        f"{run}  year=2025/month=01/day=15  1 row  not_null USER_ID 1, range AMOUNT 1",
        f"{run}  year=2025/month=01/day=16  2 rows  not_null USER_ID 2, range AMOUNT 2", "3 rows in quarantine"]
    assert manage_feeds.main(["quarantine", "s", "--json"]) == 0
    assert [entry["rows"] for entry in json.loads(capsys.readouterr().out)] == [1, 2]
    assert manage_feeds.main(["quarantine", "s", "--run", "x"]) == 1
    assert f"no rows of run x are in quarantine; runs with quarantined rows: {run}" in capsys.readouterr().err
    assert metadata_utils.main(["--report"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "- quarantine s: 3 rows in quarantine; " in told and "manage_feeds.py quarantine s" in told
    assert metadata_utils.main(["--json", "--feed", "s"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["quarantined"] == 3 and [(c["column"], c["failed"]) for c in told["checks"]] == [
        ("AMOUNT", 3), ("USER_ID", 3)]
    second.chmod(0o666)
    assert metadata_utils.main(["--verify"]) == 1 and "mode 666, expected 640" in capsys.readouterr().out
    assert manage_feeds.main(["permissions", "--apply"]) == 0
    second.write_bytes(second.read_bytes()[:-1])
    shutil.move(first, first.with_name("other.parquet"))
    assert metadata_utils.main(["--verify", "--deep"]) == 1
    told = capsys.readouterr().out
    assert f"{first}: missing" in told and f"{second}: altered" in told and "other.parquet: extra" in told


def test_import_what_passes_now(lake: Path, capsys: Any) -> None:
    amount = {"check": "range", "column": "amount", "min": 0, "max": 100000, "level": "quarantine"}
    declare(lake, amount)
    assert export() == 1
    before = state(lake)
    capsys.readouterr()
    assert manage_feeds.main(["quarantine", "s", "--import"]) == 1
    assert "0 rows imported, 3 left in quarantine" in capsys.readouterr().out and state(lake) == before
    assert strays(lake) == []
    declare(lake, {**amount, "min": -1, "level": "fail"}, {"check": "regex", "column": "id", "pattern": "^tx"})
    assert manage_feeds.main(["quarantine", "s", "--import"]) == 1
    assert "s: 1 row imported, 2 left in quarantine" in capsys.readouterr().out
    after = state(lake)
    assert "y11" in ids(lake) and sorted(r["ID"] for r in aside(lake)) == ["tx_3", "y10"]
    assert [file["origin"] for file in after["files"]][-1] == "quarantine" and after["total_records"] == 18
    assert after["files"][-1]["partition"] == "year=2025/month=01/day=16"
    assert [after[key] for key in ("resume", "coverage")] == [before[key] for key in ("resume", "coverage")]
    assert [entry["reasons"] for entry in after["quarantine"]] == [{"range AMOUNT": 1}] * 2
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    assert export() == 0 and len(ids(lake)) == 18
    assert manage_feeds.main(["quarantine", "s", "--import", "--force", "--run", last_run(lake)["run"]]) == 1
    assert manage_feeds.main(["quarantine", "s", "--import", "--force"]) == 0
    assert ids(lake) == EVERY and not (lake / "quarantine" / "s").exists() and state(lake)["quarantine"] == []
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    assert manage_feeds.main(["quarantine", "s", "--import"]) == 0 and ids(lake) == EVERY
    assert export() == 0 and ids(lake) == EVERY
    assert manage_feeds.main(["compact"]) == 0 and ids(lake) == EVERY


def test_an_import_under_a_column_that_came_later(lake: Path, ksqldb: EmbeddedKsqlDB) -> None:
    declare(lake, {"check": "range", "column": "amount", "min": 0, "level": "quarantine"})
    assert export() == 1
    ksqldb.drop("S")
    ksqldb.create_stream("S", COLUMNS + ", `NEW` STRING", 2)
    for i in range(20):
        ksqldb.append("S", i % 2, JAN15 + i // 10 * DAY, [*BAD.get(i, row(i)), None])
    ksqldb.append("S", 0, JAN15 + DAY, [*row(20), "n"])
    assert export() == 0 and state(lake)["schema_version"] == "1.1"
    declare(lake)
    assert manage_feeds.main(["quarantine", "s", "--import"]) == 0
    assert ids(lake) == sorted([*EVERY, "tx_20"])
    assert metadata_utils.main(["--verify", "--deep"]) == 0


def test_a_table_is_exported_again_instead(lake: Path, capsys: Any) -> None:
    amount = {"check": "range", "column": "amount", "min": 0, "level": "quarantine"}
    declare(lake, amount, name="t", retention_versions=1)
    assert export("t") == 1 and export("t") == 1
    assert [entry["partition"] for entry in state(lake, "t")["quarantine"]] == ["version=v1", "version=v2"]
    assert manage_feeds.main(["quarantine", "t", "--import"]) == 1
    assert "a version is never changed; change its checks and export it again" in capsys.readouterr().err
    assert manage_feeds.main(["quarantine", "t", "--force"]) == 2
    assert manage_feeds.main(["retention", "t", "--max-delete", "100"]) == 0
    assert export("t") == 1
    assert [entry["partition"] for entry in state(lake, "t")["quarantine"]] == ["version=v2", "version=v3"]
    assert len(aside(lake, "t")) == 4 and metadata_utils.main(["--verify", "--deep"]) == 0


def test_max_shrink_goes_by_rows_received(lake: Path) -> None:
    assert export("t") == 0
    declare(lake, {"check": "accepted_values", "column": "k", "values": [1], "level": "quarantine"}, name="t")
    assert export("t") == 1 and ids(lake, "t") == ["tx_1"] and state(lake, "t")["current"]["version"] == "v2"


@pytest.mark.parametrize("name", ["s", "t"])
@pytest.mark.parametrize("log", [True, False])
def test_metadata_are_rebuilt_with_what_was_set_aside(lake: Path, name: str, log: bool) -> None:
    declare(lake, {"check": "range", "column": "amount", "min": 0, "max": 100000, "level": "quarantine"}, name=name)
    assert export(name) == 1
    known = state(lake, name)
    path = lake / ("tables" if name == "t" else "streams") / name / "_metadata.json"
    path.unlink()
    if not log:
        (lake / ".state" / f"{name}.jsonl").unlink()
    assert metadata_utils.main(["--rebuild", "--feed", name]) == 0
    after = state(lake, name)
    keys = ("files", "resume", "coverage") if name == "s" else ("files", "current")
    shown = [comparable({key: made[key] for key in (*keys, "quarantine", "total_records")}) for made in (after, known)]
    assert shown[0] == shown[1]
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    if name == "s":
        assert export() == 0 and len(ids(lake)) == 17
        declare(lake)
        assert manage_feeds.main(["quarantine", "s", "--import"]) == 0 and ids(lake) == EVERY


@pytest.mark.parametrize("how", ["new", "old", "mixed", "cut short", "torn"])
def test_the_state_log_says_once_what_was_set_aside(
    lake: Path, ksqldb: EmbeddedKsqlDB, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not again with each night; what it says is found again, in an old log too, that repeats it in every line."""
    declare(lake, {"check": "range", "column": "amount", "min": 0, "max": 100000, "level": "quarantine"})
    log = lake / ".state" / "s.jsonl"
    with monkeypatch.context() as patch:
        if how in ("old", "mixed"):
            patch.setattr(state_log, "_delta", lambda before, now: dict(now))
        assert export() == 1
        for night in range(4):
            if night == 2 and how == "mixed":
                patch.undo()
            if night == 2 and how == "torn":
                log.write_bytes(log.read_bytes()[:-40])
            ksqldb.append("S", 0, JAN15, [f"n{night}", None, Decimal(-night), None])
            assert export() == (1 if night else 0)
        declare(lake)
        assert manage_feeds.main(["quarantine", "s", "--import", "--run", state(lake)["quarantine"][0]["run"]]) == 0
        assert export() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    if how == "new":
        assert [len(x.get("quarantine", x.get("quarantine_added", []))) for x in lines] == [2, 0, 1, 1, 1, 3, 0]
        assert ["quarantine" in line for line in lines] == [True, False, False, False, False, True, False]
    if how == "cut short":
        log.write_text(json.dumps(lines[-1]) + "\n")
    known = state(lake)
    assert len(known["quarantine"]) == 3 and "quarantine_added" not in known
    (lake / "streams" / "s" / "_metadata.json").unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    after = state(lake)
    assert comparable(after["quarantine"]) == comparable(known["quarantine"]) and "quarantine_added" not in after
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    assert manage_feeds.main(["quarantine", "s", "--import"]) == 0 and len(ids(lake)) == 24


@pytest.mark.parametrize("name", ["s", "t"])
def test_a_person_is_erased_there_too(lake: Path, ksqldb: EmbeddedKsqlDB, name: str, capsys: Any) -> None:
    for i in (30, 31):
        values = [f"tx_{i}", f"user_{i}", Decimal(-i), {"COUNTRY": "FR"}]
        ksqldb.append("S", 0, JAN15, values)
        ksqldb.upsert("T", [i, *values])
    checks = [{"check": "range", "column": "amount", "min": 0, "level": "quarantine"},
              {"check": "regex", "column": "user_id", "pattern": "^user_.$", "level": "quarantine"}]
    declare(lake, *checks, name=name)
    assert export(name) == 1 and len(aside(lake, name)) == 4
    for user in ("user_30", "user_31"):
        assert manage_feeds.main(["erase", "--where", f"user_id={user}", "--later", "drop"]) == 0
        assert "1 row erased in 1 feed, 0 left" in capsys.readouterr().out
    assert sorted(r["ID"] for r in aside(lake, name)) == ["tx_3", "y11"]
    assert {label: sum(e["reasons"].get(label, 0) for e in state(lake, name)["quarantine"])
            for label in ("range AMOUNT", "regex USER_ID")} == {"range AMOUNT": 2, "regex USER_ID": 0}
    assert b"user_30" not in b"".join(path.read_bytes() for path in lake.rglob("*") if path.is_file())
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    if name == "s":
        declare(lake)
        assert manage_feeds.main(["quarantine", "s", "--import"]) == 0 and ids(lake) == EVERY
        assert export() == 0 and ids(lake) == EVERY
        assert metadata_utils.main(["--reconcile", "s"]) == 0


def test_reconcile_knows_what_was_set_aside(lake: Path, capsys: Any) -> None:
    declare(lake, {"check": "range", "column": "amount", "min": 0, "level": "quarantine"})
    assert export("s", "--reconcile") == 1
    assert "1 removed from the lake by retention or erasure, or in quarantine" in capsys.readouterr().out
    assert metadata_utils.main(["--reconcile", "s"]) == 0


def test_row_count_against_runs_of_the_same_weekday(lake: Path, ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    """A night that brings next to nothing is refused; what it brought comes later."""
    declare(lake, {"check": "row_count", "level": "fail"})
    assert export() == 0 and "not enough history: 0 runs" in state(lake)["checks"][0]["message"]
    now = dt.datetime.now(dt.UTC)
    with (lake / "logs" / "runs.jsonl").open("a") as log:
        for weeks in range(1, 5):
            at = now - dt.timedelta(days=7 * weeks)
            moment = f"{at:%Y-%m-%dT%H:%M:%SZ}"
            run = {"feed": "s", "started": moment, "ended": moment, "result": "ok", "rows": 20, "days": []}
            log.write(json.dumps(run) + "\n")
        other = {"feed": "other", "started": f"{now:%Y-%m-%dT%H:%M:%SZ}", "ended": "", "result": "ok", "rows": 1}
        log.writelines([json.dumps(other) + "\n"] * 80_000)
    assert (lake / "logs" / "runs.jsonl").stat().st_size > 6 << 20, "runs of other feeds leave room for these"
    ksqldb.append("S", 0, JAN15, row(20))
    assert export() == 1
    assert "s: row_count: 1 row; the median of 5 runs on a" in capsys.readouterr().err
    assert len(ids(lake)) == 20 and last_run(lake)["result"] == "failed"
    for i in range(21, 100):
        ksqldb.append("S", 0, JAN15, row(i))
    assert export() == 0 and len(ids(lake)) == 100, "four times the median, the nights that were missed"
    declare(lake, {"check": "row_count", "max_share": 2.0})
    for i in range(100, 160):
        ksqldb.append("S", 0, JAN15, row(i))
    assert export() == 1 and len(ids(lake)) == 160
    assert "s: row_count: 60 rows; the median of 6 runs on a" in capsys.readouterr().err


def test_freshness(lake: Path, ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    declare(lake, {"check": "freshness", "hours": 26})
    assert export() == 1 and "s: freshness: the newest row is dated 2025-01-16T00:00:00Z" in capsys.readouterr().err
    assert export() == 1 and "2025-01-16T00:00:00Z" in capsys.readouterr().err, "no new row: that of the lake"
    ksqldb.append("S", 0, int(time.time() * 1000) - 3_600_000, row(1))
    assert export() == 0
    ksqldb.create_table("U", "`K` INTEGER KEY, `AT` TIMESTAMP")
    ksqldb.upsert("U", [1, "2025-01-16T00:00:00.000"])
    assert manage_feeds.main(["add", "--name", "u", "--type", "table", "--source", "u"]) == 0
    declare(lake, {"check": "freshness", "hours": 26, "column": "at", "level": "fail"}, name="u")
    assert export_to_data_lake.main(["--table", "u"]) == 1
    assert "u: freshness AT: the newest row is dated 2025-01-16T00:00:00Z" in capsys.readouterr().err
    assert not (lake / "tables" / "u").exists()


def test_a_column_the_source_does_not_have(lake: Path, capsys: Any) -> None:
    declare(lake, {"check": "not_null", "column": "usr_id"})
    assert export() == 1
    assert "s: checks: not_null: the source has no column usr_id; did you mean USER_ID" in capsys.readouterr().err
    assert not list(lake.rglob("*.parquet")) and not list((lake / ".staging").glob("*/*"))
    assert manage_feeds.main(["check", "--online"]) == 1
    assert "error: s: checks: not_null: the source has no column usr_id" in capsys.readouterr().err
    declare(lake, {"check": "not_null", "column": "rowtime"}, {"check": "range", "column": "amount", "min": "x"})
    assert manage_feeds.main(["check"]) == 1 and 's.json:' in capsys.readouterr().err
    declare(lake, {"check": "not_null", "column": "rowtime"})
    assert manage_feeds.main(["check", "--online"]) == 0


@pytest.mark.parametrize("command", ["export", "import"])
@pytest.mark.parametrize(("fault", "step"), [
    ("kill", 9), ("ENOSPC", 13), pytest.param("kill", 5, marks=pytest.mark.slow),
    pytest.param("ENOSPC", 11, marks=pytest.mark.slow),
])
def test_failing_at_every_nth_call(command: str, fault: str, step: int, lake: Path, tmp_path: Path) -> None:
    """A row is in the lake or set aside, once, whatever happened."""
    amount = {"check": "range", "column": "amount", "min": 0, "max": 100000, "level": "quarantine"}
    declare(lake, amount)
    argv = ["export_to_data_lake", "--stream", "s"]
    if command == "import":
        assert export() == 1
        declare(lake, {**amount, "min": -1})
        argv = ["manage_feeds", "quarantine", "s", "--import"]
    base = Path(shutil.copytree(lake, tmp_path / "base"))
    script = {"export_to_data_lake": export_to_data_lake, "manage_feeds": manage_feeds}[argv[0]]
    assert script.main(argv[1:]) == 1
    wanted = content(lake, "stream"), sorted(map(str, aside(lake))), comparable(hidden(state(lake)))
    tries = drive(base, tmp_path / "work", fault, step, *argv)
    assert len(tries) > 7 and not tries[-1]["fired"]
    for attempt in tries:
        copy = Path(attempt["lake"])
        assert "Traceback" not in attempt["error"] and "bug" not in attempt["error"], attempt
        found = content(copy, "stream"), sorted(map(str, aside(copy))), comparable(hidden(state(copy)))
        assert found == wanted and strays(copy) == [], attempt
        shutil.rmtree(copy)


def hidden(known: dict[str, Any]) -> dict[str, Any]:
    """Without what a run that finds the work done already leaves: its own results."""
    return {key: item for key, item in known.items() if key not in ("sequence", "last_run", "checks", "findings")}


@pytest.fixture
def old_days(lake: Path, ksqldb: EmbeddedKsqlDB) -> Path:
    """Two old days with rows set aside, one with nothing else, one that is yet to come, and one of today."""
    for at in (JAN15 + 2 * DAY, JAN15 + 40_000 * DAY):
        ksqldb.append("S", 0, at, ["y20", "user_9", Decimal(-1), {"COUNTRY": "FR"}])
    ksqldb.append("S", 1, int(time.time() * 1000), row(21))
    declare(lake, {"check": "range", "column": "amount", "min": 0, "max": 100000, "level": "quarantine"},
            retention_days=30, access="open")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETENTION", "off")
        assert export() == 1
    assert len(aside(lake)) == 5 and len(ids(lake)) == 18
    return lake


RETENTION = ["retention", "s", "--max-delete", "100"]


def test_retention_takes_what_was_set_aside_with_its_day(old_days: Path, capsys: Any) -> None:
    lake = old_days
    before, everything = aside(lake), ids(lake)
    capsys.readouterr()
    assert manage_feeds.main([*RETENTION, "--dry-run"]) == 0
    told = capsys.readouterr().out
    size = sum(f["bytes"] for f in [*state(lake)["files"], *state(lake)["quarantine"]] if "2025" in f["partition"])
    assert [re.split("  +", line)[1:4] for line in told.splitlines()[:3]] == [
        ["goes", f"year=2025/month=01/day={day}", counted(rows, "row")] for day, rows in ((15, 10), (16, 10), (17, 1))]
    assert [line.split(" are kept")[1] for line in told.splitlines()[:3]] == [
        f"; {rows} of its rows are in quarantine" for rows in (1, 2, 1)]
    assert told.splitlines()[-1] == f"21 rows, {size:,} bytes would go" and aside(lake) == before
    assert manage_feeds.main(RETENTION) == 0
    assert ids(lake) == ["tx_21"] and [r["ROWTIME"].year for r in aside(lake)] == [2134]
    assert [entry["rows"] for entry in state(lake)["quarantine"]] == [1]
    assert metadata_utils.main(["--verify", "--deep"]) == 0 and metadata_utils.main(["--reconcile", "s"]) == 0
    assert export() == 0 and len(aside(lake)) == 1
    capsys.readouterr()
    assert manage_feeds.main(["undo", "--list"]) == 0 and "21 rows" in capsys.readouterr().out
    assert manage_feeds.main(["undo", "s"]) == 0
    assert ids(lake) == everything and sorted(map(str, aside(lake))) == sorted(map(str, before))
    assert metadata_utils.main(["--verify", "--deep"]) == 0 and strays(lake) == []
    assert not list((lake / ".trash").rglob("*.*")) and metadata_utils.main(["--reconcile", "s"]) == 0
    declare(lake)
    assert manage_feeds.main(["quarantine", "s", "--import"]) == 0 and len(ids(lake)) == 23


def test_a_day_that_had_only_rows_set_aside_makes_no_gap(old_days: Path, capsys: Any) -> None:
    """One impossible time, set aside and gone, must not make a feed look as if it had missed all days since."""
    def gaps() -> list[str]:
        capsys.readouterr()
        metadata_utils.main(["--report"])
        return [line for line in capsys.readouterr().out.splitlines() if "no rows on" in line]

    before = gaps()
    assert len(before) == 1 and ": 2025-01-17 to " in before[0]
    assert manage_feeds.main(RETENTION) == 0
    assert state(old_days)["removed"]["year=2025/month=01/day=17"] == {"quarantine": 1}
    assert state(old_days)["removed"]["year=2025/month=01/day=16"] == {"retention": 8, "quarantine": 2}
    assert gaps() == before
    assert manage_feeds.main(["undo", "s"]) == 0 and state(old_days)["removed"] == {} and gaps() == before


def test_a_person_is_erased_from_what_was_set_aside_and_lies_in_the_trash(old_days: Path, capsys: Any) -> None:
    lake = old_days
    assert manage_feeds.main(RETENTION) == 0
    (path,) = (lake / ".trash").rglob("*20250117*.parquet")
    assert path.parts[-3:-1] == ("quarantine", "s")
    assert manage_feeds.main(["erase", "--where", "user_id=user_9", "--later", "drop"]) == 0
    assert "2 rows erased in 1 feed, 0 left" in capsys.readouterr().out
    assert manage_feeds.main(["erase", "--where", "id=y10", "--later", "drop"]) == 0
    assert "1 row erased in 1 feed, 0 left" in capsys.readouterr().out
    assert not any(b"user_9" in one.read_bytes() or b"y10" in one.read_bytes() for one in lake.rglob("*.parquet"))
    assert metadata_utils.main(["--verify", "--deep"]) == 0 and aside(lake) == []
    assert manage_feeds.main(["undo", "s"]) == 0
    assert sorted(r["ID"] for r in aside(lake)) == ["tx_3", "y11"] and len(ids(lake)) == 18
    assert [e["reasons"] for e in state(lake)["quarantine"]] == [{"range AMOUNT": 1}] * 2
    assert metadata_utils.main(["--verify", "--deep"]) == 0 and strays(lake) == []


def test_a_link_in_the_place_of_quarantine_is_not_followed(old_days: Path, tmp_path: Path, capsys: Any) -> None:
    elsewhere = Path(shutil.move(old_days / "quarantine" / "s", tmp_path / "elsewhere"))
    (old_days / "quarantine" / "s").symlink_to(elsewhere)
    assert manage_feeds.main(RETENTION) == 1
    assert "quarantine/s: is a link, and the lake is never written through links" in capsys.readouterr().err
    assert len(list(elsewhere.iterdir())) == 4 and len(ids(old_days)) == 18


@pytest.mark.parametrize("command", ["retention", "undo", "erase"])
def test_what_was_set_aside_goes_and_comes_killed_anywhere(command: str, old_days: Path, tmp_path: Path) -> None:
    """In quarantine or in the trash, once; one more run and it is where it belongs."""
    argv = {"retention": RETENTION, "undo": ["undo", "s"],
            "erase": ["erase", "--where", "user_id=user_9", "--later", "drop"]}[command]
    if command != "retention":
        assert manage_feeds.main(RETENTION) == 0
    base = Path(shutil.copytree(old_days, tmp_path / "base"))
    assert manage_feeds.main(argv) == 0
    wanted = content(old_days, "stream"), sorted(map(str, aside(old_days))), in_the_trash(old_days)
    tries = drive(base, tmp_path / "work", "kill", 5, "manage_feeds", *argv)
    assert len(tries) > 5 and not tries[-1]["fired"]
    for attempt in tries:
        copy = Path(attempt["lake"])
        # an undo that was done but for its clean-up finds nothing more to bring back
        assert "Traceback" not in attempt["error"] and attempt["again"] in ((0, 1) if command == "undo" else (0,))
        assert (content(copy, "stream"), sorted(map(str, aside(copy))), in_the_trash(copy)) == wanted, attempt
        assert metadata_utils.main(["--lake", str(copy), "--verify", "--deep"]) == 0 and strays(copy) == [], attempt
        shutil.rmtree(copy)


def in_the_trash(lake: Path) -> list[str]:
    """Every row there, with the place it would go back to."""
    return sorted(
        f"{path.relative_to(lake / '.trash').parts[3]} {one}" for path in (lake / ".trash").rglob("*.parquet")
        for one in pq.ParquetFile(path).read().to_pylist()
    )
