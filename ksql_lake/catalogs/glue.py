"""The lake in an AWS Glue catalog: one table a feed, one partition a day or version.

`plan` compares what the metadata say with what the catalog says, and `register` sends the difference. What the
catalog says of tables is asked every time. Its partitions, which may be thousands, are remembered in
`.state/glue.json` and asked for again when the table is not the one that was remembered, so the file may be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import CatalogError, LakeError, SchemaError
from ksql_lake.base.files import atomic_write, make_dirs
from ksql_lake.catalogs.ddl import PSEUDO, hive_type
from ksql_lake.model.state import FeedState, RecordedColumn
from ksql_lake.model.types import SqlType, parse_type

RECORD = ".state/glue.json"
LOCK = ".state/.glue.lock"
CREATE, DELETE = 100, 25  # partitions that one request of Glue takes
KEYS = {"stream": (("year", "int"), ("month", "int"), ("day", "int")), "table": (("version", "string"),)}
FORMAT = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}
DIGITS = {"year": 4, "month": 2, "day": 2}  # in the paths; a catalog holds the numbers, as engines write them
OURS = "ksql_lake.feed"  # the parameter that marks a table as made by this tool
_UNSPEAKABLE = re.compile(r"[,:;<>`\s]")  # a type's text has no way to quote these in a name
Columns = tuple[tuple[str, str], ...]
Values = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table as it is to be: names in lower case, Hive types, partition values as `--sql` writes them (1, not 01)."""

    name: str
    keys: Columns
    columns: Columns
    location: str
    parameters: Mapping[str, str]
    sequence: int
    partitions: Mapping[Values, str]  # values -> fingerprint

    def where(self, values: Values) -> str:
        """The directory of a partition."""
        pairs = ((key, value.zfill(DIGITS.get(key, 0))) for (key, _), value in zip(self.keys, values, strict=True))
        path = "/".join(f"{key}={value}" for key, value in pairs)
        return f"{self.location}{path}/"

    def descriptor(self, location: str) -> dict[str, Any]:
        """A StorageDescriptor in Glue's words."""
        return {"Columns": _named(self.columns), "Location": location, **FORMAT}


@dataclass(frozen=True)
class Found:
    """A table as the catalog has it; `created` tells one that was dropped and made again."""

    created: str
    columns: Columns
    location: str
    parameters: Mapping[str, str]
    keys: Columns
    partitions: Mapping[Values, str]


@dataclass(frozen=True)
class Plan:
    """What to send for one table, and why; nothing when all is as it should be."""

    table: Table
    found: Found | None
    reasons: tuple[str, ...] = ()  # why the table itself is created or updated
    new: tuple[Values, ...] = ()
    changed: tuple[Values, ...] = ()
    gone: tuple[Values, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.reasons or self.new or self.changed or self.gone)

    def lines(self) -> list[str]:
        """What happens, for a person."""
        said = [f"{'update' if self.found else 'create'} table: {reason}" for reason in self.reasons]
        for word, values in (("add", self.new), ("update", self.changed), ("remove", self.gone)):
            if values:
                shown = ", ".join("/".join(one) for one in values[:3])
                said.append(f"{word} {len(values)} partitions: {shown}{' ...' if len(values) > 3 else ''}")
        return said


def wanted(feed: str, state: FeedState, root: str) -> Table:
    """The table of one feed.

    Args:
        state: its metadata.
        root: where the lake lies for those who query it, such as s3://bucket/lake.

    Raises:
        SchemaError: a column has a name or type that a Hive catalog cannot say; names it.
    """
    kind = state.type
    pseudo = [(name, hive_type(SqlType(base))) for name, base in PSEUDO.items()] if kind == "stream" else []
    columns = tuple((name.lower(), type_) for name, type_ in (*pseudo, *map(_column, state.columns)))
    location = f"{root.rstrip('/')}/{kind}s/{feed}/"
    parameters = {"EXTERNAL": "TRUE", "classification": "parquet", OURS: feed}
    if current := state.current:
        parameters["current_version"] = current.version
    plain = Table(feed.lower(), KEYS[kind], columns, location, parameters, state.sequence, {})
    partitions = {}
    for path in (partition.path for partition in state.partitions):
        values = tuple(part.partition("=")[2] for part in path.split("/"))
        values = tuple(str(int(value)) if value.isdigit() else value for value in values)
        partitions[values] = fingerprint(columns, plain.where(values))
    return Table(plain.name, plain.keys, columns, location, parameters, plain.sequence, partitions)


def _column(column: RecordedColumn) -> tuple[str, str]:
    name, kind = column.disk_name, parse_type(column.ksql_type)
    for inner in ([name] if "," in name else []) + [inner for inner in _fields(kind) if _UNSPEAKABLE.search(inner)]:
        raise SchemaError(
            f"column {name}: a Hive catalog cannot hold the name {inner!r}; rename it in a stream of your own"
        )
    return name, hive_type(kind, quoted=False).lower()


