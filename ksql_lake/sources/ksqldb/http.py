"""HTTP/1.1 to one server over a socket: every byte is counted, every wait is limited.

Only what ksqlDB needs: GET and POST, no redirects, no cookies, no compression, no login but the one that the settings
name (never ~/.netrc). HTTP_PROXY, HTTPS_PROXY and NO_PROXY are followed.
"""

from __future__ import annotations

import base64
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ksql_lake.base import limits
from ksql_lake.base.errors import ConfigError
from ksql_lake.sources.ksqldb.body import PIECE, Body, Framing

_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: .*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)


class Malformed(Exception):
    """The server does not speak HTTP, or not like ksqlDB; the message says how."""


class NoAnswer(OSError):
    """The connection was closed before a byte of the answer."""


@dataclass(frozen=True)
class Proxy:
    """The proxy that the environment asks for; `setting` is the name of the variable."""

    host: str
    port: int
    setting: str
    login: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Address:
    """Where a server is, and how to get there."""

    scheme: str
    host: str
    port: int
    path: str
    proxy: Proxy | None

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    def target(self, path: str) -> str:
        """The target in the request line: for a forward proxy the whole URL."""
        through = self.proxy is not None and self.scheme == "http"
        return f"http://{self.netloc}{self.path}{path}" if through else self.path + path


