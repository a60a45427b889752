"""`metadata_utils.py csv FILE`: one row per partition."""

from __future__ import annotations

import argparse
import csv
import io

from data_lake_config import Config
from ksql_lake.base.outputs import write_out
from ksql_lake.base.text import cell
from ksql_lake.cli.export_options import day
from ksql_lake.cli.loading import load_feeds, only_feed
from ksql_lake.reporting.summary import partitions_of

CSV_COLUMNS = ("feed", "type", "source", "path", "records", "size_mb", "exported_at", "current")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("csv", metavar="FILE", help=f"gets {', '.join(CSV_COLUMNS)}; - is stdout")
    parser.add_argument("--since", type=day, metavar="YYYY-MM-DD", help="this day and later ones")
    only_feed(parser)


def run(config: Config, args: argparse.Namespace) -> int:
    found = load_feeds(config.lake_dir, args.feed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    split = any(record.has_remote for record in found.exported)
    writer.writerow((*CSV_COLUMNS, "place") if split else CSV_COLUMNS)
    for part in (part for record in found.exported for part in partitions_of(record, args.since)):
        row = (part.feed, part.type, part.source, part.path, part.rows, round(part.bytes / 1e6, 6), part.exported_at)
        more = (part.place,) if split else ()
        writer.writerow(cell(value) for value in (*row, "yes" if part.current else "", *more))
    if write_out(args.csv, text.getvalue().encode(errors="replace")):
        print(f"wrote {args.csv}")
    return found.code
