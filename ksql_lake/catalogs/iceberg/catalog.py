"""An Iceberg catalog, REST or SQL, through pyiceberg: one table per feed, over the files where they are.

A registration is one snapshot for everything since the last one: files added, files removed, and the feed's sequence
number among its properties. Which files a table has is remembered in `.state/iceberg.json` for the snapshot
that made it so, and read from the table's manifests when it has another one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ksql_lake import __version__
from ksql_lake.base.errors import CatalogError, ConfigError
from ksql_lake.catalogs.iceberg.plan import BY_DAY, LOCATION, FileTable, wanted_files
from ksql_lake.catalogs.iceberg.types import iceberg_schema, text_of
from ksql_lake.catalogs.record import Record, key_of
from ksql_lake.catalogs.tables import OURS, Columns, Found, Plan, Table, Values
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import FeedState
from ksql_lake.store.layout import catalog_record

NAME = "ksql_lake"  # of the catalog in pyiceberg's settings, such as PYICEBERG_CATALOG__KSQL_LAKE__TOKEN
SEQUENCE = "ksql_lake.sequence"  # of each snapshot
DAY = "ksql_lake_day"  # the partition field
MAPPING = "schema.name-mapping.default"
SNAPSHOTS = 1000  # of a table; when there are more, the older half is removed
PROPERTIES = {
    "gc.enabled": "false",  # keeps expire_snapshots and DROP TABLE ... PURGE from deleting the lake's files
    "commit.manifest-merge.enabled": "true",  # a hundred small ones become one
    "commit.manifest.target-size-bytes": str(1 << 20),  # a large one is not written again
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}
_EPOCH = dt.date(1970, 1, 1)


@dataclass
class Iceberg:
    """A namespace of an Iceberg catalog.

    Args:
        uri: http(s)://... of a REST catalog, or an SQLAlchemy URL such as sqlite:////var/lib/catalog.db.
        warehouse: where the catalog's own files go, unless the catalog decides that itself.

    Raises:
        ConfigError: pyiceberg is missing, or what it needs to connect.
    """

    uri: str
    lake: Path
    database: str
    warehouse: str | None = None
    record: Record = field(init=False)
    catalog: Any = field(init=False)
    tables: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        try:
            from pyiceberg.catalog import load_catalog
        except ImportError:
            raise ConfigError("--register iceberg needs pyiceberg: pip install -r requirements-iceberg.txt") from None
        self.record = Record(catalog_record(self.lake, "iceberg"))
        rest = self.uri.startswith(("http://", "https://"))
        given = {"type": "rest" if rest else "sql", "uri": self.uri}
        try:
            self.catalog = load_catalog(NAME, **given, **({"warehouse": self.warehouse} if self.warehouse else {}))
        except (ImportError, ValueError) as error:  # no driver of that name; a URL that is none
            raise ConfigError(f"{self.uri}: {error}") from None
        if not rest and "warehouse" not in self.catalog.properties:
            raise ConfigError(
                "--register iceberg with an SQL catalog needs --warehouse URI: where the tables' metadata go, such as "
                "file:///srv/warehouse"
            )

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        return catalog_errors()

    def wanted(self, feed: str, state: FeedState, root: str, remote: str | None) -> Sequence[Table]:
        return wanted_files(feed, state, root, remote)

    def open(self, names: Sequence[str]) -> bool:
        from pyiceberg.exceptions import NoSuchTableError

        if (self.database,) not in self.catalog.list_namespaces():
            return False
        for name in names:
            try:
                self.tables[name] = self.catalog.load_table((self.database, name))
            except NoSuchTableError:
                continue
        return True

    def create(self) -> None:
        self.catalog.create_namespace_if_not_exists((self.database,))

    def found(self, name: str) -> Found | None:
        table = self.tables.get(name)
        if table is None:
            return None
        ours = OURS in table.properties
        snapshot = table.current_snapshot()
        if ours and snapshot is not None and not (snapshot.summary and snapshot.summary.get(SEQUENCE)):
            raise CatalogError(
                f"its snapshot {snapshot.snapshot_id} was not written by this tool; drop the table in the catalog (the "
                "files stay) and register again"
            )
        known = self.record.partitions(self._key(name), _made(table))
        keys = BY_DAY if table.spec().fields else ()
        return Found(
            _made(table), tuple((column.name, text_of(column.field_type)) for column in table.schema().fields),
            table.properties.get(LOCATION, ""), table.properties, keys, _files(table) if known is None else known,
        )

    def apply(self, todo: Plan) -> None:
        table = todo.table
        assert isinstance(table, FileTable)
        if todo.found is None:
            self.tables[table.name] = self._create(table)
        made = self.tables[table.name]
        with made.transaction() as change:
            if todo.found is not None and todo.reasons:
                _alter(change, table, todo.found.columns)
                change.set_properties(dict(table.parameters))
            if todo.found is None or todo.new or todo.gone:
                _commit(change, made, table, todo)
        _expire(made)
        self.record.remember(self._key(table.name), _made(made), todo)

    def drop(self, name: str) -> None:
        self.catalog.drop_table((self.database, name))
        self.record.forget(self._key(name))

    def _create(self, table: FileTable) -> Any:
        from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
        from pyiceberg.transforms import DayTransform

        schema = iceberg_schema(table.types)
        spec = UNPARTITIONED_PARTITION_SPEC
        if table.keys:
            source = schema.find_field("ROWTIME").field_id
            spec = PartitionSpec(PartitionField(source_id=source, field_id=1000, transform=DayTransform(), name=DAY))
        made = self.catalog.create_table(
            (self.database, table.name), schema, partition_spec=spec,
            properties={**PROPERTIES, **table.parameters, "comment": "kept by the data lake exporter"},
        )
        with made.transaction() as change:
            change.set_properties(_mapping(made.schema()))
        return made

    def _key(self, name: str) -> str:
        return key_of(self.uri, self.database, name)


def catalog_errors() -> tuple[type[Exception], ...]:
    """What pyiceberg and SQLAlchemy raise when a catalog refuses something; an OSError means that none answers."""
    from pyiceberg import exceptions

    own = tuple(one for one in vars(exceptions).values() if isinstance(one, type) and issubclass(one, Exception))
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # then there is no SQL catalog
        return (*own, ValueError)
    return (*own, SQLAlchemyError, ValueError)


def _mapping(schema: Any) -> dict[str, str]:
    """The mapping of names to columns: the files have no column ids."""
    return {MAPPING: schema.name_mapping.model_dump_json()}


def _made(table: Any) -> str:
    """Text that changes when a table was created again, or when another tool wrote to it."""
    snapshot = table.current_snapshot()
    return f"{table.metadata.table_uuid} {snapshot.snapshot_id if snapshot else 'empty'}"


def _files(table: Any) -> dict[Values, str]:
    """The whole paths of a table's files, from its manifests."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else ()
    entries = (entry for one in manifests for entry in one.fetch_manifest_entry(table.io, discard_deleted=True))
    return {tuple(entry.data_file.file_path.split("/")): "" for entry in entries}


