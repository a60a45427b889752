"""The REST client: server info, sources, rows of a query; each failure has one clear message."""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import json
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ksql_lake.base import limits
from ksql_lake.base.errors import ConfigError, KsqlError, KsqlUnavailable, SourceError
from ksql_lake.sources.ksqldb.answer import Answer
from ksql_lake.sources.ksqldb.body import Cut, TooLong
from ksql_lake.sources.ksqldb.described import (
    ServerInfo,
    Source,
    Unexpected,
    description,
    listed,
    queries,
    server_info,
    settings,
    source,
)
from ksql_lake.sources.ksqldb.http import Connection, Malformed, NoAnswer, Response, address, basic, excerpt, shown

ACCEPT = "application/vnd.ksql.v1+json"  # `*/*`, what libraries send, gets a format without end marks
RETRYABLE_WORDS = ("rate limit", "concurrency limit", "bandwidth", "push queries exceeded", "active, push queries")

__all__ = ["Answer", "Client", "Server", "ServerInfo", "Source", "quote"]
T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """Where ksqlDB is and how to log in; `timeout` in seconds."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_cert: str | None = None
    timeout: float = 30.0


def quote(name: str) -> str:
    """An identifier for SQL; backticks inside are doubled."""
    return "`" + name.replace("`", "``") + "`"


class Client:
    """Talks to one ksqlDB server; close it, or use it as a context manager. Not for several threads at a time."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if port == -1:
            raise ConfigError("KSQLDB_URL: the port must be a number from 0 to 65535")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = parts.hostname or ("it" if "@" in server.url else repr(server.url))
            raise ConfigError(f"KSQLDB_URL: {shown} is not an address such as http://localhost:8088")
        if parts.username or parts.password:
            raise ConfigError("KSQLDB_URL: must not hold a login; set KSQLDB_USER and KSQLDB_PASSWORD_FILE")
        self.server = server
        self.url = server.url.rstrip("/")
        self._date: str | None = None
        self._address = address(self.url)
        self._headers = {"Accept": ACCEPT, "Accept-Encoding": "identity", "User-Agent": "ksql-lake"}
        if server.user is not None:
            self._headers["Authorization"] = basic(f"{server.user}:{server.password or ''}")
        if server.ca_cert and not os.path.exists(server.ca_cert):
            raise ConfigError(f"KSQLDB_CA_CERT: {server.ca_cert}: no such file; expected a certificate in PEM format")
        self._context: ssl.SSLContext | None = None
        self._idle: Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection that was kept for the next request, if any."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    @property
    def clock(self) -> dt.datetime | None:
        """The server's time when it last answered; None when it does not send it."""
        with contextlib.suppress(TypeError, ValueError):
            return parsedate_to_datetime(self._date or "")
        return None

    def server_info(self) -> ServerInfo:
        """What /info says.

        Raises:
            KsqlError: nothing answers there, or something that is not ksqlDB.
        """
        content = self._small("GET", "/info", None, limits.INFO)
        try:
            return server_info(_json(content))
        except Unexpected:
            raise KsqlError(
                f"{self.url}: something answers there that is not ksqlDB ({shown(content)}); check host and port"
            ) from None

    def sources(self) -> list[tuple[str, str, bool]]:
        """(name, "stream" or "table", windowed) of everything the server has."""
        kinds = ("stream", "table")
        return [
            found for kind in kinds
            for found in self._described(partial(listed, kind=kind), f"LIST {kind.upper()}S;")
        ]

    def resolve(self, name: str, kind: str) -> Source:
        """Find a source by its exact name, in upper case, or uniquely in any case.

        Raises:
            SourceError: there is none, there are several, or it is a table instead of a stream or the reverse.
        """
        there = {n: k for n, k, _ in self.sources()}
        folded = [n for n in there if n.upper() == name.upper()]
        match = next((n for n in (name, name.upper()) if n in there), None)
        if match is None and len(folded) == 1:
            match = folded[0]
        if match is None:
            close = folded or difflib.get_close_matches(name.upper(), [n for n, k in there.items() if k == kind], 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else "; LIST STREAMS and LIST TABLES do not list it"
            raise SourceError(f"{name}: no such {kind} on {self.url}{hint}")
        if there[match] != kind:
            raise SourceError(f"{match} is a {there[match]} on {self.url}, not a {kind}; change feed_type of the feed")
        return self._described(source, f"DESCRIBE {quote(match)};")

    def description(self, name: str) -> dict[str, Any]:
        """`sourceDescription` of DESCRIBE name EXTENDED; `name` as the server spells it."""
        return self._described(description, f"DESCRIBE {quote(name)} EXTENDED;")

    def settings(self) -> dict[str, str]:
        """The server's own settings, as far as it shows them."""
        return self._described(settings, "LIST PROPERTIES;")

    def running(self) -> frozenset[str]:
        """The ids of the queries that the server runs at present, push queries included."""
        return self._described(queries, "SHOW QUERIES;")

    def query(self, sql: str, *, earliest: bool = False) -> Answer:
        """Start a query and read its header.

        Raises:
            KsqlError: the server refused it; KsqlUnavailable when it may accept it later.
        """
        properties: dict[str, Any] = {"isolation.level": "read_committed"}
        if earliest:
            properties["auto.offset.reset"] = "earliest"
        connection, response = self._send("POST", "/query", {"ksql": sql, "streamsProperties": properties})
        return Answer(connection, response.body, self.url, sql, self.server.timeout, self._still_there)

    def is_empty(self, name: str) -> bool | None:
        """Whether a stream has no row at all; None when a pull query cannot tell."""
        try:
            with self.query(f"SELECT ROWTIME FROM {quote(name)} LIMIT 1;") as answer:
                deadline = time.monotonic() + self.server.timeout
                final = failed = False
                while time.monotonic() < deadline:
                    lines = answer.read(0.25)
                    if lines == b"":
                        return final and not failed
                    if b'"row"' in (lines or b""):
                        return False
                    final = final or b'"finalMessage"' in (lines or b"")
                    failed = failed or b"errorMessage" in (lines or b"")
        except KsqlError:
            return None
        return None

    def _described(self, read: Callable[[Any], T], statement: str) -> T:
        """What a statement of /ksql answers, read by one of the functions of `described`."""
        content = self._small("POST", "/ksql", {"ksql": statement, "streamsProperties": {}}, limits.METADATA)
        try:
            return read(_json(content))
        except Unexpected as error:
            raise KsqlError(
                f"{self.url}: the answer is not what ksqlDB sends: {error} ({shown(content)}); check host and port",
                statement=statement,
            ) from None

    def _small(self, method: str, path: str, body: dict[str, Any] | None, most: int) -> bytes:
        """The whole body of an answer that is not rows, within limits of size and time."""
        connection, response = self._send(method, path, body)
        self._date = response.headers.get("date")
        try:
            content = response.body.read_all(most, self.server.timeout, limits.PATIENCE * self.server.timeout)
        except TooLong:
            connection.close()
            raise KsqlError(f"{self.url}: the answer of {path} has more than {most:,} bytes, which ksqlDB never "
                            "sends; check "
                            "host and port") from None
        except TimeoutError:
            connection.close()
            raise KsqlUnavailable(
                f"{self.url}: {path} was not answered completely in time (KSQLDB_TIMEOUT is {self.server.timeout:g} s)"
            ) from None
        except Cut as error:
            connection.close()
            raise KsqlUnavailable(f"{self.url}: the answer of {path} was cut: {error}") from None
        self._keep(connection, response)
        return content

    def _keep(self, connection: Connection, response: Response) -> None:
        if response.body.reusable and self._idle is None:
            self._idle = connection
        else:
            connection.close()

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[Connection, Response]:
        """Ask, and read the head of an answer with status 200."""
        try:
            connection, response = self._exchange(method, path, b"" if body is None else json.dumps(body).encode())
        except Malformed as error:
            advice = self._tls_advice() if "speak HTTP" in str(error) else ""
            raise KsqlError(f"{self.url}: {error}{advice}") from None
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or error
            raise KsqlError(f"{self.url}: TLS failed ({reason}); check KSQLDB_CA_CERT and https://") from None
        except TimeoutError:
            raise KsqlUnavailable(f"{self.url}: no answer within {self.server.timeout:g} s (KSQLDB_TIMEOUT)") from None
        except OSError as error:
            raise KsqlUnavailable(self._unreachable(error)) from None
        if response.status != 200:
            statement = str(body["ksql"]) if body else ""
            try:
                raise self._refusal(response, statement)
            finally:
                self._keep(connection, response)
        return connection, response

    def _exchange(self, method: str, path: str, body: bytes) -> tuple[Connection, Response]:
        idle, self._idle = self._idle, None
        if idle is not None:
            if idle.is_open():
                with contextlib.suppress(NoAnswer, BrokenPipeError):  # closed while it was idle
                    return idle, idle.request(method, path, self._headers, body)
            idle.close()
        connection = self._connect()
        try:
            return connection, connection.request(method, path, self._headers, body)
        except BaseException:
            connection.close()
            raise

    def _connect(self) -> Connection:
        if self._address.scheme == "https" and self._context is None:
            self._context = ssl.create_default_context(cafile=self.server.ca_cert or None)
        return Connection(self._address, self.server.timeout, self._context)

    def _unreachable(self, error: OSError) -> str:
        proxy = self._address.proxy
        through = f" through the proxy {proxy.host}:{proxy.port} ({proxy.setting})" if proxy else ""
        advice = self._tls_advice() if isinstance(error, NoAnswer) else ""
        return (
            f"{self.url}: cannot be reached{through} ({error.strerror or error}); is ksqlDB running there?"
            f"{advice.removeprefix(';') or ' set KSQLDB_URL'}"
        )

    def _tls_advice(self) -> str:
        return "; if it speaks TLS, set KSQLDB_URL to https://" if self._address.scheme == "http" else ""

    def _refusal(self, response: Response, statement: str) -> KsqlError:
        """One clear message for a status other than 200, with the server's own words."""
        with contextlib.suppress(Cut, TooLong, TimeoutError):
            response.body.read_all(limits.REFUSAL, self.server.timeout, limits.PATIENCE * self.server.timeout)
        content = b"".join(response.body.collected)
        status, code, words = response.status, 0, shown(content)
        with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
            error = json.loads(content)
            code, words = int(error.get("error_code", 0)), excerpt(str(error.get("message", "")), limits.WORDS)
        advice = {
            401: "check KSQLDB_USER and KSQLDB_PASSWORD",
            403: "this user may not do that; ask for the permission",
            404: "something answers there that is not ksqlDB; check host and port",
            407: "the proxy needs a login: http://user:password@host:port in HTTP_PROXY or HTTPS_PROXY",
        }.get(status, "")
        if "ROWPARTITION" in words or "ROWOFFSET" in words:
            advice = "streams need ksqlDB 0.24 / Confluent Platform 7.1 or later"
        message = f"{self.url}: HTTP {status}: {words or 'empty answer'}" + (f"; {advice}" if advice else "")
        retryable = status in (429, 500, 502, 503, 504) or any(word in words for word in RETRYABLE_WORDS)
        if "Not recognizable as ksql" in words:
            retryable = False
        kind = KsqlUnavailable if retryable else KsqlError
        return kind(message, statement=statement, status=status, code=code)

    def _still_there(self, connection: Connection | None) -> bool:
        """Whether /info answers on this connection, or on a new one."""
        try:
            asked = connection or self._connect()
            try:
                response = asked.request("GET", "/info", self._headers)
                content = response.body.read_all(
                    limits.INFO, self.server.timeout, limits.PATIENCE * self.server.timeout)
                server_info(_json(content))
            finally:
                if connection is None:
                    asked.close()
        except (OSError, Malformed, Cut, TooLong, Unexpected):
            return False
        return response.status == 200


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Unexpected("it is not JSON") from None
