"""Decides when a query that never ends has been read to its present end, by how fast rows come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

POLL = 0.05  # seconds between checks of the end rule while the server is silent
TRICKLE = 100  # rows a second; less than that over three idle periods does not count as catching up


@dataclass(frozen=True)
class Limits:
    """How long to wait for what, in seconds."""

    first_row: float = 30.0
    idle: float = 10.0
    anchor: float = 60.0
    retry: float = 120.0
    duration: float = 3600.0


@dataclass
class Pace:
    """Records when rows came, and so knows whether the query has reached the present end of the topic."""

    limits: Limits
    partitions: int
    run_started_ms: int
    started: float
    first_row: float | None = None
    last_row: float | None = None
    longest_gap: float = 0.0
    seen: dict[int, float] = field(default_factory=dict)
    recent: set[int] = field(default_factory=set)
    window: list[tuple[float, int]] = field(default_factory=list)

    def rows(self, now: float, now_ms: int, partitions: np.ndarray[Any, Any], rowtimes: np.ndarray[Any, Any]) -> None:
        if self.last_row is not None:
            self.longest_gap = max(self.longest_gap, now - self.last_row)
        self.first_row = self.first_row or now
        self.last_row = now
        self.window.append((now, len(partitions)))
        for partition in np.unique(partitions).tolist():
            self.seen[partition] = now
        current = (rowtimes >= self.run_started_ms) & (rowtimes <= now_ms)
        self.recent.update(np.unique(partitions[current]).tolist())

    def worked(self, seconds: float) -> None:
        """Time that went into decoding and writing here does not count as silence of the server."""
        if self.last_row is not None and self.first_row is not None:
            self.last_row += seconds
            self.first_row += seconds
            self.seen = {partition: at + seconds for partition, at in self.seen.items()}

    def silence(self, now: float, partition: int | None = None) -> float:
        """Seconds since the last row, of one partition or of any; since the start when none has come."""
        last = self.last_row if partition is None else self.seen.get(partition)
        return now - (last if last is not None else self.started)

    def waiting(self, now: float) -> list[int]:
        """Partitions that may not be at their end: no row of this run's time came, and they are not silent for long."""
        known = sorted(set(range(self.partitions)) | set(self.seen))
        if self.first_row is None:
            return known
        first, idle = self.first_row, max(self.limits.idle, 3 * self.longest_gap)
        return [p for p in known if p not in self.recent and now - self.seen.get(p, first) < idle]

    def ended(self, now: float) -> str | None:
        """Why the topic counts as read to its end, or None to continue."""
        if self.first_row is None:
            return "no rows" if now - self.started >= self.limits.first_row else None
        if not self.waiting(now):
            return "caught up"
        span = 3 * self.limits.idle
        if now - self.first_row >= span:
            self.window = [(at, rows) for at, rows in self.window if now - at < span]
            if sum(rows for _, rows in self.window) < TRICKLE * span:
                return "only a trickle"
        return None
