"""`metadata_utils.py stats`: rows and sizes of each day or version, and with --deep of columns."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.cli.export_options import day
from ksql_lake.cli.loading import load_feeds, only_feed
from ksql_lake.reporting import terminal
from ksql_lake.reporting.summary import FeedRecord, PartitionSummary, partitions_of

if TYPE_CHECKING:
    from ksql_lake.query.column_stats import ColumnStats


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--deep", action="store_true", help="also nulls, range and distinct values of each column")
    parser.add_argument("--since", type=day, metavar="YYYY-MM-DD", help="this day and later ones")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    found = load_feeds(config.lake_dir, args.feed)
    partitions = [part for record in found.exported for part in partitions_of(record, args.since)]
    columns = _columns(config.lake_dir, found.exported, partitions) if args.deep else {}
    if not args.json:
        print(terminal.stats(partitions), end="")
        print("".join(f"{name}: columns\n{terminal.columns(of)}" for name, of in columns.items()), end="")
        return found.code
    shown = [_told(part) for part in partitions]
    deep = [{"feed": name, **asdict(column)} for name, of in columns.items() for column in of]
    print(json.dumps({"partitions": shown, "columns": deep} if args.deep else shown, indent=2, default=str))
    return found.code


def _columns(
    lake: Path, records: Sequence[FeedRecord], partitions: Sequence[PartitionSummary]
) -> dict[str, list[ColumnStats]]:
    """The columns over all chosen days of a stream, or of a table's current version."""
    from ksql_lake.query.column_stats import column_stats  # Arrow is loaded only where files are read
    from ksql_lake.store.metadata import Dataset
    from ksql_lake.store.remote.places import Places

    found = {}
    for record in records:
        if record.state is None:
            continue
        chosen = [p.path for p in partitions if p.feed == record.name and (record.type == "stream" or p.current)]
        places = Places(Dataset(lake, record.name, record.type))
        found[record.name] = column_stats(places, record.state, chosen)
    return found


def _told(part: PartitionSummary) -> dict[str, Any]:
    """The partition as JSON; with its place only where the lake has a remote."""
    return {key: value for key, value in asdict(part).items() if key != "place" or value}