def _fields(kind: SqlType) -> Iterator[str]:
    for name, inner in kind.fields:
        yield name
        yield from _fields(inner)
    for part in (kind.key, kind.element):
        if part:
            yield from _fields(part)


def fingerprint(columns: Columns, location: str) -> str:
    """What a partition says, as a short text to compare."""
    return hashlib.sha256(json.dumps([columns, location]).encode()).hexdigest()[:16]


def plan(table: Table, found: Found | None) -> Plan:
    """What has to be sent, so that the catalog says what the metadata say.

    Raises:
        CatalogError: a table of that name is somebody else's.
    """
    if found is None:
        return Plan(table, None, ("it is not in the catalog",), tuple(table.partitions))
    if found.parameters.get(OURS) != table.parameters[OURS]:
        raise CatalogError(
            f"table {table.name}: was not made by --register for this feed (it has no parameter {OURS}="
            f"{table.parameters[OURS]}); drop it, or register in another database"
        )
    if found.keys != table.keys:
        keys = ", ".join(name for name, _ in table.keys)
        raise CatalogError(f"table {table.name}: is not partitioned by {keys}, which Glue cannot change; drop it")
    return Plan(
        table,
        found,
        tuple(_reasons(table, found)),
        new=tuple(v for v in table.partitions if v not in found.partitions),
        changed=tuple(v for v, mark in table.partitions.items() if found.partitions.get(v, mark) != mark),
        gone=tuple(v for v in found.partitions if v not in table.partitions),
    )


def _reasons(table: Table, found: Found) -> Iterator[str]:
    before = dict(found.columns)
    for name, type_ in table.columns:
        if before.pop(name, type_) != type_:
            yield f"column {name} is {type_}"
        elif name not in dict(found.columns):
            yield f"column {name} {type_} is new"
    for name in before:
        yield f"column {name} is none of the feed's"
    if table.location != found.location:
        yield f"location is {table.location}"
    for name, value in table.parameters.items():
        if found.parameters.get(name) != value:
            yield f"{name} is {value}"


@dataclass
class Registry:
    """A Glue database and what is remembered of it.

    Args:
        client: of boto3, for Glue. Its errors are raised as they are, but for those named here.
    """

    client: Any
    lake: Path
    database: str
    record: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.record = json.loads((self.lake / RECORD).read_bytes())
        except (OSError, ValueError):
            self.record = {}  # nothing is lost: the catalog itself is asked

    def tables(self) -> dict[str, Any] | None:
        """The database's tables by name, as Glue describes them; None where there is no such database."""
        try:
            pages = self.client.get_paginator("get_tables").paginate(DatabaseName=self.database)
            return {table["Name"]: table for page in pages for table in page["TableList"]}
        except self.client.exceptions.EntityNotFoundException:
            return None

    def create(self) -> None:
        """Create the database, unless somebody was faster."""
        try:
            self.client.create_database(DatabaseInput={"Name": self.database})
        except self.client.exceptions.AlreadyExistsException:
            pass

    def found(self, described: Mapping[str, Any] | None) -> Found | None:
        """A described table with its partitions: the remembered ones when it is the table that was remembered."""
        if described is None:
            return None
        storage = described.get("StorageDescriptor", {})
        created = described["CreateTime"].isoformat()
        known = self.record.get(self._key(described["Name"]), {})
        if known.get("created") == created:
            partitions = {tuple(key.split("/")): mark for key, mark in known["partitions"].items()}
        else:
            partitions = self._partitions(described["Name"])
        return Found(
            created, _pairs(storage.get("Columns", ())), storage.get("Location", ""), described.get("Parameters", {}),
            _pairs(described.get("PartitionKeys", ())), partitions,
        )

    def _partitions(self, name: str) -> dict[Values, str]:
        pages = self.client.get_paginator("get_partitions").paginate(DatabaseName=self.database, TableName=name)
        return {
            tuple(one["Values"]): fingerprint(
                _pairs(one.get("StorageDescriptor", {}).get("Columns", ())),
                one.get("StorageDescriptor", {}).get("Location", ""),
            )
            for page in pages
            for one in page["Partitions"]
        }

    def send(self, todo: Plan) -> None:
        """Carry out a plan, and remember that it was."""
        table = todo.table
        if todo.reasons:
            self._put(table, todo.found)
        self._add(table, todo.new)
        self._update(table, todo.changed)
        for some in _chunks(todo.gone, DELETE):
            answer = self.client.batch_delete_partition(
                DatabaseName=self.database, TableName=table.name, PartitionsToDelete=[{"Values": [*v]} for v in some]
            )
            _refused(table, answer, "PartitionValues", "EntityNotFoundException")
        self._remember(todo)

    def _put(self, table: Table, found: Found | None) -> None:
        kept = {**found.parameters} if found else {}  # somebody else's parameters stay
        kept.pop("current_version", None)
        content = {
            "Name": table.name,
            "Description": f"ksqlDB {'stream' if len(table.keys) > 1 else 'table'}, kept by the data lake exporter",
            "TableType": "EXTERNAL_TABLE",
            "PartitionKeys": _named(table.keys),
            "StorageDescriptor": table.descriptor(table.location),
            "Parameters": {**kept, **table.parameters, "ksql_lake.sequence": str(table.sequence)},
        }
        if found is None:
            try:
                self.client.create_table(DatabaseName=self.database, TableInput=content)
                return
            except self.client.exceptions.AlreadyExistsException:  # since it was looked for
                there = self.client.get_table(DatabaseName=self.database, Name=table.name)["Table"]
                if there.get("Parameters", {}).get(OURS) != table.parameters[OURS]:
                    raise CatalogError(
                        f"{self.database}.{table.name}: there is such a table, not made from feed "
                        f"{table.parameters[OURS]}; Glue has no capitals in names. Rename the feed, or drop that table"
                    ) from None
        self.client.update_table(DatabaseName=self.database, TableInput=content)

    def _add(self, table: Table, values: Sequence[Values], again: bool = True) -> None:
        there: list[Values] = []
        for some in _chunks(values, CREATE):
            inputs = [self._partition(table, one) for one in some]
            answer = self.client.batch_create_partition(
                DatabaseName=self.database, TableName=table.name, PartitionInputList=inputs
            )
            there += _refused(table, answer, "PartitionValues", "AlreadyExistsException")
        if there and again:
            self._update(table, there, False)

    def _update(self, table: Table, values: Sequence[Values], again: bool = True) -> None:
        missing: list[Values] = []
        for some in _chunks(values, CREATE):
            entries = [{"PartitionValueList": [*one], "PartitionInput": self._partition(table, one)} for one in some]
            answer = self.client.batch_update_partition(
                DatabaseName=self.database, TableName=table.name, Entries=entries
            )
            missing += _refused(table, answer, "PartitionValueList", "EntityNotFoundException")
        if missing and again:
            self._add(table, missing, False)

    def _partition(self, table: Table, values: Values) -> dict[str, Any]:
        return {"Values": [*values], "StorageDescriptor": table.descriptor(table.where(values))}

    def _remember(self, todo: Plan) -> None:
        created = todo.found.created if todo.found else self._created(todo.table.name)
        partitions = {"/".join(values): mark for values, mark in todo.table.partitions.items()}
        self.record[self._key(todo.table.name)] = {"created": created, "partitions": partitions}
        make_dirs((self.lake / RECORD).parent)
        atomic_write(self.lake / RECORD, json.dumps(self.record, indent=1).encode())

    def _created(self, name: str) -> str:
        described = self.client.get_table(DatabaseName=self.database, Name=name)["Table"]
        return str(described["CreateTime"].isoformat())

    def _key(self, name: str) -> str:
        meta = self.client.meta
        return f"{meta.endpoint_url} {meta.region_name} {self.database}.{name}"


