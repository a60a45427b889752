"""The bytes of an HTTP answer in large pieces, with time-outs that lose nothing.

In a stream the server sends each row as a separate chunk, which is slow in HTTP libraries. Here the framing is removed
for many chunks at a time, by the native library where it is built.
"""

from __future__ import annotations

import ctypes
import re
import socket
import time
from dataclasses import dataclass

from ksql_lake.base import limits
from ksql_lake.base.native import Dechunker, library

PIECE = 1 << 20
_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")


class Cut(Exception):
    """The connection ended before the body did."""


class TooLong(Exception):
    """The body is larger than allowed."""


@dataclass(frozen=True)
class Framing:
    """How a body ends: by its last chunk, after `length` bytes, or with the connection; `kept`: which stays open."""

    chunked: bool
    length: int | None
    kept: bool


class Body:
    """The body of one answer.

    Args:
        rest: what was received of it with the headers.
    """

    def __init__(self, connection: socket.socket, framing: Framing, rest: bytes) -> None:
        self._socket, self._framing = connection, framing
        self._chunked, self._left = framing.chunked, framing.length
        self._start(library())
        self._wire = rest
        self.ended = self._left == 0

    def _start(self, loaded: ctypes.CDLL | None) -> None:
        self._pending = 0  # bytes of the present chunk still to come, its CRLF included
        self._dechunker = Dechunker(loaded) if loaded is not None else None

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request now."""
        whole = self._chunked or self._framing.length is not None
        return self.ended and whole and self._framing.kept and not self._wire

    def read(self, timeout: float) -> bytes | None:
        """Body bytes; b"" at its proper end; None when nothing came within `timeout` seconds.

        Raises:
            Cut: the connection ended first, or the framing is broken.
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

    def read_all(self, most: int, pause: float, seconds: float) -> bytes:
        """The whole body; what there is of it stays in `collected` when it fails.

        Raises:
            Cut: the connection ended first.
            TooLong: it has more than `most` bytes.
            TimeoutError: nothing came for `pause` seconds, or it was not there within `seconds`.
        """
        heard, size, self.collected = time.monotonic(), 0, list[bytes]()
        deadline = heard + seconds
        while not self.ended:
            data = self.read(min(heard + pause, deadline) - time.monotonic())
            now = time.monotonic()
            heard = now if data else heard
            if now >= min(heard + pause, deadline) and not self.ended:
                raise TimeoutError
            self.collected.append(data or b"")
            size += len(data or b"")
            if size > most:
                raise TooLong
        return b"".join(self.collected)

    def _take(self) -> bytes:
        if not self._chunked:
            data = self._wire if self._left is None else self._wire[: self._left]
            self._wire = self._wire[len(data) :]
            if self._left is not None:
                self._left -= len(data)
                self.ended = self._left <= 0
            return data
        return self._dechunk()

    def _dechunk(self) -> bytes:
        """Whole or partial chunks of what was received; bytes that are not decided yet stay."""
        if self._dechunker is not None and self._wire:
            data, used, self._pending = self._dechunker.take(self._wire, self._pending)
            self._wire = self._wire[used:]
            if data:
                return data
        wire, parts, at = self._wire, [], 0
        while at < len(wire) and not self.ended:
            if self._pending:
                piece = wire[at : at + self._pending]
                at += len(piece)
                parts.append(piece[: max(self._pending - 2, 0)])
                self._pending -= len(piece)
                continue
            line = wire.find(b"\r\n", at, at + limits.CHUNK_SIZE_LINE)
            if line < 0:
                if len(wire) - at >= limits.CHUNK_SIZE_LINE:
                    raise Cut("the chunk framing of the answer is broken")
                break
            size = wire[at:line].split(b";")[0].strip()
            if not _SIZE.fullmatch(size):
                raise Cut("the chunk framing of the answer is broken")
            self._pending = int(size, 16) + 2
            if self._pending > 2:
                at = line + 2
                continue
            self._pending = 0
            end = wire.find(b"\r\n\r\n", line)  # with trailers, if any
            if end < 0:
                if len(wire) - line > limits.TRAILERS:
                    raise Cut("more bytes after the answer than HTTP trailers may have")
                break
            self.ended, at = True, end + 4
        self._wire = wire[at:]
        return b"".join(parts)
