"""Serves recorded answers of a real ksqlDB 0.29 server byte for byte; push connections stay open after the last row."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings"


def recording(name: str) -> tuple[dict[str, Any], bytes]:
    """What was asked, and the whole HTTP answer."""
    return json.loads((RECORDINGS / f"{name}.json").read_text()), (RECORDINGS / f"{name}.http").read_bytes()


class RecordedServer:
    """Answers request after request with the recordings named, chosen by a word of the statement.

    Args:
        answers: (regular expression over path and statement, name of the recording, raw bytes of an answer, or a
            function that sends what it likes, after which the connection is closed).
        piece: bytes sent at a time; 0 for all at once.
    """

    def __init__(self, *answers: tuple[str, str | bytes | Callable[[socket.socket], None]], piece: int = 0) -> None:
        self.answers, self.piece = answers, piece
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.stopped = threading.Event()

    def __enter__(self) -> RecordedServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.listener.close()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
            while line := reader.readline():
                headers = {}
                while (header := reader.readline().strip()):
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = reader.read(int(headers.get("content-length", 0)))
                asked = line.decode().split()[1] + " " + (json.loads(body)["ksql"] if body else "")
                if not self._answer(connection, asked):
                    return

    def _answer(self, connection: socket.socket, asked: str) -> bool:
        """False when the connection ends after this answer."""
        found = next((answer for pattern, answer in self.answers if re.search(pattern, asked)), None)
        if found is None:
            raise AssertionError(f"nothing was recorded for {asked}")
        if callable(found):
            found(connection)
            return False
        meta, data = ({"ended_by": "last-chunk"}, found) if isinstance(found, bytes) else recording(found)
        for start in range(0, len(data), self.piece or len(data)):
            connection.sendall(data[start : start + (self.piece or len(data))])
        if meta["ended_by"].startswith("client"):
            while not self.stopped.is_set():
                time.sleep(0.02)
        return meta["ended_by"] != "server"
