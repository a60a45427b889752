"""The export through the front door: the script, a real socket, a real directory, the readers people have."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.files import exclusive_lock
from ksql_lake.embedded import EmbeddedKsqlDB, Fault

DAY = 86_400_000
JAN15 = 1_736_899_200_000  # 2025-01-15T00:00:00Z


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.5")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        yield database


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


def add_feed(name: str, kind: str = "stream") -> None:
    argv = ["add", "--name", name, "--type", kind, "--source", name, "--description", "a test"]
    assert manage_feeds.main(argv) == 0


def export(*argv: str) -> int:
    return export_to_data_lake.main(list(argv))


def state(lake: Path, name: str, kind: str = "stream") -> dict[str, Any]:
    return json.loads((lake / f"{kind}s" / name / "_metadata.json").read_text())


def ids(lake: Path, name: str) -> list[tuple[int, int, str]]:
    """(partition, offset, id) of every row in the lake, sorted."""
    frame = pd.read_parquet(lake / "streams" / name)
    return sorted(zip(frame["ROWPARTITION"], frame["ROWOFFSET"], frame["ID"], strict=True))


def make_stream(database: EmbeddedKsqlDB, name: str = "PAYMENTS", partitions: int = 2) -> None:
    database.create_stream(name, "`ID` STRING, `AMOUNT` DECIMAL(38, 18)", partitions)


def produce(database: EmbeddedKsqlDB, first: int, last: int, name: str = "PAYMENTS", start: int = JAN15) -> None:
    for i in range(first, last):
        database.append(name, i % 2, start + i * 3_600_000, [f"e{i}", Decimal(i) + Decimal("1e-18")])


def test_demo_lake_is_read_by_every_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All eight sources land, and four readers see the same rows, whole and filtered."""
    root = tmp_path / "demo"
    assert export("--demo", "--start", "2025-01-15", "--lake", str(root), "--events", "600") == 0
    assert "transaction_stream" in capsys.readouterr().out
    stream = root / "streams" / "transaction_stream"
    assert sorted(p.name for p in (root / "tables").iterdir()) == [
        "payment_method_totals", "product_purchase_counts", "user_transaction_summary", "user_transaction_summary_eur"
    ]
    january = pd.read_parquet(stream, filters=[("year", "=", 2025), ("month", "=", 1)])
    glob = f"{stream}/**/*.parquet"
    ducks = duckdb.sql(f"select count(*), count(distinct (ROWPARTITION, ROWOFFSET)) from read_parquet('{glob}')")
    assert len(january) == 600 and ducks.fetchall() == [(600, 600)]
    assert pl.scan_parquet(glob, hive_partitioning=True).filter(pl.col("day") == 15).collect().height == len(
        pd.read_parquet(stream, filters=[("day", "=", 15)])
    )
    days = {p.parent.relative_to(stream).as_posix() for p in stream.rglob("*.parquet")}
    assert days == {f"year=2025/month=01/day={d}" for d in (15, 16, 17)}
    assert all(p.name.startswith(f"data_202501{p.parent.name[-2:]}_") for p in stream.rglob("*.parquet"))
    for path in stream.rglob("*.parquet"):
        times = pq.read_table(path, partitioning=None)["ROWTIME"].to_pylist()
        assert {t.strftime("day=%d") for t in times} == {path.parent.name}
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(root)]) == 0
    assert metadata_utils.main(["--report", "--lake", str(root)]) == 0


def test_the_second_run_adds_nothing_and_new_events_land_once(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 60)
    add_feed("payments")
    assert export("--all") == 0
    files = sorted(lake.rglob("*.parquet"))
    assert export("--all") == 0
    assert sorted(lake.rglob("*.parquet")) == files
    produce(ksqldb, 60, 75)
    assert export("--stream", "payments") == 0
    names = sorted((row[2] for row in ids(lake, "payments")), key=lambda name: int(name[1:]))
    assert names == [f"e{i}" for i in range(75)]
    frame = pd.read_parquet(lake / "streams" / "payments").sort_values("ROWTIME")
    assert frame["AMOUNT"].iloc[7] == Decimal("7.000000000000000001")
    assert state(lake, "payments")["total_records"] == 75


@pytest.mark.parametrize("order", [["d15", "all", "d16", "all"], ["all", "d15", "d16"], ["d16", "d15", "all", "d16"]])
def test_a_date_never_doubles_or_loses_a_row(ksqldb: EmbeddedKsqlDB, lake: Path, order: list[str]) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 60)
    add_feed("payments")
    for step in order:
        day = ["--date", f"2025-01-{step[1:]}"] if step != "all" else []
        assert export("--stream", "payments", *day) == 0
    assert len(ids(lake, "payments")) == len(set(ids(lake, "payments"))) == 60


