"""When to try again: longer each time, never all at once, and not for ever."""

from __future__ import annotations

import pytest

from ksql_lake.base import retry
from ksql_lake.base.errors import KsqlError, KsqlUnavailable


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.slept = 0.0, list[float]()
        monkeypatch.setattr(retry.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(retry.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_pauses_double_up_to_a_limit_and_differ() -> None:
    for tries in range(12):
        middle = min(30.0, 0.5 * 2**tries)
        pauses = {retry.delay(tries) for _ in range(200)}
        assert middle * 0.5 <= min(pauses) and max(pauses) <= middle * 1.5
        assert max(pauses) - min(pauses) > middle * 0.5


def test_it_gives_up_inside_the_limit_with_the_last_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, notes = Clock(monkeypatch), list[str]()

    def ask() -> None:
        raise KsqlUnavailable(f"try {len(clock.slept) + 1}")

    with pytest.raises(KsqlUnavailable, match=r"try \d+") as failure:
        retry.until_answered(ask, 120, notes.append)
    assert clock.now <= 120 and len(clock.slept) >= 4
    assert str(failure.value) == f"try {len(clock.slept) + 1}" and len(notes) == len(clock.slept)


def test_what_another_try_cannot_mend_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def ask() -> None:
        raise KsqlError("no such stream")

    with pytest.raises(KsqlError, match="no such stream"):
        retry.until_answered(ask, 120, lambda _: None)
    assert clock.slept == []


def test_the_answer_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    def ask() -> str:
        if len(clock.slept) < 3:
            raise KsqlUnavailable("starting")
        return "rows"

    assert retry.until_answered(ask, 120, lambda _: None) == "rows"
