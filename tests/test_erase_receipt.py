"""A receipt is true for every byte below the lake, or says what it could not look at, and the exit code is 1."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from tests.conftest import ROOT

JAN15 = 1_736_899_200_000
WHO = "anna.karenina@example.org"
ERASE = ["erase", "--where", f"user_id={WHO}", "--later", "drop"]
DAY = "streams/s/year=2025/month=01/day=15"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def ksqldb(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2"),
                            ("PARQUET_COMPRESSION", "none")):
            monkeypatch.setenv(name, value)
        database.create_stream("S", "`USER_ID` STRING, `N` INTEGER", 1)
        database.create_table("T", "`USER_ID` STRING KEY, `N` INTEGER")
        for i, who in enumerate(("bob", WHO, "carl", WHO)):
            database.append("S", 0, JAN15 + i, [who, i])
            database.upsert("T", [who, i])
        for name, kind in (("s", "stream"), ("t", "table")):
            assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
        setting(lake, bloom_filter_columns=["USER_ID"])
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        yield database


def setting(lake: Path, **settings: Any) -> None:
    path = lake / "feeds" / "active" / "s.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def receipt(lake: Path) -> dict[str, Any]:
    """The newest one."""
    newest = max((lake / "logs" / "erasures").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    told: dict[str, Any] = json.loads(newest.read_text())
    return told


def holding(lake: Path) -> list[str]:
    """Files below the lake in which the value stands, byte by byte; nothing is compressed."""
    found = [p for p in lake.rglob("*") if p.is_file() and not p.is_symlink() and WHO.encode() in p.read_bytes()]
    return sorted(str(path.relative_to(lake)) for path in found)


def exporting(name: str, source: str, lake: Path, **env: str) -> subprocess.Popen[bytes]:
    """A first export that knows no rule of an erasure that begins now, and reads its rows."""
    assert manage_feeds.main(["add", "--name", name, "--type", "stream", "--source", source]) == 0
    command = [sys.executable, str(ROOT / "export_to_data_lake.py"), "--stream", name]
    process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while not list((lake / ".staging" / name).glob("*/*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    return process


def test_no_byte_of_the_value_is_left(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """Rows, dictionaries, statistics and bloom filters: a file with such a row is written anew."""
    (before,) = (lake / DAY).glob("*.parquet")
    with pq.ParquetFile(before) as parquet:
        column = parquet.metadata.row_group(0).column(3)
        assert column.path_in_schema == "USER_ID" and column.statistics.min == WHO
    assert len(holding(lake)) == 2
    capsys.readouterr()
    assert manage_feeds.main(ERASE) == 0
    assert "3 rows erased in 2 feeds, 0 left" in capsys.readouterr().out
    assert holding(lake) == []
    told = receipt(lake)
    assert told["ended"] and told["rows_left"] == 0 and told["left"] == told["not_looked_at"] == []
    assert told["looked_at"]["parquet_files"] == 2 and told["looked_at"]["text_files"] > 5
    assert metadata_utils.main(["--verify", "--deep"]) == 0


def test_an_export_that_is_running(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """The feed's very first: nothing but staging knows it. It is told, and its rows do not come in by it."""
    process = exporting("first", "s", lake, IDLE_SECONDS="6")
    try:
        assert manage_feeds.main(ERASE) == 1
        told = capsys.readouterr()
        assert "first: another run (pid" in told.err and "this erasure is not complete" in told.err
        assert receipt(lake)["ended"] is None and receipt(lake)["rows"] == 3, "the other feeds are done"
        assert [one["path"] for one in receipt(lake)["not_looked_at"]] == ["feed first"]
        assert process.wait(120) == 0, process.stdout.read() if process.stdout else ""
    finally:
        process.kill()
        process.wait()
    assert holding(lake) == [], "the run that was under way drops the rows, too"
    ids = pq.read_table(next((lake / "streams" / "first").rglob("*.parquet")))["N"].to_pylist()
    assert ids == [0, 2] and metadata_utils.main(["--verify", "--deep"]) == 0
    assert manage_feeds.main(ERASE) == 0
    (path,) = (lake / "logs" / "erasures").glob("*.json")
    assert json.loads(path.read_text())["ended"] and json.loads(path.read_text())["rows"] == 3
    assert export_to_data_lake.main(["--stream", "first"]) == 0 and holding(lake) == []


