"""Observers of changes that people and monitors read: the log of changes, and the metrics file."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ksql_lake.model.change import Change
from ksql_lake.model.state import Amendment, FeedState
from ksql_lake.reporting import metrics
from ksql_lake.store import layout
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.layout import storage_of
from ksql_lake.store.storage import RESTRICTED

TAIL = 1 << 20  # bytes of the log that are searched for the last change that was written


class ChangeLog:
    """Writes a line to `logs/changes.jsonl` for each change that is not an export: when, by whom, what."""

    name = "log of changes"

    def committed(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        if change.kind == "export" or not change.what:
            return
        self._write(dataset, Amendment(change.at, change.by, change.what))

    def catch_up(self, dataset: Dataset, state: FeedState) -> None:
        """Write what was missed: a crash can come between a commit and its line."""
        if not state.changes:
            return
        written = set(_tail(dataset.lake, dataset.feed))
        if state.changes[-1] not in written:
            known = max((number for number, one in enumerate(state.changes) if one in written), default=-1)
            for missed in state.changes[known + 1 :]:
                self._write(dataset, missed)

    def _write(self, dataset: Dataset, change: Amendment) -> None:
        if change in _tail(dataset.lake, dataset.feed):
            return  # passed on again, after a crash
        path = layout.changes(dataset.lake)
        dataset.storage.make(path.parent)
        line = {"at": change.at, "feed": dataset.feed, "by": change.by, "what": change.what}
        dataset.storage.append(path, json.dumps(line, ensure_ascii=False).encode(errors="replace"), RESTRICTED)


def _tail(lake: Path, feed: str) -> Iterator[Amendment]:
    """The changes of a feed in the last part of the log; a line of another shape is skipped."""
    try:
        with storage_of(lake).open(layout.changes(lake)) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL, 0))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return
    for text in lines:
        try:
            line: dict[str, Any] = json.loads(text)
            if line["feed"] == feed:
                yield Amendment(line["at"], line["by"], line["what"])
        except (ValueError, KeyError, TypeError):
            continue


class MetricsFile:
    """Brings the metrics file up to date after a manual change; what it says about the last export stays.

    Args:
        file: METRICS_FILE; nothing is written before an export has created it.
        max_share: of a feed's bytes that retention may remove at a time.
        off: feeds that CONFIG_FEEDS leaves out.
    """

    name = "metrics file"

    def __init__(self, file: Path, version: str, max_share: float, off: Sequence[str] = ()) -> None:
        self.file, self.version, self.max_share, self.off = file, version, max_share, off

    def committed(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        export = _last_export(self.file)
        if export is not None:
            now = dt.datetime.now(dt.UTC)
            metrics.write(self.file, dataset.lake, export, self.version, self.max_share, self.off, now)

    def catch_up(self, dataset: Dataset, state: FeedState) -> None:
        """The next export writes all of it."""


def _last_export(file: Path) -> metrics.ExportRun | None:
    """What the file says about the last export."""
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    found = dict(re.findall(r"^ksql_lake_export_(\w+) ([0-9.eE+-]+)$", content, re.M))
    try:
        ended = dt.datetime.fromtimestamp(float(found["timestamp_seconds"]), dt.UTC)
        return metrics.ExportRun(int(float(found["exit_code"])), ended, float(found["duration_seconds"]))
    except (KeyError, ValueError, OverflowError):
        return None
