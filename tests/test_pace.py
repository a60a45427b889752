"""When a query that never ends has reached its present end."""

from __future__ import annotations

import numpy as np

from ksql_lake.sources.pace import Limits, Pace


def pace() -> Pace:
    return Pace(Limits(first_row=30, idle=10), 2, 1_000, 0.0)


def rows(*partitions: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array(partitions), np.zeros(len(partitions), np.int64)


def test_silence_ends_it() -> None:
    one = pace()
    assert one.ended(29.9) is None and one.ended(30.0) == "no rows"
    one.rows(1.0, 1_000, *rows(0, 1))
    assert one.ended(10.9) is None and one.ended(11.0) == "caught up"


def test_time_that_we_worked_is_no_silence() -> None:
    """A block that takes longer to decode and write than the idle time must not end the query."""
    one = pace()
    one.rows(1.0, 1_000, *rows(0, 1))
    one.worked(25.0)
    assert one.ended(26.0) is None and one.silence(26.0) == 0.0
    assert one.ended(36.0) == "caught up"
    one.rows(27.0, 1_000, *rows(0))
    assert one.longest_gap == 1.0, "nor is it a gap of the server"
