"""Who reads besides the thread of a feed's own turn."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass


@dataclass(frozen=True)
class Workers:
    """Threads of this process, or the workers of a cluster.

    Attributes:
        threads: how many pieces of work at the same time.
        remote: on other machines, which share the lake's directory and nothing else.
    """

    executor: Executor
    threads: int
    remote: bool = True
