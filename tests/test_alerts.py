"""Who learns how an export went: pings to a real server, and a command after a failure."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import data_lake_config
from ksql_lake.base.files import exclusive_lock
from ksql_lake.cli import exporting, run
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.reporting import alerts
from ksql_lake.reporting.alerts import Ending, event_url, last_lines
from tests.test_export import add_feed, export, make_stream, produce

UUID = "5f0e6c2a-7d1b-4a86-9a51-0c3a6de7c0de"


class PingServer(ThreadingHTTPServer):
    """Records what is posted; answers with `statuses` in turn, then 200; holds answers back for `delay` seconds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Recorder)
        self.pings: list[tuple[str, str]] = []
        self.statuses: list[int] = []
        self.delay = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{UUID}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.pings]


class Recorder(BaseHTTPRequestHandler):
    server: PingServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.pings.append((self.path, body))
        time.sleep(self.server.delay)
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> Iterator[PingServer]:
    monkeypatch.setattr(alerts, "PAUSES", (0.01, 0.01))
    server = PingServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        make_stream(database)
        produce(database, 0, 6)
        add_feed("payments")
        yield database


def log_of(lake: Path) -> str:
    return "".join(path.read_text() for path in (lake / "logs").glob("*"))


def test_a_good_run_pings_start_and_success(ksqldb: EmbeddedKsqlDB, pings: PingServer) -> None:
    assert export("--all", "--ping-url", pings.url) == 0
    assert pings.pings == [(f"/{UUID}/start", ""), (f"/{UUID}", "")]


