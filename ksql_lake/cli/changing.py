"""Feeds whose data a command changes: which ones, their locks, their state."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, FeedError, LakeError
from ksql_lake.cli.observing import observed


def each(names: Sequence[str], act: Callable[[str], int]) -> int:
    """Act on one feed after the other: one that fails is reported and does not stop the rest. Returns the exit code."""
    codes = set()
    for name in names:
        try:
            codes.add(act(name))
        except LakeError as error:
            print(f"error: {'' if name in str(error) else f'{name}: '}{error}", file=sys.stderr)
            codes.add(error.exit_code)
        except OSError as error:
            print(f"error: {name}: {error.filename}: {error.strerror}", file=sys.stderr)
            codes.add(ExitCode.FINDINGS)
    others = codes - {ExitCode.OK, ExitCode.LOCKED}
    return max(others) if others else ExitCode.LOCKED if ExitCode.LOCKED in codes else ExitCode.OK


def datasets(config: Config, names: Sequence[str]) -> list[Any]:
    """Every feed that has data in the lake, or those named: archived and removed ones too."""
    from ksql_lake.store.lake import datasets

    there = datasets(config.lake_dir)
    known = [dataset.feed for dataset in there]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise FeedError(f"{', '.join(unknown)}: not in the lake; feeds with data: {', '.join(known) or 'none'}")
    return [observed(config, dataset) for dataset in there if not names or dataset.feed in names]


def table(config: Config, name: str) -> Any:
    found = dataset(config, name)
    if found.kind != "table":
        raise FeedError(f"{name}: is a stream; only tables have versions")
    return found


def dataset(config: Config, name: str) -> Any:
    from ksql_lake.store.lake import find

    return observed(config, find(config.lake_dir, name))


@contextlib.contextmanager
def hold_feed(dataset: Any, read_only: bool = False) -> Iterator[tuple[Any, str]]:
    """(state, run) of a feed with its lock held and interrupted work finished; reading only takes no lock."""
    from ksql_lake.store import journal, metadata
    from ksql_lake.store.hold import hold

    run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
    if read_only:
        yield metadata.load(dataset), run
        return
    with hold(dataset):
        journal.recover(dataset)
        state = metadata.current(dataset)
        for problem in journal.catch_up(dataset, state) if state else ():
            print(f"warning: {problem.line}", file=sys.stderr)
        yield state, run
