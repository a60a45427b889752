"""Runs in progress: a file for each in `.state/running/`, locked as long as its process lives.

The kernel releases the lock when the process ends, however it ends. So a file without a lock belongs to a run that was
killed, or whose machine stopped, and that never recorded how it ended. A process belongs to one machine, and so do
these files: they are on the local disk, in whatever storage the lake is.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import LakeError
from ksql_lake.base.files import make_dirs
from ksql_lake.model.findings import Finding
from ksql_lake.store import history, layout, metadata
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.history import Run

KILLED = (
    "the run that began at {} was killed, or the machine stopped{}; nothing is lost, the next run continues from there"
)
LARGEST = 1 << 20  # bytes of a file that says which feeds a run chose


@dataclass(frozen=True)
class Started:
    """A run that began: when (ISO 8601, UTC), and the feeds it chose, each as (name, type)."""

    run: str
    started: str
    feeds: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, value: Any) -> Started | None:
        """From JSON; None where its form is unknown."""
        try:
            feeds = tuple((name, kind) for name, kind in value["feeds"])
            found = cls(value["run"], value["started"], feeds)
        except (TypeError, KeyError, ValueError):
            return None
        texts = (found.run, found.started, *(text for feed in feeds for text in feed))
        return found if all(isinstance(text, str) for text in texts) else None


@contextlib.contextmanager
def underway(lake: Path, started: Started) -> Iterator[None]:
    """Mark a run as in progress until the block ends; does nothing where the lake cannot be written."""
    directory = Path(layout.running(lake))
    path, hidden = directory / f"{started.run}.json", directory / f".{secrets.token_hex(6)}.inprogress"
    handle = None
    with contextlib.suppress(OSError):
        make_dirs(directory)
        handle = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, json.dumps(asdict(started)).encode())
        os.rename(hidden, path)  # locked before anybody sees it
    try:
        yield
    finally:
        for made in (path, hidden):
            with contextlib.suppress(OSError):
                os.unlink(made)
        if handle is not None:
            os.close(handle)


def close_dead(lake: Path, now: dt.datetime) -> list[Run]:
    """Record in the history how runs ended that could not do so themselves: killed, or on a machine that stopped."""
    closed = []
    with contextlib.suppress(OSError), _dead(lake, forget=True) as found:
        for run in _runs(lake, found, now):
            history.append(lake, run)
            closed.append(run)
    return closed


def dead_runs(lake: Path, now: dt.datetime) -> list[Run]:
    """The runs that `close_dead` would write into the history."""
    with _dead(lake) as found:
        return _runs(lake, found, now)


def _runs(lake: Path, found: Sequence[Started], now: dt.datetime) -> list[Run]:
    """One for each feed that a dead run chose and did not finish."""
    names = {started.run for started in found}
    known = {(run.run, run.feed) for run in history.runs(lake) if run.run in names} if names else set()
    return [
        _run(lake, started, feed, kind, now)
        for started in found for feed, kind in started.feeds if (started.run, feed) not in known
    ]


def _run(lake: Path, started: Started, feed: str, kind: str, now: dt.datetime) -> Run:
    """How a dead run left a feed: a commit that it made counts, though the run did not report it."""
    try:
        state = metadata.load(Dataset(lake, feed, kind)) if kind in ("stream", "table") else None
    except LakeError:
        state = None
    files = [file for file in state.files.recent if file.run == started.run] if state else []
    rows = sum(file.rows for file in files)
    message = KILLED.format(started.started, f" after it had committed {rows:,} rows" if files else "")
    return Run(
        feed, history.iso(now), "stopped", started.run, kind, started.started, rows=rows, files=len(files),
        bytes=sum(file.bytes for file in files), findings=(Finding("stopped", message, "error", feed),),
    )


@contextlib.contextmanager
def _dead(lake: Path, *, forget: bool = False) -> Iterator[Sequence[Started]]:
    """The runs that ended without a record. No other process sees them while the block runs.

    Args:
        forget: remove their files when the block ends without an error.
    """
    held: list[tuple[int, Path]] = []
    found: list[Started] = []
    try:
        for path in sorted(Path(layout.running(lake)).glob("*")):  # those of runs that died writing them, too
            handle = _lock(path)
            if handle is None:
                continue
            held.append((handle, path))
            started = _content(handle) if path.suffix == ".json" else None
            if started is not None:
                found.append(started)
        yield found
        for _, path in held if forget else ():
            path.unlink(missing_ok=True)
    finally:
        for handle, _ in held:
            os.close(handle)


def _lock(path: Path) -> int | None:
    """The open file of a run that is over; None where the run is in progress or its file cannot be opened."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _content(handle: int) -> Started | None:
    try:
        return Started.read(json.loads(os.read(handle, LARGEST)))
    except (OSError, ValueError, RecursionError):
        return None
