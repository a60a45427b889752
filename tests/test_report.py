"""The report on a terminal, the numbers, the history, and the forms for machines; quick on a large lake."""

from __future__ import annotations

import csv
import datetime as dt
import html
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import metadata_utils
from ksql_lake.base import figures
from ksql_lake.model.entries import FileEntry, FileSet
from ksql_lake.model.findings import KINDS, Finding
from ksql_lake.model.state import FeedState
from ksql_lake.query.column_stats import column_stats
from ksql_lake.reporting.summary import FeedSummary
from ksql_lake.reporting.terminal import history, report
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.remote.places import Places
from tests.conftest import ROOT
from tests.lakes import a_run, many_feeds, write_lake

NOW = dt.datetime(2025, 1, 18, 2, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("report") / "lake"
    start = ["--demo", "--start", "2025-01-15"]
    assert export_to_data_lake.main([*start, "--quiet", "--lake", str(lake), "--events", "300"]) == 0
    return lake


def shown(lake: Path, capsys: Any, *argv: str, code: int = 0) -> str:
    capsys.readouterr()
    assert metadata_utils.main([*argv, "--lake", str(lake)]) == code
    return str(capsys.readouterr().out)


def summary(name: str, *findings: Finding, **changes: Any) -> FeedSummary:
    run = a_run(feed=name, result="ok", rows=1203, seconds=4.2)
    good = FeedSummary(
        name, "stream", "active", 150_000, 45_200_000, 31, 31, "2025-01-17", "2025-01-18T00:00:00Z", 7200.0, 93_600.0,
        "2025-01-18T01:00:00Z", "2025-01-18T01:00:00Z", run, findings,
    )
    return replace(good, **changes)


def test_the_screen_to_the_letter() -> None:
    failed = summary("orders", Finding("failed", "orders: no such stream"), last_run=a_run(
        feed="orders", result="failed", rows=0, ended="2025-01-18T01:30:00Z"), rows=9)
    stale = summary("a_feed_with_a_name_that_is_much_too_long", Finding("stale", "its newest data are old"),
                    freshness_seconds=200_000.0, type="table", partitions=7)
    noted = summary("clicks", Finding("small files", "clicks: 40 small files on 3 days; merge: python ..."))
    assert report(Path("lake"), [noted, stale, failed], NOW) == """\
! failed      orders: no such stream
! stale       a_feed_with_a_name_that_is_much_too_long: its newest data are old
- small files clicks: 40 small files on 3 days; merge: python ...

feed                           result    rows   size    in   newest  last export
orders                         failed       9  45 MB   31d   2h/26h           1h
a_feed_with_a_.._much_too_long ok        150k  45 MB    7v   2d/26h 1h 1.2k 4.2s
clicks                         ok        150k  45 MB   31d   2h/26h 1h 1.2k 4.2s
3 feeds                                  300k 136 MB    69
last run ended 2025-01-18T01:30:00Z, 30m ago
"""


def test_every_line_fits_80_columns_and_the_worst_come_first() -> None:
    many = [summary(f"feed_{i:03}", Finding("gap", f"feed_{i:03}: {i} " + "word " * 40 + "/path" * 40))
            for i in range(30)]
    many += [summary("zzz", Finding("failed", "broke"), rows=10**15, bytes=10**17, freshness_seconds=9e8,
                     partitions=99_999)]
    text = report(Path("lake"), many, NOW)
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("! failed      zzz: broke\n") and "and 19 more: python metadata_utils.py --json" in text
    table = text[text.index("result"):].splitlines()
    assert table[1].startswith("zzz ") and len(table) == 1 + 31 + 2


@pytest.mark.parametrize(("number", "count", "size"), [
    (0, "0", "0 B"), (999, "999", "999 B"), (1000, "1.0k", "1.0 kB"), (9_960, "10k", "10 kB"),
    (999_499, "999k", "999 kB"), (999_500, "1.0M", "1.0 MB"), (45_200_000, "45M", "45 MB"),
])
def test_figures(number: int, count: str, size: str) -> None:
    assert (figures.count(number), figures.size(number)) == (count, size)


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0s"), (0.34, "0.3s"), (59.9, "59s"), (3599, "59m"), (7200, "2h"), (172_799, "47h"), (172_800, "2d"),
])
def test_durations(seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text


def on_a_terminal(lake: Path, environment: dict[str, str]) -> str:
    parent, child = pty.openpty()
    argv = [sys.executable, "metadata_utils.py", "--report", "--lake", str(lake)]
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | environment
    with subprocess.Popen(argv, cwd=ROOT, stdout=child, env=env) as process:
        os.close(child)
        text = b""
        while True:
            try:
                part = os.read(parent, 65_536)
            except OSError:  # Linux says EIO when the other side is closed
                break
            if not part:
                break
            text += part
        assert process.wait() == 0
    os.close(parent)
    return text.decode()


def test_colours_on_a_terminal_only_and_not_against_the_user_s_will(demo: Path, capsys: Any) -> None:
    assert "\033[32mok" in on_a_terminal(demo, {})
    assert "\033" not in on_a_terminal(demo, {"NO_COLOR": "1"})
    assert "\033" not in on_a_terminal(demo, {"TERM": "dumb"})
    assert "\033" not in shown(demo, capsys, "--report")


def test_numbers_of_days_since_one(demo: Path, capsys: Any) -> None:
    text = shown(demo, capsys, "--stats", "--since", "2025-01-17", "--feed", "transaction_stream")
    assert "transaction_stream: 100 rows" in text and "day=17" in text and "day=16" not in text
    parts = json.loads(shown(demo, capsys, "--stats", "--json", "--feed", "transaction_stream"))
    assert [(p["label"], p["rows"], p["files"]) for p in parts] == [
        ("2025-01-15", 100, 1), ("2025-01-16", 100, 1), ("2025-01-17", 100, 1),
    ]
    assert parts[0].keys() == {
        "feed", "type", "source", "path", "label", "rows", "bytes", "files", "exported_at", "current"}


def test_the_csv_of_some_days(demo: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "some.csv"
    shown(demo, capsys, "--csv", str(target), "--since", "2025-01-16", "--feed", "transaction_stream")
    with target.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["feed", "type", "source", "path", "records", "size_mb", "exported_at", "current"]
    assert [row[3][-6:] for row in rows[1:]] == ["day=16", "day=17"]


def test_the_form_for_machines(demo: Path, tmp_path: Path, capsys: Any) -> None:
    demo = Path(shutil.copytree(demo, tmp_path / "copy"))
    path = demo / "feeds" / "active" / "transaction_stream.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "retention_days": 365, "freshness_hours": 0}))
    lines = json.loads(shown(demo, capsys, "--json"))
    assert len(lines) == 8 and json.loads(shown(demo, capsys, "--report", "--json"))[0].keys() == lines[0].keys()
    assert set(lines[0]) == {
        "feed", "type", "state", "rows", "bytes", "files", "partitions", "newest", "newest_event", "freshness_seconds",
        "freshness_limit", "last_export", "last_success", "last_run", "findings", "quarantined", "checks",
        "size_mb", "result",
    }
    stream = next(line for line in lines if line["feed"] == "transaction_stream")
    assert (stream["result"], stream["rows"]) == ("ok", 300) and stream["size_mb"] == stream["bytes"] / 1e6
    # the demo's days are of 2025 and the rule is 365 days now: all of it would go at once
    assert [finding["kind"] for finding in stream["findings"]] == ["retention"]


def test_the_history_of_runs(tmp_path: Path, capsys: Any) -> None:
    write_lake(tmp_path, many_feeds(2), 2)
    failed = {"run": "r2", "feed": "feed_0001", "ended": "2025-01-19T01:00:00Z", "seconds": 61.2, "result": "failed",
              "rows": 0, "bytes": 0, "retries": 4, "findings": ["no such stream", "really"]}
    with (tmp_path / "logs" / "runs.jsonl").open("a") as file:
        file.write(json.dumps(failed) + "\n{torn")
    lines = shown(tmp_path, capsys, "--history").splitlines()
    assert len(lines) == 4 and lines[1] == (
        "2025-01-18 01:00Z feed_0000                      ok          10 1.0 kB  1.5s     0 -")
    assert lines[3] == (
        "2025-01-19 01:00Z feed_0001                      failed       0    0 B    1m     4 no such stream; really")
    assert len(shown(tmp_path, capsys, "--history", "--since", "2025-01-19").splitlines()) == 2
    (only,) = json.loads(shown(tmp_path, capsys, "--history", "--json", "--feed", "feed_0000"))
    assert only["offsets"] == {"0": [5, 14]}


def test_readme_knows_every_kind_of_finding_and_every_key(demo: Path, capsys: Any) -> None:
    readme = "".join(path.read_text("utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")))
    keys = json.loads(shown(demo, capsys, "--json"))[0]
    for word in (*KINDS, *keys, *metadata_utils.CSV_COLUMNS):
        assert f"`{word}`" in readme, word


def test_nothing_to_do_is_a_usage_error(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        metadata_utils.main([])
    assert stop.value.code == 2 and "--report" in capsys.readouterr().err


LOOKS = [["--report"], ["--stats"], ["--csv", "{}/x.csv"], ["--json"], ["--history"], ["--html", "{}/x.html"]]


@pytest.mark.parametrize("argv", LOOKS, ids=lambda argv: argv[0])
def test_looking_loads_neither_pandas_nor_arrow(tmp_path: Path, argv: list[str]) -> None:
    write_lake(tmp_path, many_feeds(3), 3)
    given = [part.format(tmp_path) for part in argv]
    code = (
        "import sys, metadata_utils\n"
        f"code = metadata_utils.main({[*given, '--lake', str(tmp_path)]!r})\n"
        "heavy = {'pandas', 'pyarrow', 'numpy', 'requests'} & set(sys.modules)\n"
        "sys.exit(f'code {code}, loaded {heavy}' if code or heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(("feeds", "days", "limit"), [(1, 1000, 1.0), (1000, 1, 4.0)])
def test_a_large_lake_is_told_at_once(tmp_path: Path, capsys: Any, feeds: int, days: int, limit: float) -> None:
    write_lake(tmp_path, many_feeds(feeds), days)
    for argv in (["--report"], ["--json"], ["--stats"], ["--csv", str(tmp_path / "x.csv")]):
        started = time.perf_counter()
        text = shown(tmp_path, capsys, *argv)
        assert time.perf_counter() - started < limit, argv
        assert argv[0] != "--stats" or len(re.findall(r"day=\d\d ", text)) == feeds * days
    assert len((tmp_path / "x.csv").read_text().splitlines()) == feeds * days + 1


def test_statistics_of_columns_by_footers_and_by_reading(tmp_path: Path) -> None:
    """The same answers whether the footers know or not; estimates within a few per cent, exact below 1,024 values."""
    rows = 50_000
    table = pa.table({
        "id": pa.array(range(rows), pa.int64()), "word": [f"w{i % 700}" if i % 5 else None for i in range(rows)],
        "price": pa.array([i % 3000 for i in range(rows)]).cast(pa.decimal128(21, 2)),
        "when": pa.array(range(rows), pa.timestamp("ms", "UTC")), "day": pa.array([i % 40 for i in range(rows)],
                                                                                 pa.int32()).cast(pa.date32()),
        "flag": [i % 2 == 0 for i in range(rows)], "raw": [str(i % 9).encode() for i in range(rows)],
        "time": pa.array([i % 5 for i in range(rows)], pa.time32("ms")), "none": pa.nulls(rows, pa.string()),
        "nested": [[1] if i % 2 else None for i in range(rows)], "ratio": [float(i % 11) for i in range(rows)],
    })
    found = []
    for name, known in (("told", True), ("silent", False)):
        dataset = Dataset(tmp_path, name, "stream")
        directory = dataset.directory
        directory.mkdir(parents=True)
        pq.write_table(table, directory / "a.parquet", write_statistics=known, row_group_size=20_000)
        pq.write_table(table.select(["id"]).slice(0, 10), directory / "b.parquet", write_statistics=known)
        state = FeedState("S", "stream", "", files=FileSet(
            FileEntry.from_json({"path": f"{x}.parquet", "partition": "p", "rows": 1, "bytes": 1}) for x in "ab"
        ))
        found.append(column_stats(Places(dataset), state, ["p"]))
        assert column_stats(Places(dataset), state, ["other"]) == []
    assert found[0] == found[1]
    told = {column.name: column for column in found[0]}
    assert {column.rows for column in told.values()} == {rows + 10}
    assert told["word"].nulls == rows // 5 + 10 and told["none"].nulls == rows + 10 and told["id"].nulls == 0
    assert (told["word"].distinct, told["word"].exact) == (560, True)  # w0, w5 ... are null
    assert (told["id"].least, told["id"].greatest, told["id"].exact) == (0, rows - 1, False)
    for name, true in (("id", rows), ("when", rows), ("price", 3000)):
        assert told[name].distinct == pytest.approx(true, rel=0.12)
    assert [told[name].distinct for name in ("day", "flag", "raw", "time", "none", "ratio")] == [40, 2, 9, 5, 0, 11]
    assert str(told["price"].greatest) == "2999.00" and told["day"].least == dt.date(1970, 1, 1)
    assert (told["nested"].nulls, told["nested"].distinct) == (rows // 2 + 10, None)


def test_deep_numbers_of_a_lake(demo: Path, capsys: Any) -> None:
    text = shown(demo, capsys, "--stats", "--deep", "--feed", "payment_method_totals")
    assert re.search(r"PAYMENT_METHOD +0 null +4 values +applepay \.\. sepa", text)
    deep = json.loads(shown(demo, capsys, "--stats", "--deep", "--json", "--feed", "transaction_stream"))
    offset = next(column for column in deep["columns"] if column["name"] == "ROWPARTITION")
    assert (offset["rows"], offset["nulls"], offset["least"], offset["distinct"]) == (300, 0, 0, 4)


def test_hints_of_the_report_and_the_page_name_the_lake_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    lake = Path("another lake")
    lake.mkdir()
    write_lake(lake, many_feeds(20), 1)
    for directory in (lake / "streams").iterdir():
        path = directory / "_metadata.json"
        file = {"path": "quarantine/x.parquet", "partition": "year=2025/month=01/day=15", "rows": 3, "bytes": 9}
        path.write_text(json.dumps({**json.loads(path.read_text()), "quarantine": [file]}))
    text = " ".join(shown(lake, capsys, "--report").split())
    option = f"--lake '{lake}'"
    assert f"manage_feeds.py quarantine feed_0000 {option}" in text and f"metadata_utils.py --json {option}" in text
    shown(lake, capsys, "--html", str(tmp_path / "x.html"))
    assert f"quarantine feed_0000 {option}" in html.unescape((tmp_path / "x.html").read_text())


@pytest.mark.parametrize("width", [20, 60, 80, 100, 132, 300])
def test_the_report_uses_the_width_of_the_terminal(width: int) -> None:
    long = "a_feed_with_a_name_that_is_much_too_long_for_eighty_columns"
    feeds = [summary(long, Finding("gap", "word " * 100)), summary("b")]
    lines = report(Path("lake"), feeds, NOW, width=width).splitlines()
    fits = min(max(width, 60), 160)
    assert fits - 12 < max(map(len, lines)) <= fits
    table = next(i for i, line in enumerate(lines) if line.startswith("feed "))
    assert len({len(line) for line in lines[table + 1 : table + 3]}) == 1
    assert any(line.startswith(f"{long} ") for line in lines) == (fits >= len(long) + 50)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_history_on_a_terminal_wraps_below_its_run(width: int) -> None:
    run = a_run(feed="f" * 40, result="failed", findings=["word " * 60, "second"])
    lines = "".join(history([run, a_run()], width=width)).splitlines()
    assert max(map(len, lines)) <= width and lines[1].startswith("2025-01-18 01:00Z fff")
    assert lines[2].startswith("    word") and lines[-2] == "    second" and lines[-1].endswith(" 0")


def test_the_history_of_a_pipe_is_one_line_a_run(demo: Path, capsys: Any) -> None:
    lines = shown(demo, capsys, "--history").splitlines()
    assert len(lines) == 9 and all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\dZ ", line) for line in lines[1:])


MONITORING = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python metadata_utils\.py (.*?)(?:  +#.*)?$", MONITORING, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_monitoring_page(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("DATA_LAKE_DIR", str(demo))
    monkeypatch.setenv("BROWSER", "true")
    monkeypatch.chdir(tmp_path)
    assert metadata_utils.main(shlex.split(command)) == 0


def test_the_monitoring_page_knows_every_kind_key_and_column(demo: Path, capsys: Any) -> None:
    keys = json.loads(shown(demo, capsys, "--json"))[0]
    run = keys["last_run"]
    for word in (*KINDS, *keys, *run, *metadata_utils.CSV_COLUMNS):
        assert f"`{word}`" in MONITORING, word
    assert len(COMMANDS) >= 8
