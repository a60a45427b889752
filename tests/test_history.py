"""Every run that began leaves a line, whatever became of it; odd lines spoil nothing; long histories are no burden."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.cli import run
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.store import history, running
from ksql_lake.store.running import Started
from tests.conftest import ROOT
from tests.lakes import many_feeds, write_lake

JAN15 = 1736942400000  # 2025-01-15T12:00Z


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    monkeypatch.setenv("IDLE_SECONDS", "0.3")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
    with EmbeddedKsqlDB() as server:
        monkeypatch.setenv("KSQLDB_URL", server.url)
        for name in ("A", "B", "C"):
            server.create_stream(name, "ID STRING", 1)
            server.append(name, 0, JAN15, ["a"])
        yield server


@pytest.fixture
def lake(ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "lake"))
    for name in ("a", "b", "c"):
        assert manage_feeds.main(["add", "--name", name, "--type", "stream", "--source", name]) == 0
    return tmp_path / "lake"


def lines(lake: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lake / "logs" / "runs.jsonl").read_text().splitlines()]


def results(lake: Path) -> dict[str, str]:
    return {line["feed"]: line["result"] for line in lines(lake)}


def log_of(lake: Path) -> str:
    return "".join(path.read_text() for path in (lake / "logs").glob("export_*.log"))


def test_a_server_that_cannot_be_reached_is_a_failure_of_every_feed(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "0.2")
    metrics = tmp_path / "lake.prom"
    assert export_to_data_lake.main(["--all", "--quiet", "--metrics-file", str(metrics)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("http")[0] for line in said] == ["error: a, b, c: "]
    assert results(lake) == {"a": "failed", "b": "failed", "c": "failed"}
    assert 'ksql_lake_last_run_result{feed="b",type="stream",result="failed"} 1' in metrics.read_text()
    assert all(f"{name}: http://127.0.0.1:9" in log_of(lake) for name in "abc")
    capsys.readouterr()
    assert metadata_utils.main(["--report"]) == 0
    shown = capsys.readouterr().out
    assert "nothing needs attention" not in shown and "! failed" in shown and "127.0.0.1:9" in shown


def test_json_is_printed_also_when_the_server_cannot_be_reached(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "0.2")
    capsys.readouterr()
    assert export_to_data_lake.main(["--all", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(one["feed"], one["result"], one["findings"][0]["kind"]) for one in told] == [
        (name, "failed", "failed") for name in "abc"]


def test_settings_that_are_wrong_are_a_failure_of_every_feed(
    lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("IDLE_SECONDS", "soon")
    assert export_to_data_lake.main(["--all", "--quiet"]) == 2
    assert results(lake) == {"a": "failed", "b": "failed", "c": "failed"}
    assert "IDLE_SECONDS" in lines(lake)[0]["findings"][0]["message"] and "IDLE_SECONDS" in log_of(lake)
    monkeypatch.delenv("IDLE_SECONDS")
    assert metadata_utils.main(["--report"]) == 0
    assert "IDLE_SECONDS" in capsys.readouterr().out


def test_a_mistake_on_the_command_line_is_no_run(lake: Path, capsys: Any) -> None:
    assert export_to_data_lake.main(["--all", "--to", "2025-01-01"]) == 2
    assert export_to_data_lake.main([]) == 2
    assert not (lake / "logs" / "runs.jsonl").exists()


def test_a_bug_before_the_first_feed_is_a_failure_of_every_feed(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(run, "task_of", bug)
    with pytest.raises(ZeroDivisionError):
        export_to_data_lake.main(["--all", "--quiet"])
    assert results(lake) == {"a": "failed", "b": "failed", "c": "failed"}
    assert "a bug: ZeroDivisionError: by accident" in lines(lake)[0]["findings"][0]["message"]
    assert not list((lake / ".state/running").iterdir())


def started(lake: Path) -> subprocess.Popen[str]:
    """An export in a process of its own, now waiting for the end of its second feed."""
    process = subprocess.Popen(
        [sys.executable, "export_to_data_lake.py", "--all", "--jobs", "1", "--lake", str(lake)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "IDLE_SECONDS": "4"},
    )
    assert process.stdout is not None and process.stdout.readline().startswith("a ")
    return process


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_told_of_every_feed_it_left_out(
    lake: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, tmp_path: Path
) -> None:
    metrics = tmp_path / "lake.prom"
    monkeypatch.setenv("METRICS_FILE", str(metrics))
    process = started(lake)
    time.sleep(0.2)
    process.send_signal(sent)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert results(lake) == {"a": "ok", "b": "stopped", "c": "stopped"}
    found = lines(lake)[-1]["findings"]
    assert [(one["kind"], one["level"]) for one in found] == [("stopped", "warning")]
    assert 'ksql_lake_last_run_result{feed="c",type="stream",result="stopped"} 1' in metrics.read_text()
    assert "c: interrupted" in log_of(lake)


def test_a_kill_is_seen_by_the_report_at_once_and_written_down_by_the_next_run(
    lake: Path, capsys: Any
) -> None:
    process = started(lake)
    assert metadata_utils.main(["--report"]) == 0
    assert "killed" not in capsys.readouterr().out, "it is under way"
    process.kill()
    process.communicate()
    assert results(lake) == {"a": "ok"}
    assert metadata_utils.main(["--json"]) == 0
    told = {one["feed"]: one for one in json.loads(capsys.readouterr().out)}
    assert [told[name]["result"] for name in "abc"] == ["ok", "stopped", "stopped"]
    (finding,) = told["b"]["findings"]
    assert (finding["kind"], finding["level"]) == ("stopped", "error") and "was killed" in finding["message"]
    assert metadata_utils.main(["--history", "--json"]) == 0
    assert [one["result"] for one in json.loads(capsys.readouterr().out)] == ["ok", "stopped", "stopped"]
    assert results(lake) == {"a": "ok"}, "looking changes nothing"
    assert export_to_data_lake.main(["--all", "--quiet", "--jobs", "1"]) == 0
    assert [(line["feed"], line["result"]) for line in lines(lake)] == [
        ("a", "ok"), ("b", "stopped"), ("c", "stopped"), ("a", "ok"), ("b", "ok"), ("c", "ok")]
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert [line["result"] for line in lines(lake)].count("stopped") == 2, "written down once"
    assert "b: the run that began at" in log_of(lake)


def test_rows_of_a_run_that_died_between_its_commit_and_its_line_are_counted(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        os._exit(9)

    child = os.fork()
    if not child:
        monkeypatch.setattr(history, "append", killed)
        export_to_data_lake.main(["--stream", "a", "--quiet"])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (run,) = running.close_dead(lake, dt.datetime.now(dt.UTC))
    assert (run.feed, run.result, run.rows, run.files) == ("a", "stopped", 1, 1)
    assert "after it had committed 1 rows" in run.findings[0].line and lines(lake)[0]["rows"] == 1


def test_a_run_under_way_is_left_alone_and_a_strange_file_too(lake: Path) -> None:
    now = dt.datetime(2025, 1, 18, tzinfo=dt.UTC)
    with running.underway(lake, Started("r1", "2025-01-17T02:00:00Z", (("a", "stream"),))):
        for number, text in enumerate(("[1", "{}", '{"run": 1, "started": 2, "feeds": [3]}', "[" * 9999)):
            (lake / ".state/running" / f"{number}.json").write_text(text)
        (lake / ".state/running" / "link.json").symlink_to("/etc/hostname")
        os.mkfifo(lake / ".state/running" / "pipe.json")
        (lake / ".state/running" / ".0123.inprogress").touch()
        assert running.close_dead(lake, now) == []
        assert not (lake / ".state/running" / ".0123.inprogress").exists()
        assert (lake / ".state/running" / "r1.json").exists()
    assert not (lake / ".state/running" / "r1.json").exists()


ODD = [
    "{torn", "7", "null", "[]", "{}", '"text"', '{"feed": "feed_0000"}', '{"feed": 7, "ended": "2025-01-19T01:00:00Z"}',
    '{"feed": null, "ended": "2025-01-19T01:00:00Z"}', '{"feed": "feed_0000", "ended": "yesterday"}',
    '{"feed": "feed_0000", "ended": 20250119}', "[" * 100_000, '{"feed": "feed_0000", "rows": ' + "9" * 5000 + "}",
    "\ufeff{}", "\x00\x1b[31m",
]
ODD_VALUES = [
    {"rows": "many"}, {"rows": -1}, {"rows": 10**300}, {"rows": None}, {"rows": float("nan")}, {"seconds": "x"},
    {"seconds": float("inf")}, {"seconds": -5}, {"bytes": []}, {"retries": {}}, {"findings": 7}, {"findings": {"a": 1}},
    {"findings": [7, None, {"message": []}]}, {"checks": "x"}, {"checks": [None, {}, {"failed": "x", "column": []}]},
    {"days": 3}, {"days": [3]}, {"result": 7}, {"result": None}, {"result": []}, {"run": [], "type": {}},
    {"started": "?"}, {"started": 0}, {"quarantined": True}, {"offsets": 7, "version": []},
    {"ended": "2025-01-19T01:00:00"}, {"ended": "2025-01-19T01:00:00.123456+05:30"},
    {"ended": "9999-12-31T23:59:59-23:59"}, {"ended": "0001-01-01T00:00:00+23:59"},
]


def spoil(lake: Path) -> None:
    write_lake(lake, many_feeds(2), 2)
    good = {"run": "r2", "feed": "feed_0000", "type": "stream", "ended": "2025-01-19T01:00:00Z", "result": "ok"}
    with (lake / "logs" / "runs.jsonl").open("a") as file:
        file.writelines(line + "\n" for line in ODD)
        file.writelines(json.dumps({**good, **odd}) + "\n" for odd in ODD_VALUES)
        file.write("\udcff\n".encode(errors="surrogateescape").decode("latin-1"))
        file.write(json.dumps({**good, "run": "last", "ended": "2025-01-20T01:00:00Z", "rows": 77}) + "\n{torn")


@pytest.mark.parametrize("argv", [
    ["--report"], ["--json"], ["--history"], ["--history", "--json"], ["--history", "--since", "2025-01-19"],
    ["--html", "{}/x.html"], ["--stats"], ["--csv", "{}/x.csv"], ["--history", "--feed", "feed_0000"],
])
def test_lines_of_an_unexpected_shape_crash_nothing(tmp_path: Path, capsys: Any, argv: list[str]) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    spoil(lake)
    assert metadata_utils.main([*(part.format(tmp_path) for part in argv), "--lake", str(lake)]) == 0
    shown = capsys.readouterr()
    if argv == ["--history"]:
        assert " that cannot be read as a run" in shown.err and "\n2025-01-20 01:00Z" in shown.out
    if argv == ["--history", "--json"]:
        assert json.loads(shown.out)[-1]["rows"] == 77


def test_metrics_of_a_lake_with_odd_lines(ksqldb: EmbeddedKsqlDB, lake: Path, tmp_path: Path) -> None:
    (lake / "logs").mkdir(exist_ok=True)
    with (lake / "logs" / "runs.jsonl").open("w") as file:
        file.writelines(json.dumps({"feed": "a", "ended": "2025-01-19T01:00:00Z", **odd}) + "\n" for odd in ODD_VALUES)
        file.writelines(line + "\n" for line in ODD)
    target = tmp_path / "lake.prom"
    assert export_to_data_lake.main(["--stream", "b", "--quiet", "--metrics-file", str(target)]) == 0
    assert 'ksql_lake_last_run_rows{feed="b",type="stream"} 1' in target.read_text()


def long_history(lake: Path, megabytes: int) -> None:
    """Years of nights, the newest last."""
    (lake / "logs").mkdir(parents=True)
    offsets = {str(p): [p, p + 1000] for p in range(40)}
    line = {"feed": "s", "type": "stream", "result": "ok", "rows": 10, "offsets": offsets, "findings": []}
    tail = json.dumps(line)[1:]
    size = len(tail) + 60
    count = megabytes * 1_000_000 // size
    first = dt.datetime(2025, 1, 18, tzinfo=dt.UTC) - dt.timedelta(minutes=5 * count)
    with (lake / "logs" / "runs.jsonl").open("w") as file:
        for number in range(count):
            ended = first + dt.timedelta(minutes=5 * number)
            file.write(f'{{"run": "r{number}", "ended": "{ended:%Y-%m-%dT%H:%M:%SZ}", {tail}\n')


def history_in_a_process(lake: Path, *argv: str) -> tuple[list[str], int]:
    """Lines of --history, and the most memory it held in MB."""
    code = (
        "import re, sys, metadata_utils\n"
        f"code = metadata_utils.main(['--history', '--lake', {str(lake)!r}, *{list(argv)!r}])\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
        "print(int(peak) // 1024, file=sys.stderr); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.splitlines(), int(run.stderr.split()[-1])


def test_a_long_history_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long_history(tmp_path, 12)
    whole = (tmp_path / "logs/runs.jsonl").stat().st_size
    start = history.since(tmp_path, dt.date(2025, 1, 17))
    assert start > whole * 2 // 3, "not all of it is looked at"
    assert history.since(tmp_path, dt.date(1, 1, 1)) == 0 and history.since(tmp_path, dt.date(9999, 12, 31)) > start
    shown, _ = history_in_a_process(tmp_path, "--since", "2025-01-17")
    assert len(shown) == 1 + 24 * 12 and shown[1].startswith("2025-01-17 00:00")
    everything, held = history_in_a_process(tmp_path)
    assert len(everything) > 9000 and held < 200


def test_a_line_that_never_ends_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "LONGEST", 1000)
    monkeypatch.setattr(history, "BLOCK", 700)
    (tmp_path / "logs").mkdir()
    good = '{"feed": "s", "ended": "2025-01-%02dT01:00:00Z", "rows": %d}\n'
    (tmp_path / "logs/runs.jsonl").write_text(good % (17, 1) + "x" * 5000 + "\n" + good % (18, 2) + good % (19, 3))
    unreadable = history.Unreadable()
    assert [run.rows for run in history.read(tmp_path, 0, unreadable)] == [1, 2, 3] and unreadable.lines == 1
    start = history.since(tmp_path, dt.date(2025, 1, 19))
    assert [run.rows for run in history.read(tmp_path, start)][-1] == 3
    for tail in range(1, 300):
        assert [run.rows for run in history.runs(tmp_path, tail)] in ([], [3], [2, 3])


@pytest.mark.slow
def test_a_history_of_a_gigabyte(tmp_path: Path) -> None:
    long_history(tmp_path, 1000)
    before = time.monotonic()
    shown, held = history_in_a_process(tmp_path, "--since", "2025-01-17")
    assert len(shown) == 1 + 24 * 12 and held < 200 and time.monotonic() - before < 30
    _, held = history_in_a_process(tmp_path, "--since", "2000-01-01", "--feed", "nobody")
    assert held < 200
