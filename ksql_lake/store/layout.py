"""The map of a lake: where its own files lie, and in what storage. `Dataset` has the places of one feed's files.

    streams/<feed>/  tables/<feed>/     data, _metadata.json, _manifests/
    quarantine/<feed>/                  rows that failed a check
    feeds/active/  feeds/archived/      what is exported, a JSON file for each feed
    logs/                               run history, changes, receipts of erasures, log files
    .state/                             locks, state logs, what catalogs know, which runs are under way
    .staging/<feed>/<run>/              what is not published yet
    .trash/<day>/<feed>/<run>/          what left the lake and can be brought back
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path, PurePath

from ksql_lake.base.errors import LinkError
from ksql_lake.store.local_disk import LocalDisk
from ksql_lake.store.storage import Storage

KINDS, STATUSES = ("stream", "table"), ("active", "archived")
_DISK = LocalDisk()


def storage_of(place: PurePath) -> Storage:
    """The storage that a lake, or a place in it, lies in. A new kind of storage is chosen here."""
    return _DISK


def leads_out(lake: PurePath, place: PurePath) -> bool:
    """Whether a part of the way from the lake to a place in it is a link: what is there may not be ours."""
    try:
        storage_of(lake).guard(lake, [place])
    except LinkError:
        return True
    return False


def at(top: PurePath, path: str) -> PurePath:
    """The place of what is known by its path below the lake, as in a remote, or below a directory of it."""
    return top / path


def directory(lake: PurePath, kind: str, feed: str) -> PurePath:
    """A feed's directory; its kind is stream or table."""
    return lake / f"{kind}s" / feed


def quarantine(lake: PurePath) -> PurePath:
    return lake / "quarantine"


def staging(lake: PurePath) -> PurePath:
    return lake / ".staging"


def probe(lake: PurePath, unique: str) -> PurePath:
    """A file that is written to see whether other machines see it."""
    return staging(lake) / f".probe_{unique}.inprogress"


def state(lake: PurePath) -> PurePath:
    return lake / ".state"


def trash(lake: PurePath) -> PurePath:
    return lake / ".trash"


def feed_files(lake: PurePath, status: str = "active") -> Path:
    """Where feeds are described, active or archived ones. People write these: they are on this machine's disk."""
    return Path(lake, "feeds", status)


def feed_file(lake: PurePath, feed: str, status: str = "active") -> Path:
    """Where one feed is described."""
    return feed_files(lake, status) / f"{feed}.json"


def runs(lake: PurePath) -> PurePath:
    """The run history."""
    return lake / "logs" / "runs.jsonl"


def log_file(lake: PurePath, moment: dt.datetime) -> Path:
    """What exports of a month log on this machine; its directory is made."""
    path = Path(lake, "logs", f"export_{moment:%Y_%m}.log")
    LocalDisk().make(path.parent)
    return path


def changes(lake: PurePath) -> PurePath:
    """The log of what people changed."""
    return lake / "logs" / "changes.jsonl"


def receipts(lake: PurePath) -> PurePath:
    """The directory of receipts of erasures."""
    return lake / "logs" / "erasures"


def receipt(lake: PurePath, name: str) -> PurePath:
    return receipts(lake) / f"{name}.json"


def erasure_lock(lake: PurePath) -> PurePath:
    """Held during an erasure: one at a time."""
    return state(lake) / "erase.erasure"


def erasure_rules(lake: PurePath) -> PurePath:
    """Whose later rows are dropped. The name begins with _, as those of all files here that belong to no feed."""
    return state(lake) / "_erasures.jsonl"


def old_erasure_rules(lake: PurePath) -> PurePath:
    """Where the rules were before; a feed called erasures has its state log there."""
    return state(lake) / "erasures.jsonl"


def catalog_record(lake: PurePath, catalog: str) -> PurePath:
    """What a catalog is known to have: glue, hive."""
    return state(lake) / f"{catalog}.json"


def catalog_lock(lake: PurePath, catalog: str) -> PurePath:
    """Held while a catalog is written to: glue, hive, registered (the list of registered feeds)."""
    return state(lake) / f".{catalog}.lock"


def registered(lake: PurePath) -> PurePath:
    """Catalog -> feed -> sequence number of the last change that the catalog has."""
    return state(lake) / "registered.json"


def replaced_delta_log(lake: PurePath, name: str) -> PurePath:
    """Where a feed's Delta log goes that was written anew."""
    return state(lake) / "delta" / name


def running(lake: PurePath) -> PurePath:
    """The directory of runs that are under way."""
    return state(lake) / "running"


def kafka_cluster(lake: PurePath) -> PurePath:
    """Which Kafka cluster the lake is filled from."""
    return state(lake) / "kafka_cluster.json"


def remote(lake: PurePath) -> PurePath:
    """Which bucket is the lake's second home."""
    return state(lake) / "remote.json"
