"""The part of an erasure that concerns the lake's remote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.base.errors import LakeError
from ksql_lake.cli import context
from ksql_lake.cli.remote_turn import open_store

if TYPE_CHECKING:
    from ksql_lake.remote.turn import Turn


class Erasing:
    """The part of an erasure that concerns the lake's remote, feed by feed; does nothing where there is no remote.

    Attributes:
        problems: a line for each thing that could not be searched, or stays there: the erasure is not complete.
        rows: of a dry run, those of the last feed that are only in the remote.
    """

    def __init__(self, config: Config, dry_run: bool) -> None:
        self.config, self.dry_run = config, dry_run
        self.problems: list[str] = []
        self.rows = 0
        self._one: Turn | None = None
        self._away: set[str] = set()
        self._before = 0

    def begin(self, dataset: Any, state: Any, run: str, meant: Any) -> None:
        """Bring what is needed of one feed to this disk. Call with its lock held, before its rows are looked for."""
        from ksql_lake.remote import erasing
        from ksql_lake.remote.turn import Turn
        from ksql_lake.store.remote import binding

        self._one, self._away, self.rows, signed = None, set(), 0, context.signed()
        try:
            bound = binding.load(self.config.lake_dir)
            if bound is None:
                return
            _, store = open_store(self.config)
            one = Turn(dataset, state, store, bound, f"{run}f", signed["now"], signed["by"], self.config.trash_days)
            rows: Any = lambda batch: int(meant.rows_of(batch).sum())  # noqa: E731
            search = erasing.Search(one, meant.columns, rows, wake=not self.dry_run)
            if self.dry_run:
                for file, number in (*search.files(), *((file, n) for _, file, n in search.bundles())):
                    print(f"{dataset.feed}  {number:,} rows in {search.places.url(file)}")
                    self.rows += number
            else:
                self._away = erasing.bring_here(search)
            self.problems += [f"{dataset.feed}: {line}" for line in search.unseen]
            self._one, self._before = one, state.sequence
        except LakeError as error:
            self.problems.append(f"{dataset.feed}: the remote was not searched: {error}")

    def settle(self) -> None:
        """After the rows of the feed are out of the lake: out of its remote as well."""
        from ksql_lake.remote import erasing

        if self._one is None or not erasing.is_needed(self._one.state, self._before):
            return
        name = self._one.dataset.feed
        try:
            self.problems += [f"{name}: {line}" for line in erasing.settle(self._one, self._away)]
        except LakeError as error:
            self.problems.append(f"{name}: the remote still has old files: {error}")
