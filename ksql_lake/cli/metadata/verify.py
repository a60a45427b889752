"""`metadata_utils.py verify`: files against metadata."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, StateError
from ksql_lake.base.figures import counted
from ksql_lake.cli.hints import here
from ksql_lake.cli.loading import load_feeds, only_feed
from ksql_lake.model.findings import Finding
from ksql_lake.model.state import FeedState
from ksql_lake.store import metadata
from ksql_lake.store.lake import dataset_of


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deep", action="store_true", help="read every row group, check every offset")
    parser.add_argument("--remote", action="store_true", help="check the remote instead; --deep: read every object")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.maintain.verify import verify  # Arrow is loaded only where files are read
    from ksql_lake.store.rights import drift

    found = load_feeds(config.lake_dir, args.feed)
    if args.remote:
        from ksql_lake.cli import remote

        args.name = [args.feed] if args.feed else []
        return max(remote.verify(config, args), found.code)
    findings: list[Finding] = []
    for name, state in found.states.items():
        dataset = dataset_of(config.lake_dir, name, state.type)
        try:
            metadata.current(dataset)
        except StateError as error:
            findings.append(Finding("metadata", str(error), feed=name))
        findings += [Finding("access", str(one), feed=name) for one in drift(dataset)]
        findings += verify(dataset, state, deep=args.deep)
        findings += _delta(dataset, state)
    for finding in findings:
        print(here(finding.line))
    files = sum(len(state.files) for state in found.states.values())
    counts = (counted(len(found.states), "feed"), counted(files, "file"), counted(len(findings), "finding"))
    print(", ".join(counts))
    return max(ExitCode.FINDINGS if findings else ExitCode.OK, found.code)


def _delta(dataset: metadata.Dataset, state: FeedState) -> list[Finding]:
    """Where the feed's Delta log, if it has one, differs from the metadata."""
    from ksql_lake.catalogs.delta.log import is_kept

    if not is_kept(dataset):
        return []
    from ksql_lake.catalogs.delta.table import verify

    return [Finding("files", one, feed=dataset.feed) for one in verify(dataset, state)]
