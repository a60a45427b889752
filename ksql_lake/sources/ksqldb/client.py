"""The REST client: server info, sources, rows of a query; each failure as one clear message."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import difflib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import HTTPBasicAuth

from ksql_lake.base.errors import AnswerCut, ConfigError, KsqlError, KsqlUnavailable, SourceError
from ksql_lake.model.types import Column, parse_schema
from ksql_lake.sources.ksqldb.body import Body, Cut

ACCEPT = "application/vnd.ksql.v1+json"  # `*/*`, what libraries send, gets a format without end marks
BLOCK = 1 << 20
RETRYABLE_WORDS = ("rate limit", "concurrency limit", "bandwidth", "push queries exceeded", "active, push queries")


@dataclass(frozen=True)
class Server:
    """Where ksqlDB is and how to be let in; `timeout` in seconds."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_cert: str | None = None
    timeout: float = 30.0


@dataclass(frozen=True)
class Source:
    """A stream or table as DESCRIBE tells it; `window` is TUMBLING, HOPPING, SESSION or None."""

    name: str
    kind: str
    topic: str
    partitions: int
    window: str | None
    keys: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    queryable: bool


def quote(name: str) -> str:
    """An identifier for SQL; backticks inside are doubled (reference 3.4)."""
    return "`" + name.replace("`", "``") + "`"


