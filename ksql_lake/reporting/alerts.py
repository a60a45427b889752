"""Notifications of how a run went: a ping when it starts and ends, and a command when it failed.

Nothing here changes a run: a failure is returned as one line, a warning. A ping URL holds a secret
(its path), so of a URL only scheme and host are ever shown.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

BODY_BYTES = 10_000  # of the last lines, as much as healthchecks keeps
ANSWER_SECONDS = 10.0
PAUSES = (1.0, 3.0)  # seconds before the second and the third try
COMMAND_SECONDS = 60.0
PASSING = (408, 425, 429, 500, 502, 503, 504)
SECRETS = ("KSQLDB_PASSWORD", "PING_URL")


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        failed: feeds that failed, were busy or left a finding; empty when the run failed before any.
        messages: the messages about them, one line each.
    """

    exit_code: int
    failed: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


def event_url(url: str, event: str) -> str:
    """The URL of an event ("start", "fail"); the event is added to the path, before a query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{event}"))


def last_lines(messages: Sequence[str], limit: int = BODY_BYTES) -> bytes:
    """The last whole lines that fit, as UTF-8; of a last line that does not fit, its beginning."""
    kept: list[bytes] = []
    for message in reversed(messages):
        line = message.encode(errors="replace") + b"\n"
        if len(line) > limit and kept:
            break
        kept.append(line[:limit].decode(errors="ignore").encode())
        limit -= len(line)
    return b"".join(reversed(kept))


@dataclass(frozen=True)
class Ping:
    """A check in the style of healthchecks.io, which misses a run that does not come at all."""

    url: str = field(repr=False)
    seconds: float = field(default_factory=lambda: ANSWER_SECONDS)
    pauses: tuple[float, ...] = field(default_factory=lambda: PAUSES)

    def start(self) -> str | None:
        """Report that a run has begun; returns a warning when that failed."""
        return self._post(event_url(self.url, "start"), b"")

    def end(self, ending: Ending) -> str | None:
        """Report that the run is over; when its exit code is not 0, with the last lines."""
        if ending.exit_code == 0:
            return self._post(self.url, b"")
        last = (*ending.messages, f"exit code {ending.exit_code}")
        return self._post(event_url(self.url, "fail"), last_lines(last))

    def _post(self, url: str, body: bytes) -> str | None:
        for pause in (*self.pauses, None):
            refusal, passing = _within(self.seconds, url, body)
            if not refusal:
                return None
            if not passing or pause is None:
                break
            time.sleep(pause)
        parts = urlsplit(url)
        return f"ping of {parts.scheme}://{parts.hostname} failed: {refusal}; the export is not affected"


def _within(seconds: float, url: str, body: bytes) -> tuple[str, bool]:
    """Why a POST failed ("" when it did not) and whether another may succeed. A thread limits what a socket's
    time-out does not: a silent name server, an answer that arrives byte by byte."""
    answers: list[tuple[str, bool]] = []
    thread = threading.Thread(target=lambda: answers.append(_try(seconds, url, body)), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else (f"no answer within {seconds:g} s", True)


def _try(seconds: float, url: str, body: bytes) -> tuple[str, bool]:
    request = urllib.request.Request(url, body, {"Content-Type": "text/plain; charset=utf-8"}, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds):
            return "", False
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered {error.code}", error.code in PASSING
    except Exception as error:  # whatever it is, its text may hold the URL
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            return f"no answer within {seconds:g} s", True
        words = cause.strerror if isinstance(cause, OSError) and cause.errno else None
        return words or type(cause).__name__, True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: urllib would repeat a POST as a GET without its body, and send the secret to another host."""

    def redirect_request(self, *args: Any) -> None:
        return None


def on_failure(
    command: str, ending: Ending, lake: Path, environment: Mapping[str, str], seconds: float | None = None
) -> str | None:
    """Run a command after a failure, with the messages on its stdin; returns a warning when the command fails too.

    Args:
        command: for the shell. What it prints goes to stderr.
        environment: what the command inherits, without secrets.
        seconds: after which the command and its children are stopped (60).
    """
    seconds = seconds or COMMAND_SECONDS
    inherited = command_environment(environment, ending, lake)
    try:
        process = subprocess.Popen(
            command, shell=True, stdin=subprocess.PIPE, stdout=2, env=inherited, start_new_session=True
        )
    except OSError as error:
        return f"the command of --on-failure could not be started: {error.strerror}"
    try:
        process.communicate("".join(f"{line}\n" for line in ending.messages).encode(errors="replace"), seconds)
    except subprocess.TimeoutExpired:
        return f"the command of --on-failure took longer than {seconds:g} s and was stopped"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"the command of --on-failure ended with exit code {process.returncode}" if process.returncode else None


def command_environment(environment: Mapping[str, str], ending: Ending, lake: Path) -> dict[str, str]:
    """What the command of --on-failure sees."""
    return {name: value for name, value in environment.items() if name not in SECRETS} | {
        "KSQL_LAKE_EXIT_CODE": str(ending.exit_code),
        "KSQL_LAKE_FAILED_FEEDS": ",".join(ending.failed),
        "KSQL_LAKE_LAKE": str(lake),
    }
