"""`--follow`: keeps exporting until a signal stops it, and reports its health to supervisors and monitors."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

from ksql_lake.base.errors import ConfigError, ExitCode
from ksql_lake.ingest.export import FeedResult, FeedTask
from ksql_lake.ingest.follow import Follower, Rhythm, follow

__all__ = ["Rhythm", "run"]
SLACK = 300.0  # seconds that a feed's export may be overdue while it still counts as healthy
STUCK = 900.0  # seconds without a sign of life after which a supervisor may start the service again


@dataclass(frozen=True)
class Watched:
    """What /healthz and /metrics show of the followers."""

    followers: Sequence[Follower]
    rhythm: Rhythm
    started: float

    def problems(self, now: float) -> list[str]:
        """One line for each feed whose last good export is too long ago; empty when all is well."""
        found = []
        for one in self.followers:
            standing = one.standing
            usual = self.rhythm.tables_every if one.task.feed.type == "table" else self.rhythm.every
            failing = standing.failures and standing.last_error
            if failing and now - max(standing.last_success, self.started) > 3 * usual + SLACK:
                found.append(f"{standing.feed}: {standing.last_error}")
            elif now - standing.beat > STUCK:
                found.append(f"{standing.feed}: no sign of life for {now - standing.beat:.0f} s")
        return found

    def alive(self, now: float) -> bool:
        """Whether every thread shows signs of life; a server that is down is no reason for a restart."""
        return all(now - one.standing.beat <= STUCK for one in self.followers)

    def metrics(self) -> str:
        """Prometheus text."""
        standings = [one.standing for one in self.followers]
        lines: list[str] = []
        for name, kind, says, values in (
            ("commits_total", "counter", "Batches committed.", [s.commits for s in standings]),
            ("rows_total", "counter", "Rows committed.", [s.rows for s in standings]),
            ("failures_total", "counter", "Exports that failed.", [s.failures for s in standings]),
            ("waiting", "gauge", "Records or rows that are not committed yet.", [s.waiting for s in standings]),
            ("last_commit_timestamp_seconds", "gauge", "When rows were last committed.",
             [s.last_commit for s in standings]),
            ("last_success_timestamp_seconds", "gauge", "When the last export went well, with rows or without.",
             [s.last_success for s in standings]),
        ):
            full = f"ksql_lake_follow_{name}"
            lines += [f"# HELP {full} {says}", f"# TYPE {full} {kind}"]
            lines += [
                f'{full}{{feed="{s.feed}",source="{s.road}"}} {value:.15g}'
                for s, value in zip(standings, values, strict=True)
            ]
        return "\n".join(lines) + "\n"


def run(
    tasks: list[FeedTask], rhythm: Rhythm, listen: tuple[str, int] | None, tell: Callable[[FeedResult], None],
    say: Callable[[str], None], limit: float | None = None,
) -> int:
    """Follow until SIGTERM or Ctrl-C, or for `limit` seconds; then commit what was read completely and return 0.

    Raises:
        ConfigError: it cannot listen on that address.
    """
    stop = threading.Event()
    before = {number: signal.signal(number, _stopper(stop)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        followers, threads = follow(tasks, rhythm, stop, tell)
        watched = Watched(followers, rhythm, time.time())
        server = _serve(listen, watched, stop)
        if server is not None:
            say(f"listening on http://{server.server_address[0]!s}:{server.server_address[1]}/healthz and /metrics")
        _supervise(watched, stop, float("inf") if limit is None else time.monotonic() + limit)
        say("stopping; committing what was read completely")
        notify("STOPPING=1")
        for thread in threads:
            thread.join()
        if server is not None:
            server.shutdown()
    finally:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)
    return ExitCode.OK


def _stopper(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, frame: FrameType | None) -> None:
        stop.set()

    return handler


def _supervise(watched: Watched, stop: threading.Event, until: float) -> None:
    """Send READY once every feed was exported or failed, then WATCHDOG as often as systemd asks for it."""
    ready = False
    wanted = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6
    pause = min(1.0, wanted / 3) if wanted else 1.0
    while not stop.wait(pause):
        done = all(one.standing.last_success or one.standing.failures for one in watched.followers)
        if done and not ready:
            ready = True
            notify("READY=1")
        if watched.alive(time.time()):
            notify("WATCHDOG=1")
        if time.monotonic() >= until:
            stop.set()


def notify(message: str) -> None:
    """sd_notify: a datagram to systemd, when it started this process and listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
            there.connect("\0" + path[1:] if path.startswith("@") else path)
            there.send(message.encode())
    except OSError:
        pass  # systemd decides what to do with a service that it does not hear


def _serve(listen: tuple[str, int] | None, watched: Watched, stop: threading.Event) -> ThreadingHTTPServer | None:
    if listen is None:
        return None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, watched.metrics())
            elif self.path == "/healthz":
                problems = watched.problems(time.time())
                self._answer(503 if problems else 200, "\n".join(problems or ["ok"]) + "\n")
            else:
                self._answer(404, "only /healthz and /metrics are served here\n")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    try:
        server = ThreadingHTTPServer(listen, Handler)
    except OSError as error:
        stop.set()
        raise ConfigError(f"--listen {listen[0]}:{listen[1]}: {error.strerror}") from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server
