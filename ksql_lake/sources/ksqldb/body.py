"""The bytes of an HTTP answer in large pieces, with time-outs that lose nothing.

In a stream the server sends each row as a chunk of its own, and HTTP libraries pay for every chunk. Once
`requests` has read the response headers, the socket is read here and the framing taken apart many chunks
at a time, by the native library where it is built.
"""

from __future__ import annotations

import ctypes
import socket
import ssl
from typing import Any

from ksql_lake.base.native import Dechunker, library

PIECE = 1 << 20


class Cut(Exception):
    """The connection ended before the body did."""


class _Sizes(dict[bytes, int]):
    """Chunk sizes by their text: a stream has few different ones."""

    def __missing__(self, text: bytes) -> int:
        self[text] = size = int(text, 16)
        return size


class Body:
    """The body of one response of `requests` (stream=True, nothing read of it yet)."""

    def __init__(self, response: Any) -> None:
        self._response = response  # else it is collected, and closes its connection
        self._http = response.raw._fp  # http.client's response: the only place that has the buffered bytes
        self._socket: socket.socket = self._http.fp.raw._sock
        self._timeout = self._socket.gettimeout()
        headers = response.headers
        self._chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        length = headers.get("Content-Length")
        self._left = int(length) if length is not None and not self._chunked else None
        self._start(library())
        self._wire = self._buffered()
        self.ended = self._left == 0

    def _start(self, loaded: ctypes.CDLL | None) -> None:
        self._sizes = _Sizes()
        self._pending = 0  # bytes of the present chunk still to come, its CRLF included
        self._dechunker = Dechunker(loaded) if loaded is not None else None

    def _buffered(self) -> bytes:
        """What http.client read beyond the headers, without waiting for more."""
        self._socket.setblocking(False)
        try:
            return bytes(self._http.fp.read1(PIECE) or b"")
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        finally:
            self._socket.settimeout(self._timeout)

    def read(self, timeout: float) -> bytes | None:
        """Body bytes; b"" at its proper end; None when nothing came within `timeout` seconds.

        Raises:
            Cut: the connection ended first.
        """
        if self.ended:
            return b""
        data = self._take()
        if data or self.ended:
            return data
        self._socket.settimeout(max(timeout, 0.001))
        try:
            received = self._socket.recv(PIECE)
        except TimeoutError:
            return None
        except OSError as error:
            raise Cut(str(error)) from None
        if not received:
            if self._chunked or self._left:
                raise Cut("the connection was closed before the end of the answer")
            self.ended = True
            return b""
        self._wire = self._wire + received if self._wire else received
        data = self._take()
        return data if data or self.ended else None

    def _take(self) -> bytes:
        if not self._chunked:
            data, self._wire = self._wire, b""
            if self._left is not None:
                self._left -= len(data)
                self.ended = self._left <= 0
            return data
        return self._dechunk()

    def _dechunk(self) -> bytes:
        """Whole or partial chunks of what was received; bytes that are not decided yet stay."""
        many = self._many_chunks()
        if many:
            return many
        wire, parts, at = self._wire, [], 0
        while at < len(wire):
            if self._pending:
                piece = wire[at : at + self._pending]
                at += len(piece)
                parts.append(piece[: max(self._pending - 2, 0)])
                self._pending -= len(piece)
                continue
            start, line = at, wire.find(b"\r\n", at)
            if line < 0:
                break
            try:
                size = int(wire[at:line].split(b";")[0], 16)
            except ValueError:
                raise Cut("the chunk framing of the answer is broken") from None
            at = line + 2
            if size == 0:
                if not wire.startswith(b"\r\n", at):
                    at = start  # the last CRLF is still on its way
                    break
                self.ended, at = True, at + 2
                break
            self._pending = size + 2
        self._wire = wire[at:]
        return b"".join(parts)

    def _many_chunks(self) -> bytes:
        """All whole chunks received, taken apart at once; b"" where that is not certain.

        JSON text holds no raw CRLF, so splitting there gives sizes and chunks in turn; each size is compared.
        """
        wire = self._wire
        if self._dechunker is not None:
            data, used, self._pending = self._dechunker.take(wire, self._pending)
            self._wire = wire[used:]
            return data
        if self._pending:
            return b""
        pieces = wire.split(b"\r\n")
        whole = (len(pieces) - 1) // 2 * 2
        sizes, chunks = pieces[0:whole:2], pieces[1:whole:2]
        try:
            lengths = list(map(self._sizes.__getitem__, sizes))
        except ValueError:
            return b""
        if len(chunks) < 2 or 0 in lengths or lengths != list(map(len, chunks)):
            return b""
        self._wire = wire[sum(lengths) + sum(map(len, sizes)) + 4 * len(chunks) :]
        return b"".join(chunks)

    def ask(self, request: bytes) -> bytes:
        """Send a request on the same connection once the body has ended; returns the start of the answer.

        Raises:
            OSError: the connection is gone.
        """
        self._socket.settimeout(self._timeout)
        self._socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or b"}" not in answer:
            received = self._socket.recv(65536)
            if not received:
                break
            answer += received
        return answer

    def close(self) -> None:
        """Hang up at once, also in the middle of an answer."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
