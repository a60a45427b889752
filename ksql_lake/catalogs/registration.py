"""Registering tables with a database of Glue or of a Hive metastore: the same plan for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ksql_lake.base.errors import LakeError
from ksql_lake.catalogs.tables import OURS, Found, Plan, Table, former_name, had_all_versions, plan
from ksql_lake.model.state import FeedState


class Database(Protocol):
    """A database of a catalog, which holds tables of partitions or of files.

    Everything it raises, of whatever library, is a `LakeError` or in `errors`.
    """

    database: str

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What its library raises when a table is refused."""

    def wanted(self, feed: str, state: FeedState, root: str, remote: str | None) -> Sequence[Table]:
        """The tables of a feed as its metadata want them.

        Args:
            root: where queries find the lake, such as s3://bucket/lake.
            remote: the place of files that are not on the lake's disk, in the form of the catalog's engines.

        Raises:
            LakeError: the catalog cannot hold this feed.
        """

    def open(self, names: Sequence[str]) -> bool:
        """Ask for these tables; False where there is no such database."""

    def create(self) -> None:
        """Create the database if it is still missing."""

    def found(self, name: str) -> Found | None:
        """One of the tables asked for, with its partitions."""

    def apply(self, todo: Plan) -> None:
        """Carry out the changes of one table, and remember that they were made."""

    def drop(self, name: str) -> None:
        """Drop a table; the files stay, since it is external."""


@dataclass(frozen=True)
class Outcome:
    """The result of a registration: how many tables were changed, and a line for each that failed."""

    changed: int
    failures: tuple[str, ...]


def register(
    catalog: Database, feeds: Sequence[Sequence[Table]], say: Callable[[str], None], dry_run: bool = False
) -> Outcome:
    """Bring the catalog up to date with the tables of some feeds, each feed separately.

    Args:
        say: gets a line for everything that is sent, or with `dry_run` would be.
    """
    names = {table.name for tables in feeds for table in tables} | {former_name(tables) for tables in feeds if tables}
    if not catalog.open(sorted(name for name in names if name)):
        say(f"{catalog.database}: create database: it is not in the catalog")
        if not dry_run:
            catalog.create()
    changed, failures = 0, []
    expected: tuple[type[Exception], ...] = (LakeError, *catalog.errors)
    for tables in feeds:
        for table in tables:
            try:
                changed += _one(catalog, table, say, dry_run)
            except expected as error:
                failures.append(f"{catalog.database}.{table.name}: {error}")
        if tables and not failures:
            changed += _former(catalog, tables, say, dry_run)
    return Outcome(changed, tuple(failures))


def _one(catalog: Database, table: Table, say: Callable[[str], None], dry_run: bool) -> bool:
    found = catalog.found(table.name)
    if found is not None and had_all_versions(table, found):
        say(f"{catalog.database}.{table.name}: drop table: from now on it is only the current version; the files stay")
        if not dry_run:
            catalog.drop(table.name)
        found = None
    todo = plan(table, found)
    if todo and not dry_run:
        catalog.apply(todo)
    for line in todo.lines():
        say(f"{catalog.database}.{table.name}: {line}")
    return bool(todo)


def _former(catalog: Database, tables: Sequence[Table], say: Callable[[str], None], dry_run: bool) -> bool:
    """Drop the feed's table under the name that earlier versions gave it."""
    name, feed = former_name(tables), tables[0].parameters[OURS]
    there = catalog.found(name) if name else None
    if name is None or there is None or there.parameters.get(OURS) != feed:
        return False
    if not dry_run:
        catalog.drop(name)
    say(f"{catalog.database}.{name}: drop table: it is now called {tables[-1].name}; the files stay")
    return True
