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
from ksql_lake.catalogs.catalog import Catalog
from ksql_lake.model.change import Change
from ksql_lake.model.state import FeedState
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.remote.places import sql_root

_GLUE = re.compile(r"glue:([^/?]+)(?:\?(.*))?")
_HIVE = re.compile(r"hive:(thrift://[^/?]+)/([^/?]+)(?:\?(.*))?")


@dataclass(frozen=True)
class Target:
    """One database of a catalog that keeps tables in Hive's words; a `Catalog`.

    Attributes:
        kind: "glue" or "hive".
        uri: of a Hive metastore.
        location: where the lake lies for those who query, such as s3://bucket/lake; None for where it lies here.
        times: Hive: keep columns of type TIME, which Spark reads and Trino does not.
    """

    kind: str
    database: str
    uri: str = ""
    location: str | None = None
    times: bool = True

    def __str__(self) -> str:
        return f"{self.kind}:{self.uri}/{self.database}" if self.uri else f"{self.kind}:{self.database}"

    @property
    def name(self) -> str:
        return str(self)

    def apply(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        """What the catalog lacks is found by comparing, whatever changed."""
        self.rebuild(dataset, state)

    def rebuild(self, dataset: Dataset, state: FeedState) -> None:
        failures = register_with(self, dataset.lake, {dataset.feed: state}, lambda line: None, wait=True)[1]
        if failures:
            raise CatalogError("; ".join(failures))


def checked_location(location: str | None) -> str | None:
    """Raises ConfigError for what is no URI."""
    if location and not re.match(r"[a-z][a-z0-9]*://", location):
        raise ConfigError(f"--location is {location!r}; expected a URI such as s3://bucket/lake")
    return location or None


@contextlib.contextmanager
def connected(target: Target, lake: Path, *, wait: bool = False) -> Iterator[Any]:
    """The catalog of a target, for one registration at a time.

    Raises:
        ConfigError: an optional package is missing, or what it needs to connect.
        CatalogError: nobody answers, or not as expected.
        LakeBusyError: another registration is at it.
    """
    opened = _glue if target.kind == "glue" else _hive
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
    except (BotoCoreError, ValueError) as error:  # no region, no profile of that name, an endpoint that is no URL
        raise ConfigError(f"Glue: {_one_line(error)}") from None
    try:
        yield Glue(client, lake, target.database)
    except (BotoCoreError, ClientError) as error:  # no credentials, no permission, no way there
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def register_with(
    target: Target, lake: Path, states: Mapping[str, FeedState], say: Callable[[str], None], *, dry_run: bool = False,
    wait: bool = False,
) -> tuple[int, list[str]]:
    """Register feeds; one that cannot be is told and does not stop the others.

    Returns:
        Tables that something was sent for, and a line for each failure.

    Raises:
        ConfigError, CatalogError: nothing could be sent.
    """
    with connected(target, lake, wait=wait) as catalog:
        from ksql_lake.catalogs.registration import register
        from ksql_lake.catalogs.tables import wanted

        feeds, failures = [], []
        for name, state in states.items():
            try:
                root = target.location or lake.as_uri()
                feeds.append(wanted(name, state, root, catalog.style, sql_root(lake, target.kind, os.environ)))
            except LakeError as error:
                failures.append(f"{target.database}.{name}: {error}")
        done = register(catalog, feeds, say, dry_run)
        return done.changed, [*failures, *done.failures]


def _named_tables(text: str) -> Target:
    hive, glue = _HIVE.fullmatch(text), _GLUE.fullmatch(text)
    if not hive and not glue:
        raise ConfigError(
            f"REGISTER is {text!r}; expected {_forms()}, each with ?location=s3://bucket/lake where queries find the "
            "lake somewhere else"
        )
    more = dict(parse_qsl((hive[3] if hive else glue[2] if glue else "") or "", keep_blank_values=True))
    unknown = more.keys() - {"location", "without-time"}
    if unknown:
        raise ConfigError(f"REGISTER: {text!r} has {', '.join(sorted(unknown))}; known are location and without-time")
    location, times = more.get("location"), "without-time" not in more
    if hive:
        return Target("hive", hive[2].lower(), hive[1], checked_location(location), times)
    assert glue
    return Target("glue", glue[1].lower(), "", checked_location(location), False)


@dataclass(frozen=True)
class Kind:
    """A kind of catalog: how REGISTER names one, and the catalog that such a text means.

    `named` gets the whole text and raises ConfigError where it is wrong.
    """

    form: str
    named: Callable[[str], Catalog]


# Every kind of catalog, by the word before the first colon. A new one is a class (catalog.py) and a line here.
KINDS: dict[str, Kind] = {
    "hive": Kind("hive:thrift://HOST:PORT/DATABASE", _named_tables),
    "glue": Kind("glue:DATABASE", _named_tables),
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
