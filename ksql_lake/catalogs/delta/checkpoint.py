"""A checkpoint: the table after a version in one Parquet file, which readers use instead of all versions before it.

Only on request, for globs such as `**/*.parquet` find it among the feed's files.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from ksql_lake.catalogs.delta.actions import APP, Snapshot
from ksql_lake.catalogs.delta.table import log_of, trusted
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.parquet import as_parquet

LAST = "_last_checkpoint"
_TEXTS = pa.map_(pa.string(), pa.string())
_LIST = pa.list_(pa.string())
SCHEMA = pa.schema([
    ("txn", pa.struct([("appId", pa.string()), ("version", pa.int64()), ("lastUpdated", pa.int64())])),
    ("add", pa.struct([
        ("path", pa.string()), ("partitionValues", _TEXTS), ("size", pa.int64()), ("modificationTime", pa.int64()),
        ("dataChange", pa.bool_()), ("stats", pa.string()),
    ])),
    ("remove", pa.struct([
        ("path", pa.string()), ("deletionTimestamp", pa.int64()), ("dataChange", pa.bool_()),
        ("extendedFileMetadata", pa.bool_()), ("partitionValues", _TEXTS), ("size", pa.int64()),
    ])),
    ("metaData", pa.struct([
        ("id", pa.string()), ("name", pa.string()), ("description", pa.string()),
        ("format", pa.struct([("provider", pa.string()), ("options", _TEXTS)])), ("schemaString", pa.string()),
        ("partitionColumns", _LIST), ("configuration", _TEXTS), ("createdTime", pa.int64()),
    ])),
    ("protocol", pa.struct([
        ("minReaderVersion", pa.int32()), ("minWriterVersion", pa.int32()), ("writerFeatures", _LIST),
    ])),
])


def write(dataset: Dataset, version: int) -> None:
    """Write the checkpoint of the log's last version, then the file that names it.

    Raises:
        StateError: the log is damaged or holds versions of other writers.
    """
    log = log_of(dataset)
    rows = actions(trusted(dataset, log.replay()))
    path = log.place(f"{version:020d}.checkpoint.parquet")
    log.storage.put(path, as_parquet(pa.Table.from_pylist(rows, SCHEMA)), dataset.file_mode)
    last = json.dumps({"version": version, "size": len(rows)}).encode()
    log.storage.put(log.place(LAST), last, dataset.file_mode)


def actions(now: Snapshot) -> list[dict[str, Any]]:
    """The rows of a checkpoint: everything that is still valid."""
    assert now.protocol and now.metadata and now.sequence is not None, "our first version has all three"
    rows: list[dict[str, Any]] = [now.protocol.to_json(), now.metadata.to_json()]
    rows.append({"txn": {"appId": APP, "version": now.sequence, "lastUpdated": None}})
    for added in now.active.values():
        row = added.to_json()
        row["add"]["dataChange"] = False
        rows.append(row)
    for removed in now.removed.values():
        row = removed.to_json()
        row["remove"]["dataChange"] = False
        rows.append(row)
    return rows