class Client:
    """Talks to one ksqlDB server; close it, or use it as a context manager."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if port == -1:
            raise ConfigError("KSQLDB_URL: its port is no number from 0 to 65535")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = parts.hostname or ("it" if "@" in server.url else server.url)
            raise ConfigError(f"KSQLDB_URL: {shown} is no http:// or https:// address, such as http://localhost:8088")
        if parts.username or parts.password:
            raise ConfigError("KSQLDB_URL: no user or password in it please; set KSQLDB_USER and KSQLDB_PASSWORD_FILE")
        self.server = server
        self.url = server.url.rstrip("/")
        self._date: str | None = None
        self.session = requests.Session()
        self.session.headers.update({"Accept": ACCEPT, "Accept-Encoding": "identity"})
        if server.user is not None:
            # As bytes: requests would encode text as Latin-1.
            self.session.auth = HTTPBasicAuth(server.user.encode(), (server.password or "").encode())
        if server.ca_cert and not os.path.exists(server.ca_cert):
            raise ConfigError(f"KSQLDB_CA_CERT: {server.ca_cert}: no such file; expected a certificate in PEM format")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def server_info(self) -> dict[str, Any]:
        """What /info says.

        Raises:
            KsqlError: nothing answers there, or something that is not ksqlDB.
        """
        response = self._send("GET", "/info")
        try:
            info = response.json()["KsqlServerInfo"]
        except (ValueError, KeyError, TypeError):
            raise KsqlError(
                f"{self.url}: something answers there that is not ksqlDB ({_excerpt(response.content)}); "
                "check host and port"
            ) from None
        return dict(info)

    def sources(self) -> list[tuple[str, str, bool]]:
        """(name, "stream" or "table", windowed) of everything the server has."""
        found = []
        for kind in ("stream", "table"):
            for entity in self._ksql(f"LIST {kind.upper()}S;"):
                for item in entity.get(f"{kind}s", ()):
                    found.append((item["name"], kind, bool(item.get("isWindowed"))))
        return found

    def resolve(self, name: str, kind: str) -> Source:
        """Find a source by its exact name, in upper case, or uniquely in any case.

        Raises:
            SourceError: there is none, or several, or it is of the other kind.
        """
        listed = {n: k for n, k, _ in self.sources()}
        folded = [n for n in listed if n.upper() == name.upper()]
        match = next((n for n in (name, name.upper()) if n in listed), None)
        if match is None and len(folded) == 1:
            match = folded[0]
        if match is None:
            close = folded or difflib.get_close_matches(name.upper(), listed, 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else "; LIST STREAMS and LIST TABLES do not show it"
            raise SourceError(f"{name}: no such {kind} on {self.url}{hint}")
        if listed[match] != kind:
            raise SourceError(f"{match} is a {listed[match]} on {self.url}, not a {kind}; change feed_type of the feed")
        return _source(self._ksql(f"DESCRIBE {quote(match)};")[0]["sourceDescription"])

    def query(self, sql: str, *, earliest: bool = False) -> Answer:
        """Start a query and read its header.

        Raises:
            KsqlError: the server refused it; KsqlUnavailable when it may accept it later.
        """
        properties: dict[str, Any] = {"isolation.level": "read_committed"}
        if earliest:
            properties["auto.offset.reset"] = "earliest"
        response = self._send("POST", "/query", {"ksql": sql, "streamsProperties": properties}, stream=True)
        return Answer(response, self, sql)

    def is_empty(self, name: str) -> bool | None:
        """Whether a stream has no row at all; None when a pull query cannot tell."""
        try:
            with self.query(f"SELECT ROWTIME FROM {quote(name)} LIMIT 1;") as answer:
                deadline = time.monotonic() + self.server.timeout
                body = b""
                while time.monotonic() < deadline:
                    lines = answer.read(0.25)
                    if lines == b"":
                        return b'"finalMessage"' in body and b'"row"' not in body and b"errorMessage" not in body
                    body += lines or b""
                    if b'"row"' in body:
                        return False
        except KsqlError:
            return None
        return None

    def _ksql(self, statement: str) -> list[dict[str, Any]]:
        response = self._send("POST", "/ksql", {"ksql": statement, "streamsProperties": {}})
        try:
            entities = response.json()
        except ValueError:
            entities = None
        if not isinstance(entities, list):
            raise KsqlError(f"{self.url}: no answer of ksqlDB: {_excerpt(response.content)}; check host and port")
        return entities

    def _send(self, method: str, path: str, body: object = None, stream: bool = False) -> requests.Response:
        statement = body["ksql"] if isinstance(body, dict) else ""
        try:
            response = self.session.request(
                method, self.url + path, json=body, stream=stream, timeout=self.server.timeout, allow_redirects=False,
                verify=self.server.ca_cert or None,  # here and not in the session: there REQUESTS_CA_BUNDLE would win
            )
        except requests.exceptions.SSLError as error:
            raise KsqlError(f"{self.url}: TLS failed ({_reason(error)}); check KSQLDB_CA_CERT and https://") from None
        except requests.exceptions.Timeout:
            raise KsqlUnavailable(f"{self.url}: no answer within {self.server.timeout:g} s (KSQLDB_TIMEOUT)") from None
        except requests.exceptions.RequestException as error:
            aborted = self.url.startswith("http://") and "aborted" in str(error)
            advice = "if it speaks TLS, set KSQLDB_URL to https://" if aborted else "set KSQLDB_URL"
            raise KsqlUnavailable(
                f"{self.url}: cannot be reached ({_reason(error)}); is ksqlDB running there? {advice}"
            ) from None
        if response.status_code != 200:
            raise self._refusal(response, statement)
        self._date = response.headers.get("Date")
        return response

    @property
    def clock(self) -> dt.datetime | None:
        """What time it was at the server when it last answered; None when it does not say."""
        with contextlib.suppress(TypeError, ValueError):
            return parsedate_to_datetime(self._date or "")
        return None

    def _refusal(self, response: requests.Response, statement: str) -> KsqlError:
        """One clear message for a status other than 200, with the server's own words (reference 9)."""
        try:
            content = response.content
        except requests.exceptions.RequestException:
            content = b""
        status, code, words = response.status_code, 0, _excerpt(content)
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            error = json.loads(content)
            code, words = int(error.get("error_code", 0)), " ".join(str(error.get("message", "")).split())
        advice = {
            401: "check KSQLDB_USER and KSQLDB_PASSWORD",
            403: "this user may not do that; ask for the right",
            404: "something answers there that is not ksqlDB; check host and port",
        }.get(status, "")
        if "ROWPARTITION" in words or "ROWOFFSET" in words:
            advice = "streams need ksqlDB 0.24 / Confluent Platform 7.1 or later"
        message = f"{self.url}: HTTP {status}: {words or 'empty answer'}" + (f"; {advice}" if advice else "")
        retryable = status in (429, 500, 502, 503, 504) or any(word in words for word in RETRYABLE_WORDS)
        if "Not recognizable as ksql" in words:
            retryable = False
        kind = KsqlUnavailable if retryable else KsqlError
        return kind(message, statement=statement, status=status, code=code)


