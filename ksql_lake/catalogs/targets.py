"""Which catalogs follow the lake: the kinds there are, what REGISTER says, connections to Glue and Hive metastores."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ksql_lake.base.errors import CatalogError, ConfigError, LakeError
from ksql_lake.base.settings import local_path
from ksql_lake.catalogs.catalog import Catalog
from ksql_lake.catalogs.ddl import DIALECTS
from ksql_lake.catalogs.sql_text import SqlText
from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.remote.places import sql_root

_GLUE = re.compile(r"glue:([^/?]+)(?:\?(.*))?")
_HIVE = re.compile(r"hive:(thrift://[^/?]+)/([^/?]+)(?:\?(.*))?")
_SQL = re.compile(r"sql:([a-z]+):([/~][^?]*)(?:\?(.*))?")
_ICEBERG = re.compile(r"iceberg:([a-z][a-z0-9+]*://[^?]*)/([^/?]+)(?:\?(.*))?")


@dataclass(frozen=True)
class Target:
    """One database of a catalog of Hive tables; a `Catalog`.

    Attributes:
        kind: "glue", "hive" or "iceberg".
        uri: of a Hive metastore, or of an Iceberg catalog.
        location: where queries find the lake, such as s3://bucket/lake; None for its place on this machine.
        warehouse: Iceberg: where the catalog's own files go, unless the catalog decides that itself.
        times: Hive: keep columns of type TIME, which Spark reads and Trino does not.
    """

    kind: str
    database: str
    uri: str = ""
    location: str | None = None
    times: bool = True
    warehouse: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.uri}/{self.database}" if self.uri else f"{self.kind}:{self.database}"

    @property
    def name(self) -> str:
        return str(self)

    def apply(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        """Compare and send what is missing, whatever changed."""
        self.rebuild(dataset, state)

    def rebuild(self, dataset: Dataset, state: FeedState) -> None:
        failures = register_with(self, dataset.lake, {dataset.feed: state}, lambda line: None, wait=True)[1]
        if failures:
            raise CatalogError("; ".join(failures))


def checked_location(location: str | None) -> str | None:
    """The location; raises ConfigError unless it is a URI."""
    if location and not re.match(r"[a-z][a-z0-9]*://", location):
        raise ConfigError(f"--location is {location!r}; expected a URI such as s3://bucket/lake")
    return location or None


@contextlib.contextmanager
def connected(target: Target, lake: Path, *, wait: bool = False) -> Iterator[Any]:
    """The catalog of a target, for one registration at a time.

    Raises:
        ConfigError: an optional package, or what it needs to connect, is missing.
        CatalogError: the catalog does not answer, or not as expected.
        LakeBusyError: another registration is running.
    """
    opened = {"glue": _glue, "hive": _hive, "iceberg": _iceberg}[target.kind]
    lock = layout.catalog_lock(lake, target.kind)
    with storage_of(lake).lock(lock, f"the {target.kind} catalog", wait=wait):
        with opened(target, lake) as catalog:
            yield catalog


@contextlib.contextmanager
def _glue(target: Target, lake: Path) -> Iterator[Any]:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ConfigError("--register glue needs boto3: pip install -r requirements-glue.txt") from None
    from ksql_lake.catalogs.glue import Glue

    try:
        client = boto3.client("glue")
    except (BotoCoreError, ValueError) as error:  # no region, no profile of that name, a wrong endpoint
        raise ConfigError(f"Glue: {_one_line(error)}") from None
    try:
        yield Glue(client, lake, target.database)
    except (BotoCoreError, ClientError) as error:  # no credentials, no permission, no connection
        raise CatalogError(f"Glue: {_one_line(error)}") from None


@contextlib.contextmanager
def _hive(target: Target, lake: Path) -> Iterator[Any]:
    from ksql_lake.catalogs.metastore import Metastore
    from ksql_lake.catalogs.tables import Style

    catalog = Metastore(target.uri, lake, target.database, Style(target.times, current=True, text_keys=True))
    try:
        yield catalog
    except catalog.errors as error:
        raise CatalogError(f"{target.uri}: {_one_line(error)}") from None
    except OSError as error:
        if error.filename:  # of the lake
            raise
        raise CatalogError(f"{target.uri}: {_one_line(error)}") from None
    finally:
        catalog.close()


@contextlib.contextmanager
def _iceberg(target: Target, lake: Path) -> Iterator[Any]:
    from ksql_lake.catalogs.iceberg.catalog import Iceberg, catalog_errors

    try:
        yield Iceberg(target.uri, lake, target.database, target.warehouse)
    except LakeError:  # also where pyiceberg is missing, and what it raises is not known
        raise
    except catalog_errors() as error:
        raise CatalogError(f"{target.uri}: {_one_line(error)}") from None
    except OSError as error:
        if error.filename:  # of the lake
            raise
        raise CatalogError(f"{target.uri}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def register_with(
    target: Target, lake: Path, states: Mapping[str, FeedState], say: Callable[[str], None], *, dry_run: bool = False,
    wait: bool = False,
) -> tuple[int, list[str]]:
    """Register feeds; a failure of one does not stop the others.

    Returns:
        How many tables were changed, and a line for each failure.

    Raises:
        ConfigError, CatalogError: nothing could be sent.
    """
    with connected(target, lake, wait=wait) as catalog:
        from ksql_lake.catalogs.registration import register

        feeds, failures = [], []
        for name, state in states.items():
            try:
                root = target.location or lake.as_uri()
                feeds.append(catalog.wanted(name, state, root, sql_root(lake, target.kind, os.environ)))
            except LakeError as error:
                failures.append(f"{target.database}.{name}: {error}")
        done = register(catalog, feeds, say, dry_run)
        return done.changed, [*failures, *done.failures]


def _glue_named(text: str) -> Target:
    (database,), more = _parts(text, _GLUE, "location", "without-time")
    return Target("glue", database.lower(), "", checked_location(more.get("location")), False)


def _hive_named(text: str) -> Target:
    (uri, database), more = _parts(text, _HIVE, "location", "without-time")
    return Target("hive", database.lower(), uri, checked_location(more.get("location")), "without-time" not in more)


def _iceberg_named(text: str) -> Target:
    (uri, database), more = _parts(text, _ICEBERG, "location", "warehouse")
    location, warehouse = (checked_location(more.get(name)) for name in ("location", "warehouse"))
    return Target("iceberg", database.lower(), uri, location, False, warehouse)


def _sql_named(text: str) -> SqlText:
    (dialect, file), more = _parts(text, _SQL, "location")
    if dialect not in DIALECTS:
        raise ConfigError(f"REGISTER: {text!r} has the dialect {dialect}; expected {', '.join(DIALECTS)}")
    return SqlText(dialect, local_path("REGISTER", file), checked_location(more.get("location")))


def _parts(text: str, form: re.Pattern[str], *known: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """One part of REGISTER: the fields before the question mark, and the options after it."""
    found = form.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"REGISTER is {text!r}; expected {_forms()}, each with ?location=s3://bucket/lake where queries find the "
            "lake somewhere else"
        )
    *parts, options = found.groups()
    more = dict(parse_qsl(options or "", keep_blank_values=True))
    if unknown := more.keys() - set(known):
        raise ConfigError(f"REGISTER: {text!r} has {', '.join(sorted(unknown))}; expected {' or '.join(known)}")
    return tuple(parts), more


@dataclass(frozen=True)
class Kind:
    """A kind of catalog: how REGISTER names one, and the catalog that such a text means.

    `named` gets the whole text and raises ConfigError where it is wrong.
    """

    form: str
    named: Callable[[str], Catalog]


# Every kind of catalog, by the word before the first colon. A new one is a class (catalog.py) and a line here.
KINDS: dict[str, Kind] = {
    "hive": Kind("hive:thrift://HOST:PORT/DATABASE", _hive_named),
    "glue": Kind("glue:DATABASE", _glue_named),
    "iceberg": Kind("iceberg:URI/DATABASE", _iceberg_named),
    "sql": Kind("sql:DIALECT:/FILE", _sql_named),
}


def parse(text: str) -> tuple[Catalog, ...]:
    """The catalogs of REGISTER, such as `hive:thrift://localhost:9083/lake,glue:lake?location=s3://bucket/lake`.

    Raises:
        ConfigError: says which part is wrong.
    """
    return tuple(_catalog(part.strip()) for part in text.split(",") if part.strip())


def _catalog(text: str) -> Catalog:
    kind = KINDS.get(text.partition(":")[0])
    if kind is None:
        raise ConfigError(f"REGISTER is {text!r}; expected {_forms()}")
    return kind.named(text)


def _forms() -> str:
    return " or ".join(kind.form for kind in KINDS.values())
