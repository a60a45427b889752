"""What others wrote never reaches a terminal, a log, a CSV file or a page as it is."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import data_lake_config
import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.text import cell, shown, shown_lines
from ksql_lake.embedded import EmbeddedKsqlDB, Fault
from tests.conftest import ROOT

JAN15 = 1736942400000  # 2025-01-15T12:00Z
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\r\x08\x7f\ud800"
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    monkeypatch.setenv("IDLE_SECONDS", "0.3")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
    with EmbeddedKsqlDB() as server:
        monkeypatch.setenv("KSQLDB_URL", server.url)
        yield server


def harmless(*texts: str) -> None:
    for text in texts:
        assert not DANGEROUS.search(text), repr(text)


@pytest.mark.parametrize("character", list(map(chr, (*range(32), *range(0x7F, 0xA0), 0x202E, 0x2067, 0xD83D))))
def test_every_control_character_is_escaped(character: str) -> None:
    assert shown(f"a{character}b") == f"a\\u{ord(character):04x}b"
    assert shown_lines("a\n\tb") == "a\n\tb"


@pytest.mark.parametrize("text", ["", "naïve", "日本語", "שלום", "👩‍👩‍👧", "a b", "100 %", "=1+1"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert shown(text) == shown_lines(text) == text


@pytest.mark.parametrize(("value", "written"), [
    ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"), ("+1+1", "'+1+1"), ("-2+3", "'-2+3"), ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'\t=1"), ("\r=1", "'\\u000d=1"), ("-12.50", "-12.50"), ("+7", "+7"), ("-1e-9", "-1e-9"), (-5, -5),
    (None, None), ("a=b", "a=b"), ("-", "'-"), ("\x1b[0m", "\\u001b[0m"),
])
def test_cells_that_a_spreadsheet_would_calculate(value: Any, written: Any) -> None:
    assert cell(value) == written


def test_the_words_of_a_server_on_screen_in_log_history_report_and_page(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    lake = tmp_path / "lake"
    monkeypatch.setenv("DATA_LAKE_DIR", str(lake))
    for name in ("S", "T"):
        ksqldb.create_stream(name, "ID STRING", 1)
        ksqldb.append(name, 0, JAN15, ["a"])
        assert manage_feeds.main(["add", "--name", name.lower(), "--type", "stream", "--source", name]) == 0
    ksqldb.faults.add(*[Fault(error_after=0, error_message=f"no {EVIL[:-1]}", path="/query") for _ in range(60)])
    assert export_to_data_lake.main(["--all"]) == 1
    screen = capsys.readouterr()
    assert "owned" in screen.err
    log = "".join(path.read_text() for path in (lake / "logs").glob("*.log"))
    harmless(screen.out, screen.err, log, (lake / "logs" / "runs.jsonl").read_text())
    for argv in (["--report"], ["--history"], ["--json"], ["--history", "--json"]):
        assert metadata_utils.main(argv) == 0
        told = capsys.readouterr()
        assert "owned" in told.out
        harmless(told.out, told.err)
    assert metadata_utils.main(["--html", str(tmp_path / "x.html")]) == 0
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "owned" in page
    harmless(page)


def test_values_of_rows_in_comparisons_and_statistics(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "lake"))
    evil = EVIL.encode(errors="ignore").decode()  # Parquet takes no half of a surrogate pair
    ksqldb.create_table("T", "ID STRING PRIMARY KEY, V STRING")
    assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "T"]) == 0
    for value in ("=1+1", f"-{evil}"):
        ksqldb.upsert("T", [f"k{evil}", value], JAN15)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    capsys.readouterr()
    for argv in (["--compare", "t", "v1", "v2"], ["--stats", "--deep"], ["--stats", "--deep", "--json"],
                 ["--compare", "t", "v1", "v2", "--format", "json"]):
        assert metadata_utils.main(argv) == 0
        told = capsys.readouterr().out
        assert "=1+1" in told or "owned" in told
        harmless(told)
    assert metadata_utils.main(["--compare", "t", "v1", "v2", "--format", "csv"]) == 0
    text = capsys.readouterr().out
    harmless(text)
    (line,) = list(csv.DictReader(text.splitlines()))
    assert line["before"] == "'=1+1" and line["after"].startswith("'-")


def test_feed_files_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    evil = "\x1b]0;owned\x07\u202e"
    lake = tmp_path / f"lake{evil}"
    monkeypatch.setenv("DATA_LAKE_DIR", str(lake))
    assert data_lake_config.main([]) == 0
    active = lake / "feeds" / "active"
    feed = {"feed_name": "a", "feed_type": "stream", "ksqldb_source": f"S{evil}", "description": evil, evil: 1}
    (active / "a.json").write_text(json.dumps(feed, ensure_ascii=False))
    (active / "b.json").write_text("{")
    (lake / "streams" / "a").mkdir(parents=True)
    (lake / "streams" / "a" / "_metadata.json").write_text(json.dumps({"sequence": evil, "source": evil}))
    for script, argv in (
        (manage_feeds, ["list"]), (manage_feeds, ["check"]), (manage_feeds, ["show", "a"]), (data_lake_config, []),
        (metadata_utils, ["--report"]), (metadata_utils, ["--verify"]), (export_to_data_lake, ["--all"]),
        (metadata_utils, ["--csv", str(tmp_path / "x.csv")]), (metadata_utils, ["--html", str(tmp_path / "x.html")]),
        (manage_feeds, ["show", evil]), (metadata_utils, ["--report", "--lake", f"/nowhere{evil}"]),
    ):
        capsys.readouterr()
        assert script.main(argv) in (0, 1, 2, 3)
        harmless(*capsys.readouterr())
    harmless((tmp_path / "x.csv").read_text(), (tmp_path / "x.html").read_text())


def test_on_a_terminal_our_colours_pass_and_nothing_else(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    (lake / "feeds" / "active").mkdir(parents=True)
    feed = {"feed_name": "a", "feed_type": "stream", "ksqldb_source": "S", "freshness_hours": 1}
    (lake / "feeds" / "active" / "a.json").write_text(json.dumps(feed))
    (lake / "logs").mkdir()
    found = [{"kind": "failed", "level": "error", "message": f"broke \x1b[8m {EVIL[:20]}"}]
    line = {"feed": "a", "ended": "2025-01-18T01:00:00Z", "result": "failed", "findings": found}
    (lake / "logs" / "runs.jsonl").write_text(json.dumps(line) + "\n")
    parent, child = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"}
    argv = [sys.executable, "metadata_utils.py", "--report", "--lake", str(lake)]
    assert subprocess.run(argv, cwd=ROOT, stdout=child, env=environment, check=False).returncode == 0
    os.close(child)
    text = os.read(parent, 65_536).decode()
    os.close(parent)
    assert "\x1b[31m! failed" in text and "broke \\u001b[8m" in text.replace("\r\n", " ").replace("               ", "")
    without = re.sub("\x1b\\[[0-9]+m", "", text).replace("\r\n", "")
    assert not [c for c in without if unicodedata.category(c) in ("Cc", "Cf")]


def test_names_of_sources_stay_in_their_line(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A line break in a name must not look like a line of ours."""
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "lake"))
    (tmp_path / "lake" / "feeds" / "active").mkdir(parents=True)
    name = "S\nerror: all rows were lost\x1b[1A"
    ksqldb.create_stream(name, "ID STRING", 1)
    feed = {"feed_name": "a", "feed_type": "stream", "ksqldb_source": name}
    (tmp_path / "lake" / "feeds" / "active" / "a.json").write_text(json.dumps(feed))
    for argv in (["list"], ["discover"]):
        manage_feeds.main(argv)
        told = capsys.readouterr()
        harmless(told.out)
        assert not [line for line in told.out.splitlines() if line.startswith("error:")], told.out
