"""Whatever answers there, the export ends soon, in little memory, with one line that says what.

Each case is the whole script against a server that does nothing but this, and "a bug" is never the answer.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB, Fault
from tests.conftest import ROOT
from tests.recorded_server import RecordedServer

JAN15 = 1_736_899_200_000
INFO = json.dumps({"KsqlServerInfo": {"version": "0.29.0", "kafkaClusterId": "c", "ksqlServiceId": "s"}}).encode()
STREAM = {"name": "S", "type": "STREAM", "topic": "S", "partitions": 1,
          "fields": [{"name": "ID", "schema": {"type": "STRING"}}]}
SCHEMA = b"`ROWTIME` BIGINT, `ROWPARTITION` INTEGER, `ROWOFFSET` BIGINT, `ID` STRING"
HEADER = b'[{"header":{"queryId":"q","schema":"%b"}},\n' % SCHEMA
DIGITS = b"9" * 5000
ROW = b'{"row":{"columns":[1736899200000,0,%d,"x"]}},\n'
Send = Callable[[socket.socket], None]


def whole(body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), headers, body)


def ksql(value: Any) -> bytes:
    return whole(json.dumps([value]).encode())


def opened(*first: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(map(chunk, first))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def for_ever(first: bytes, again: bytes, pause: float = 0.0) -> Send:
    def send(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(again)
            time.sleep(pause)

    return send


def then_silent(data: bytes) -> Send:
    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        while connection.recv(1024):
            pass

    return send


def then_gone(data: bytes) -> Send:
    return lambda connection: connection.sendall(data)


GOOD: list[tuple[str, str | bytes | Send]] = [
    ("/info", whole(INFO)), ("LIST STREAMS", ksql({"streams": [{"name": "S", "isWindowed": False}]})),
    ("LIST TABLES", ksql({"tables": []})), ("DESCRIBE", ksql({"sourceDescription": STREAM})),
    ("LIMIT 1", opened(HEADER)),
]
NOISE = b"x" * 65536
CASES: dict[str, tuple[str, bytes | Send, str]] = {
    # /info
    "an endless info": ("/info", for_ever(opened(), chunk(NOISE)), "the answer of /info has more than 1,048,576 bytes"),
    "an endless info without framing": ("/info", for_ever(b"HTTP/1.0 200 OK\r\n\r\n", NOISE), "more than 1,048,576"),
    "a huge length": ("/info", for_ever(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", NOISE),
                      "more than 1,048,576 bytes"),
    "a bomb": ("/info", whole(b"\x1f\x8b" * 100, b"Content-Encoding: gzip\r\n"), "comes compressed (gzip)"),
    "a byte a second": ("/info", for_ever(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" ", 0.1),
                        "/info was not answered completely in time (KSQLDB_TIMEOUT is 0.5 s)"),
    "headers a byte a second": ("/info", for_ever(b"HTTP/1.1 200 OK\r\nX: ", b"y", 0.1), "no answer within 0.5 s"),
    "endless headers": ("/info", for_ever(b"HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n" * 100), "headers of more than"),
    "many headers": ("/info", b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 200 + b"\r\n", "more than 100 headers"),
    "an endless status": ("/info", for_ever(b"HTTP/1.1 200 ", NOISE), "headers of more than 65,536 bytes"),
    "endless interim answers": ("/info", for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "interim answers"),
    "no HTTP": ("/info", then_gone(b"SSH-2.0-OpenSSH_9.6\r\n"), "does not speak HTTP (SSH-2.0-OpenSSH_9.6)"),
    "a length that is none": ("/info", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "Content-Length -5"),
    "a long length": ("/info", b"HTTP/1.1 200 OK\r\nContent-Length: " + DIGITS + b"\r\n\r\n", "Content-Length 99"),
    "two lengths": ("/info", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                    "two different Content-Lengths"),
    "a length too short": ("/info", whole(INFO)[:-1].replace(b"Content-Length: ", b"Content-Length: 1\r\nX: "),
                           "something answers there that is not ksqlDB"),
    "a length too long": ("/info", then_silent(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + INFO),
                          "/info was not answered completely in time"),
    "cut": ("/info", then_gone(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), "the answer of /info was cut"),
    "deep": ("/info", whole(b"[" * 200_000), "not ksqlDB"),
    "of another shape": ("/info", whole(b'{"KsqlServerInfo":{"version":5}}'), "not ksqlDB"),
    "a list": ("/info", whole(b"[1]"), "not ksqlDB"),
    "digits": ("/info", whole(b'{"KsqlServerInfo":' + b"9" * 10_000 + b"}"), "not ksqlDB"),
    "an endless refusal": ("/info", for_ever(b"HTTP/1.1 400 X\r\n\r\n", NOISE), "HTTP 400: xxx"),
    "a terminal's escape": ("/info", b"HTTP/1.1 400 X\r\nContent-Length: 7\r\n\r\n\x1b]0;hi\x07", "HTTP 400: ?]0;hi?"),
    # /ksql
    "no list": ("LIST STREAMS", whole(b'{"a":1}'), "the answer is not what ksqlDB sends: expected a list"),
    "a name that is none": ("LIST STREAMS", ksql({"streams": [{"name": 5}]}), "expected name to be text"),
    "streams that are none": ("LIST STREAMS", ksql({"streams": 7}), "expected a list of streams"),
    "nothing described": ("DESCRIBE", whole(b"[]"), "expected sourceDescription"),
    "no fields": ("DESCRIBE", ksql({"sourceDescription": {**STREAM, "fields": None}}), "expected fields"),
    "a field without a type": ("DESCRIBE", ksql({"sourceDescription": {**STREAM, "fields": [{"name": "A"}]}}),
                               "expected schema"),
    "partitions": ("DESCRIBE", ksql({"sourceDescription": {**STREAM, "partitions": 10**12}}),
                   "expected partitions from 0 to 1,000,000"),
    "no number of them": ("DESCRIBE", ksql({"sourceDescription": {**STREAM, "partitions": "4"}}),
                          "expected partitions"),
    "no JSON": ("DESCRIBE", whole(b"oops"), "it is not JSON (oops)"),
    "deep JSON": ("DESCRIBE", whole(b'[{"a":' * 100_000), "it is not JSON"),
    # the header of /query
    "an endless first line": ("EMIT", for_ever(opened(), chunk(b"[" + NOISE)), "a line of more than 67,108,864 bytes"),
    "no header in time": ("EMIT", for_ever(opened(), chunk(b"["), 0.1), "no header within 0.5 s"),
    "a deep type": ("EMIT", opened(HEADER.replace(b"STRING", b"ARRAY<" * 5000 + b"STRING" + b">" * 5000)),
                    "more than 64 types inside each other"),
    "many columns": ("EMIT", opened(
        HEADER.replace(b"`ID` STRING", b", ".join(b"`C%d` DATE" % i for i in range(10_010)))),
                     "more than 10,000 columns"),
    "digits of a DECIMAL": ("EMIT", opened(HEADER.replace(b"STRING", b"DECIMAL(" + DIGITS + b", 2)")), "column ID"),
    "a header of another kind": ("EMIT", opened(b'[{"header":[1]},\n'), "does not begin as ksqlDB's does"),
    "a schema that is a number": ("EMIT", opened(b'[{"header":{"schema":1}},\n'), "does not begin as ksqlDB's does"),
    "columns that were not asked for": ("EMIT", opened(HEADER.replace(b"`ROWOFFSET` BIGINT", b"`ROWOFFSET` STRING")),
                                        "its header does not begin with ROWTIME"),
    "too few columns": ("EMIT", opened(
        b'[{"header":{"queryId":"q","schema":"`ID` DATE"}},\n'), "header does not begin"),
    # rows
    "an endless line": ("EMIT", for_ever(opened(HEADER, ROW % 0), chunk(NOISE)), "a line of more than 67,108,864"),
    "a line that stops": ("EMIT", then_silent(opened(HEADER, ROW % 0, b'{"row":{"col')), "it stopped inside a line"),
    "a first line that stops": ("EMIT", then_silent(opened(HEADER, b'{"row":{"col')), "it stopped inside a line"),
    "a line byte by byte": ("EMIT", for_ever(opened(HEADER, ROW % 0), chunk(b" x"), 0.1), "it stopped inside a line"),
    "an end inside a line": ("EMIT", opened(HEADER, b'{"row":{"col') + b"0\r\n\r\n", "not JSON"),
    "a negative chunk": ("EMIT", opened(HEADER) + b"-5\r\nhello\r\n", "the chunk framing of the answer is broken"),
    "a long chunk size": ("EMIT", for_ever(opened(HEADER), b"0" * 1000), "the chunk framing of the answer is broken"),
    "endless trailers": ("EMIT", for_ever(opened(HEADER) + b"0\r\n", b"X: y\r\n" * 100), "trailers"),
    "a row without its offset": ("EMIT", opened(HEADER, ROW.replace(b"%d", b"null")), "a row without ROWOFFSET"),
    "a partition that is none": ("EMIT", opened(HEADER, b'{"row":{"columns":[1,-3,0,"x"]}},\n'), "ROWPARTITION"),
    "an error of another kind": ("EMIT", opened(HEADER, b'{"errorMessage":{"error_code":"x","message":{"a":[1]}}},\n'),
                                 "the server broke off"),
    "a long message": ("EMIT", opened(HEADER, b'{"errorMessage":{"error_code":1,"message":"%b"}},\n' % (NOISE * 20)),
                       "the server broke off: xxx"),
    "an element of no kind": ("EMIT", opened(HEADER, b'{"rows":[]},\n'), "of no known kind: an object with rows"),
    "columns that are none": ("EMIT", opened(HEADER, b'{"row":{"columns":{"a":1}}},\n'), "does not fit its header"),
    "a deep row": ("EMIT", opened(HEADER, b'{"row":{"columns":' + b"[" * 100_000 + b"\n"), "is not JSON"),
}


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("IDLE_SECONDS", "0.3"), ("KSQLDB_TIMEOUT", "0.5"), ("RETRY_SECONDS", "0.1"),
                        ("FIRST_ROW_SECONDS", "0.5"), ("KSQLDB_URL", "http://127.0.0.1:1")):
        monkeypatch.setenv(name, value)
    assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S"]) == 0


@pytest.mark.parametrize("case", CASES)
def test_it_ends_soon_with_a_line_that_says_what_it_was(
    case: str, feed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    where, answer, words = CASES[case]
    capsys.readouterr()
    begun = time.monotonic()
    with RecordedServer((where, answer), *GOOD) as server:
        monkeypatch.setenv("KSQLDB_URL", server.url)
        code = export_to_data_lake.main(["--all"])
    told = capsys.readouterr()
    line = told.err.splitlines()[-1] if told.err else ""
    assert code == 1 and words in line and "a bug" not in line and "nothing new" not in told.out, told
    assert len(line) < 2500 and "\x1b" not in line
    assert time.monotonic() - begun < 60
    assert not list((tmp_path / "lake").glob(".staging/*/*"))


@pytest.mark.parametrize("case", ["an endless info", "an endless line", "an endless first line", "deep JSON"])
def test_in_little_memory(case: str, feed: None, tmp_path: Path) -> None:
    where, answer, words = CASES[case]
    with RecordedServer((where, answer), *GOOD) as server:
        env = {**os.environ, "KSQLDB_URL": server.url}
        limit = 2 << 30  # bytes of address space, Arrow's own pools included

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        done = subprocess.run([sys.executable, "export_to_data_lake.py", "--all"], cwd=ROOT, env=env, text=True,
                              capture_output=True, timeout=90, preexec_fn=limited, check=False)
    assert done.returncode == 1 and words in done.stderr and "MemoryError" not in done.stderr, done.stderr


def test_a_slow_server_is_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A row that takes longer than the silence that ends a stream, in many pieces, comes whole."""
    monkeypatch.setenv("IDLE_SECONDS", "0.8")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "5")
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        database.create_stream("S", "`ID` STRING", 1)
        for i, size in enumerate((1, 250)):
            database.append("S", 0, JAN15 + i, ["x" * size])
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S"]) == 0
        database.faults.add(Fault(), Fault(slow=0.4, slow_bytes=60))
        assert export_to_data_lake.main(["--all"]) == 0
    assert "2 rows" in capsys.readouterr().out