def test_a_failing_feed_pings_fail_with_its_lines(
    ksqldb: EmbeddedKsqlDB, pings: PingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_feed("missing")
    monkeypatch.setenv("PING_URL", f"{pings.url}?create=1")
    assert export("--all") == 1
    assert pings.paths == [f"/{UUID}/start?create=1", f"/{UUID}/fail?create=1"]
    error, last = pings.pings[1][1].splitlines()
    assert error.startswith("error: missing: ") and last == "exit code 1"


def test_every_way_a_run_ends_early_pings_fail(
    ksqldb: EmbeddedKsqlDB, pings: PingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(code: int, *argv: str) -> str:
        pings.pings.clear()
        assert export(*argv, "--ping-url", pings.url) == code
        assert pings.paths == [f"/{UUID}/start", f"/{UUID}/fail"]
        lines = pings.pings[1][1].splitlines()
        assert lines[-1] == f"exit code {code}"
        return "\n".join(lines[:-1])

    assert body(2).startswith("error: nothing to export: give --all")
    assert body(1, "--stream", "nope").endswith("no such feed; see: python manage_feeds.py list")
    with exclusive_lock(tmp_path / "lake" / ".state" / "payments.lock", "payments"):
        assert body(3, "--all").startswith("error: payments: another run (pid ")
    with monkeypatch.context() as patch:
        patch.setenv("IDLE_SECONDS", "soon")
        assert body(2, "--all") == "error: IDLE_SECONDS is 'soon'; expected a number from 0.1 to 86400"
    with monkeypatch.context() as patch:
        patch.setattr(run, "export_feed", interrupted)
        assert body(130, "--all").startswith("interrupted; ")
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "0.1")
    assert "127.0.0.1:1" in body(1, "--all")


def interrupted(*args: Any) -> None:
    raise KeyboardInterrupt


def test_a_bug_pings_fail_and_stays_a_bug(
    ksqldb: EmbeddedKsqlDB, pings: PingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(exporting, "choose", broken)
    with pytest.raises(RuntimeError):
        export("--all", "--ping-url", pings.url)
    assert pings.pings[1] == (f"/{UUID}/fail", "error: a bug: RuntimeError: unexpected\nexit code 1\n")


def test_what_passes_is_tried_again_and_what_does_not_is_not(pings: PingServer) -> None:
    ping = alerts.Ping(pings.url)
    pings.statuses = [500, 503]
    assert ping.start() is None and len(pings.pings) == 3
    pings.statuses = [500, 500, 500]
    assert ping.start() == "ping of http://127.0.0.1 failed: it answered 500; the export is not affected"
    for status in (404, 301, 307):
        pings.pings.clear()
        pings.statuses = [status]
        assert str(ping.end(Ending(0))).startswith(f"ping of http://127.0.0.1 failed: it answered {status}; ")
        assert pings.paths == [f"/{UUID}"]


def test_a_silent_server_holds_nothing_up_for_long(pings: PingServer) -> None:
    pings.delay = 5
    started = time.monotonic()
    warning = alerts.Ping(pings.url, seconds=0.2).start()
    assert warning == "ping of http://127.0.0.1 failed: no answer within 0.2 s; the export is not affected"
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("trouble", ["refused", "unknown host", "500"])
def test_a_ping_that_fails_changes_nothing_but_a_warning(
    ksqldb: EmbeddedKsqlDB, pings: PingServer, tmp_path: Path, trouble: str, capsys: Any
) -> None:
    """And the secret of its URL is shown nowhere."""
    pings.statuses = [500] * 6
    url = {
        "refused": f"http://127.0.0.1:1/{UUID}", "unknown host": f"http://nowhere.invalid/{UUID}", "500": pings.url
    }[trouble]
    assert export("--all", "--ping-url", url) == 0
    shown = capsys.readouterr()
    warnings = [line for line in shown.err.splitlines() if line.startswith("warning: ping of http://")]
    assert len(warnings) == 2 and "payments" in shown.out
    assert "WARNING - ping of http://" in log_of(tmp_path / "lake")
    assert UUID not in shown.out + shown.err
    for path in (p for p in (tmp_path / "lake").rglob("*") if p.is_file()):
        assert UUID.encode() not in path.read_bytes(), path


def test_the_secret_is_masked_where_settings_are_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setenv("PING_URL", f"https://hc-ping.com/{UUID}?rid=1")
    monkeypatch.setenv("ON_FAILURE", "mail -s failed me")
    monkeypatch.setattr(data_lake_config, "METRICS_FILE", "/var/lib/node_exporter/ksql_lake.prom")
    assert data_lake_config.main([]) == 0
    shown = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert shown["PING_URL"] == ["PING_URL", "https://hc-ping.com/********", "environment"]
    assert shown["METRICS_FILE"][1:] == ["/var/lib/node_exporter/ksql_lake.prom", "data_lake_config.py"]
    assert shown["ON_FAILURE"][-1] == "environment"
    assert UUID not in repr(data_lake_config.load(os.environ))


@pytest.mark.parametrize("url", [
    f"ftp://host/{UUID}", f"file:///{UUID}", f"hc-ping.com/{UUID}", f"http:///{UUID}", f"https://host:port/{UUID}",
    f"https://user:{UUID}@host/", f"https://host/{UUID} x", f"https://host/{UUID}\n", f"http://[::1/{UUID}",
])
def test_what_is_no_url_to_ping_is_refused_without_repeating_it(
    url: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export("--all", "--ping-url", url) == 2
    first = capsys.readouterr()
    monkeypatch.setenv("PING_URL", url)
    assert export("--all") == 2 and data_lake_config.main([]) == 2
    second = capsys.readouterr()
    assert first.err.startswith("error: --ping-url is not a URL that can be pinged; ")
    assert second.err.startswith("error: PING_URL is not a URL that can be pinged; ")
    assert UUID not in first.out + first.err + second.out + second.err


def test_a_demo_tells_nobody_that_the_settings_name(
    pings: PingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PING_URL", pings.url)
    monkeypatch.setenv("IDLE_SECONDS", "0.2")
    argv = ["--demo", "--quiet", "--events", "20", "--lake", str(tmp_path / "demo")]
    assert export(*argv) == 0 and pings.pings == []
    assert export(*argv, "--ping-url", pings.url) == 0 and len(pings.pings) == 2


@pytest.mark.parametrize(("url", "started"), [
    ("https://hc-ping.com/u", "https://hc-ping.com/u/start"),
    ("https://hc-ping.com/u/", "https://hc-ping.com/u/start"),
    ("https://hc.example:8000/ping/key/slug?create=1&rid=2", "https://hc.example:8000/ping/key/slug/start?create=1&rid=2"),
])
def test_the_event_stands_behind_the_path(url: str, started: str) -> None:
    assert event_url(url, "start") == started


@pytest.mark.parametrize(("lines", "limit", "kept"), [
    (["one", "two"], 100, "one\ntwo\n"), (["one", "two"], 7, "two\n"), (["one", "two"], 8, "one\ntwo\n"),
    (["one", "ééé"], 5, "éé"), ([], 5, ""),
])
def test_the_last_whole_lines_that_fit(lines: list[str], limit: int, kept: str) -> None:
    assert last_lines(lines, limit) == kept.encode()


WRITE = f"{sys.executable} -c \"import json, os, sys; print(json.dumps([dict(os.environ), sys.stdin.read()]))\" > "


def test_the_command_learns_what_failed_and_no_password(
    ksqldb: EmbeddedKsqlDB, pings: PingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_feed("missing")
    add_feed("other")
    monkeypatch.setenv("KSQLDB_PASSWORD", "hunter2")
    monkeypatch.setenv("PING_URL", pings.url)
    out = tmp_path / "told.json"
    assert export("--all", "--on-failure", f"{WRITE}{out}") == 1
    environment, stdin = json.loads(out.read_text())
    assert environment["KSQL_LAKE_EXIT_CODE"] == "1" and environment["KSQL_LAKE_LAKE"] == str(tmp_path / "lake")
    assert environment["KSQL_LAKE_FAILED_FEEDS"] == "missing,other"
    assert [line.partition(": ")[2].partition(":")[0] for line in stdin.splitlines()] == ["missing", "other"]
    assert "hunter2" not in out.read_text() and UUID not in out.read_text()
    out.unlink()
    assert export("--stream", "payments", "--on-failure", f"{WRITE}{out}") == 0 and not out.exists()


@pytest.mark.parametrize(("command", "warning"), [
    ("exit 7", "the command of --on-failure ended with exit code 7"),
    ("no_such_command_at_all 2> /dev/null", "the command of --on-failure ended with exit code 127"),
    ("sleep 60 & sleep 60", "the command of --on-failure took longer than 0.3 s and was stopped"),
])
def test_a_command_that_fails_is_a_warning(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, command: str, warning: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(alerts, "COMMAND_SECONDS", 0.3)
    started = time.monotonic()
    assert export("--stream", "nope", "--on-failure", command) == 1
    assert f"warning: {warning}\n" in capsys.readouterr().err
    assert time.monotonic() - started < 10
