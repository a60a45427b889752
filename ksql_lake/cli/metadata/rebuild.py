"""`metadata_utils.py rebuild`: metadata that is missing or corrupt, restored from footers and state log."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from dataclasses import replace

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, LakeError, StateError
from ksql_lake.cli.hints import here
from ksql_lake.cli.observing import observed
from ksql_lake.model.findings import Finding
from ksql_lake.store import metadata
from ksql_lake.store.hold import hold
from ksql_lake.store.lake import datasets


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--feed", metavar="NAME", help="only this feed, also where its metadata is good")


def run(config: Config, args: argparse.Namespace) -> int:
    """Restore one feed's metadata, or the metadata of every feed where it is missing or not readable."""
    from ksql_lake.maintain.rebuild import rebuild

    stamp = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}"
    chosen = [dataset for dataset in datasets(config.lake_dir) if args.feed in (None, dataset.feed)]
    broken = [dataset for dataset in chosen if args.feed or not _is_usable(dataset)]
    code = int(ExitCode.FINDINGS if args.feed and not chosen else ExitCode.OK)
    for found in broken:
        there = found.storage.stat(found.directory)
        dataset = observed(config, replace(found, restricted=there is not None and there.closed))
        try:
            with hold(dataset):
                print("\n".join(here(f"{dataset.feed}: {line}") for line in rebuild(dataset, stamp)))
        except LakeError as error:
            print(f"error: {Finding('failed', str(error), feed=dataset.feed).line}", file=sys.stderr)
            code = max(code, error.exit_code)
    if not broken:
        nothing = "every feed's metadata is readable; nothing to rebuild"
        print(f"{args.feed}: was never exported" if args.feed else nothing)
    return code


def _is_usable(dataset: metadata.Dataset) -> bool:
    try:
        metadata.current(dataset)
    except StateError:
        return False
    return True
