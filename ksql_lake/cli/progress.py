"""Progress of an export: live on a terminal, a line a minute with --progress plain, otherwise nothing.

The library that draws it is loaded on a terminal only.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from ksql_lake.base import figures
from ksql_lake.ingest.progress import Progress

MINUTE = 60.0  # seconds between two lines of --progress plain
LATELY = 5_000  # ms: the time since a row as young as this says nothing of how much is still to come


class Counted(Progress):
    """How far one feed's export is. Times are seconds of the monotonic clock, ROWTIME is epoch ms."""

    def __init__(self, feed: str) -> None:
        self.feed = feed
        self.started = time.monotonic()
        self.rows = self.size = 0
        self.why = ""
        self.expected: int | None = None
        self._reached: float | None = None
        self._first: int | None = None
        self._newest: int | None = None

    def __call__(self, rows: int, size: int = 0, rowtime: int | None = None) -> None:
        self.rows, self.size, self.why = self.rows + rows, self.size + size, ""
        if rowtime is not None:
            self._first = rowtime if self._first is None else self._first
            self._newest = max(rowtime, self._newest or rowtime)

    def expects(self, rows: int) -> None:
        self.expected = rows or None

    def reached(self, share: float) -> None:
        self._reached = share

    def waits(self, why: str) -> None:
        self.why = why

    def share(self, now_ms: float) -> float | None:
        """How much is read, from 0 to 1: of the offsets up to the known end, of the rows expected, or of the time from
        the first row to now. None where that cannot be known: a stream whose rows only just happened, or one that only
        waits for more."""
        if self._reached is not None:
            return self._reached
        if self.expected:
            return min(self.rows / self.expected, 1.0)
        if self.why or self._first is None or self._newest is None or now_ms - self._first < LATELY:
            return None
        return min((self._newest - self._first) / (now_ms - self._first), 1.0)

    def left(self, now: float, now_ms: float) -> float | None:
        """About how many seconds it will still take; None where that cannot be known yet."""
        share, passed = self.share(now_ms), now - self.started
        if share is None or share < 0.02 or passed < 2:
            return None
        return passed * (1 - share) / share

    def line(self, now: float, now_ms: float, width: int = 0) -> str:
        """In one line, such as `orders: 1,200,000 rows, 34k rows/s, 120 MB, 40%, about 3m left`.

        Args:
            width: characters for the name and the colon, so that the lines of several feeds stand below each other.
        """
        passed = max(now - self.started, 0.001)
        share, left = self.share(now_ms), self.left(now, now_ms)
        parts = [
            f"{self.rows:,} rows", f"{figures.count(self.rows / passed)} rows/s",
            *([figures.size(self.size)] if self.size else []),
            *([f"{share:.0%}"] if share is not None else []),
            *([f"about {figures.duration(left)} left"] if left is not None and not self.why else []),
            *([self.why] if self.why else []),
        ]
        return f"{f'{self.feed}:':<{width}} {', '.join(parts)}"


class Board:
    """The feeds that are being read now. This one counts and shows nothing."""

    def __init__(self, feeds: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self._reading: dict[str, Counted] = {}
        self._feeds, self._done = len(feeds), 0
        self._width = max((len(feed) + 1 for feed in feeds), default=0)

    def of(self, feed: str) -> Progress:
        """The object that gets the progress of a feed whose export begins now."""
        counted = Counted(feed)
        with self._lock:
            self._reading[feed] = counted
        return counted

    def done(self, feed: str) -> None:
        with self._lock:
            self._done += self._reading.pop(feed, None) is not None

    def lines(self) -> list[str]:
        """A line for each feed that is being read; how many are done, where there are several."""
        now, now_ms = time.monotonic(), time.time() * 1000
        with self._lock:
            lines = [counted.line(now, now_ms, self._width) for counted in self._reading.values()]
            if lines and self._feeds > 1:
                lines.append(f"{self._done} of {self._feeds} feeds done")
        return lines

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While something else is printed."""
        yield


class PlainBoard(Board):
    """A line for each feed every minute, for logs."""

    def __init__(self, out: TextIO, seconds: float, feeds: Sequence[str]) -> None:
        super().__init__(feeds)
        self._out, self._seconds = out, seconds
        self._over = threading.Event()
        threading.Thread(target=self._tell, daemon=True).start()

    def _tell(self) -> None:
        while not self._over.wait(self._seconds):
            for line in self.lines():
                print(line, file=self._out, flush=True)

    def close(self) -> None:
        self._over.set()


class LiveBoard(Board):
    """On a terminal, drawn by rich some times a second."""

    def __init__(self, out: TextIO, feeds: Sequence[str]) -> None:
        super().__init__(feeds)
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        console = Console(file=out, highlight=False)
        self._live = Live(
            get_renderable=self._drawn, console=console, refresh_per_second=4, transient=True, redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _drawn(self) -> Any:
        return self._text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def close(self) -> None:
        self._live.stop()


@contextlib.contextmanager
def shown(args: argparse.Namespace, out: TextIO, feeds: Sequence[str]) -> Iterator[Board]:
    """The kind of progress display that the options and the terminal ask for."""
    board: Board = Board()
    if feeds and args.progress == "plain":
        board = PlainBoard(out, MINUTE, feeds)
    elif feeds and args.progress == "auto" and out.isatty() and not args.quiet:
        with contextlib.suppress(ImportError):
            board = LiveBoard(out, feeds)
    try:
        yield board
    finally:
        if isinstance(board, PlainBoard | LiveBoard):
            board.close()
