"""`metadata_utils.py delta`: the Delta Lake logs of the feeds that have one, or are to have one.

sync        begin a log, or bring one up to date with the metadata (exports do this automatically)
verify      compare logs with the metadata; exit code 1 with a finding
rebuild     rewrite logs as version 0; the old ones are kept under .state/delta/
checkpoint  write a checkpoint, so that tables of thousands of versions open faster
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, LakeError
from ksql_lake.base.figures import counted
from ksql_lake.catalogs.delta.log import is_kept
from ksql_lake.catalogs.delta.observer import milliseconds, wanted_by
from ksql_lake.cli.hints import here
from ksql_lake.model.state import FeedState
from ksql_lake.store import journal, metadata
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.hold import hold
from ksql_lake.store.lake import datasets


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument("action", choices=tuple(ACTIONS))
    parser.add_argument("feeds", nargs="*", metavar="NAME", help="only these (default: every feed with a log)")


def run(config: Config, args: argparse.Namespace) -> int:
    """Each feed on its own: one that fails is reported and does not stop the others."""
    code = int(ExitCode.OK)
    chosen = list(_chosen(args.action, config.lake_dir, args.feeds, config.delta))
    for dataset in chosen:
        try:
            with hold(dataset):
                journal.recover(dataset)
                state = metadata.current(dataset)
                if state is None:
                    raise ConfigError(f"was never exported; run: python export_to_data_lake.py --{dataset.kind} "
                                      f"{dataset.feed}")
                code = max(code, ACTIONS[args.action](dataset, state))
        except LakeError as error:
            print(f"error: {dataset.feed}: {error}", file=sys.stderr)
            code = max(code, error.exit_code)
    if not chosen:
        print(here('no feed has a Delta log; add "delta": true to its feed file, or: '
                   "python metadata_utils.py delta sync NAME"))
    return code


def _chosen(action: str, lake: Path, names: Sequence[str], everywhere: bool) -> Iterator[Dataset]:
    there = {dataset.feed: dataset for dataset in datasets(lake)}
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: not in the lake; feeds with data: {', '.join(there) or 'none'}")
    for name, dataset in there.items():
        kept = is_kept(dataset)
        if name in names or not names and (kept or action == "sync" and wanted_by(dataset, everywhere)):
            if names and not kept and action in ("verify", "checkpoint"):
                raise ConfigError(f"{name}: has no Delta log; begin one with: python metadata_utils.py delta sync "
                                  f"{name} --lake {lake}")
            yield dataset


def _sync(dataset: Dataset, state: FeedState) -> int:
    from ksql_lake.catalogs.delta.table import sync

    done = sync(dataset, state, milliseconds())
    said = f"{counted(done.adds, 'file')} added, {done.removes} removed" if done.written else "up to date"
    print(f"{dataset.feed}: version {done.version}, {said}")
    return ExitCode.OK


def _verify(dataset: Dataset, state: FeedState) -> int:
    from ksql_lake.catalogs.delta.table import verify

    findings = verify(dataset, state)
    for finding in findings:
        print(f"{dataset.feed}: {finding}")
    if not findings:
        print(f"{dataset.feed}: the log agrees with the metadata")
    return ExitCode.FINDINGS if findings else ExitCode.OK


def _rebuild(dataset: Dataset, state: FeedState) -> int:
    from ksql_lake.catalogs.delta.table import rebuild

    kept = rebuild(dataset, state, milliseconds(), f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S_%f}")
    said = (
        f"; the old log is now in {kept}. Earlier versions are gone, and streaming readers must start "
        "afresh" if kept else ""
    )
    print(f"{dataset.feed}: written as version 0{said}")
    return ExitCode.OK


def _checkpoint(dataset: Dataset, state: FeedState) -> int:
    from ksql_lake.catalogs.delta.checkpoint import write
    from ksql_lake.catalogs.delta.table import sync

    version = sync(dataset, state, milliseconds()).version
    write(dataset, version)
    print(f"{dataset.feed}: checkpoint of version {version}; name days in globs of plain readers from now on: "
          "year=*/**/*.parquet")
    return ExitCode.OK


ACTIONS: dict[str, Callable[[Dataset, FeedState], int]] = {
    "sync": _sync, "verify": _verify, "rebuild": _rebuild, "checkpoint": _checkpoint,
}