class Answer:
    """The answer to one query: its columns, then whole lines of rows."""

    def __init__(self, response: requests.Response, client: Client, sql: str) -> None:
        self._client, self._sql = client, sql
        self._body = Body(response)
        self._rest: list[bytes] = []  # joined once for each block: appending to bytes copies them all each time
        self._held, self._whole = 0, False  # bytes in it; whether a line ends in it
        self._broken: str | None = None
        try:
            self.query_id, self.columns = self._header(client.server.timeout)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._body.close()

    def _header(self, timeout: float) -> tuple[str, tuple[Column, ...]]:
        deadline = time.monotonic() + timeout
        while not self._whole and not self._body.ended:
            if time.monotonic() > deadline:
                raise KsqlUnavailable(f"{self._client.url}: no header within {timeout:g} s", statement=self._sql)
            self._receive(0.25)
            if self._broken:
                raise AnswerCut(f"{self._client.url}: {self._broken}", statement=self._sql)
            if b"".join(self._rest).lstrip()[:1] not in (b"[", b""):
                break
        line, _, rest = b"".join(self._rest).partition(b"\n")
        try:
            text = line.strip().removeprefix(b"[").removesuffix(b",")
            header = json.loads(text.removesuffix(b"]") if not rest else text)["header"]
            columns = parse_schema(header["schema"])
        except (ValueError, KeyError, TypeError):
            raise self._no_header(line) from None
        closed = b"]" if not rest and line.rstrip().endswith(b"]") else b""
        self._rest, self._held, self._whole = [closed + rest], len(closed + rest), b"\n" in rest
        return str(header.get("queryId")), columns

    def _no_header(self, line: bytes) -> KsqlError:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            error = json.loads(line.strip().strip(b"[],"))
            error = error.get("errorMessage", error)
            return KsqlUnavailable(f"{self._client.url}: {error['message']}", statement=self._sql)
        return KsqlError(
            f"{self._client.url}: the answer does not begin as ksqlDB's does: {_excerpt(line)}; is a proxy or another "
            "service in between?",
            statement=self._sql,
        )

    def _receive(self, timeout: float) -> bool:
        try:
            data = self._body.read(timeout)
        except Cut as error:
            self._broken = str(error)
            return False
        if data:
            self._rest.append(data)
            self._held += len(data)
            self._whole = self._whole or b"\n" in data
        return bool(data)

    def read(self, timeout: float) -> bytes | None:
        """Whole lines, about 1 MiB of them; b"" when the body has ended properly; None: nothing within `timeout` s.

        Raises:
            AnswerCut: the connection ended first; whole lines received before were handed out.
        """
        deadline = time.monotonic() + timeout
        while (self._held < BLOCK or not self._whole) and not self._body.ended and self._broken is None:
            # Once there is a line, only what has arrived already; before, a line may come in many pieces.
            wait = 0.0 if self._whole else deadline - time.monotonic()
            if not self._receive(wait) and (self._whole or wait <= 0):
                break
        lines = self._take_lines()
        if lines:
            return lines
        if self._broken is not None:
            raise AnswerCut(f"{self._client.url}: the answer was cut: {self._broken}", statement=self._sql)
        return b"" if self._body.ended else None

    def _take_lines(self) -> bytes:
        """All whole lines received; at the end of the body, what is there."""
        if not self._whole and not self._body.ended:
            return b""
        later: list[bytes] = []
        while self._rest:
            piece = self._rest.pop()
            cut = len(piece) if self._body.ended else piece.rfind(b"\n") + 1
            later.append(piece[cut:])
            if cut:
                self._rest.append(piece[:cut])
                break
        lines = b"".join(self._rest)
        self._rest, self._held, self._whole = later[::-1], self._held - len(lines), False
        return lines

    def same_connection_info(self) -> bool:
        """Whether /info answers on this very connection: a server that shut down or restarted does not."""
        parts = urlsplit(self._client.url)
        lines = [f"GET {parts.path}/info HTTP/1.1", f"Host: {parts.netloc}", f"Accept: {ACCEPT}"]
        if self._client.server.user is not None:
            pair = f"{self._client.server.user}:{self._client.server.password or ''}"
            lines.append("Authorization: Basic " + base64.b64encode(pair.encode()).decode())
        try:
            answer = self._body.ask("\r\n".join([*lines, "", ""]).encode())
        except OSError:
            return False
        return answer.startswith(b"HTTP/1.1 200") and b"KsqlServerInfo" in answer


def _source(description: Mapping[str, Any]) -> Source:
    fields = description["fields"]
    kind = description["type"].lower()
    source_table = description.get("statement", "").upper().lstrip().startswith("CREATE SOURCE TABLE")
    return Source(
        name=description["name"],
        kind=kind,
        topic=description.get("topic", ""),
        partitions=int(description.get("partitions") or 0),
        window=description.get("windowType"),
        keys=tuple(f["name"] for f in fields if f.get("type") == "KEY"),
        fields=tuple((f["name"], f["schema"]["type"]) for f in fields),
        queryable=bool(description.get("writeQueries")) or source_table,
    )


def _excerpt(content: bytes) -> str:
    return " ".join(content[:200].decode("utf-8", "replace").split())[:120]


def _reason(error: Exception) -> str:
    """The innermost words of requests' nested errors, without object addresses."""
    text = str(error)
    for mark in ("Caused by ", "NewConnectionError(", ">: "):
        if mark in text:
            text = text.split(mark)[-1]
    return text.strip("()'\" ").split("')")[0][:160]
