"""What the read-only commands work on: the metadata of every feed, and the metadata that cannot be used."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ksql_lake.base.errors import ExitCode, StateError
from ksql_lake.model.state import FeedState
from ksql_lake.reporting.summary import FeedRecord, read


@dataclass(frozen=True)
class LoadedFeeds:
    """All feeds, those that were exported, and the exit code where some cannot be used."""

    records: tuple[FeedRecord, ...]
    exported: tuple[FeedRecord, ...]
    code: int

    @property
    def states(self) -> dict[str, FeedState]:
        return {record.name: record.state for record in self.exported if record.state is not None}


def load_feeds(lake: Path, feed: str | None, *, reports: bool = False, off: Collection[str] = ()) -> LoadedFeeds:
    """Read the metadata of the feeds; what cannot be used is reported, and the other feeds are read.

    Args:
        feed: only this one.
        reports: for a report, which itself lists what cannot be used and also shows feeds without data.
        off: feeds that are switched off by CONFIG_FEEDS.

    Raises:
        StateError: `feed` is not known.
    """
    records = tuple(read(lake, feed, now(), off))
    problems = [f"{record.name}: {record.metadata_problem}" for record in records if record.metadata_problem]
    for problem in problems if not reports else ():
        print(f"error: {problem}", file=sys.stderr)
    exported = tuple(sorted((r for r in records if r.state is not None), key=lambda r: (r.type, r.name)))
    if feed and not (records if reports else exported or problems):
        raise StateError(f"{feed}: was never exported; see: python manage_feeds.py list")
    return LoadedFeeds(records, exported, ExitCode.FINDINGS if problems else ExitCode.OK)


def only_feed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--feed", metavar="NAME", help="only this feed")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
