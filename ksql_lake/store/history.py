"""The run history: one line in `logs/runs.jsonl` for every run of every feed, whatever became of it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ksql_lake.base.files import append_line, make_dirs

RUNS = "logs/runs.jsonl"
TAIL = 4 << 20  # bytes of the history that are read: some 10,000 runs
Run = dict[str, Any]


def append(lake: Path, run: Run) -> None:
    """Add one run, durably."""
    path = lake / RUNS
    make_dirs(path.parent)
    append_line(path, json.dumps(run, ensure_ascii=False).encode())


def runs(lake: Path, tail: int = TAIL) -> list[Run]:
    """The runs in the newest `tail` bytes of the history, oldest first; a torn line is passed over."""
    path = lake / RUNS
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - tail, 0))
        lines = file.read().splitlines()
    found = []
    for line in lines:
        try:
            run = json.loads(line)
        except ValueError:
            continue
        if isinstance(run, dict) and {"feed", "ended"} <= run.keys():
            found.append(run)
    return found


def latest(lake: Path) -> dict[str, Run]:
    """The last run of each feed."""
    return {run["feed"]: run for run in runs(lake)}


def same_weekday(known: Sequence[Run], feed: str, now: dt.datetime) -> tuple[int, ...]:
    """Rows of each good and whole run of a feed that began on the weekday of `now` (UTC), rows set aside included."""
    found = []
    for run in known:
        if run["feed"] != feed or run.get("result") not in ("ok", "findings") or run.get("days"):
            continue
        try:
            started = dt.datetime.fromisoformat(run["started"])
            rows = run["rows"] + run.get("quarantined", 0)
        except (KeyError, TypeError, ValueError):
            continue
        if started.weekday() == now.weekday():
            found.append(rows)
    return tuple(found)
