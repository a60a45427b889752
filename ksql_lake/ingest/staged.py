"""What one reading of a source stages, ready to be published: plain values that can travel between machines.

Reading stages, publishing commits. The reader (this process or a worker of a cluster) changes nothing that a
reader of the lake sees; only the process that holds the feed's lock publishes.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ksql_lake.model.change import Change
from ksql_lake.model.checks import Result
from ksql_lake.model.findings import Finding
from ksql_lake.model.state import FeedState
from ksql_lake.store import journal
from ksql_lake.store.dataset import Dataset, Move


@dataclass
class Outcome:
    """What one export did; `findings` are what a person should know, `reconciled` has one line per day.

    `offsets` is Kafka partition -> first and last offset that was exported; `quarantined` counts the quarantined rows.
    `road` is kafka or rest, and `why` says why; `passed_over` counts records of the topic that are no rows.
    """

    rows: int = 0
    files: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    version: str | None = None
    retries: int = 0
    reconciled: list[str] = field(default_factory=list)
    offsets: dict[str, list[int]] = field(default_factory=dict)
    checks: list[Result] = field(default_factory=list)
    quarantined: int = 0
    road: str = ""
    why: str = ""
    passed_over: int = 0

    def retried(self, note: str) -> None:
        """Count a try that failed and remember why."""
        self.retries += 1
        self.notes.append(note)

    def add(self, later: Outcome) -> None:
        """Add what another reading of the same run did."""
        self.rows += later.rows
        self.files += later.files
        self.bytes += later.bytes
        self.retries += later.retries
        self.version = later.version or self.version
        self.findings += later.findings
        self.notes += later.notes
        self.offsets = later.offsets
        self.checks = later.checks
        self.quarantined += later.quarantined
        self.road, self.why = later.road or self.road, later.why if later.road else self.why
        self.passed_over += later.passed_over


@dataclass(frozen=True)
class Staged:
    """Complete files in staging, the renames that publish them, and the state that goes with them.

    Attributes:
        run: the name of the staging directory and of the journal.
        base: the sequence number the state builds on.
        again: the topic was recreated: publish this, then read the new one.
    """

    run: str
    base: int
    moves: tuple[Move, ...]
    state: FeedState
    change: Change
    outcome: Outcome
    again: bool = False


@contextmanager
def lease(dataset: Dataset) -> Iterator[Path]:
    """A file that a worker on another machine checks for before it creates a file.

    It is removed when the reading is over, and by `journal.recover` after a crash. So a worker that was given up
    stages nothing that would never be cleaned up.
    """
    path = dataset.staged(f"{secrets.token_hex(8)}{journal.LEASE}")
    dataset.storage.make(path.parent)
    dataset.storage.put(path, b"")
    try:
        yield path
    finally:
        dataset.storage.delete(path)


def publish(dataset: Dataset, staged: Staged) -> FeedState:
    """Commit what was staged; returns the state the next reading starts from. Call with the feed's lock held.

    Raises:
        StateError: the lake is no longer at the state it builds on.
    """
    try:
        problems = journal.commit(
            dataset, staged.run, staged.base, staged.moves, staged.state, staged.change
        )
        staged.outcome.findings += problems
    except OSError:
        if not journal.is_journalled(dataset, staged.run):
            dataset.storage.delete(dataset.staged(staged.run))  # a full disk needs the room
        raise
    state = staged.state
    if staged.again:
        state.generation, state.resume, state.heads = state.generation + 1, {}, {}
    return state
