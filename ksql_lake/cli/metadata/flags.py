"""The commands of `metadata_utils.py` as options: `--report`, `--stats`, `--csv FILE` ..., as in earlier versions."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from ksql_lake import __version__
from ksql_lake.cli.export_options import day

COLUMNS = "feed, type, source, path, records, size_mb, exported_at, current"
CATALOGS = ("glue", "hive", "iceberg")
DIALECTS = ("duckdb", "hive", "athena", "spark", "bigquery")
COMMANDS = ("report", "stats", "csv", "html", "history", "verify", "rebuild", "reconcile", "compare", "sql", "register")
BELONG = {  # the commands that an option belongs to; with others it is refused, rather than doing nothing
    "dry_run": ("register",), "database": ("register",), "uri": ("register",), "without_time": ("register",),
    "warehouse": ("register",),
    "location": ("sql", "register"), "date": ("reconcile",),
    "deep": ("verify", "stats"), "since": ("stats", "csv", "history"), "remote": ("verify",), "open": ("html",),
}


def parse(argv: Sequence[str], description: str | None, commands: Mapping[str, str]) -> argparse.Namespace:
    """The options, and in `command` the one that says what to do."""
    parser = _parser(description, commands)
    args = parser.parse_args(argv)
    args.command = next((name for name in COMMANDS if getattr(args, name)), "report" if args.json else None)
    if args.command is None:
        parser.error("say what to do, for instance --report")
    for option, owners in BELONG.items():
        if getattr(args, option) and not any(getattr(args, owner) for owner in owners):
            named = " or ".join(f"--{owner}" for owner in owners)
            parser.error(f"--{option.replace('_', '-')} goes with {named}")
    return args


def _parser(description: str | None, commands: Mapping[str, str]) -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<11} {says}" for name, says in commands.items())
    parser = argparse.ArgumentParser(
        description=f"{description}\ncommands:\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"ksql-lake {__version__}")
    _what(parser)
    parser.add_argument(
        "--json", action="store_true", help="the report as JSON; with --stats or --history, those"
    )
    parser.add_argument(
        "--location", metavar="URI",
        help="with --sql, --register: where queries find the lake, such as s3://bucket/lake",
    )
    parser.add_argument(
        "--format", choices=("text", "json", "csv"), default="text", help="with --compare (default: text)"
    )
    parser.add_argument(
        "--date", action="append", default=[], type=day, metavar="YYYY-MM-DD", help="with --reconcile: only this day"
    )
    parser.add_argument(
        "--database", metavar="NAME", help="with --register: the database, created if it does not exist"
    )
    parser.add_argument("--uri", metavar="URI", help="with --register hive: thrift://HOST:PORT of the metastore; "
                        "with --register iceberg: http://HOST:PORT of a REST catalog, or an SQL URL")
    parser.add_argument("--warehouse", metavar="URI", help="with --register iceberg: where the catalog's own files go")
    parser.add_argument(
        "--without-time", action="store_true",
        help="with --register hive: leave out columns of type TIME, which Trino cannot read",
    )
    parser.add_argument("--dry-run", action="store_true", help="with --register: show what would be sent, and why")
    parser.add_argument(
        "--deep", action="store_true",
        help="with --verify: read every row group, check every offset; with --stats: nulls, range, distinct values",
    )
    parser.add_argument(
        "--remote", action="store_true", help="with --verify: check the remote instead; --deep: read every object"
    )
    parser.add_argument(
        "--since", type=day, metavar="YYYY-MM-DD", help="with --stats, --csv, --history: this day and later ones"
    )
    parser.add_argument("--open", action="store_true", help="with --html: show the page in the browser")
    parser.add_argument("--feed", metavar="NAME", help="only this feed")
    parser.add_argument("--lake", metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    return parser


def _what(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--report", action="store_true", help="what needs attention, one line for each feed, totals")
    what.add_argument("--stats", action="store_true", help="rows and sizes of each day or version; --deep: of columns")
    what.add_argument("--csv", metavar="FILE", help=f"one row per partition: {COLUMNS}; - is stdout")
    what.add_argument("--history", action="store_true", help="the runs: when, feed, result, rows, size, seconds")
    what.add_argument(
        "--html", metavar="FILE", help="the report as one HTML page that works offline; - is stdout"
    )
    what.add_argument("--verify", action="store_true", help="check files against metadata; exit code 1 with a finding")
    what.add_argument(
        "--rebuild", action="store_true",
        help="restore metadata that is missing or corrupt from footers and state log; with --feed also a good one",
    )
    what.add_argument("--reconcile", metavar="NAME", help="count a stream's rows per day at the source and compare")
    what.add_argument(
        "--compare", nargs=3, metavar=("NAME", "V1", "V2"), help="rows of a table added, removed and changed, by key"
    )
    what.add_argument(
        "--sql", choices=DIALECTS, metavar="DIALECT",
        help="views (duckdb) or external tables (hive, athena, spark, bigquery) of every feed, as SQL",
    )
    what.add_argument(
        "--register", choices=CATALOGS,
        help="create or update tables and partitions of a catalog: only what changed",
    )
