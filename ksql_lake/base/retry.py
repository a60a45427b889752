"""When to try again: exponential back-off with jitter, inside a total time limit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from ksql_lake.base.errors import KsqlUnavailable

FIRST, LONGEST = 0.5, 30.0  # seconds
T = TypeVar("T")


def delay(tries: int) -> float:
    """Seconds to wait after this many attempts without progress; jitter keeps feeds from retrying all at once."""
    return min(LONGEST, FIRST * 2.0 ** min(tries, 16)) * random.uniform(0.5, 1.5)


def until_answered(ask: Callable[[], T], limit: float, note: Callable[[str], None]) -> T:
    """Ask until the server gives a complete answer, for at most `limit` seconds; only passing failures are retried.

    Raises:
        KsqlUnavailable: the last failure, when the next try would come after the limit.
        LakeError: any other failure, at once.
    """
    started, tries = time.monotonic(), 0
    while True:
        try:
            return ask()
        except KsqlUnavailable as error:
            pause = delay(tries)
            if time.monotonic() + pause - started > limit:
                raise
            note(f"retry after {pause:.1f} s: {error}")
            tries += 1
            time.sleep(pause)
