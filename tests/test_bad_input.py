"""Everything that can be wrong, by the table: one line that says what, where and what to do; nothing half-written."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import data_lake_config
import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, Fault

JAN15 = 1_736_899_200_000
OLD = b'{"@type":"statement_error","error_code":40001,"message":"Line: 1, Col: 17: SELECT column \'ROWPARTITION\' cannot be resolved."}'  # noqa: E501


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "0.3")
        database.create_stream("S", "`ID` STRING", 1)
        for i in range(5):
            database.append("S", 0, JAN15 + i, [f"e{i}"])
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        yield database


def html(database: EmbeddedKsqlDB) -> None:
    page = Fault(status=200, body=b"<html><h1>Sign in</h1></html>", content_type="text/html")
    database.faults.add(page, page, page)


def old(database: EmbeddedKsqlDB) -> None:
    refusal = Fault(status=400, body=OLD)
    database.faults.add(refusal, refusal)


def odd_type(database: EmbeddedKsqlDB) -> None:
    database.drop("S")
    database.create_stream("S", "`ID` STRING, `E` STRUCT<>", 1)
    database.append("S", 0, JAN15, ["e", {}])


@pytest.mark.parametrize(("spoil", "code", "words"), [
    (lambda database: database.kill(), 1, ["cannot be reached", "is ksqlDB running there? set KSQLDB_URL"]),
    (html, 1, ["does not begin as ksqlDB's does: <html>", "is a proxy or another service in between?"]),
    (old, 1, ["HTTP 400", "'ROWPARTITION' cannot be resolved", "need ksqlDB 0.24 / Confluent Platform 7.1"]),
    (lambda database: database.drop("S"), 1, ["s: no such stream on http", "LIST STREAMS"]),
    (odd_type, 1, ["column E", "STRUCT< > cannot be stored in Parquet", "leave it out"]),
])
def test_a_server_that_is_wrong(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, spoil: Callable[[EmbeddedKsqlDB], None], code: int, words: list[str],
    capsys: Any,
) -> None:
    spoil(ksqldb)
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == code
    line = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(line) == 1 and all(word in line[0] for word in words), line
    assert not list((tmp_path / "lake").rglob("*.parquet")) and not list((tmp_path / "lake").glob(".staging/*/*"))


def test_something_else_answers_at_that_port(
    ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "12")
            self.end_headers()
            self.wfile.write(b"hello world\n")

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("KSQLDB_URL", f"http://127.0.0.1:{other.server_port}")
        capsys.readouterr()
        assert export_to_data_lake.main(["--all"]) == 1
        other.shutdown()
    err = capsys.readouterr().err
    assert "something answers there that is not ksqlDB (hello world); check host and port" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("text", "where", "words"), [
    ('{\n  "feed_name": "b",\n}', "b.json:2:19", "trailing comma"),
    ('{"feed_name": "b" "feed_type": "stream"}', "b.json:1:19", "not JSON"),
    ('{"feed_name": "b", "feed_type": "stream", "ksqldb_source": "s", "retension_days": 3}', "b.json:1:65",
     'unknown key "retension_days": did you mean "retention_days"?'),
    ('{"feed_name": "b", "feed_type": "stream", "ksqldb_source": "s", "retention_days": "3"}', "b.json:1:65",
     '"retention_days" is "3"; expected a whole number'),
    ('{"feed_name": "b", "feed_type": "view", "ksqldb_source": "s"}', "b.json:1:20", "expected stream or table"),
    ('{"feed_name": "b", "feed_type": "stream"}', "b.json:1:1", 'key "ksqldb_source" is missing'),
    ("", "b.json:1:1", "not JSON"),
    ("[]", "b.json:1:1", "expected an object"),
])
def test_a_feed_file_that_is_wrong(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, text: str, where: str, words: str, capsys: Any
) -> None:
    """It is named with line and column, and the other feed is exported all the same."""
    (tmp_path / "lake" / "feeds" / "active" / "b.json").write_text(text)
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == 1
    err = capsys.readouterr().err
    assert where in err and words in err, err
    assert len(list((tmp_path / "lake").rglob("*.parquet"))) == 1


@pytest.mark.parametrize(("name", "value", "words"), [
    ("KSQLDB_PORT", "80880", "KSQLDB_PORT is '80880'; expected a number from 1 to 65535"),
    ("KSQLDB_TIMEOUT", "soon", "KSQLDB_TIMEOUT is 'soon'"),
    ("KSQLDB_URL", "localhost:8088", "KSQLDB_URL"),
    ("PARQUET_COMPRESSION", "zip", "PARQUET_COMPRESSION is 'zip'; expected one of snappy, zstd, lz4, gzip, none"),
    ("LOG_LEVEL", "loud", "LOG_LEVEL is 'loud'; expected one of DEBUG"),
])
def test_a_setting_that_is_wrong_attempts_nothing(
    ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str, capsys: Any
) -> None:
    monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


@pytest.mark.parametrize("script", [export_to_data_lake, data_lake_config, manage_feeds, metadata_utils])
def test_a_lake_that_cannot_be_written(
    script: Any, ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Where the lake should be stands a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "file" / "lake"))
    argv = {export_to_data_lake: ["--all"], manage_feeds: ["sync"], metadata_utils: ["--report"]}.get(script, [])
    capsys.readouterr()
    code = script.main(argv)
    shown = capsys.readouterr()
    assert code in (0, 1, 2) and (code or script is metadata_utils)
    assert str(tmp_path / "file") in shown.err + shown.out and "Traceback" not in shown.err


def test_a_bug_is_one_line_on_the_screen_and_a_traceback_in_the_log(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import ksql_lake.ingest.export

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug for this test")

    monkeypatch.setattr(ksql_lake.ingest.export, "stage_stream", broken)
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == 1
    err = capsys.readouterr().err
    assert "s: a bug: ZeroDivisionError: a bug for this test" in err and err.count("\n") == 1
    (log,) = (tmp_path / "lake" / "logs").glob("export_*.log")
    assert "Traceback (most recent call last)" in log.read_text()
