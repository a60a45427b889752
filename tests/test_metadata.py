"""The commit protocol: whatever step a crash stops at, the next run ends in the old state or the new one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ksql_lake.base import files
from ksql_lake.base.errors import LakeBusyError, StateError
from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store import journal, manifests, metadata
from ksql_lake.store.dataset import Dataset, Move
from tests.conftest import ROOT, YouForgotToChooseALake

STEPS = ("open", "fsync", "rename", "replace", "link", "mkdir", "chmod", "unlink", "write")


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def _state(sequence: int, rows: int) -> FeedState:
    files = [
        {"path": f"p/f{i}", "partition": "p", "rows": 1, "bytes": 1, "exported_at": "t"} for i in range(rows)
    ]
    return FeedState.from_json(
        {"source": "X", "type": "stream", "sequence": sequence, "run": f"r{sequence}", "files": files}
    )


def _commit(dataset: Dataset, run: str, base: int, moves: list[Move], state: FeedState) -> None:
    journal.commit(dataset, run, base, moves, state, Change("export", base + 1, run, "2025-01-15T02:00:00Z"))


def _stage(dataset: Dataset, run: str, name: str) -> Move:
    directory = dataset.staging / run
    files.make_dirs(directory)
    (directory / name).write_text(name)
    target = dataset.directory / "p" / name
    return Move(str((directory / name).relative_to(dataset.lake)), str(target.relative_to(dataset.lake)))


def _content(dataset: Dataset) -> tuple[list[str], int]:
    published = sorted(p.name for p in (dataset.directory / "p").glob("*"))
    state = metadata.load(dataset)
    return published, state.sequence if state else 0


def _fail_at(monkeypatch: pytest.MonkeyPatch, nth: int, error: BaseException) -> None:
    calls = 0
    for step in STEPS:
        real = getattr(os, step)

        def wrapped(*args, _real=real, **kwargs):
            nonlocal calls
            calls += 1
            if calls == nth:
                raise error
            return _real(*args, **kwargs)

        monkeypatch.setattr(os, step, wrapped)


@pytest.mark.parametrize("seal", [500, 1])
@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device"), OSError(5, "I/O error")])
def test_fail_at_every_call_of_a_commit(
    tmp_path: Path, error: BaseException, seal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Nth call fails until none does; recovery then makes the whole change or none of it, manifests included."""
    monkeypatch.setattr(manifests, "SEAL", seal)
    nth, fired = 0, True
    outcomes = set()
    while fired:
        nth += 1
        dataset = Dataset(tmp_path / f"{type(error).__name__}{nth}", "feed", "stream")
        _commit(dataset, "r1", 0, [_stage(dataset, "r1", "a")], _state(1, 1))
        moves = [_stage(dataset, "r2", "b"), _stage(dataset, "r2", "c")]
        with pytest.MonkeyPatch.context() as patch:
            _fail_at(patch, nth, error)
            try:
                _commit(dataset, "r2", 1, moves, _state(2, 3))
                fired = False
            except (Killed, OSError):
                pass
        journal.recover(dataset)
        outcomes.add(tuple(_content(dataset)[0]))
        assert _content(dataset) in ((["a"], 1), (["a", "b", "c"], 2))
        assert not any(dataset.staging.iterdir())
        state = metadata.load(dataset)
        assert state is not None and len(list(state.files)) in (1, 3)
        assert {one.name for one in state.files.manifests} == {path.name for path in dataset.manifests.glob("*")}
        assert len(dataset.log.read_text().splitlines()) == _content(dataset)[1]
    assert nth > 10 and len(outcomes) == 2


def test_a_journal_on_another_state_is_refused(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, "feed", "stream")
    _commit(dataset, "r1", 0, [], _state(1, 0))
    files.make_dirs(dataset.staging / "r9")
    (dataset.staging / "r9" / journal.JOURNAL).write_text(
        json.dumps({"run": "r9", "base": 7, "moves": [], "state": _state(8, 0).to_json()})
    )
    with pytest.raises(StateError, match="builds on change 7 of feed, but the lake is at 1"):
        journal.recover(dataset)
    assert (dataset.staging / "r9").exists()


def test_corrupt_metadata_is_left_alone_and_named(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, "feed", "stream")
    files.make_dirs(dataset.directory)
    dataset.metadata.write_text("{torn")
    with pytest.raises(StateError, match="_metadata.json: not readable"):
        metadata.load(dataset)
    assert dataset.metadata.read_text() == "{torn"


def test_restricted_modes_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        dataset = Dataset(tmp_path / "lake", "feed", "stream", restricted=True)
        _commit(dataset, "r1", 0, [_stage(dataset, "r1", "a")], _state(1, 1))
    finally:
        os.umask(old)
    assert (dataset.directory.stat().st_mode & 0o777, dataset.metadata.stat().st_mode & 0o777) == (0o750, 0o640)
    assert (dataset.directory / "p" / "a").stat().st_mode & 0o777 == 0o640


def test_a_second_holder_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    held = f"feed x: .*pid {os.getpid()}.*since"
    with files.exclusive_lock(lock, "feed x"), pytest.raises(LakeBusyError, match=held):
        with files.exclusive_lock(lock, "feed x"):
            pass
    with files.exclusive_lock(lock, "feed x"):
        pass


def test_versions_are_ordered_by_number() -> None:
    files = [
        {"path": f"version=v{n}/f", "partition": f"version=v{n}", "rows": n, "bytes": 10, "exported_at": "t"}
        for n in (10, 9, 1)
    ]
    state = FeedState.from_json({"source": "X", "type": "table", "sequence": 1, "files": files}).to_json()
    assert [p["path"] for p in state["partitions"]] == ["version=v1", "version=v9", "version=v10"]
    assert state["total_records"] == 20


def test_the_guard_keeps_tests_out_of_the_own_lake() -> None:
    with pytest.raises(YouForgotToChooseALake):
        (ROOT / "data_lake" / "canary").write_text("x")
    assert not (ROOT / "data_lake" / "canary").exists()
