"""What a feed held at a given time: the state log has a line for each of its changes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ksql_lake.base.arrays import Array
from ksql_lake.base.errors import ConfigError, StateError
from ksql_lake.model.anchor import Covered
from ksql_lake.model.coverage import merge
from ksql_lake.model.state import FeedState
from ksql_lake.model.values import utc
from ksql_lake.store import state_log
from ksql_lake.store.metadata import Dataset


def moment(as_of: str | dt.date) -> dt.datetime:
    """The instant: a time (UTC unless it names a zone), or the end of a day (UTC).

    Args:
        as_of: a datetime, a date, or either as ISO 8601 text.

    Raises:
        ConfigError: it is none of these.
    """
    try:
        day = dt.date.fromisoformat(as_of) if isinstance(as_of, str) and len(as_of) <= 10 else as_of
        if isinstance(day, dt.date) and not isinstance(day, dt.datetime):
            return dt.datetime.combine(day, dt.time.max, dt.UTC)
        return utc(day)
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"as_of is {as_of!r}; expected a time or a day such as 2025-01-20T06:00 or 2025-01-20"
                          ) from None


def state_at(dataset: Dataset, state: FeedState, when: dt.datetime) -> FeedState:
    """The state after the last change up to a time (without files), from the state log.

    Args:
        state: the present one.

    Raises:
        StateError: the log is missing, or begins later.
        ConfigError: nothing was exported by then.
    """
    if utc(state.changed_at()) <= when:
        return state
    found = None
    for line in state_log.states(dataset.log):
        if utc(line.at) <= when:
            found = line
    if found is not None:
        return found.typed()
    first = state_log.begins(dataset.log)
    if first is None:
        raise StateError(f"{dataset.log}: missing or empty; what {dataset.feed} held at {_text(when)} is not known")
    if first[0] > 1:
        raise StateError(
            f"{dataset.log}: begins at {_text(utc(first[1]))}; what {dataset.feed} held at {_text(when)} is not known"
        )
    raise ConfigError(
        f"{dataset.feed}: had no data at {_text(when)}; its first export was at {_text(utc(first[1]))}"
    )


def _text(when: dt.datetime) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class Spans:
    """Ranges of offsets of one partition, both ends included, in order and apart from each other."""

    lows: Array
    highs: Array

    @classmethod
    def of(cls, covered: Mapping[int, Covered], partition: int, day: str = "") -> Spans:
        """The offsets of a partition that one generation's coverage includes, of one day's rows if one is given."""
        one = covered.get(partition, Covered())
        upto = max(one.upto, dict(one.days).get(day, -1))
        whole = [(0, upto)] if upto >= 0 else []
        both = np.array([*whole, *merge(one.beyond, [], upto)], np.int64).reshape(-1, 2)
        return cls(both[:, 0], both[:, 1])

    def hold(self, low: int, high: int) -> bool:
        """Whether one range holds all offsets from low to high."""
        at = int(np.searchsorted(self.highs, low))
        return at < len(self.lows) and bool(self.lows[at] <= low and high <= self.highs[at])

    def meet(self, low: int, high: int) -> bool:
        """Whether a range holds one of the offsets from low to high."""
        at = int(np.searchsorted(self.highs, low))
        return at < len(self.lows) and bool(self.lows[at] <= high)

    def mask(self, offsets: Array) -> Array:
        """Which of these offsets a range holds."""
        if not len(self.lows):
            return np.zeros(len(offsets), bool)
        at = np.searchsorted(self.highs, offsets)
        return (at < len(self.lows)) & (self.lows[np.minimum(at, len(self.lows) - 1)] <= offsets)
