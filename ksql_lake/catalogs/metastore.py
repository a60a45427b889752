"""A Hive metastore over plain Thrift: NAME is a stream or a table's current version, NAME_versions all versions.

Partitions are remembered in `.state/hive.json`, as for Glue. SASL, Kerberos and TLS are not supported.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ksql_lake.base.errors import CatalogError, ConfigError
from ksql_lake.catalogs.record import Record, key_of
from ksql_lake.catalogs.tables import Columns, Found, Plan, Style, Table, Values, fingerprint, wanted
from ksql_lake.model.state import FeedState
from ksql_lake.store.layout import catalog_record

AT_ONCE = 500  # partitions in one call
TIMEOUT = 60_000  # ms for one answer
PORT = 9083
IDENTITY = "ksql_lake.id"  # the parameter that reveals a table that was dropped and created again
FORMAT = "org.apache.hadoop.hive.ql.io.parquet.MapredParquet"
SERDE = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"


@dataclass
class Metastore:
    """A database of a Hive metastore, 3 or 4.

    Args:
        uri: thrift://host:port.
        database: in lower case.
        style: `times`: whether columns of type TIME stay, as int.

    Raises:
        ConfigError: the URI is wrong, or pymetastore is not installed.
        CatalogError: no metastore answers there.
    """

    uri: str
    lake: Path
    database: str
    style: Style = Style(times=True, current=True, text_keys=True)
    record: Record = field(init=False)
    tables: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.record = Record(catalog_record(self.lake, "hive"))
        try:
            from pymetastore.hive_metastore import ThriftHiveMetastore, ttypes
            from thrift.protocol import TBinaryProtocol
            from thrift.transport import TSocket, TTransport
        except ImportError:
            raise ConfigError("--register hive needs pymetastore: pip install -r requirements-hive.txt") from None
        self.types: Any = ttypes
        socket = TSocket.TSocket(*address(self.uri))
        socket.setTimeout(TIMEOUT)
        self.transport: Any = TTransport.TBufferedTransport(socket)
        self.client: Any = ThriftHiveMetastore.Client(TBinaryProtocol.TBinaryProtocol(self.transport))
        try:
            self.transport.open()
        except TTransport.TTransportException as error:
            raise CatalogError(f"{self.uri}: no metastore answers there ({_one_line(error)})") from None

    def close(self) -> None:
        self.transport.close()

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        from thrift.Thrift import TException

        return (TException,)

    def wanted(self, feed: str, state: FeedState, root: str, remote: str | None) -> Sequence[Table]:
        return wanted(feed, state, root, self.style, remote)

    def open(self, names: Sequence[str]) -> bool:
        try:
            self.client.get_database(self.database)
        except self.types.NoSuchObjectException:
            return False
        there = set(self.client.get_all_tables(self.database)).intersection(names)
        for name in there:
            request = self.types.GetTableRequest(dbName=self.database, tblName=name)
            self.tables[name] = self.client.get_table_req(request).table
        return True

    def create(self) -> None:
        try:
            self.client.create_database(self.types.Database(name=self.database, parameters={}))
        except self.types.AlreadyExistsException:
            pass

    def found(self, name: str) -> Found | None:
        table = self.tables.get(name)
        if table is None:
            return None
        created = _created(table)
        partitions = self.record.partitions(self._key(name), created) if table.partitionKeys else {}
        return Found(
            created, _pairs(table.sd.cols), table.sd.location or "", table.parameters or {},
            _pairs(table.partitionKeys or ()), self._partitions(name) if partitions is None else partitions,
        )

    def _partitions(self, name: str) -> dict[Values, str]:
        names = self.client.get_partition_names(self.database, name, -1)
        found = {}
        for some in _chunks(names):
            for one in self.client.get_partitions_by_names(self.database, name, some):
                found[tuple(one.values)] = fingerprint(_pairs(one.sd.cols), one.sd.location or "")
        return found

    def apply(self, todo: Plan) -> None:
        table = todo.table
        if todo.reasons:
            self._put(todo)
        for values in todo.gone:  # first, because the same files may come again under other values
            self._gone(self.client.drop_partition, table.name, [*values], False)
        for some in _chunks(todo.new):
            request = self.types.AddPartitionsRequest(
                dbName=self.database, tblName=table.name, parts=[self._partition(table, one) for one in some],
                ifNotExists=True, needResult=False,
            )
            self.client.add_partitions_req(request)
        for some in _chunks(todo.changed):
            self.client.alter_partitions(self.database, table.name, [self._partition(table, one) for one in some])
        created = todo.found.created if todo.found else _created(self._described(table.name))
        self.record.remember(self._key(table.name), created, todo)

    def drop(self, name: str) -> None:
        self._gone(self.client.drop_table, name, False)
        self.record.forget(self._key(name))

    def _gone(self, call: Callable[..., Any], *what: Any) -> None:
        """Drop the partition if it is there. The last argument says whether to delete files: the lake keeps them."""
        try:
            call(self.database, *what)
        except self.types.NoSuchObjectException:
            pass

    def _put(self, todo: Plan) -> None:
        table = todo.table
        content = self.types.Table(
            tableName=table.name, dbName=self.database, owner="ksql_lake", createTime=0, lastAccessTime=0, retention=0,
            sd=self._storage(table, table.location), partitionKeys=self._fields(table.keys),
            parameters={IDENTITY: secrets.token_hex(8), **todo.parameters, "comment": table.description},
            tableType="EXTERNAL_TABLE",
        )
        if todo.found is None:
            self.client.create_table(content)
            return
        there = self.tables[table.name]
        content.createTime, content.owner = there.createTime, there.owner
        context = self.types.EnvironmentContext(properties={"DO_NOT_UPDATE_STATS": "true"})
        self.client.alter_table_with_environment_context(self.database, table.name, content, context)

    def _described(self, name: str) -> Any:
        return self.client.get_table_req(self.types.GetTableRequest(dbName=self.database, tblName=name)).table

    def _partition(self, table: Table, values: Values) -> Any:
        return self.types.Partition(
            values=[*values], dbName=self.database, tableName=table.name, createTime=0, lastAccessTime=0,
            sd=self._storage(table, table.where(values)), parameters={"DO_NOT_UPDATE_STATS": "true"},
        )

    def _storage(self, table: Table, location: str) -> Any:
        serde = self.types.SerDeInfo(
            name=table.name, serializationLib=SERDE, parameters={"serialization.format": "1"}
        )
        return self.types.StorageDescriptor(
            cols=self._fields(table.columns), location=location.rstrip("/"), inputFormat=f"{FORMAT}InputFormat",
            outputFormat=f"{FORMAT}OutputFormat", compressed=False, numBuckets=-1, serdeInfo=serde, bucketCols=[],
            sortCols=[], parameters={}, storedAsSubDirectories=False,
        )

    def _fields(self, columns: Columns) -> list[Any]:
        return [self.types.FieldSchema(name=name, type=type_, comment=None) for name, type_ in columns]

    def _key(self, name: str) -> str:
        return key_of(self.uri, self.database, name)


def _created(table: Any) -> str:
    return str((table.parameters or {}).get(IDENTITY, table.createTime))


def address(uri: str) -> tuple[str, int]:
    """Host and port of thrift://host:port.

    Raises:
        ConfigError: it is not such a URI.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port or PORT
    except ValueError:
        parts, port = urlsplit(""), PORT
    if parts.scheme != "thrift" or not parts.hostname or parts.path not in ("", "/"):
        raise ConfigError(f"--uri is {uri!r}; expected the address of the metastore, such as thrift://localhost:9083")
    return parts.hostname, port


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[at : at + AT_ONCE] for at in range(0, len(values), AT_ONCE))


def _pairs(columns: Sequence[Any]) -> Columns:
    return tuple((column.name, column.type) for column in columns)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