def test_waiting_for_an_export(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    process = exporting("first", "s", lake, IDLE_SECONDS="3")
    assert manage_feeds.main([*ERASE, "--wait"]) == 0
    assert process.wait(120) == 0 and holding(lake) == [] and receipt(lake)["ended"]


def test_an_export_that_was_killed(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    process = exporting("first", "s", lake, IDLE_SECONDS="60")
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run,) = (lake / ".staging" / "first").iterdir()
    for name in ("a0/whole.parquet", "a0/part.parquet", "commit.json.77.inprogress"):  # as a later kill leaves them
        shutil.copy(next((lake / DAY).glob("*.parquet")), run / name)
    assert any(path.startswith(".staging/first/") for path in holding(lake)) and not (lake / "streams/first").exists()
    spill = lake / ".staging" / "vanished" / "20250101T000000_abcdef" / "latest.sqlite"
    spill.parent.mkdir(parents=True)
    spill.write_bytes(b"SQLite format 3\0" + WHO.encode())
    assert manage_feeds.main(ERASE) == 0
    assert holding(lake) == [] and receipt(lake)["ended"]
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0 and holding(lake) == []


def stray(lake: Path) -> str:
    shutil.copy(next((lake / DAY).glob("*.parquet")), lake / DAY / "copy.parquet")
    return f"{DAY}/copy.parquet: holds 2 rows"


def backup(lake: Path) -> str:
    shutil.copytree(lake / "tables", lake / "backup" / "2025")
    name = next((lake / "backup").rglob("*.parquet")).relative_to(lake)
    return f"{name}: holds 1 row"


def unnamed(lake: Path) -> str:
    shutil.copy(next((lake / DAY).glob("*.parquet")), lake / "logs" / "saved.bak")
    return "logs/saved.bak: holds 2 rows"


def set_aside_unknown(lake: Path) -> str:
    (lake / "quarantine" / "zz").mkdir(parents=True)
    shutil.copy(next((lake / DAY).glob("*.parquet")), lake / "quarantine" / "zz" / "x_20250115_0001.parquet")
    return "quarantine/zz/x_20250115_0001.parquet: holds 2 rows"


def log_line(lake: Path) -> str:
    with (lake / "logs" / "export_2025_01.log").open("a") as log:
        log.write(f"ERROR s: the server broke off: bad row of {WHO}, offset 3\nINFO nothing\n")
    return "logs/export_2025_01.log: mentions the value in 1 line"


def run_line(lake: Path) -> str:
    with (lake / "logs" / "runs.jsonl").open("a") as runs:
        run = {"feed": "s", "ended": "2025-01-15T00:00:00Z", "findings": [f"row of {WHO}: odd"]}
        runs.write(json.dumps(run) + "\n")
    return "logs/runs.jsonl: mentions the value in 1 line"


def aside_metadata(lake: Path) -> str:
    text = json.dumps({"findings": [f"{WHO} came twice"]}, indent=2)
    (lake / "streams" / "s" / "._metadata.json.20250101T000000.aside").write_text(text)
    return "streams/s/._metadata.json.20250101T000000.aside: mentions the value in 1 line"


def temporary(lake: Path) -> str:
    (lake / "logs" / ".report.html.77.inprogress").write_text(f"<td>{WHO}</td>")
    return "logs/.report.html.77.inprogress: mentions the value in 1 line"


def feed_file(lake: Path) -> str:
    setting(lake, checks=[{"check": "accepted_values", "column": "USER_ID", "values": [WHO, "bob", "carl"]}])
    return "feeds/active/s.json: mentions the value in 1 line"


def compressed(lake: Path) -> str:
    with gzip.open(lake / "logs" / "export_2024_12.log.gz", "wt") as log:
        log.write(WHO)
    return "logs/export_2024_12.log.gz: not searched: neither Parquet nor text"


def torn(lake: Path) -> str:
    whole = next((lake / DAY).glob("*.parquet")).read_bytes()
    (lake / DAY / "torn.parquet").write_bytes(whole[:-20])
    return f"{DAY}/torn.parquet: not searched: not readable as Parquet"


def link(lake: Path) -> str:
    shutil.copytree(lake / "tables", lake.parent / "elsewhere")
    (lake / "tables" / "linked").symlink_to(lake.parent / "elsewhere")
    return "tables/linked: not searched: a symbolic link that leads out of the lake"


def fifo(lake: Path) -> str:
    os.mkfifo(lake / "logs" / "pipe")
    return "logs/pipe: not searched: neither a file nor a directory"


def damaged(lake: Path) -> str:
    (lake / "tables" / "t" / "_metadata.json").write_text("{")
    return "feed t: not searched:"


@pytest.mark.parametrize("spoil", [
    stray, backup, unnamed, set_aside_unknown, log_line, run_line, aside_metadata, temporary, feed_file, compressed,
    torn, link, fifo, damaged,
])
def test_what_is_left_or_not_looked_at_is_told(
    spoil: Callable[[Path], str], ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any
) -> None:
    expected = spoil(lake)
    capsys.readouterr()
    assert manage_feeds.main(ERASE) == 1
    told = capsys.readouterr()
    assert expected in told.err and "this erasure is not complete" in told.err
    known = receipt(lake)
    assert known["ended"] is None and WHO not in json.dumps(known)
    path = expected.partition(": ")[0]
    assert path in [one["path"] for one in (*known["left"], *known["not_looked_at"])]
    assert not [name for name in holding(lake) if name.startswith(DAY) and "copy" not in name and "torn" not in name]
    if path.startswith("feed "):
        return
    if (lake / path).is_dir() or path == "feeds/active/s.json":
        (lake / path).unlink() if (lake / path).is_symlink() else (lake / path).write_text("{}")
    else:
        (lake / path).unlink()
    assert manage_feeds.main(ERASE) == 0 and receipt(lake)["ended"] and receipt(lake)["rows"] == 3


def test_trash_of_a_feed_that_is_gone(ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any) -> None:
    """Neither its directory nor its state are there any more, only what retention took."""
    ksqldb.append("S", 0, int(time.time() * 1000), ["bob", 9])
    setting(lake, retention_days=5)
    assert export_to_data_lake.main(["--stream", "s", "--quiet"]) == 0
    assert manage_feeds.main(["retention", "s", "--max-delete", "100"]) == 0
    (trashed,) = (lake / ".trash").rglob("*.parquet")
    shutil.rmtree(lake / "streams" / "s")
    assert manage_feeds.main(["remove", "s", "--yes"]) == 0
    capsys.readouterr()
    assert manage_feeds.main([*ERASE[:3], "--dry-run"]) == 0
    assert "s  2 rows in .trash/" in capsys.readouterr().out and trashed.exists()
    assert manage_feeds.main(ERASE) == 0
    assert "3 rows erased in 2 feeds, 0 left" in capsys.readouterr().out
    assert holding(lake) == [] and not trashed.exists()
    (left,) = (lake / ".trash").rglob("*.parquet")
    manifest = json.loads(next((lake / ".trash").rglob("manifest.json")).read_text())
    assert [entry["path"] for entry in manifest["files"]] == ["/".join(left.parts[-4:])]
    assert pq.read_table(left)["N"].to_pylist() == [0, 2] and manifest["files"][0]["rows"] == 2
    assert {feed["feed"]: feed["rows"] for feed in receipt(lake)["feeds"]} == {"s": 2, "t": 1}
    assert manage_feeds.main(ERASE) == 0 and not (lake / ".staging" / "s").exists() or not list(
        (lake / ".staging" / "s").iterdir())


def test_a_file_of_the_metadata_that_is_gone(ksqldb: EmbeddedKsqlDB, lake: Path) -> None:
    """It holds nothing any more; the others are erased."""
    next((lake / DAY).glob("*.parquet")).unlink()
    assert manage_feeds.main(ERASE) == 0
    assert holding(lake) == [] and receipt(lake)["rows"] == 1


@pytest.mark.parametrize(("where", "code"), [("n=1", 0), ("n=2026", 0)])
def test_short_values_are_not_looked_for_in_every_number(
    where: str, code: int, ksqldb: EmbeddedKsqlDB, lake: Path
) -> None:
    """A log is full of numbers; beside the name of the column one counts."""
    assert manage_feeds.main(["erase", "--where", where, "--later", "keep"]) == code
    with (lake / "logs" / "export_2025_01.log").open("a") as log:
        log.write(f"ERROR s: N of {where[2:]} is odd\n")
    assert manage_feeds.main(["erase", "--where", where, "--later", "keep"]) == 1
    assert receipt(lake)["left"] == [{"path": "logs/export_2025_01.log", "rows": 0, "lines": 1}]
