"""The HTTP side of the embedded server: HTTP/1.1 with keep-alive, a thread per connection."""

from __future__ import annotations

import base64
import json
import re
import select as io_select
import socket
import ssl
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from .answer import Answer, Cut, chunk, reset
from .encode import Unserialisable
from .engine import Engine, Record
from .faults import Fault, Faults
from .query import Query
from .sql import StatementError, parse_select, single

F1 = "application/vnd.ksql.v1+json"
_KNOWN = re.compile(r"(ksql\.|auto\.offset\.reset|isolation\.level|max\.|fetch\.|commit\.|cache\.|num\.|processing\.)")


def dump(value: object) -> bytes:
    """JSON as the server writes it: no spaces, UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


class EmbeddedKsqlDB(Engine):
    """An embedded ksqlDB: fill it with `create_stream`, `append` and so on, `start` it, send queries to `url`.

    `port` 0 takes a free port (known after start, and kept for the next start). `pull_chunk` is how many bytes
    of a table pull go into one HTTP chunk. `version` is what /info says. With `login` (user, password) everybody else
    is refused; with `tls` (certificate file, key file) it speaks HTTPS.
    """

    def __init__(self, port: int = 0, faults: Faults | None = None, host: str = "127.0.0.1",
                 version: str = "0.29.0", pull_chunk: int = 5120, login: tuple[str, str] | None = None,
                 tls: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.login, self.tls = login, tls
        self.host, self.port, self.version, self.pull_chunk = host, port, version, pull_chunk
        self.faults = faults or Faults()
        self.cluster_id = "usbGSaDXRc1TYg_E2bj87A"  # what /info says of Kafka; a test may change it
        self.stopping = False
        self.settings = {"ksql.persistence.wrap.single.values": "true", "ksql.timestamp.throw.on.invalid": "false"}
        self.statements: list[tuple[str, dict[str, str]]] = []
        self.metadata_statements: list[str] = []  # what came to /ksql
        self.connections: set[socket.socket] = set()
        self.running: dict[str, str] = {}  # id -> SQL of queries on streams that a client listens to
        self.lists_push_queries = True  # as servers do since 0.10
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def start(self) -> EmbeddedKsqlDB:
        """Listen and serve in threads; OSError when the port is taken."""
        self.stopping = False
        engine = self

        class Bound(_Handler):
            db = engine

        self._server = _Server((self.host, self.port), Bound)
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self, wait: float = 5.0) -> None:
        """A polite shutdown: open push queries are told "Query Completed" and end whole, then all closes."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: not self.running, wait)
        self.kill()

    def kill(self) -> None:
        """Close everything at once, in the middle of whatever is being sent; the data stay for the next start."""
        server, self._server = self._server, None
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
            open_now = list(self.connections)
        if server:
            server.shutdown()
            server.server_close()
        for connection in open_now:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed by the client meanwhile

    def __enter__(self) -> EmbeddedKsqlDB:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not worth a message."""


class _Handler(BaseHTTPRequestHandler):
    db: EmbeddedKsqlDB
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.db.changed:
            self.db.connections.add(self.connection)

    def finish(self) -> None:
        with self.db.changed:
            self.db.connections.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """Info, health; everything else as the server refuses it."""
        if self._spoiled() is None or not self._let_in():
            return
        path = self.path.split("?")[0]
        if path == "/info":
            self._json({"KsqlServerInfo": {"version": self.db.version, "kafkaClusterId": self.db.cluster_id,
                                           "ksqlServiceId": "embedded_", "serverStatus": "RUNNING"}})
        elif path == "/healthcheck":
            well = {"isHealthy": True}
            self._json({"isHealthy": True, "details": {"metastore": well, "kafka": well, "commandRunner": well},
                        "serverState": "READY"})
        elif path == "/clusterStatus":
            self._plain(404, b"", "application/json")
        elif path in ("/query", "/ksql", "/query-stream"):
            self._send(b"HTTP/1.1 405 Method Not Allowed\r\nallow: POST\r\ncontent-length: 0\r\n\r\n")
        else:
            self._plain(404, b"<html><body><h1>Resource not found</h1></body></html>", "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """A statement (/ksql) or a query (/query)."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        spoiled = self._spoiled()
        if spoiled is None or not self._let_in():
            return
        fault = spoiled[0]
        accept = self.headers.get("accept") or "*/*"
        if self.path not in ("/query", "/ksql"):
            self._plain(404, b"<html><body><h1>Resource not found</h1></body></html>", "text/html; charset=utf-8")
            return
        if not any(a in accept for a in ("*/*", "application/json", "application/vnd.ksql", "application/*")):
            self._plain(406, b"", None)
            return
        text = ""
        try:
            request = self._request(body)
            text = str(request.get("ksql") or "")
            if self.path == "/ksql":
                self._metadata(text)
            else:
                self._query(text, request.get("streamsProperties") or {}, fault)
                if fault and fault.complete_after is not None:
                    self.close_connection = True  # what a server that shuts down politely does next
        except StatementError as error:
            self._refused(error, text)
        except Cut:
            self.close_connection = True

    def _request(self, body: bytes) -> dict[str, Any]:
        try:
            request = json.loads(body)
        except ValueError as error:
            end = len(body) + 1
            what = ("Unexpected end-of-input within/between Object entries\n at [Source: REDACTED "
                    f"(`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: {end}]")
            message = json.dumps(f"Invalid JSON in request: {what}", ensure_ascii=False)
            self._plain(400, f'{{"@type":"generic_error","error_code":40000,"message":{message}}}'.encode(), None)
            raise Cut from error
        return request if isinstance(request, dict) else {}

    def _spoiled(self) -> tuple[Fault | None] | None:
        """The fault of this answer in a tuple; None when the fault has answered already."""
        fault = self.db.faults.take(self.path)
        if fault is None:
            return (None,)
        time.sleep(fault.delay)
        if fault.reset:
            reset(self.connection)
            self.close_connection = True
            self.connection.close()
            return None
        if fault.status is not None:
            self._plain(fault.status, fault.body, fault.content_type)
            return None
        return (fault,)

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)

    def _plain(self, status: int, body: bytes, kind: str | None) -> None:
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        head += f"content-type: {kind}\r\n" if kind else ""
        self._send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    def _json(self, value: object, status: int = 200) -> None:
        self._plain(status, dump(value), "application/json")

    def _refused(self, error: StatementError, text: str) -> None:
        kind = "generic_error" if error.generic else "statement_error"
        body: dict[str, object] = {"@type": kind, "error_code": error.code, "message": error.message}
        if not error.generic:
            body.update(statementText=text, entities=[])
        if error.late:  # found while planning: the server answers in chunks, without a content type
            head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nTransfer-Encoding: chunked\r\n\r\n"
            self._send(head.encode() + chunk(dump(body)) + b"0\r\n\r\n")
        else:
            self._json(body, error.status)

    def _metadata(self, text: str) -> None:
        parts = single(text)
        self.db.metadata_statements.append(text)
        words = [t.value for t in parts]
        extended = len(words) > 2 and words[-1] == "EXTENDED"
        if words[0] == "SELECT":
            raise StatementError("The following statement types should be issued to the websocket endpoint '/query':"
                                 "\n\t* PRINT\n\t* SELECT", code=40002)
        with self.db.changed:
            sources = list(self.db.sources.values())
            if words[0] in ("LIST", "SHOW") and words[1:] in (["STREAMS"], ["TABLES"]):
                kind = words[1].lower()
                found = [s.listing() for s in sources if s.kind == words[1][:-1]]
                answer: dict[str, object] = {"@type": kind, "statementText": text, kind: found}
            elif words[0] in ("LIST", "SHOW") and words[1:] in (["STREAMS", "EXTENDED"], ["TABLES", "EXTENDED"]):
                answer = {"@type": "source_descriptions", "statementText": text, "sourceDescriptions":
                          [s.description(True) for s in sources if s.kind == words[1][:-1]]}
            elif words[0] in ("LIST", "SHOW") and words[1:] == ["PROPERTIES"]:
                properties = [{"name": name, "scope": "KSQL", "value": value, "editable": False}
                              for name, value in sorted(self.db.settings.items())]
                answer = {"@type": "properties", "statementText": text, "properties": properties,
                          "overwrittenProperties": [], "defaultProperties": []}
            elif words[0] in ("LIST", "SHOW") and words[1:] == ["QUERIES"]:
                answer = {"@type": "queries", "statementText": text, "queries": [
                    {"queryString": sql, "sinks": [], "sinkKafkaTopics": [], "id": query_id,
                     "statusCount": {"RUNNING": 1}, "queryType": "PUSH", "state": "RUNNING"}
                    for query_id, sql in self.db.running.items() if self.db.lists_push_queries]}
            elif words[0] == "DESCRIBE" and len(words) == 2 + extended:
                source = self.db.sources.get(words[1])
                if source is None:
                    raise StatementError(f"Could not find STREAM/TABLE '{words[1]}' in the Metastore")
                answer = {"@type": "sourceDescription", "statementText": text,
                          "sourceDescription": source.description(extended)}
            else:
                raise StatementError(f"the embedded server does not understand: {text}")
        self._json([{**answer, "warnings": []}])

    def _query(self, text: str, given: dict[str, Any], fault: Fault | None) -> None:
        properties = {k.removeprefix("ksql.streams.").removeprefix("consumer."): str(v) for k, v in given.items()}
        for key in given:
            if not _KNOWN.match(key):
                raise StatementError(f"Not recognizable as ksql, streams, consumer, or producer property: '{key}'",
                                     status=500, code=50000, generic=True)
        self.db.statements.append((text, properties))
        query = Query(self.db, text, parse_select(text), properties)
        answer = Answer(self.connection, fault)
        self._send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-type: " + F1.encode() + b"\r\n\r\n")
        if query.table_pull:
            self._table_pull(query, answer)
            return
        with self.db.changed:
            self.db.running[query.id] = text
        try:
            answer.write(chunk(f"[{query.header()},\n".encode()))
            if query.select.push:
                self._push(query, answer)
            else:
                self._stream_pull(query, answer)
        except OSError:
            self.close_connection = True
        finally:
            with self.db.changed:
                del self.db.running[query.id]
                self.db.changed.notify_all()

    def _stream_pull(self, query: Query, answer: Answer) -> None:
        self._rows(query, answer, list(query.bounded()))
        while not answer.ended and query.waits() and not self.db.stopping:
            answer.flush()
            if self._gone():
                self.close_connection = True
                return
            with self.db.changed:
                self.db.changed.wait(0.2)
            self._rows(query, answer, query.batch(query.end) or [])
        if not answer.ended:
            answer.finish("Query Completed")

    def _rows(self, query: Query, answer: Answer, records: list[Record]) -> None:
        limit = query.select.limit
        for number, record in enumerate(records):
            if answer.ended:
                return
            if number % 256 == 255 and self.db.stopping:
                answer.finish("Query Completed")
                return
            if answer.rows != limit:
                try:
                    text = query.text(record)
                except Unserialisable as error:
                    answer.error(50000, str(error))
                    return
                answer.row(f"{text},\n".encode())
            if answer.rows == limit and not answer.ended:
                answer.finish("Limit Reached")

    def _push(self, query: Query, answer: Answer) -> None:
        if query.select.limit == 0:
            answer.finish("Limit Reached")
        while not answer.ended:
            found = query.batch()
            if found is not None:
                self._rows(query, answer, found)
                continue
            answer.flush()
            if self.db.stopping:
                answer.finish("Query Completed")
            elif self._gone():
                self.close_connection = True
                return
            else:
                with self.db.changed:
                    if query.cursor >= len(query.topic.log) and not self.db.stopping:
                        self.db.changed.wait(0.2)

    def _gone(self) -> bool:
        """Whether the client has hung up."""
        readable, _, _ = io_select.select([self.connection], [], [], 0)
        if isinstance(self.connection, ssl.SSLSocket):  # which cannot peek; a client says nothing while it listens
            return bool(readable) and self.connection.recv(1) == b""
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def _let_in(self) -> bool:
        """Whether the request carries the login; refused, as the server does, when not."""
        if self.db.login is None:
            return True
        expected = "Basic " + base64.b64encode(":".join(self.db.login).encode()).decode()
        if self.headers.get("Authorization") == expected:
            return True
        self._json({"@type": "generic_error", "error_code": 40100, "message": "Unauthorized"}, 401)
        return False

    def _table_pull(self, query: Query, answer: Answer) -> None:
        """Elements without a separator before `]`, several to a chunk; faults count rows here as well."""
        fault = answer.fault
        gathered = [f"[{query.header()}"]
        size = 0
        for number, record in enumerate(query.table_rows()):
            try:
                text = query.text(record)
            except Unserialisable as error:
                answer.write(chunk("".join(gathered).encode() + b",\n"))
                answer.error(50000, str(error))
                return
            if fault and self._pull_fault(fault, number, gathered, text, answer):
                return
            gathered.append(f",\n{text}")
            size += len(text)
            if size >= self.db.pull_chunk:
                answer.write(chunk("".join(gathered).encode()))
                gathered, size = [], 0
        answer.write(chunk("".join([*gathered, "]"]).encode()) + b"0\r\n\r\n")
        answer.flush()

    def _pull_fault(self, fault: Fault, number: int, gathered: list[str], text: str, answer: Answer) -> bool:
        """Whether the answer ends at this row."""
        if number not in (fault.cut_after, fault.error_after, fault.complete_after, fault.silent_after):
            return False
        sent = "".join(gathered) + ",\n"
        if number == fault.silent_after:
            answer.write(chunk("".join(gathered).encode()))
            gathered.clear()
            answer.flush()
            time.sleep(fault.silent_seconds)
            return False
        if number == fault.cut_after:
            answer.write(chunk(sent.encode()))
            answer.cut(text.encode())
        elif number == fault.error_after:
            error = {"@type": "generic_error", "error_code": fault.error_code, "message": fault.error_message}
            end = b"]" if fault.error_closed else b""
            answer.write(chunk(sent.encode() + dump({"errorMessage": error}) + end) + b"0\r\n\r\n")
        else:
            answer.write(chunk("".join(gathered).encode() + b"]") + b"0\r\n\r\n")
        answer.flush()
        return True
