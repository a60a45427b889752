"""The state of one feed: `_metadata.json`, and the journal that changes it together with its files.

A change of a feed is staged under `<lake>/.staging/<feed>/<run>/`, described by `commit.json` there,
carried out by renames, recorded in `_metadata.json`, remembered in `<lake>/.state/<feed>.jsonl` and
cleaned up. Every step can be done twice: `recover` finishes a change whose journal exists and deletes
staging that has none, so a crash between any two system calls leaves the old state or the new one.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.base.files import append_line, atomic_write, fsync_dir, last_line, make_dirs, remove_tree
from ksql_lake.model.findings import Finding

JOURNAL = "commit.json"
METADATA = "_metadata.json"
LEASE = ".lease"
TRASH = ".trash"
QUARANTINE = "quarantine"
HISTORY = 100  # changes that are no export, kept in the metadata; the state log keeps all
State = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """Where one feed lives in the lake, and the modes of what is made there."""

    lake: Path
    feed: str
    kind: str
    restricted: bool = False

    @property
    def directory(self) -> Path:
        return self.lake / f"{self.kind}s" / self.feed

    @property
    def metadata(self) -> Path:
        return self.directory / METADATA

    @property
    def staging(self) -> Path:
        return self.lake / ".staging" / self.feed

    @property
    def lock(self) -> Path:
        return self.lake / ".state" / f"{self.feed}.lock"

    @property
    def log(self) -> Path:
        return self.lake / ".state" / f"{self.feed}.jsonl"

    @property
    def dir_mode(self) -> int:
        return 0o750 if self.restricted else 0o755

    @property
    def file_mode(self) -> int:
        return 0o640 if self.restricted else 0o644


@dataclass(frozen=True)
class Move:
    """One rename of a commit; both paths are relative to the lake."""

    source: str
    target: str

    @classmethod
    def of(cls, dataset: Dataset, source: Path, target: Path) -> Move:
        """From whole paths inside the lake."""
        return cls(str(source.relative_to(dataset.lake)), str(target.relative_to(dataset.lake)))


def load(dataset: Dataset) -> State | None:
    """The feed's state, or None when it was never exported.

    Raises:
        StateError: the file exists and is not readable JSON; it is left as it is.
    """
    try:
        state = json.loads(dataset.metadata.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(
            f"{dataset.metadata}: not readable as JSON ({error}); restore it with: {_rebuild(dataset)}"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("sequence"), int):
        raise StateError(
            f'{dataset.metadata}: has no "sequence", so it was not written by this tool; restore it with: '
            f"{_rebuild(dataset)}"
        )
    return state


def load_or_new(dataset: Dataset, new: Callable[[], State]) -> State:
    """The feed's state, or a new one for a feed that was never exported.

    Raises:
        StateError: the metadata is not readable, an old copy, or gone while there is data or a history of it.
    """
    state = load(dataset)
    if state is not None:
        logged = _last_logged(dataset)
        if logged is not None and logged > state["sequence"]:
            raise StateError(
                f"{dataset.metadata}: is an old copy, it knows {state['sequence']} changes and the state log {logged}; "
                f"bring it up to date with: {_rebuild(dataset)}"
            )
        return state
    if dataset.log.exists() or next(dataset.directory.rglob("*.parquet"), None) is not None:
        raise StateError(
            f"{dataset.metadata}: missing, though the feed was exported before; restore it with: {_rebuild(dataset)}"
        )
    return new()


def unknown_files(dataset: Dataset, state: State) -> list[Finding]:
    """A finding for each Parquet file in the feed's directory that its metadata does not know."""
    known = {file["path"] for file in state["files"]}
    found = (path.relative_to(dataset.directory).as_posix() for path in dataset.directory.rglob("*.parquet"))
    return [
        Finding(
            "files", f"{dataset.directory / path}: no metadata knows this file, readers will see its rows; move it "
            f"away, or if the metadata is an old copy: {_rebuild(dataset)}", feed=dataset.feed,
        )
        for path in sorted(set(found) - known)
    ]


