"""`manage_feeds.py undo`: bring back what retention last moved into the trash."""

from __future__ import annotations

import argparse

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, LakeBusyError, StateError
from ksql_lake.base.figures import counted
from ksql_lake.cli import changing, context
from ksql_lake.cli.changing import hold_feed
from ksql_lake.cli.hints import here


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?",
        help="what the last run of this feed moved (default: what was moved on the last day, of all feeds)",
    )
    parser.add_argument("--list", action="store_true", help="only show what is in the trash")


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.store import layout, trash
    from ksql_lake.store.trash import IN_THE_LAKE

    if not args.list and _finish_interrupted(config, args.name):
        return ExitCode.OK
    held = trash.bundles(config.lake_dir, args.name)
    if args.list:
        for bundle in held:
            files = counted(len(bundle.every), "file")
            print(f"{bundle.at}  {bundle.feed:<32} {bundle.rows:>10,} rows  {files:<9} {bundle.why}"
                  f"{' (these rows are still in the lake; undo does not apply)' if bundle.why in IN_THE_LAKE else ''}")
        return ExitCode.OK
    held = [bundle for bundle in held if bundle.why not in IN_THE_LAKE]
    if not held:
        of = f" of {args.name}" if args.name else ""
        raise StateError(f"{layout.trash(config.lake_dir)}: there is nothing{of} to bring back")
    last = held[-1].at if args.name else held[-1].at[:10]
    for bundle in held:
        if not bundle.at.startswith(last):
            continue
        dataset = changing.dataset(config, bundle.feed)
        with hold_feed(dataset) as (state, run):
            if state is None:
                raise StateError(f"{dataset.metadata}: missing, though the trash holds files of the feed")
            trash.undo(dataset, state, bundle, run, **context.signed())
        print(f"{bundle.feed}: {counted(bundle.rows, 'row')} back in {counted(len(bundle.every), 'file')}")
    key = "retention_days" if dataset.kind == "stream" else "retention_versions"
    print(
        here(f"raise {key}, or the next --all removes them again: python manage_feeds.py update {bundle.feed} {key}=N")
    )
    return ExitCode.OK


def _finish_interrupted(config: Config, name: str | None) -> bool:
    """Finish a change that was interrupted, perhaps this very undo: continuing would undo one change too many."""
    from ksql_lake.store import journal

    left = journal.left_behind(config.lake_dir, name)
    for interrupted, journalled in left.items():
        try:
            with hold_feed(changing.dataset(config, interrupted)):
                pass
        except LakeBusyError:
            continue  # an export is running: it finishes what it finds
        if journalled:
            print(f"{interrupted}: finished a change that was interrupted; run again to undo more")
    return any(left.values())
