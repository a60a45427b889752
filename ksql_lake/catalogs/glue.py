"""An AWS Glue catalog: NAME is a stream or a table's current version, NAME_versions all versions.

Tables are requested every time. Partitions, of which there may be thousands, are remembered in `.state/glue.json` and
requested again when the table is not the one that was remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import CatalogError
from ksql_lake.catalogs.record import Record, key_of
from ksql_lake.catalogs.tables import OURS, Columns, Found, Plan, Style, Table, Values, fingerprint, wanted
from ksql_lake.model.state import FeedState
from ksql_lake.store.layout import catalog_record

CREATE, DELETE = 100, 25  # partitions that one request of Glue takes
FORMAT = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}
STYLE = Style(times=False, current=True)


@dataclass
class Glue:
    """A Glue database and what was sent to it before.

    Args:
        client: of boto3, for Glue. Its errors are raised as they are, but for those named here.
        database: in lower case.
    """

    client: Any
    lake: Path
    database: str
    style: Style = STYLE
    record: Record = field(init=False)
    described: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.record = Record(catalog_record(self.lake, "glue"))

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return (self.client.exceptions.ClientError,)

    def wanted(self, feed: str, state: FeedState, root: str, remote: str | None) -> Sequence[Table]:
        return wanted(feed, state, root, self.style, remote)

    def open(self, names: Sequence[str]) -> bool:
        """Ask for all tables at once: a request for a hundred."""
        try:
            pages = self.client.get_paginator("get_tables").paginate(DatabaseName=self.database)
            self.described = {table["Name"]: table for page in pages for table in page["TableList"]}
        except self.client.exceptions.EntityNotFoundException:
            return False
        return True

    def create(self) -> None:
        try:
            self.client.create_database(DatabaseInput={"Name": self.database})
        except self.client.exceptions.AlreadyExistsException:
            pass

    def found(self, name: str) -> Found | None:
        """A table with its partitions: the remembered ones when it is the table that was remembered."""
        described = self.described.get(name)
        if described is None:
            return None
        storage = described.get("StorageDescriptor", {})
        created = described["CreateTime"].isoformat()
        keys = _pairs(described.get("PartitionKeys", ()))
        partitions = self.record.partitions(self._key(name), created) if keys else {}
        return Found(
            created, _pairs(storage.get("Columns", ())), storage.get("Location", ""), described.get("Parameters", {}),
            keys, self._partitions(name) if partitions is None else partitions,
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

    def apply(self, todo: Plan) -> None:
        table = todo.table
        if todo.reasons:
            self._put(todo)
        for some in _chunks(todo.gone, DELETE):  # first, because the same files may come again under other values
            answer = self.client.batch_delete_partition(
                DatabaseName=self.database, TableName=table.name, PartitionsToDelete=[{"Values": [*v]} for v in some]
            )
            _refused(answer, "PartitionValues", "EntityNotFoundException")
        self._add(table, todo.new)
        self._update(table, todo.changed)
        created = todo.found.created if todo.found else self._created(table.name)
        self.record.remember(self._key(table.name), created, todo)

    def drop(self, name: str) -> None:
        try:
            self.client.delete_table(DatabaseName=self.database, Name=name)
        except self.client.exceptions.EntityNotFoundException:
            pass
        self.record.forget(self._key(name))

    def _put(self, todo: Plan) -> None:
        table = todo.table
        content = {
            "Name": table.name,
            "Description": table.description,
            "TableType": "EXTERNAL_TABLE",
            "PartitionKeys": _named(table.keys),
            "StorageDescriptor": _storage(table, table.location),
            "Parameters": todo.parameters,
        }
        if todo.found is None:
            try:
                self.client.create_table(DatabaseName=self.database, TableInput=content)
                return
            except self.client.exceptions.AlreadyExistsException:  # since it was looked for
                there = self.client.get_table(DatabaseName=self.database, Name=table.name)["Table"]
                if there.get("Parameters", {}).get(OURS) != table.parameters[OURS]:
                    raise CatalogError(
                        f"{self.database}.{table.name}: there is already a table of this name, not made from feed "
                        f"{table.parameters[OURS]}; Glue ignores case in names. Rename the feed, or drop that table"
                    ) from None
        self.client.update_table(DatabaseName=self.database, TableInput=content)

    def _add(self, table: Table, values: Sequence[Values], again: bool = True) -> None:
        there: list[Values] = []
        for some in _chunks(values, CREATE):
            inputs = [_partition(table, one) for one in some]
            answer = self.client.batch_create_partition(
                DatabaseName=self.database, TableName=table.name, PartitionInputList=inputs
            )
            there += _refused(answer, "PartitionValues", "AlreadyExistsException")
        if there and again:
            self._update(table, there, False)

    def _update(self, table: Table, values: Sequence[Values], again: bool = True) -> None:
        missing: list[Values] = []
        for some in _chunks(values, CREATE):
            entries = [{"PartitionValueList": [*one], "PartitionInput": _partition(table, one)} for one in some]
            answer = self.client.batch_update_partition(
                DatabaseName=self.database, TableName=table.name, Entries=entries
            )
            missing += _refused(answer, "PartitionValueList", "EntityNotFoundException")
        if missing and again:
            self._add(table, missing, False)

    def _created(self, name: str) -> str:
        described = self.client.get_table(DatabaseName=self.database, Name=name)["Table"]
        return str(described["CreateTime"].isoformat())

    def _key(self, name: str) -> str:
        meta = self.client.meta
        return key_of(f"{meta.endpoint_url} {meta.region_name}", self.database, name)


def _storage(table: Table, location: str) -> dict[str, Any]:
    """Glue's StorageDescriptor."""
    return {"Columns": _named(table.columns), "Location": location, **FORMAT}


def _partition(table: Table, values: Values) -> dict[str, Any]:
    return {"Values": [*values], "StorageDescriptor": _storage(table, table.where(values))}


def _refused(answer: Mapping[str, Any], key: str, passing: str) -> list[Values]:
    """The partitions that a request skipped for a harmless reason; any other reason is an error."""
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