@dataclass(frozen=True)
class Outcome:
    """How a registration went: tables that something was sent for, and a line for each that could not be."""

    changed: int
    failures: tuple[str, ...]


def register(registry: Registry, tables: Sequence[Table], say: Callable[[str], None], dry_run: bool) -> Outcome:
    """Bring the catalog in line with the tables, each on its own.

    Args:
        say: gets a line for everything that is sent, or with `dry_run` would be.
    """
    described = registry.tables()
    if described is None:
        say(f"{registry.database}: create database: it is not in the catalog")
        if not dry_run:
            registry.create()
    changed, failures = 0, []
    for table in tables:
        name = f"{registry.database}.{table.name}"
        try:
            todo = plan(table, registry.found((described or {}).get(table.name)))
            if todo and not dry_run:
                registry.send(todo)
        except (LakeError, registry.client.exceptions.ClientError) as error:
            failures.append(f"{name}: {error}")
            continue
        changed += bool(todo)
        for line in todo.lines():
            say(f"{name}: {line}")
    return Outcome(changed, tuple(failures))


def _refused(table: Table, answer: Mapping[str, Any], key: str, passing: str) -> list[Values]:
    """The partitions that a request passed over for a reason that is none; any other reason is an error."""
    passed = []
    for error in answer.get("Errors", ()):
        values, detail = tuple(error[key]), error["ErrorDetail"]
        if detail["ErrorCode"] != passing:
            raise CatalogError(f"partition {'/'.join(values)}: {detail['ErrorCode']}: {detail.get('ErrorMessage', '')}")
        passed.append(values)
    return passed


def _chunks(values: Sequence[Values], size: int) -> Iterator[Sequence[Values]]:
    return (values[at : at + size] for at in range(0, len(values), size))


def _named(columns: Columns) -> list[dict[str, str]]:
    return [{"Name": name, "Type": type_} for name, type_ in columns]


def _pairs(columns: Sequence[Mapping[str, Any]]) -> Columns:
    return tuple((column["Name"], column.get("Type", "")) for column in columns)