def set_aside(dataset: Dataset, stamp: str) -> Path | None:
    """Rename the metadata to a name readers pass over; None when there is none."""
    if not dataset.metadata.exists():
        return None
    aside = dataset.directory / f".{METADATA}.{stamp}.aside"
    os.rename(dataset.metadata, aside)
    fsync_dir(dataset.directory)
    return aside


def restore(dataset: Dataset, state: State) -> None:
    """Write a state that was rebuilt; the state log learns it when it does not know it."""
    make_dirs(dataset.directory, dataset.dir_mode)
    _record(dataset, state)
    _remember(dataset, state)


def _rebuild(dataset: Dataset) -> str:
    return f"python metadata_utils.py --rebuild --feed {dataset.feed}"


def _record(dataset: Dataset, state: State) -> None:
    atomic_write(dataset.metadata, json.dumps(state, indent=2, ensure_ascii=False).encode(), dataset.file_mode)


def commit(dataset: Dataset, run: str, base: int, moves: Sequence[Move], state: State) -> None:
    """Publish staged files and the state that goes with them, as one change that a crash cannot split.

    Args:
        base: the sequence number the change builds on (0 for a new feed); `state["sequence"]` is one more.
        moves: renames from the staging directory of `run` (or from the dataset) to final names.
    """
    directory = dataset.staging / run
    make_dirs(directory)
    journal = {"run": run, "base": base, "moves": [[m.source, m.target] for m in moves], "state": state}
    atomic_write(directory / JOURNAL, json.dumps(journal).encode(), dataset.file_mode)
    _carry_out(dataset, directory, journal)


def amend(
    dataset: Dataset, run: str, state: State, moves: Sequence[Move], *, now: str, by: str, what: str
) -> None:
    """Commit a change that is no export (retention, rollback, erasure ...), and remember who made it and when.

    Args:
        state: the new state, its sequence number not yet raised.
        now: ISO 8601, UTC.
        by: the user who asked for it.
        what: one line for the history.
    """
    base = state["sequence"]
    state |= {"sequence": base + 1, "run": run}
    state["changes"] = [*state.get("changes", [])[-HISTORY + 1 :], {"at": now, "by": by, "what": what}]
    summarise(state)
    commit(dataset, run, base, moves, state)


def recover(dataset: Dataset, *, trusted: bool = False) -> list[str]:
    """Finish or forget what an earlier run left in staging; returns a line for each thing done.

    Call with the feed's lock held.

    Args:
        trusted: a journal is carried out although the metadata it builds on is lost: it holds the whole new state.

    Raises:
        StateError: a journal builds on another state than the one found; nothing is touched.
    """
    done: list[str] = []
    for temporary in dataset.directory.glob(f".{METADATA}.*.inprogress"):
        os.unlink(temporary)  # of a run killed while it wrote: with the lock held nobody else writes
    if not dataset.staging.is_dir():
        return done
    for granted in dataset.staging.glob(f"*{LEASE}"):
        granted.unlink(missing_ok=True)  # first: a worker still at it for a run that is gone makes no more files
    for directory in sorted(p for p in dataset.staging.iterdir() if p.is_dir()):
        journal_file = directory / JOURNAL
        if journal_file.exists():
            _carry_out(dataset, directory, json.loads(journal_file.read_bytes()), trusted)
            done.append(f"finished the interrupted commit of run {directory.name}")
        else:
            remove_tree(directory)
            done.append(f"discarded unpublished files of run {directory.name}")
    return done


def _carry_out(dataset: Dataset, directory: Path, journal: Mapping[str, Any], trusted: bool = False) -> None:
    current = load(dataset)
    sequence = current["sequence"] if current else 0
    state = journal["state"]
    recorded = current is not None and current.get("run") == journal["run"]
    if not recorded:
        if sequence != journal["base"] and not trusted:
            raise StateError(
                f"{directory / JOURNAL}: builds on change {journal['base']} of {dataset.feed}, but the lake is at "
                f"{sequence}; move the directory aside and run again"
            )
        make_dirs(dataset.directory.parent)  # of all feeds: open, whatever this feed's access
        _publish(dataset, journal["moves"])
        make_dirs(dataset.directory, dataset.dir_mode)
        _record(dataset, state)
    _remember(dataset, state, None if recorded else current)
    remove_tree(directory)
    fsync_dir(dataset.staging)


