"""What was sent to a catalog, so that the next registration need not ask for thousands of partitions.

The file may be deleted at any time: then the catalog is asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ksql_lake.catalogs.tables import Plan, Values
from ksql_lake.store.layout import storage_of


@dataclass
class Record:
    """The tables of one kind of catalog by endpoint, database and name."""

    path: PurePath
    tables: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.tables = json.loads(storage_of(self.path).read(self.path))
        except (OSError, ValueError):
            self.tables = {}  # nothing is lost: the catalog itself is asked

    def partitions(self, key: str, created: str) -> dict[Values, str] | None:
        """Partition values -> fingerprint, when the table is the one that is remembered."""
        known = self.tables.get(key, {})
        if known.get("created") != created:
            return None
        return {tuple(values.split("/")): mark for values, mark in known["partitions"].items()}

    def remember(self, key: str, created: str, sent: Plan) -> None:
        partitions = {"/".join(values): mark for values, mark in sent.table.partitions.items()}
        self.tables[key] = {"created": created, "partitions": partitions}
        self._write()

    def forget(self, key: str) -> None:
        if self.tables.pop(key, None):
            self._write()

    def _write(self) -> None:
        storage = storage_of(self.path)
        storage.make(self.path.parent)
        storage.put(self.path, json.dumps(self.tables, indent=1).encode())


def key_of(endpoint: str, database: str, table: str) -> str:
    return f"{endpoint} {database}.{table}"


