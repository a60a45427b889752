"""What the server may answer instead of rows: each becomes one clear line, retryable or not."""

from __future__ import annotations

import pytest

from ksql_lake.base.errors import ConfigError, KsqlError, KsqlUnavailable
from ksql_lake.sources.ksqldb.client import Client, Server
from tests.recorded_server import RecordedServer

JSON = b'{"@type":"generic_error","error_code":%d,"message":"%b"}'


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(("status", "body", "retryable", "words"), [
    (401, JSON % (40100, b"Unauthorized"), False, "Unauthorized; check KSQLDB_USER"),
    (403, JSON % (40300, b"Forbidden"), False, "Forbidden"),
    (404, b"Not Found", False, "Not Found; something answers there that is not ksqlDB"),
    (404, b"", False, "empty answer"),
    (429, JSON % (42900, b"Host is at rate limit for pull queries."), True, "rate limit"),
    (400, JSON % (40000, b"Host is at bandwidth rate limit for pull queries."), True, "bandwidth"),
    (400, JSON % (40003, b"Maximum number of push queries exceeded"), True, "push queries"),
    (400, JSON % (40001, b"Column 'ROWOFFSET' cannot be resolved."), False, "need ksqlDB 0.24"),
    (500, b"<html>oops</html>", True, "<html>oops</html>"),
    (503, JSON % (50302, b"KSQL is not yet ready to serve requests."), True, "not yet ready"),
])
def test_a_refusal_is_one_clear_line(status: int, body: bytes, retryable: bool, words: str) -> None:
    with RecordedServer((".", answer(status, body))) as server, Client(Server(server.url, timeout=5)) as client:
        with pytest.raises(KsqlError) as refused:
            client.query("SELECT 1;")
    assert isinstance(refused.value, KsqlUnavailable) == retryable
    assert words in str(refused.value) and "\n" not in str(refused.value) and server.url in str(refused.value)


def test_nothing_listens() -> None:
    with Client(Server("http://127.0.0.1:1", timeout=1)) as client:
        with pytest.raises(KsqlUnavailable, match="127.0.0.1:1: cannot be reached .*refused.*KSQLDB_URL"):
            client.server_info()


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        Client(Server("http://me:canary@localhost:8088"))
    assert "canary" not in str(refused.value)
    assert "canary" not in repr(Server("http://x", "me", "canary"))
