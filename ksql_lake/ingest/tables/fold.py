"""A changelog folded to the latest row per key, on disk: a changelog is far longer than its table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from ksql_lake.base.arrays import pylist
from ksql_lake.base.errors import SchemaError
from ksql_lake.sources.ksqldb.rows import Flaw, Tombstone


class Fold:
    """Rows go to a spill file in the order they come; SQLite keeps which one is the latest of each key.

    Args:
        spill, latest: two new files for the rows and for SQLite's database.
        schema: the schema of the batches.
        keys: positions of the key columns, windows included.
        names: the source's names of all columns.
    """

    def __init__(self, spill: Path, latest: Path, schema: pa.Schema, keys: Sequence[int], names: Sequence[str]) -> None:
        self.keys = list(keys)
        self.count = 0
        self.spill = spill
        self.database = sqlite3.connect(latest, isolation_level=None)
        self.database.execute("PRAGMA journal_mode = OFF")
        self.database.execute("PRAGMA synchronous = OFF")
        self.database.execute("CREATE TABLE latest (key TEXT PRIMARY KEY, row INTEGER) WITHOUT ROWID")
        self.database.execute("CREATE TABLE flaws (row INTEGER, column TEXT, reason TEXT)")
        self.names = [names[i] for i in self.keys]
        self.writer = pa.ipc.new_file(str(self.spill), schema)

    def add(self, batch: pa.RecordBatch, flaws: Sequence[Flaw] = ()) -> None:
        """The next rows.

        Raises:
            SchemaError: a key holds a value that its type cannot hold, so its row can neither replace nor be replaced.
        """
        for flaw in flaws:
            if flaw.column in self.names:
                raise SchemaError(f"{flaw}; it is part of the key, which the changelog is folded by")
        columns = [pylist(batch.column(i)) for i in self.keys]
        keys = (_key(values) for values in zip(*columns, strict=True))
        self.database.execute("BEGIN")
        positions = range(self.count, self.count + len(batch))
        self.database.executemany("INSERT OR REPLACE INTO latest VALUES (?, ?)", zip(keys, positions, strict=True))
        known = ((self.count + flaw.row, flaw.column, flaw.reason) for flaw in flaws)
        self.database.executemany("INSERT INTO flaws VALUES (?, ?, ?)", known)
        self.database.execute("COMMIT")
        self.writer.write_batch(batch)
        self.count += len(batch)

    def remove(self, tombstone: Tombstone) -> None:
        key = _key(tuple(tombstone.columns[i] for i in self.keys))
        self.database.execute("DELETE FROM latest WHERE key = ?", (key,))

    def batches(self) -> Iterator[tuple[pa.RecordBatch, list[Flaw]]]:
        """The latest rows, in the order in which they came, and their flaws. Ends the fold."""
        self.writer.close()
        with pa.memory_map(str(self.spill)) as source:
            reader = pa.ipc.open_file(source)
            start = 0
            for i in range(reader.num_record_batches):
                batch = reader.get_batch(i)
                end = start + len(batch)
                rows = [
                    row - start
                    for (row,) in self.database.execute(
                        "SELECT row FROM latest WHERE row >= ? AND row < ? ORDER BY row", (start, end)
                    )
                ]
                if rows:
                    yield batch.take(pa.array(rows, pa.int64())), self._flaws(start, rows)
                start = end

    def _flaws(self, start: int, rows: Sequence[int]) -> list[Flaw]:
        found = self.database.execute(
            "SELECT row, column, reason FROM flaws WHERE row >= ? AND row <= ? ORDER BY row, column",
            (start + rows[0], start + rows[-1]),
        ).fetchall()
        places = {start + row: place for place, row in enumerate(rows)} if found else {}
        return [Flaw(places[row], column, reason) for row, column, reason in found if row in places]

    def prepare(self) -> None:
        """Index the latest rows by position; call once, before `batches`."""
        self.database.execute("CREATE INDEX by_row ON latest (row)")
        self.database.execute("CREATE INDEX flaws_by_row ON flaws (row)")

    def close(self) -> None:
        self.database.close()


def _key(values: tuple[object, ...]) -> str:
    return json.dumps([str(value) if value is not None else None for value in values], ensure_ascii=False)