def _publish(dataset: Dataset, moves: Sequence[Sequence[str]]) -> None:
    for source, target in moves:
        origin, final = dataset.lake / source, dataset.lake / target
        if not origin.exists() and final.exists():
            continue  # an earlier attempt got this far
        make_dirs(final.parent, dataset.dir_mode)
        if origin.is_dir():
            os.chmod(origin, dataset.dir_mode)
            for path in origin.iterdir():
                os.chmod(path, dataset.file_mode)
        else:
            os.chmod(origin, dataset.file_mode)
        os.rename(origin, final)
        fsync_dir(final.parent)
    for parent in {(dataset.lake / source).parent for source, _ in moves}:
        for top in (dataset.directory, dataset.lake / TRASH, dataset.lake / QUARANTINE):
            _remove_emptied(top, parent)


def _remove_emptied(top: Path, directory: Path) -> None:
    """Remove the partition directories that a change emptied; readers would list them for nothing."""
    while top in directory.parents:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return
        directory = directory.parent


def _remember(dataset: Dataset, state: State, before: State | None = None) -> None:
    """The state log holds what Parquet footers cannot: resume points and pointers of runs that wrote no file.

    Args:
        before: the state that this one follows, where it is known: what it set aside is not said again.
    """
    logged = _last_logged(dataset)
    if logged == state["sequence"]:
        return
    make_dirs(dataset.log.parent)
    line = {key: value for key, value in state.items() if key not in ("files", "partitions")}
    if before is not None and logged == before["sequence"] and "quarantine" in before:
        line |= _quarantine_after(before["quarantine"], line.pop("quarantine"))
    append_line(dataset.log, json.dumps(line, ensure_ascii=False).encode(), 0o640)


def _quarantine_after(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> State:
    """What a line says of quarantine: nothing where nothing changed, what came to it, or all of it."""
    if after[: len(before)] != before:
        return {"quarantine": after}
    return {"quarantine_added": after[len(before) :]} if len(after) > len(before) else {}


def logged_quarantine(lines: Sequence[State]) -> list[dict[str, Any]] | None:
    """What quarantine holds after these lines of the state log, the oldest first; None where they do not say."""
    found: list[dict[str, Any]] | None = None
    for line in lines:
        if "quarantine" in line:
            found = line["quarantine"]
        elif found is not None:
            found = [*found, *line.get("quarantine_added", ())]
    return found


def _last_logged(dataset: Dataset) -> int | None:
    line = last_line(dataset.log)
    return _sequence_of(line) if line else None


def _sequence_of(line: bytes) -> int | None:
    try:
        sequence = json.loads(line)["sequence"]
    except (ValueError, KeyError, TypeError):
        return None
    return sequence if isinstance(sequence, int) else None


def summarise(state: State) -> None:
    """Bring the totals and the partition list of the user's own metadata format in line with `files`."""
    partitions: dict[str, dict[str, Any]] = {}
    for file in state["files"]:
        entry = partitions.setdefault(
            file["partition"], {"path": file["partition"], "records": 0, "bytes": 0, "exported_at": ""}
        )
        entry["records"] += file["rows"]
        entry["bytes"] += file["bytes"]
        entry["exported_at"] = max(entry["exported_at"], file["exported_at"])
    for entry in partitions.values():
        entry["size_mb"] = _megabytes(entry.pop("bytes"))
    order = {entry["path"]: _partition_order(entry["path"]) for entry in partitions.values()}
    state["partitions"] = sorted(partitions.values(), key=lambda entry: order[entry["path"]])
    state["total_records"] = sum(file["rows"] for file in state["files"])
    state["total_size_mb"] = _megabytes(sum(file["bytes"] for file in state["files"]))


def _partition_order(path: str) -> tuple[int, str]:
    """v10 comes after v9; days sort as text."""
    number = path.removeprefix("version=v")
    return (int(number), "") if number.isdigit() else (0, path)


def _megabytes(size: int) -> float:
    return round(size / 1_000_000, 6)
