"""Faults for the embedded server: each happens once, in the order in which they were queued."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fault:
    """One misbehaviour of one answer; the fields can be combined. Row counts are rows sent in this answer.

    status, body, content_type: this answer instead of the real one (429, 503, HTML with 200 ...).
    reset: the connection is closed before any byte of the answer.
    delay: seconds of silence before the first byte.
    cut_after, cut_where: close without the last chunk after that many rows: between two rows, in the middle
        of the next row, or inside one of its multi-byte characters.
    error_after, error_code, error_message, error_closed: an error row; with or without the closing `]`
        (the last chunk follows in both cases).
    complete_after: "Query Completed", `]` and the last chunk, though there are more rows; then the connection is
        closed, as by a server that is shut down politely.
    complete_final: whether that answer has its final message; `]` alone without.
    legacy: the framing of older servers: empty lines between rows, a newline after the end, and an
        error row after an empty line with no `]`.
    silent_after, silent_seconds: nothing is sent for so long.
    slow: seconds between pieces of `slow_bytes` bytes, in the middle of rows.
    repeat_after, repeat_rows: the last rows come again, as after a rebalance.
    path: the answers it applies to ("" for all).
    """

    status: int | None = None
    body: bytes = b""
    content_type: str | None = "application/json"
    reset: bool = False
    delay: float = 0.0
    cut_after: int | None = None
    cut_where: Literal["between", "row", "char"] = "between"
    error_after: int | None = None
    error_code: int = 50000
    error_message: str = "java.lang.RuntimeException: embedded fault"
    error_closed: bool = True
    complete_after: int | None = None
    complete_final: bool = True
    legacy: bool = False
    silent_after: int | None = None
    silent_seconds: float = 0.0
    slow: float = 0.0
    slow_bytes: int = 7
    repeat_after: int | None = None
    repeat_rows: int = 0
    path: str = "/query"


HTML = b"<html><body><h1>Sign in</h1></body></html>"


class Faults:
    """A queue of faults, safe to fill while the server runs; each is used up by the next answer it applies to."""

    def __init__(self) -> None:
        self._queue: deque[Fault] = deque()
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> None:
        """Queue faults for the next answers."""
        with self._lock:
            self._queue.extend(faults)

    def html(self, status: int = 200) -> None:
        """The next answer is a proxy's HTML page."""
        self.add(Fault(status=status, body=HTML, content_type="text/html"))

    def clear(self) -> None:
        """Forget what is queued."""
        with self._lock:
            self._queue.clear()

    def take(self, path: str) -> Fault | None:
        """The next fault for this path, removed from the queue."""
        with self._lock:
            for index, fault in enumerate(self._queue):
                if fault.path in ("", path):
                    del self._queue[index]
                    return fault
        return None

    def __len__(self) -> int:
        return len(self._queue)