def test_one_date_brings_that_day_only(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 60)
    add_feed("payments")
    assert export("--stream", "payments", "--date", "2025-01-16") == 0
    assert [p["path"] for p in state(lake, "payments")["partitions"]] == ["year=2025/month=01/day=16"]
    assert len(ids(lake, "payments")) == 24


def test_a_recreated_topic_starts_a_generation(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 20)
    add_feed("payments")
    assert export("--all") == 0
    ksqldb.recreate("PAYMENTS")
    for i in range(40):
        ksqldb.append("PAYMENTS", i % 2, JAN15 + 5 * DAY, [f"n{i}", Decimal(1)])
    assert export("--all") == 1
    assert "the topic was recreated" in capsys.readouterr().err
    rows = [row[2] for row in ids(lake, "payments")]
    assert sorted(rows) == sorted([f"e{i}" for i in range(20)] + [f"n{i}" for i in range(40)])
    assert state(lake, "payments")["generation"] == 2
    assert export("--all") == 0


def test_rows_that_expired_unexported_are_reported_once(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 20)
    add_feed("payments")
    assert export("--all") == 0
    produce(ksqldb, 20, 40)
    ksqldb.expire("PAYMENTS", 0, 15)
    assert export("--all") == 1
    assert "rows of partition 0 expired before they were exported" in capsys.readouterr().err
    assert export("--all") == 0


@pytest.mark.parametrize("fault", [
    Fault(cut_after=7, cut_where="row"), Fault(cut_after=7, cut_where="char"), Fault(cut_after=7), Fault(reset=True),
    Fault(complete_after=7), Fault(error_after=7), Fault(error_after=7, error_closed=False),
    Fault(repeat_after=9, repeat_rows=5),
    Fault(status=503, body=b'{"@type":"generic_error","error_code":50302,"message":"KSQL is not yet ready"}'),
])
def test_cuts_lose_and_double_nothing(ksqldb: EmbeddedKsqlDB, lake: Path, fault: Fault) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 50)
    add_feed("payments")
    ksqldb.faults.add(fault, fault, fault)  # the first may hit the small pull that asks whether there is a row at all
    assert export("--all") == 0
    assert [r[2] for r in sorted(ids(lake, "payments"), key=lambda r: int(r[2][1:]))] == [f"e{i}" for i in range(50)]


