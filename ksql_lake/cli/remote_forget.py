"""`manage_feeds.py remote forget`: the way out when a remote is lost for good, or when another one takes its place."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, StateError
from ksql_lake.base.figures import counted
from ksql_lake.cli import changing, context
from ksql_lake.cli.hints import here
from ksql_lake.model.partitions import parse_day

if TYPE_CHECKING:
    from ksql_lake.model.entries import FileEntry
    from ksql_lake.store.dataset import Dataset

NAMED = 10  # partitions


def forget(config: Config, args: argparse.Namespace) -> int:
    """Refuse while days would be lost, unless these are given up by name of the option."""
    from ksql_lake.remote import forgetting
    from ksql_lake.store import metadata
    from ksql_lake.store.remote import binding

    code, lost = int(ExitCode.OK), 0
    for dataset in changing.datasets(config, []):
        try:
            state = metadata.load(dataset)
        except StateError as error:
            _warn(str(error))
            code = int(ExitCode.FINDINGS)
            continue
        files = forgetting.only_there(state) if state else []
        lost += len(files)
        if files:
            print(here(f"{dataset.feed}: {_rows_of(files)} only in the remote; bring them here with: "
                       f"python manage_feeds.py remote pull {dataset.feed}"))
    if args.dry_run:
        return code
    if lost and not args.give_up_rows:
        raise ConfigError(
            "nothing was changed: the lake would lose these rows. If the remote is lost for good, give them up with: "
            "python manage_feeds.py remote forget --give-up-rows"
        )
    known = binding.is_bound(config.lake_dir)
    forgetting.unbind(config.lake_dir)
    forgotten = [_forget(config, dataset) for dataset in changing.datasets(config, [])]
    _report(config, known or any(forgotten))
    return code


def _forget(config: Config, dataset: Dataset) -> bool:
    """Whether there was anything to forget."""
    from ksql_lake.remote import forgetting

    try:
        with changing.hold_feed(dataset) as (state, run):
            if state is None:
                return False
            before = state.sequence
            lost = forgetting.forget(dataset, state, run, **context.signed())
    except StateError as error:
        _warn(str(error))
        return False
    if lost:
        print(f"{dataset.feed}: {_rows_of(lost)} no longer in the lake")
    return bool(state.sequence > before)


def _report(config: Config, changed: bool) -> None:
    print("the lake has no remote any more" if changed else f"{config.lake_dir}: has no remote; nothing to forget")
    if changed and config.remote:
        print(f"REMOTE is still set to {config.remote}: unset it, or set it to a place that holds no lake yet")


def _rows_of(files: Sequence[FileEntry]) -> str:
    rows = sum(file.rows for file in files)
    partitions = sorted({file.partition for file in files})
    names = [str(parse_day(partition) or partition.removeprefix("version=")) for partition in partitions]
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{counted(rows, 'row')} of {', '.join(names[:NAMED])}{more} are"


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)
