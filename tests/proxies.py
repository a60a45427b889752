"""What may stand between an exporter and ksqlDB, on loopback: a forward proxy, and reverse proxies with real habits."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import zlib
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

PASSED = ("accept", "content-type", "authorization")


class _Listener:
    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.seen: list[tuple[str, str, dict[str, str]]] = []

    def __enter__(self) -> Any:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as reader:
                while line := reader.readline():
                    method, target, _ = line.decode().split()
                    headers: dict[str, str] = {}
                    while header := reader.readline().strip():
                        name, _, value = header.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    body = reader.read(int(headers.get("content-length", 0)))
                    self.seen.append((method, target, headers))
                    if not self.answer(connection, method, target, headers, body):
                        return
        except (OSError, ValueError, http.client.HTTPException):
            pass

    def answer(self, client: socket.socket, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        """Answer one request; False when the connection ends after it."""
        raise NotImplementedError


class ForwardProxy(_Listener):
    """Takes absolute URIs only, as squid does, and tunnels for CONNECT; with `login` (user:password) for those only."""

    def __init__(self, authorization: str | None = None) -> None:
        super().__init__()
        self.authorization = authorization

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, client: socket.socket, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        if self.authorization and headers.get("proxy-authorization") != self.authorization:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return True
        if method == "CONNECT":
            host, _, port = target.partition(":")
            with socket.create_connection((host, int(port))) as upstream:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
                back.start()
                _pump(client, upstream)
            return False
        if not target.startswith("http://"):
            client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\n\r\nERR_INVALID_URL")
            return True
        parts = urlsplit(target)
        upstream = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        upstream.request(method, parts.path, body or None, {k: v for k, v in headers.items() if k in PASSED})
        response = upstream.getresponse()
        kind = response.getheader("content-type")
        head = f"HTTP/1.1 {response.status} X\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        while data := response.read1(65536):
            client.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        client.sendall(b"0\r\n\r\n")
        upstream.close()
        return True


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class ReverseProxy(_Listener):
    """In front of a server; `habit`: "close" after each answer, answer in "http10", or compress: "gzip".

    `ahead`: it sends the time, so many seconds from now.
    """

    def __init__(self, port: int, habit: str, ahead: float | None = None) -> None:
        super().__init__()
        self.upstream, self.habit, self.ahead = port, habit, ahead

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, client: socket.socket, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        try:
            upstream.request(method, target, body or None, {k: v for k, v in headers.items() if k in PASSED})
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        response = upstream.getresponse()
        chunked = self.habit != "http10"
        lines = [f"HTTP/1.{int(chunked)} {response.status} X"]
        lines += ["Transfer-Encoding: chunked"] if chunked else []
        lines += ["Content-Encoding: gzip"] if self.habit == "gzip" else ["Connection: close"]
        lines += [f"Date: {formatdate(time.time() + self.ahead, usegmt=True)}"] if self.ahead is not None else []
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        press = zlib.compressobj(6, zlib.DEFLATED, 31) if self.habit == "gzip" else None
        while data := response.read1(65536):
            data = press.compress(data) + press.flush(zlib.Z_SYNC_FLUSH) if press else data
            client.sendall(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
        end = press.flush() if press else b""
        if chunked:
            client.sendall((b"%x\r\n%s\r\n" % (len(end), end) if end else b"") + b"0\r\n\r\n")
        upstream.close()
        return self.habit == "gzip"


class ForgetfulProxy(_Listener):
    """Passes bytes on; `forget` loses the connections to the server and keeps those of the clients open and silent."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.upstream, self._there, self._kept = port, list[socket.socket](), list[socket.socket]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        for upstream in self._there:
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        self._kept.append(connection)
        upstream = socket.create_connection(("127.0.0.1", self.upstream))
        self._there.append(upstream)
        threading.Thread(target=self._back, args=(upstream, connection), daemon=True).start()
        with upstream:
            _pump(connection, upstream)

    @staticmethod
    def _back(upstream: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(65536):
                client.sendall(data)