def _alter(change: Any, table: FileTable, before: Columns) -> None:
    """Add the columns that were added later, and remove those that the feed does not have.

    Raises:
        CatalogError: a column has another type than the feed's.
    """
    there = dict(before)
    for name, text in table.columns:
        if there.get(name, text) != text:
            raise CatalogError(f"column {name} is {there[name]} in the catalog and {text} in the feed; drop the table")
    new = {name: kind for name, kind in table.types.items() if name not in there}
    gone = [name for name in there if name not in table.types]
    if new or gone:
        with change.update_schema(allow_incompatible_changes=True) as update:
            for name in gone:
                update.delete_column((name,))
            for column in iceberg_schema(new).fields:
                update.add_column((column.name,), column.field_type)
        change.set_properties(_mapping(change.table_metadata.schema()))  # pyiceberg's own lacks what is nested


def _commit(change: Any, made: Any, table: FileTable, todo: Plan) -> None:
    """Write one snapshot: add the new files and remove those that are gone."""
    properties = {SEQUENCE: str(table.sequence), "engine-name": NAME, "engine-version": __version__}
    update = change.update_snapshot(snapshot_properties=properties)
    with (update.overwrite() if todo.gone else update.merge_append()) as snapshot:
        for values in todo.gone:
            day = parse_day("/".join(values[-4:-1])) if table.keys else None
            snapshot.delete_data_file(_data_file(made, values, day))
        for values in todo.new:
            file = table.files[values]
            day = _day(table, file) if table.keys else None
            snapshot.append_data_file(_data_file(made, values, day, file))


def _day(table: FileTable, file: FileEntry) -> dt.date:
    """The day of a file, which is that of all its rows.

    Raises:
        CatalogError: it holds times beyond the years 1 to 9999, which lie in the first or the last directory there is.
    """
    day = parse_day(file.partition)
    spans = [time // 86_400_000 for time in (file.rowtime_min, file.rowtime_max) if time is not None]
    if day is None or any(span != (day - _EPOCH).days for span in spans):
        raise CatalogError(
            f"{file.path}: holds rows of other days than its directory says (years before 1 or after 9999), which "
            "cannot be in a table by days"
        )
    return day


def _data_file(made: Any, values: Values, day: dt.date | None, file: FileEntry | None = None) -> Any:
    """A file's entry for a manifest, from the metadata alone: the file is not opened."""
    from pyiceberg.conversions import to_bytes
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.typedef import Record as Row
    from pyiceberg.types import TimestamptzType

    bounds: dict[str, Any] = {}
    if file is not None and file.rowtime_min is not None and file.rowtime_max is not None:
        number = made.schema().find_field("ROWTIME").field_id
        low, high = (to_bytes(TimestamptzType(), time * 1000) for time in (file.rowtime_min, file.rowtime_max))
        bounds = {
            "lower_bounds": {number: low}, "upper_bounds": {number: high}, "null_value_counts": {number: 0},
            "value_counts": {number: file.rows},
        }
    made_of = DataFile.from_args(
        content=DataFileContent.DATA, file_path="/".join(values), file_format=FileFormat.PARQUET,
        partition=Row() if day is None else Row((day - _EPOCH).days), record_count=file.rows if file else 0,
        file_size_in_bytes=file.bytes if file else 0, **bounds,
    )
    made_of.spec_id = made.spec().spec_id
    return made_of


def _expire(table: Any) -> None:
    """Drop the oldest of many snapshots: each change writes the table's description, which holds them all."""
    snapshots: Iterable[Any] = sorted(table.snapshots(), key=lambda one: one.timestamp_ms)
    oldest = [one.snapshot_id for one in snapshots][: -SNAPSHOTS // 2]
    if len(table.snapshots()) > SNAPSHOTS:
        table.maintenance.expire_snapshots().by_ids(oldest).commit()
