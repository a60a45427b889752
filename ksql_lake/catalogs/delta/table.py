"""Keep a feed's Delta log up to date with its metadata: sync, verify, rebuild. Call with the feed's lock held."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePath

from ksql_lake import __version__
from ksql_lake.base.errors import StateError
from ksql_lake.catalogs.delta.actions import APP, Commit, Protocol, Snapshot, Version
from ksql_lake.catalogs.delta.log import DIRECTORY, DamagedLog, Log, is_kept
from ksql_lake.catalogs.delta.plan import Wanted, add, next_version, wanted
from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store.layout import replaced_delta_log
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.remote.places import sql_root


class ForeignVersion(StateError):
    """Somebody else wrote to the log."""


@dataclass(frozen=True)
class Synced:
    """What a sync did: `version` is the last one; `adds` and `removes` are 0 when it was up to date."""

    version: int
    written: bool
    adds: int = 0
    removes: int = 0


def log_of(dataset: Dataset) -> Log:
    return Log(dataset.file(DIRECTORY), dataset.dir_mode, dataset.file_mode)


def sync(dataset: Dataset, state: FeedState, at: int, kind: str = "sync") -> Synced:
    """Bring the log to the state of the metadata: one version, or none when it is up to date.

    Args:
        at: now, in epoch ms.
        kind: what led to it, for the history of the table.

    Raises:
        ForeignVersion: somebody else wrote a version; nothing is written.
        DamagedLog: the log cannot be followed.
        OSError: the version could not be written; the next sync does it.
    """
    log = log_of(dataset)
    log.clean()
    now = trusted(dataset, log.replay())
    table = wanted(dataset.feed, state, sql_root(dataset.lake, "delta", os.environ))
    version = next_version(table, now, commit(table, at, kind))
    if version is None:
        return Synced(now.version, False)
    if not log.put(now.version + 1, version):
        raise ForeignVersion(_foreign(dataset, [now.version + 1]))
    return Synced(now.version + 1, True, len(version.adds), len(version.removes))


def append(dataset: Dataset, state: FeedState, change: Change, at: int) -> bool:
    """Write the version of a change that only added files to a stream, without following the whole log.

    Returns:
        False where that is not enough and `sync` is needed.
    """
    plain = change.kind == "export" and not (state.is_table or change.schema or change.removed)
    if not plain or change.sequence != state.sequence or not all(file.local for file in change.added):
        return False
    log = log_of(dataset)
    last = log.newest()
    if last.version < 0 or last.foreign or last.sequence != change.sequence - 1:
        return False
    adds = tuple(add(file, True) for file in change.added)
    return log.put(last.version + 1, Version(_commit(change.run, change.sequence, at, change.kind), adds))


def is_current(dataset: Dataset, state: FeedState) -> bool:
    """Whether this tool wrote the log's last version, at the metadata's sequence number."""
    log = log_of(dataset)
    log.clean()
    last = log.newest()
    return last.version >= 0 and not last.foreign and last.sequence == state.sequence


def commit(table: Wanted, at: int, kind: str) -> Commit:
    return _commit(table.run, table.sequence, at, kind)


def _commit(run: str, sequence: int, at: int, kind: str) -> Commit:
    return Commit(f"{APP}/{__version__}", kind.upper(), run, sequence, at)


def trusted(dataset: Dataset, now: Snapshot) -> Snapshot:
    """The snapshot, if this tool wrote all of it.

    Raises:
        ForeignVersion: another writer wrote a part.
    """
    if now.foreign:
        raise ForeignVersion(_foreign(dataset, now.foreign))
    return now


def _foreign(dataset: Dataset, versions: list[int]) -> str:
    named = ", ".join(map(str, versions[:5])) + (" ..." if len(versions) > 5 else "")
    return (
        f"{dataset.file(DIRECTORY)}: version {named} was not written by this tool, so the table may hold other "
        f"rows than the lake; {_way_out(dataset)}"
    )


def _way_out(dataset: Dataset) -> str:
    return (
        "rewrite the log from the metadata with: python metadata_utils.py delta rebuild "
        f"{dataset.feed} --lake {dataset.lake}"
    )


def verify(dataset: Dataset, state: FeedState) -> list[str]:
    """A finding for each difference between the log and the metadata."""
    try:
        now = trusted(dataset, log_of(dataset).replay())
    except DamagedLog as error:
        return [f"{error}; {_way_out(dataset)}"]
    except ForeignVersion as error:
        return [str(error)]
    where = dataset.file(DIRECTORY)
    table = wanted(dataset.feed, state, sql_root(dataset.lake, "delta", os.environ))
    if now.sequence != table.sequence:
        return [
            f"{where}: is at change {now.sequence} of the feed, but the metadata is at {table.sequence}; bring it up "
            "to date "
            f"with: python metadata_utils.py delta sync {dataset.feed} --lake {dataset.lake}"
        ]
    findings = [f"{where}: has {path}, which is not in the metadata" for path in now.active.keys() - table.files]
    findings += [f"{where}: lacks {path}" for path in table.files.keys() - now.active.keys()]
    if now.metadata is None or now.metadata.schema != table.schema:
        findings.append(f"{where}: its columns differ from the feed's")
    if now.protocol != Protocol():
        findings.append(f"{where}: other writers are no longer locked out")
    return [f"{finding}; {_way_out(dataset)}" for finding in sorted(findings)]


def rebuild(dataset: Dataset, state: FeedState, at: int, stamp: str) -> PurePath | None:
    """Rewrite the log as version 0 from the metadata; the old one is kept in `.state/delta`.

    Readers that follow the table as a stream have to start again: it has a new id.

    Returns:
        Where the old log is now; None when there was none.
    """
    log, storage = log_of(dataset), dataset.storage
    old = replaced_delta_log(dataset.lake, f"{dataset.feed}.{stamp}")
    fresh = Log(replaced_delta_log(dataset.lake, f"{dataset.feed}.new"), dataset.dir_mode, dataset.file_mode)
    table = wanted(dataset.feed, state, sql_root(dataset.lake, "delta", os.environ))
    version = next_version(table, Snapshot(), commit(table, at, "rebuild"))
    assert version is not None, "an empty log is never up to date"
    storage.make(old.parent)
    storage.delete(fresh.directory)  # of a rebuild that was killed
    fresh.put(0, version)
    there = is_kept(dataset)
    if there:
        storage.move(log.directory, old, dataset.file_mode)
    storage.make(dataset.directory, dataset.dir_mode)
    storage.move(fresh.directory, log.directory, dataset.file_mode)
    return old if there else None
