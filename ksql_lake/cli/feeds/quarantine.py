"""`manage_feeds.py quarantine`: list the rows that checks quarantined, or import them again."""

from __future__ import annotations

import argparse
import json
from typing import Any

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError
from ksql_lake.base.figures import counted
from ksql_lake.cli import changing, context
from ksql_lake.cli.changing import hold_feed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--import", dest="back", action="store_true", help="import those that pass their checks by now")
    parser.add_argument("--force", action="store_true", help="with --import: also those that still fail")
    parser.add_argument("--run", dest="of", metavar="RUN", help="only rows that this run quarantined")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.quality.quarantine import held

    dataset = changing.dataset(config, args.name)
    if args.back:
        return _import(config, args, dataset)
    if args.force:
        raise ConfigError("quarantine: --force goes with --import")
    with hold_feed(dataset, True) as (state, _):
        entries = held(state, args.of)
    if args.json:
        print(json.dumps([entry.to_json() for entry in entries], indent=2, ensure_ascii=False))
        return ExitCode.OK
    for entry in entries:
        reasons = ", ".join(f"{label} {rows:,}" for label, rows in (entry.reasons or {}).items())
        print(f"{entry.run}  {entry.partition}  {counted(entry.rows, 'row')}  {reasons}")
    print(f"{counted(sum(entry.rows for entry in entries), 'row')} in quarantine")
    return ExitCode.OK


def _import(config: Config, args: argparse.Namespace, dataset: Any) -> int:
    """Rows from quarantine back into their partitions, as one commit."""
    from ksql_lake import __version__
    from ksql_lake.quality.quarantine import Import, held
    from ksql_lake.store.writer import WriterOptions

    if dataset.kind != "stream":
        hint = "change its checks and export it again"
        raise FeedError(f"{args.name}: is a table, and a version is never changed; {hint}")
    feed = context.feed_of(config, args.name)
    options = WriterOptions(
        compression=feed.compression or config.compression,
        compression_level=feed.compression_level if feed.compression else config.compression_level,
        bloom_filter_columns=feed.bloom_filter_columns, file_rows=config.file_rows,
    )
    with hold_feed(dataset) as (state, run):
        entries = held(state, args.of)
        move = Import(dataset, state, feed.checks, run, force=args.force, tool=__version__, options=options)
        done = move.carry_out(entries, **context.signed()) if entries else None
    rows, left = (done.rows, done.left) if done else (0, 0)
    print(f"{feed.name}: {counted(rows, 'row')} imported, {left:,} left in quarantine")
    return ExitCode.FINDINGS if left else ExitCode.OK