def address(url: str) -> Address:
    """The address of an http:// or https:// URL.

    Raises:
        ConfigError: the environment names a kind of proxy that is not supported.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    return Address(parts.scheme, host, port, parts.path.rstrip("/"), _proxy(parts.scheme, host, port))


def _proxy(scheme: str, host: str, port: int) -> Proxy | None:
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies_environment, proxy_bypass

    found = getproxies_environment()
    key = scheme if scheme in found else "all"
    if not found.get(key) or proxy_bypass(f"{host}:{port}"):
        return None
    parts = urlsplit(found[key] if "://" in found[key] else f"http://{found[key]}")
    setting = f"{key.upper()}_PROXY"
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"{setting}: only http:// proxies are supported; name {host} in NO_PROXY to go without it")
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    return Proxy(parts.hostname, parts.port or 80, setting, login)


@dataclass
class Response:
    """An answer whose body has not been read.

    Attributes:
        headers: by their lower-case names.
    """

    status: int
    headers: Mapping[str, str]
    body: Body


def _keep_alive(there: socket.socket) -> None:
    """A query can be silent for hours; so the system asks whether the other side still lives, and tells when not."""
    there.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            there.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)



class Connection:
    """One connection to the server, or to the proxy before it.

    Args:
        timeout: seconds without a byte after which a wait ends; an answer's headers may take `limits.PATIENCE` times
            as long.

    Raises:
        OSError: it cannot be made; ssl.SSLError when the server's certificate is refused.
        Malformed: the proxy refuses to connect.
    """

    def __init__(self, to: Address, timeout: float, context: ssl.SSLContext | None) -> None:
        self.address, self.timeout = to, timeout
        first = (to.proxy.host, to.proxy.port) if to.proxy else (to.host, to.port)
        self.socket: socket.socket = socket.create_connection(first, timeout)
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(self.socket)
            if context is not None:
                if to.proxy:
                    self._tunnel(to.proxy)
                self.socket = context.wrap_socket(self.socket, server_hostname=to.host)
        except BaseException:
            self.close()
            raise

    def _tunnel(self, proxy: Proxy) -> None:
        """A forward proxy's way to a server that speaks TLS."""
        where = f"{self.address.host}:{self.address.port}"
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}", *_proxy_login(proxy)]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        response = self._response()
        if response.status != 200:
            raise Malformed(f"the proxy {proxy.host}:{proxy.port} ({proxy.setting}) refuses: HTTP {response.status}")

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Response:
        """Send a request and read the head of its answer.

        Raises:
            OSError: the connection broke; TimeoutError when nothing came in time; NoAnswer before any byte of it.
            Malformed: the answer is not HTTP, or larger than `limits` allow.
        """
        proxy = self.address.proxy
        lines = [f"{method} {self.address.target(path)} HTTP/1.1", f"Host: {self.address.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if proxy and self.address.scheme == "http":
            lines += _proxy_login(proxy)
        if body or method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self.socket.settimeout(self.timeout)
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return self._response()

    def _response(self) -> Response:
        deadline, rest = time.monotonic() + limits.PATIENCE * self.timeout, b""
        for _ in range(limits.INTERIM):
            head, rest = self._receive_head(rest, deadline)
            status, headers, old = _head(head)
            if status >= 200:
                return Response(status, headers, Body(self.socket, _framing(status, headers, old), rest))
        raise Malformed(f"more than {limits.INTERIM} interim answers before the answer")

    def _receive_head(self, data: bytes, deadline: float) -> tuple[bytes, bytes]:
        """The bytes before the empty line, and those received after it."""
        while (end := data.find(b"\r\n\r\n")) < 0:
            if data and not b"HTTP/1.".startswith(data[:7]):
                raise Malformed(f"what answers does not speak HTTP ({shown(data)})")
            if len(data) > limits.STATUS_AND_HEADERS:
                raise Malformed(f"headers of more than {limits.STATUS_AND_HEADERS:,} bytes")
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(min(left, self.timeout))
            try:
                received = self.socket.recv(PIECE)
            except ConnectionResetError:
                received = b""
            if not received:
                raise NoAnswer("the connection was closed in the middle of the headers" if data else "no answer came")
            data += received
        return data[:end], data[end + 4 :]

    def is_open(self) -> bool:
        """Whether the server has neither closed this idle connection nor sent something unasked."""
        readable, _, _ = select.select([self.socket], [], [], 0)
        return not readable

    def close(self) -> None:
        """Hang up at once, also in the middle of an answer."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def _proxy_login(proxy: Proxy) -> list[str]:
    return [] if proxy.login is None else [f"Proxy-Authorization: {basic(proxy.login)}"]


def basic(login: str) -> str:
    """The value of an Authorization header for "user:password"."""
    return "Basic " + base64.b64encode(login.encode()).decode()


def _head(head: bytes) -> tuple[int, dict[str, str], bool]:
    """Status, headers, and whether the answer is of HTTP/1.0."""
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if not status:
        raise Malformed(f"what answers does not speak HTTP/1.1 ({shown(first)})")
    if len(lines) > limits.HEADERS:
        raise Malformed(f"more than {limits.HEADERS} headers")
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if not match:
            raise Malformed(f"a header that is none ({shown(line)})")
        name, value = match[1].decode().lower(), match[2].decode("latin-1")
        if name == "content-length" and headers.get(name, value) != value:
            raise Malformed("two different Content-Lengths")
        headers[name] = value
    return int(status[2]), headers, status[1] == b"0"


def _framing(status: int, headers: Mapping[str, str], old: bool) -> Framing:
    coding = headers.get("content-encoding", "identity").lower()
    if coding not in ("identity", ""):
        raise Malformed(
            f"the answer comes compressed ({excerpt(coding)}), which nobody asked for: a proxy in between "
            "does that; switch compression off there for ksqlDB"
        )
    transfer, length = headers.get("transfer-encoding", "").lower(), headers.get("content-length")
    if transfer not in ("", "identity", "chunked"):
        raise Malformed(f"Transfer-Encoding {excerpt(transfer)}")
    if transfer != "chunked" and length is not None and not _LENGTH.fullmatch(length):
        raise Malformed(f"Content-Length {excerpt(length)}")
    size = 0 if status in (204, 304) else int(length) if length is not None and transfer != "chunked" else None
    kept = not old and "close" not in headers.get("connection", "").lower()
    return Framing(transfer == "chunked", size, kept)


def shown(content: bytes) -> str:
    """The beginning of what was answered, as `excerpt` has it."""
    return excerpt(content[: limits.SHOWN].decode("utf-8", "replace"), 120)


def excerpt(text: str, most: int = limits.SHOWN) -> str:
    """The server's own words on one line: without control characters, and not too many."""
    line = " ".join(text[: 4 * most].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= most else f"{line[:most]} ..."