def test_table_versions(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """A pulled table, a windowed one and one that only its changelog shows; a shrunk one is refused."""
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER")
    ksqldb.create_table("PLAIN", "`ID` STRING KEY, `V` INTEGER", queryable=False)
    for i in range(10):
        ksqldb.upsert("T", [f"k{i}", i])
        ksqldb.upsert("PLAIN", [f"k{i}", i])
    ksqldb.upsert("PLAIN", ["k3", 33])
    ksqldb.delete("PLAIN", ["k4"])
    add_feed("t", "table")
    add_feed("plain", "table")
    assert export("--all") == 0
    plain = pd.read_parquet(lake / "tables" / "plain" / "version=v1").set_index("ID")["V"].to_dict()
    assert plain == {f"k{i}": 33 if i == 3 else i for i in range(10) if i != 4}
    assert export("--table", "t") == 0
    assert state(lake, "t", "table")["current"] == {"version": "v2", "path": "version=v2"}
    for i in range(1, 10):
        ksqldb.delete("T", [f"k{i}"])
    capsys.readouterr()
    assert export("--table", "t") == 1
    assert "--allow-shrink" in capsys.readouterr().err
    assert state(lake, "t", "table")["current"]["version"] == "v2"
    assert export("--table", "t", "--allow-shrink") == 0
    assert len(pd.read_parquet(lake / "tables" / "t" / "version=v3")) == 1


def test_columns_that_collide_and_are_added(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    ksqldb.create_stream("S", "`ID` STRING, `DAY` INTEGER, `a, b` STRING, `x<y>` STRING, `id` STRING", 1)
    ksqldb.append("S", 0, JAN15, ["e0", 7, "q", None, "lower"])
    add_feed("s")
    assert export("--all") == 0
    row = duckdb.sql(f"from read_parquet('{lake}/streams/s/**/*.parquet', hive_partitioning=true)").df().iloc[0]
    assert (row["DAY_"], row["a, b"], row["ID"], int(row["day"])) == (7, "q", "e0", 15)


def test_late_events_land_in_their_own_day(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 60)
    add_feed("payments")
    assert export("--all") == 0
    ksqldb.append("PAYMENTS", 0, JAN15 + 1, ["late", Decimal(0)])
    assert export("--all") == 0
    day = pd.read_parquet(lake / "streams" / "payments", filters=[("day", "=", 15)])
    assert list(day["ID"]).count("late") == 1


def test_a_held_lock_is_exit_code_3(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 4)
    add_feed("payments")
    with exclusive_lock(lake / ".state" / "payments.lock", "payments"):
        assert export("--all") == 3
    assert "payments: another run (pid" in capsys.readouterr().err


@pytest.mark.parametrize(("argv", "code", "words"), [
    (["--stream", "nope"], 1, "no such feed"),
    (["--table", "payments"], 2, "payments is a stream"),
    ([], 2, "give --all"),
    (["--stream", "payments", "--from", "2025-01-02", "--to", "2025-01-01"], 2, "is after"),
])
def test_bad_arguments(ksqldb: EmbeddedKsqlDB, argv: list[str], code: int, words: str, capsys: Any) -> None:
    make_stream(ksqldb)
    add_feed("payments")
    capsys.readouterr()
    assert export(*argv) == code
    assert words in capsys.readouterr().err


def test_a_date_that_is_none(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        export("--stream", "x", "--date", "2025-13-40")
    assert stop.value.code == 2
    assert "'2025-13-40' is not a day" in capsys.readouterr().err


def test_one_broken_feed_file_never_stops_the_others(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    make_stream(ksqldb)
    produce(ksqldb, 0, 4)
    add_feed("payments")
    (lake / "feeds" / "active" / "broken.json").write_text('{"feed_name": "broken",}')
    assert export("--all") == 1
    assert "broken.json:1:" in capsys.readouterr().err
    assert len(ids(lake, "payments")) == 4


def test_server_down_and_unknown_source(
    ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    add_feed("payments")
    assert export("--all") == 1
    assert "payments" in capsys.readouterr().err.lower()
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    assert export("--all") in (1, 2)
    assert "127.0.0.1:1" in capsys.readouterr().err
    assert not list(lake.rglob("*.parquet"))


def test_days_in_a_zone(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    """An event at 23:30 UTC is of the next day in Paris."""
    make_stream(ksqldb)
    ksqldb.append("PAYMENTS", 0, JAN15 + DAY - 1_800_000, ["e0", Decimal(0)])
    argv = ["add", "--name", "payments", "--type", "stream", "--source", "payments", "--timezone", "Europe/Paris"]
    assert manage_feeds.main(argv) == 0
    assert export("--stream", "payments", "--date", "2025-01-15") == 0
    assert not list(lake.rglob("*.parquet"))
    assert export("--stream", "payments", "--date", str(dt.date(2025, 1, 16))) == 0
    assert [p["path"] for p in state(lake, "payments")["partitions"]] == ["year=2025/month=01/day=16"]


@pytest.mark.parametrize("left", [0, 4])
def test_a_table_that_answers_with_nothing_or_half_is_refused(
    ksqldb: EmbeddedKsqlDB, lake: Path, left: int, capsys: Any
) -> None:
    """As during a rebalance: the old version stays current, and the next whole answer becomes the next version."""
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER")
    for i in range(10):
        ksqldb.upsert("T", [f"k{i}", i])
    add_feed("t", "table")
    assert export("--all") == 0
    for i in range(left, 10):
        ksqldb.delete("T", [f"k{i}"])
    assert export("--all") == 1
    assert "--allow-shrink" in capsys.readouterr().err
    assert state(lake, "t", "table")["current"]["version"] == "v1"
    assert len(list((lake / "tables" / "t").glob("version=*"))) == 1
    for i in range(left, 10):
        ksqldb.upsert("T", [f"k{i}", i])
    assert export("--all") == 0
    assert len(pd.read_parquet(lake / "tables" / "t" / "version=v2")) == 10


@pytest.mark.usefixtures("each_reader")
def test_a_row_of_megabytes_lands_whole(ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the pieces in which answers are read."""
    monkeypatch.setenv("IDLE_SECONDS", "2")  # a busy machine's server needs a moment for such a row
    ksqldb.create_stream("LARGE", "`ID` STRING, `TAGS` ARRAY<STRING>", 1)
    texts = ["a", "é\"€" * 1_500_000, "z"]
    for i, text in enumerate(texts):
        ksqldb.append("LARGE", 0, JAN15 + i, [text, [text[:3], None]])
    add_feed("large")
    assert export("--stream", "large") == 0
    frame = pd.read_parquet(lake / "streams" / "large").sort_values("ROWOFFSET")
    assert frame["ID"].tolist() == texts and [list(tags) for tags in frame["TAGS"]] == [[t[:3], None] for t in texts]


def test_a_feed_named_twice_is_exported_once(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER")
    ksqldb.upsert("T", ["k", 1])
    add_feed("t", "table")
    for _ in range(2):
        assert export_to_data_lake.main(["--table", "t", "--table", "t"]) == 0
    assert sorted(path.name for path in (lake / "tables" / "t").glob("version=*")) == ["version=v1", "version=v2"]
    assert metadata_utils.main(["--verify"]) == 0


def test_what_is_staged_is_as_closed_as_the_feed(
    ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else reads a restricted feed's rows while they wait to be published; `streams/` itself is open."""
    from ksql_lake.ingest import staged

    ksqldb.create_stream("S", "`ID` STRING", 1)
    ksqldb.append("S", 0, JAN15, ["a"])
    add_feed("s")
    modes: list[tuple[str, int]] = []
    publish = staged.journal.commit

    def look(dataset: Any, *args: Any) -> list[str]:
        modes.extend((path.name, path.stat().st_mode & 0o777) for path in dataset.staging.rglob("*.parquet"))
        return publish(dataset, *args)

    monkeypatch.setattr(staged.journal, "commit", look)
    old = os.umask(0)
    try:
        assert export_to_data_lake.main(["--stream", "s"]) == 0
    finally:
        os.umask(old)
    assert [mode for _, mode in modes] == [0o640]
    assert (lake / "streams").stat().st_mode & 0o777 == 0o755
    assert (lake / "streams" / "s").stat().st_mode & 0o777 == 0o750


def test_a_clock_set_back_is_a_finding(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER")
    ksqldb.upsert("T", ["k", 1])
    add_feed("t", "table")
    assert export_to_data_lake.main(["--table", "t"]) == 0
    path = lake / "tables" / "t" / "_metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "last_export": "2999-01-01T00:00:00Z"}))
    assert export_to_data_lake.main(["--table", "t"]) == 1
    assert "in the future by this machine's clock; set the clock" in capsys.readouterr().err


def test_what_fails_after_the_commit_does_not_hide_it(
    ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from ksql_lake.base.errors import KsqlError

    def broken(*_: Any) -> None:
        raise KsqlError("the server refuses to count")

    ksqldb.create_stream("S", "`ID` STRING", 1)
    ksqldb.append("S", 0, JAN15, ["a"])
    add_feed("s")
    monkeypatch.setattr("ksql_lake.ingest.export.reconcile", broken)
    assert export_to_data_lake.main(["--stream", "s", "--reconcile"]) == 1
    shown = capsys.readouterr()
    assert "1 rows" in shown.out
    assert "s: the rows are exported, but afterwards: the server refuses to count" in shown.err
    run = json.loads((lake / "logs" / "runs.jsonl").read_text().splitlines()[-1])
    assert (run["result"], run["rows"]) == ("findings", 1)


def test_messages_hold_no_value_of_a_row(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """They go to logs, pings and mails, where an erasure does not look."""
    bad = b'{"row":{"columns":[0,0,0,"alice@example.com"]}},\n'
    ksqldb.create_stream("S", "`N` INTEGER", 1)
    ksqldb.append("S", 0, JAN15, [1])
    add_feed("s")
    columns = b"`ROWTIME` BIGINT, `ROWPARTITION` INTEGER, `ROWOFFSET` BIGINT, `N` INTEGER"
    header = b'[{"header":{"queryId":"q","schema":"%b"}},\n' % columns
    for rows in (bad, bad.replace(b",0,0,", b","), bad.replace(b"]}}", b"")):
        ksqldb.faults.clear()
        for _ in range(4):
            ksqldb.faults.add(Fault(status=200, body=header + rows, content_type="application/vnd.ksql.v1+json"))
        assert export_to_data_lake.main(["--stream", "s"]) == 1
        told = capsys.readouterr().err
        logged = "".join(path.read_text() for path in (lake / "logs").iterdir())
        assert "alice" not in told + logged and ("column N" in told or "header" in told or "not JSON" in told), told


def test_a_feed_that_changes_its_kind_is_told_so(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    ksqldb.create_stream("S", "`ID` STRING", 1)
    ksqldb.append("S", 0, JAN15, ["a"])
    ksqldb.create_table("T", "`ID` STRING KEY")
    ksqldb.upsert("T", ["k"])
    add_feed("s")
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    path = lake / "feeds" / "active" / "s.json"
    raw = {**json.loads(path.read_text()), "feed_type": "table", "ksqldb_source": "t", "storage_mode": "overwrite"}
    path.write_text(json.dumps(raw))
    assert export_to_data_lake.main(["--table", "s"]) == 1
    assert "s: was exported as a stream, but is now a table; change feed_type back" in capsys.readouterr().err
