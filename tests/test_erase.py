"""One person's rows out of every place of the lake, proved by readers; later events; killed anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.figures import counted
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.maintain.erased import salted
from tests.test_crash import drive, state, strays

JAN15 = 1_736_899_200_000
DAY = 86_400_000
ERASE = ["erase", "--where", "user_id=user_3", "--later", "drop"]


@pytest.fixture
def ksqldb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    """A flat stream, one with the person inside a STRUCT in an ARRAY, a table with two versions in the trash."""
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        database.create_stream("S", "`USER_ID` STRING, `V` DECIMAL(12, 2)", 2)
        nested = "`ID` BIGINT, `PARTIES` ARRAY<STRUCT<`USER_ID` STRING>>, `M` MAP<STRING, STRING>"
        database.create_stream("N", nested, 1)
        database.create_table("T", "`USER_ID` STRING KEY, `V` INTEGER")
        database.create_stream("OTHER", "`X` STRING", 1)
        database.append("OTHER", 0, JAN15, ["user_3"])
        for i in range(40):
            database.append("S", i % 2, JAN15 + i % 4 * DAY, [f"user_{i % 10}", Decimal(i)])
            parties = None if i % 7 == 0 else [{"USER_ID": f"user_{i % 10}"}, {"USER_ID": "user_x"}]
            database.append("N", 0, JAN15, [i, parties, {"ip": f"10.0.0.{i}"}])
        for name, kind in (("s", "stream"), ("n", "stream"), ("t", "table"), ("other", "stream")):
            add = ["add", "--name", name, "--type", kind, "--source", name]
            assert manage_feeds.main([*add, *(["--retention-versions", "2"] if kind == "table" else [])]) == 0
        for number in range(3):
            for i in range(5):
                database.upsert("T", [f"user_{i}", number])
            assert export_to_data_lake.main(["--table", "t"]) == 0
        assert export_to_data_lake.main(["--all", "--quiet"]) == 1  # retention: two of four versions are much
        assert manage_feeds.main(["retention", "t", "--max-delete", "90"]) == 0
        assert manage_feeds.main(["archive", "n"]) == 0
        yield database


def users(lake: Path) -> dict[str, int]:
    """How often the person stands in any Parquet file anywhere in the lake, the trash included, by feed."""
    found: dict[str, int] = {}
    for path in lake.rglob("*.parquet"):
        text = str(pq.ParquetFile(path).read().to_pylist())
        feed = next(part for part in path.parts if part in ("s", "n", "t", "other"))
        found[feed] = found.get(feed, 0) + text.count("'user_3'")
    return found


def test_a_person_is_gone_everywhere(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    lake = tmp_path / "lake"
    before = users(lake)
    assert before == {"s": 4, "n": before["n"], "t": 4, "other": 1} and before["n"] >= 3
    untouched = {p: p.stat().st_mtime_ns for p in lake.rglob("*.parquet") if "'user_3'" not in str(
        pq.ParquetFile(p).read().to_pylist()) or "other" in p.parts}
    capsys.readouterr()
    assert manage_feeds.main([*ERASE[:3], "--dry-run"]) == 0
    assert f"{8 + before['n']} rows would be erased" in capsys.readouterr().out and users(lake) == before
    resume = json.loads((lake / "streams/s/_metadata.json").read_text())["resume"]
    assert manage_feeds.main(ERASE) == 0
    out = capsys.readouterr().out
    assert f"{8 + before['n']} rows erased in 3 feeds, 0 left" in out
    assert users(lake) == {"s": 0, "n": 0, "t": 0, "other": 1}
    assert {p: p.stat().st_mtime_ns for p in untouched} == untouched, "only files that hold a row are written again"
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    assert len(pd.read_parquet(lake / "streams" / "s")) == 36
    assert json.loads((lake / "streams/s/_metadata.json").read_text())["resume"] == resume
    (receipt,) = (lake / "logs" / "erasures").glob("*.json")
    told = json.loads(receipt.read_text())
    assert "user_3" not in receipt.read_text() and told["hash"] == salted(told["salt"], "user_3")
    assert told["rows_left"] == 0 and told["ended"] and told["by"]
    assert {feed["feed"] for feed in told["feeds"]} == {"s", "n", "t"}
    assert not any("user_3" in path.read_text() for path in lake.rglob("*.json*"))
    assert manage_feeds.main(["undo", "t"]) == 0
    assert users(lake)["t"] == 0 and metadata_utils.main(["--verify", "--deep"]) == 0


@pytest.mark.parametrize(("rule", "left"), [("drop", 0), ("keep", 1)])
def test_later_events_follow_the_rule(ksqldb: EmbeddedKsqlDB, tmp_path: Path, rule: str, left: int) -> None:
    lake = tmp_path / "lake"
    assert manage_feeds.main([*ERASE[:3], "--later", rule]) == 0
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    assert users(lake)["s"] == 0, "an erased row does not come back with the next export"
    ksqldb.append("S", 0, JAN15 + 9 * DAY, ["user_3", Decimal(1)])
    ksqldb.append("S", 0, JAN15 + 9 * DAY, ["user_4", Decimal(1)])
    assert export_to_data_lake.main(["--stream", "s"]) == 0 and export_to_data_lake.main(["--table", "t"]) == 0
    assert users(lake)["s"] == left and users(lake)["t"] == left
    assert export_to_data_lake.main(["--stream", "s", "--date", "2025-01-16"]) == 0
    assert users(lake)["s"] == left
    metadata = lake / "streams" / "s" / "_metadata.json"
    metadata.unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    assert users(lake)["s"] == left


@pytest.mark.parametrize(("argv", "message", "code"), [
    (["erase", "--where", "user_idd=user_3", "--later", "drop"], "no feed has a column user_idd", 1),
    (["erase", "--where", "user_id=user_3"], "--later drop, or --later keep", 2),
    ([*ERASE, "--feeds", "zz"], "zz: not in the lake; feeds with data:", 1),
])
def test_mistakes(ksqldb: EmbeddedKsqlDB, argv: list[str], message: str, code: int, capsys: Any) -> None:
    assert manage_feeds.main(argv) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("where", "rows"), [
    ("parties.user_id=user_x", 34), ("id=5", 1), ("m=10.0.0.7", 1), ("V=3.00", 1), ("user_id=nobody", 0),
])
def test_columns_of_every_shape(ksqldb: EmbeddedKsqlDB, where: str, rows: int, capsys: Any) -> None:
    assert manage_feeds.main(["erase", "--where", where, "--later", "keep"]) == 0
    assert f"{counted(rows, 'row')} erased" in capsys.readouterr().out
    assert metadata_utils.main(["--verify", "--deep"]) == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("fault", "step"), [
    ("kill", 11), ("EIO", 17), pytest.param("kill", 3, marks=pytest.mark.slow),
    pytest.param("EIO", 11, marks=pytest.mark.slow),
])
def test_an_erasure_failing_at_every_nth_call(fault: str, step: int, ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """The next call finishes it; nothing else is lost, and one receipt tells the whole."""
    lake = tmp_path / "lake"
    base = Path(shutil.copytree(lake, tmp_path / "base"))
    assert manage_feeds.main(ERASE) == 0
    wanted, states = users(lake), [state(lake, "stream"), state(lake, "table")]
    (receipt,) = (lake / "logs" / "erasures").glob("*.json")
    told = json.loads(receipt.read_text())
    tries = drive(base, tmp_path / "work", fault, step, "manage_feeds", *ERASE)
    assert len(tries) > 10 and not tries[-1]["fired"]
    for attempt in tries:
        copy = Path(attempt["lake"])
        assert attempt["again"] == 0 and "Traceback" not in attempt["error"], attempt
        assert users(copy) == wanted and strays(copy) == [], attempt
        assert [hidden(state(copy, "stream")), hidden(state(copy, "table"))] == [hidden(known) for known in states]
        receipts = [json.loads(path.read_text()) for path in (copy / "logs" / "erasures").glob("*.json")]
        assert all(r["ended"] and r["rows_left"] == 0 for r in receipts), attempt
        assert max(r["rows"] for r in receipts) == told["rows"], (attempt, receipts)
        shutil.rmtree(copy)


def hidden(known: Any) -> Any:
    """Without what is different in each erasure: salts and names of receipts, and how many calls it took."""
    return {key: value for key, value in known.items() if key not in ("erasures", "changes")}


def test_feeds_whose_file_is_gone_or_broken_are_erased_too(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    lake = tmp_path / "lake"
    assert manage_feeds.main(["remove", "s", "--yes"]) == 0
    (lake / "feeds" / "active" / "t.json").write_text("{")
    mode = (lake / "streams" / "s").stat().st_mode
    assert manage_feeds.main(ERASE) == 0
    assert "0 left" in capsys.readouterr().out
    assert users(lake) == {"s": 0, "n": 0, "t": 0, "other": 1}
    assert (lake / "streams" / "s").stat().st_mode == mode
    assert manage_feeds.main(["undo", "t"]) == 0, "a table whose feed file is broken keeps its trash and versions"
    assert manage_feeds.main(["rollback", "t", "v1"]) == 0


def test_many_persons(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """Rules of several persons hold side by side, in one feed under one salt, so that an export hashes a value once."""
    lake = tmp_path / "lake"
    for user in ("user_3", "user_4", "user_x"):
        assert manage_feeds.main(["erase", "--where", f"user_id={user}", "--later", "drop"]) == 0
    for user in ("user_3", "user_4", "user_5"):
        ksqldb.append("S", 0, JAN15 + 9 * DAY, [user, Decimal(7)])
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    frame = pd.read_parquet(lake / "streams" / "s", filters=[("V", "=", Decimal(7)), ("day", "=", 24)])
    assert list(frame["USER_ID"]) == ["user_5"]
    rules = json.loads((lake / "streams" / "s" / "_metadata.json").read_text())["erasures"]
    receipts = [json.loads(path.read_text()) for path in (lake / "logs" / "erasures").glob("*.json")]
    assert len({rule["hash"] for rule in rules}) == 3 and len({rule["salt"] for rule in rules}) == 1
    assert len({receipt["salt"] for receipt in receipts}) == 3


def test_feeds_that_come_later_keep_the_rule(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """A feed that was never exported when the person was erased, and one that was limited to others."""
    assert manage_feeds.main(ERASE) == 0
    assert manage_feeds.main(["erase", "--where", "user_id=user_4", "--later", "drop", "--feeds", "s"]) == 0
    assert manage_feeds.main(["add", "--name", "again", "--type", "stream", "--source", "s"]) == 0
    assert export_to_data_lake.main(["--stream", "again"]) == 0
    found = set(pd.read_parquet(tmp_path / "lake" / "streams" / "again")["USER_ID"])
    assert found == {f"user_{i}" for i in range(10)} - {"user_3"}
    assert "user_3" not in (tmp_path / "lake" / ".state" / "_erasures.jsonl").read_text()


def test_a_column_nobody_has_leaves_no_receipt(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    assert manage_feeds.main(["erase", "--where", "nobody=1", "--later", "drop"]) == 1
    assert not (tmp_path / "lake" / "logs" / "erasures").exists()
    assert not (tmp_path / "lake" / ".state" / "_erasures.jsonl").exists()
