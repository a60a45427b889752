"""Writes an answer: HTTP chunks, and the faults that spoil them."""

from __future__ import annotations

import json
import socket
import struct
import time

from .faults import Fault


class Cut(Exception):
    """The connection must end here, without a last chunk."""


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Answer:
    """The body of one F1 answer. Rows are gathered and sent together, each still a chunk of its own."""

    def __init__(self, connection: socket.socket, fault: Fault | None) -> None:
        self.connection, self.fault = connection, fault
        self.rows = 0
        self.ended = False
        self._pending: list[bytes] = []
        self._size = 0
        self._last: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Bytes as they are; sent at the next flush."""
        self._pending.append(data)
        self._size += len(data)
        if self._size > 65536:
            self.flush()

    def flush(self) -> None:
        """Send what is gathered."""
        data, self._pending, self._size = b"".join(self._pending), [], 0
        if not data:
            return
        if self.fault and self.fault.slow:
            step = self.fault.slow_bytes
            for at in range(0, len(data), step):
                self.connection.sendall(data[at:at + step])
                time.sleep(self.fault.slow)
        else:
            self.connection.sendall(data)

    def row(self, data: bytes) -> None:
        """One row element with its separator, after whatever the fault wants to happen before it."""
        if self.fault is None:
            self.write(chunk(data))
        else:
            self._before(self.fault, data)
            if self.ended:
                return
            self.write(chunk(data))
            if self.fault.legacy and self.rows % 3 == 0:
                self.write(chunk(b"\n"))
            self._last.append(data)
            if self.rows + 1 == self.fault.repeat_after:
                for again in self._last[-self.fault.repeat_rows:]:
                    self.write(chunk(again))
        self.rows += 1

    def _before(self, fault: Fault, data: bytes) -> None:
        if self.rows == fault.silent_after:
            self.flush()
            time.sleep(fault.silent_seconds)
        if self.rows == fault.complete_after:
            self.finish("Query Completed" if fault.complete_final else None)
        elif self.rows == fault.error_after:
            self.error(fault.error_code, fault.error_message, fault.error_closed and not fault.legacy)
        elif self.rows == fault.cut_after:
            self.cut(data)

    def cut(self, data: bytes) -> None:
        """End the connection between two rows, or within this one."""
        where = self.fault.cut_where if self.fault else "between"
        whole = chunk(data)
        if where == "row":
            self.write(whole[:len(whole) // 2])
        elif where == "char":
            at = next((i for i, byte in enumerate(whole) if byte >= 0x80), len(whole) // 2)
            self.write(whole[:at + 1])
        self.flush()
        raise Cut

    def error(self, code: int, message: str, closed: bool = True) -> None:
        """An error row: followed by a comma even before `]`, as the server does."""
        element = {"errorMessage": {"@type": "generic_error", "error_code": code, "message": message}}
        start = b"\n" if self._legacy else b""
        self.write(chunk(start + json.dumps(element, separators=(",", ":"), ensure_ascii=False).encode() + b",\n"))
        self._end(b"]" if closed else b"")

    def finish(self, message: str | None) -> None:
        """The final message if any, `]` and the last chunk."""
        if message is not None:
            self.write(chunk(b'{"finalMessage":"%s"}' % message.encode()))
        self._end(b"]\n" if self._legacy else b"]")

    @property
    def _legacy(self) -> bool:
        return self.fault is not None and self.fault.legacy

    def _end(self, close: bytes) -> None:
        self.write((chunk(close) if close else b"") + b"0\r\n\r\n")
        self.flush()
        self.ended = True


def reset(connection: socket.socket) -> None:
    """Make the closing of a connection a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
