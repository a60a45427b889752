"""Two versions of a table, by key: rows added, removed and changed, with the columns that changed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from ksql_lake.base.arrays import pylist
from ksql_lake.base.errors import SourceError
from ksql_lake.model.canonical import canonical
from ksql_lake.model.state import FeedState
from ksql_lake.store.metadata import Dataset

Row = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One key that is not the same in both; `changed` is column -> (before, after)."""

    kind: str
    key: Row
    changed: dict[str, tuple[Any, Any]]

    def __str__(self) -> str:
        key = ", ".join(f"{name}={value}" for name, value in self.key.items())
        columns = ", ".join(f"{name}: {a} -> {b}" for name, (a, b) in self.changed.items())
        return f"{self.kind:<8} {key}" + (f"  {columns}" if columns else "")


def compare(dataset: Dataset, state: FeedState, before: str, after: str) -> list[Difference]:
    """What is different in version `after` from version `before`, in the order of the keys' text.

    Raises:
        SourceError: a version is not there, or the table has no key columns.
    """
    there = [path.removeprefix("version=") for path in [partition.path for partition in state.partitions]]
    for name in (before, after):
        if name not in there:
            raise SourceError(f"{dataset.feed}: has no version {name}; there are {', '.join(there) or 'none'}")
    keys = [column.disk_name for column in state.columns if column.key]
    if not keys:
        raise SourceError(f"{dataset.feed}: its source names no key column, so rows cannot be matched")
    old, new = (_digests(dataset, state, name, keys) for name in (before, after))
    differ = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    old_rows, new_rows = (_rows(dataset, state, name, keys, differ) for name in (before, after))
    return list(_differences(old_rows, new_rows, keys))


def _digests(dataset: Dataset, state: FeedState, version: str, keys: Sequence[str]) -> dict[str, bytes]:
    """Key -> digest of its row: what a large table needs of memory is its keys, not its rows."""
    return {
        _key(row, keys): hashlib.blake2b(repr(sorted(row.items())).encode(), digest_size=16).digest()
        for row in _read(dataset, state, version)
    }


def _rows(
    dataset: Dataset, state: FeedState, version: str, keys: Sequence[str], wanted: Collection[str]
) -> dict[str, Row]:
    rows = ((_key(row, keys), row) for row in _read(dataset, state, version)) if wanted else ()
    return {key: row for key, row in rows if key in wanted}


def _key(row: Row, keys: Sequence[str]) -> str:
    return repr([row.get(key) for key in keys])


def _read(dataset: Dataset, state: FeedState, version: str) -> Iterator[Row]:
    for file in state.files:
        if file.partition == f"version={version}":
            with pq.ParquetFile(dataset.directory / file.path) as parquet:
                for batch in parquet.iter_batches():
                    for row in pylist(batch.to_struct_array()):
                        yield {name: canonical(value) for name, value in row.items()}


def _differences(old: dict[str, Row], new: dict[str, Row], keys: Sequence[str]) -> Iterator[Difference]:
    for text in sorted({*old, *new}):
        before, after = old.get(text), new.get(text)
        key = {name: ((after or before) or {}).get(name) for name in keys}
        if before is None:
            yield Difference("added", key, {})
        elif after is None:
            yield Difference("removed", key, {})
        else:
            names = list(dict.fromkeys([*before, *after]))
            changed = {n: (before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n)}
            if changed:
                yield Difference("changed", key, changed)
