"""Running a SELECT: resolving its columns, reading the log of its source, and writing F1 elements."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from operator import attrgetter

from .engine import Engine, Record, Source, Topic
from .schema import Column, Type, header_text
from .sql import Filter, Getter, Select, StatementError, Token

_PSEUDO = {"ROWTIME": Type("BIGINT"), "ROWPARTITION": Type("INTEGER"), "ROWOFFSET": Type("BIGINT")}
_FIELD = {"ROWTIME": "rowtime", "ROWPARTITION": "partition", "ROWOFFSET": "offset"}
_BATCH = 5000
_HINT = "See https://cnfl.io/queries for more info.\nAdd EMIT CHANGES if you intended to issue a push query."
_counter = itertools.count()


def _value(index: int) -> Getter:
    def get(record: object) -> object:
        assert isinstance(record, Record) and record.values is not None
        return record.values[index]
    return get


class Query:
    """One SELECT over one source; `header` and the rows as bytes, each ending with `,` and a newline."""

    def __init__(self, engine: Engine, text: str, select: Select, properties: dict[str, str]) -> None:
        self.engine, self.select = engine, select
        with engine.changed:
            source = engine.sources.get(select.source)
            if source is None:
                raise StatementError(f"Exception while preparing statement: {select.source} does not exist.")
            self.source: Source = source
            self.topic: Topic = source.topic
            self._refuse()
            self.parts = [self._item(item) for item in select.items]
            self.filter = Filter(text, select.where, self._resolve) if select.where else None
            self.committed = properties.get("isolation.level") == "read_committed"
            earliest = properties.get("auto.offset.reset", "earliest" if source.kind == "TABLE" else "latest")
            self.cursor = len(self.topic.log) if select.push and earliest != "earliest" else 0
        self.end = 0  # of the log, for a pull query
        self.floor: list[int] = []  # the offsets at which it goes on in a topic that was created again
        self.held: dict[int, list[Record]] = {}
        self.table_pull = not select.push and source.kind == "TABLE"
        number = f"query_{int(time.time() * 1000) + next(_counter) % 1000}"
        self.id = number if self.table_pull else f"transient_{source.name}_{random.getrandbits(63)}"
        self.columns = [c for columns, _ in self.parts for c in columns]

    def _refuse(self) -> None:
        source, select = self.source, self.select
        if select.push:
            return
        if source.kind == "TABLE" and not source.queryable:
            name = source.name
            raise StatementError(f"The `{name}` table isn't queryable. To derive a queryable table, you can do 'CREATE "
                                 f"TABLE QUERYABLE_{name} AS SELECT * FROM {name}'. {_HINT}", late=True)
        for clause, found in (("SELECT", select.items), ("WHERE", select.where)):
            bad = {t.value: None for t in found if t.kind != "text" and t.value in ("ROWPARTITION", "ROWOFFSET")}
            if bad:
                names = ", ".join(f"`{n}`" for n in bad)
                raise StatementError(f"Pull queries don't support the following columns in {clause} clauses: {names}\n"
                                     f" {_HINT}", late=True)

    def _item(self, item: Token) -> tuple[list[Column], Callable[[Record], str]]:
        source = self.source
        if item.kind == "op" and item.value == "*":
            return list(source.columns), source.text
        index = next((i for i, c in enumerate(source.columns) if c.name == item.value), None)
        if index is not None:
            return [source.columns[index]], lambda r: source.encoder.one(r.values or (), index)
        if item.value in _PSEUDO:
            field = attrgetter(_FIELD[item.value])
            return ([Column(item.value, _PSEUDO[item.value])],
                    lambda r: "null" if r.tombstone else str(field(r)))
        raise StatementError(f"Line: 1, Col: {item.column}: SELECT column '{item.value}' cannot be resolved.",
                             late=True)

    def _resolve(self, name: str) -> Getter | None:
        for index, column in enumerate(self.source.columns):
            if column.name == name:
                return _value(index)
        return attrgetter(_FIELD[name]) if name in _FIELD else None

    def header(self) -> str:
        """The header element, without its separator."""
        schema = header_text(self.columns, self.table_pull)
        schema_json = json.dumps(schema, ensure_ascii=False)
        return f'{{"header":{{"queryId":"{self.id}","schema":{schema_json}}}}}'

    def _kept(self, records: list[Record]) -> list[Record]:
        """What of a batch is shown; a table's row that the filter drops would be a tombstone: see the docstring
        of the package."""
        if self.filter is None:
            return records
        return [records[n] for n in self.filter.keep(records)]

    def text(self, record: Record) -> str:
        """The row element."""
        shown = ",".join([encode(record) for _, encode in self.parts])
        mark = ',"tombstone":true' if record.tombstone else ""
        return f'{{"row":{{"columns":[{shown}]{mark}}}}}'

    def table_rows(self) -> list[Record]:
        """The rows of a table for a pull query; none of a session table, as the real server."""
        with self.engine.changed:
            if self.source.window == "SESSION":
                return []
            records = list(self.source.state.values())
        kept = self._kept(records)
        return kept[:self.select.limit] if self.select.limit is not None else kept

    def batch(self, end: int | None = None) -> list[Record] | None:
        """The next records that the query shows, None when the log (up to `end`) has no more.

        Those of a muted partition are held back, and come in their order when it speaks again.
        """
        if self.topic.followed_by is not None:
            self.topic, self.cursor, self.floor = self.topic.followed_by, 0, list(self.topic.next)
        topic = self.topic
        with self.engine.changed:
            stop = min(len(topic.log) if end is None else end, self.cursor + _BATCH)
            base, muted = list(topic.base), set(self.source.muted)
            released = [r for p in sorted(self.held.keys() - muted) for r in self.held.pop(p)]
            if self.cursor >= stop and not released:
                return None
            found = [*released, *topic.log[self.cursor:stop]]
            self.cursor = max(stop, self.cursor)
            for record in found if muted else ():
                if record.partition in muted:
                    self.held.setdefault(record.partition, []).append(record)
        return self._kept([r for r in found if r.values is not None and r.offset >= base[r.partition]
                           and not (r.aborted and self.committed) and r.partition not in muted
                           and (r.partition >= len(self.floor) or r.offset >= self.floor[r.partition])])

    def waits(self) -> bool:
        """Whether there are records that cannot be read now; a pull query does not complete without them."""
        with self.engine.changed:
            return any(r.offset >= self.topic.base[p] for p, records in self.held.items() for r in records)

    def bounded(self) -> Iterator[Record]:
        """The rows of a stream pull: what is there now."""
        end = self.end = len(self.topic.log)
        while (found := self.batch(end)) is not None:
            yield from found
