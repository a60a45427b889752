"""A proxy for one server that breaks chosen requests: 503, cut bodies, lost answers, expired tokens, silence.

It also keeps a log of the requests, so that a test can count what a command costs.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Kind = Literal["slow_down", "cut_upload", "cut_answer", "lost_answer", "expired", "hang"]
EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>"
SLOW = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@dataclass
class Rule:
    """Break requests that match, so many times."""

    kind: Kind
    pattern: str  # of "PUT /bucket/key"
    times: int = 1
    seen: int = 0


@dataclass
class FaultProxy:
    """Use as a context manager; `port` is where it listens."""

    target: int
    rules: list[Rule] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)  # session tokens of AWS, one for each request that has one
    port: int = 0

    def __enter__(self) -> FaultProxy:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.released = threading.Event()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def breaks(self, kind: Kind, pattern: str, times: int = 1) -> Rule:
        self.rules.append(Rule(kind, pattern, times))
        return self.rules[-1]

    def rule_for(self, line: str) -> Rule | None:
        for rule in self.rules:
            if rule.seen < rule.times and re.search(rule.pattern, line):
                rule.seen += 1
                return rule
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultProxy

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        line = f"{self.command} {self.path}"
        self.owner.log.append(line)
        if token := self.headers.get("X-Amz-Security-Token"):
            self.owner.tokens.append(token)
        rule = self.owner.rule_for(line)
        kind = rule.kind if rule else None
        if self.headers.get("Expect", "").lower() == "100-continue":
            pass  # BaseHTTPRequestHandler has sent the 100 by itself
        length = int(self.headers.get("Content-Length") or 0)
        if kind == "cut_upload":
            self.rfile.read(length // 2)
            return self._hang_up()
        body = self.rfile.read(length) if length else self._chunked()
        if kind == "hang":
            self.owner.released.wait(60)
            return self._hang_up()
        if kind in ("slow_down", "expired"):
            return self._reply(503 if kind == "slow_down" else 400, SLOW if kind == "slow_down" else EXPIRED)
        status, headers, answer = self._forward(body)
        if kind == "lost_answer":
            return self._hang_up()
        self._pass_on(status, headers, answer[: len(answer) // 2] if kind == "cut_answer" else answer)
        if kind == "cut_answer":
            self._hang_up()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _chunked(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return b""
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        to = http.client.HTTPConnection("127.0.0.1", self.owner.target, timeout=60)
        to.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect", "transfer-encoding", "content-length"):
                to.putheader(name, value)
        if body or self.command in ("PUT", "POST"):
            to.putheader("Content-Length", str(len(body)))
        to.endheaders(body or None)
        answer = to.getresponse()
        data = answer.read()
        to.close()
        return answer.status, answer.getheaders(), data

    def _pass_on(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers) and self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _reply(self, status: int, data: bytes) -> None:
        self._pass_on(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(data)))], data)

    def _hang_up(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
