"""Report on the data lake, count what is in it, and verify it against its metadata.

exit codes: 0 done, and for --verify and --reconcile all well; 1 a finding of these, or metadata that cannot be used;
2 usage or configuration; 3 another run holds the lock (--rebuild).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime as dt
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import data_lake_config
from ksql_lake.base.errors import CatalogError, ConfigError, ExitCode, LakeError, StateError
from ksql_lake.base.files import atomic_write, exclusive_lock
from ksql_lake.base.text import cell, guards_output
from ksql_lake.model import feeds
from ksql_lake.model.findings import Finding
from ksql_lake.model.state import FeedState
from ksql_lake.reporting import terminal as report
from ksql_lake.reporting.summary import FeedRecord, PartitionSummary, as_json, partitions_of, read, summary_of
from ksql_lake.store import history, metadata

if TYPE_CHECKING:
    from ksql_lake.query.column_stats import ColumnStats

CSV_COLUMNS = ("feed", "type", "source", "path", "records", "size_mb", "exported_at", "current")
OTHERS = ("reconcile", "compare", "rebuild", "history")
LOOKS = ("report", "stats", "csv", "html", "json", "verify", "sql", "register")  # what is answered from metadata


@guards_output
def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        config = data_lake_config.load(os.environ)
        lake = args.lake.resolve() if args.lake else config.lake_dir
        _refuse_strangers(parser, args)
        if not lake.is_dir():
            raise ConfigError(f"{lake}: no such directory; set --lake or DATA_LAKE_DIR, or: python data_lake_config.py")
        if args.reconcile:
            return _reconcile(config, lake, args.reconcile, args.date)
        if args.compare:
            return _compare(lake, args.compare, args.format)
        if args.rebuild:
            return _rebuild(lake, args.feed)
        if args.history:
            return _history(lake, args)
        return _look(args, config, lake)
    except LakeError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return ExitCode.FINDINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--report", action="store_true", help="what needs attention, each feed in a line, totals")
    what.add_argument("--stats", action="store_true", help="rows and sizes of each day or version; --deep: of columns")
    what.add_argument("--csv", type=Path, metavar="FILE", help=f"one row per partition: {', '.join(CSV_COLUMNS)}")
    what.add_argument("--history", action="store_true", help="the runs: when, feed, result, rows, size, seconds")
    what.add_argument("--html", type=Path, metavar="FILE", help="the report as one page that needs no network")
    parser.add_argument(
        "--json", action="store_true", help="the report for machines; with --stats or --history, those"
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
        "--sql", choices=("duckdb", "hive", "athena", "spark", "bigquery"), metavar="DIALECT",
        help="views (duckdb) or external tables (hive, athena, spark, bigquery) of every feed, as SQL",
    )
    parser.add_argument(
        "--location", metavar="URI",
        help="with --sql, --register: where the lake lies for those who query, such as s3://bucket/lake",
    )
    parser.add_argument(
        "--format", choices=("text", "json", "csv"), default="text", help="with --compare (default: text)"
    )
    parser.add_argument(
        "--date", action="append", default=[], type=_day, metavar="YYYY-MM-DD", help="with --reconcile: only this day"
    )
    what.add_argument(
        "--register", choices=("glue",), help="create or update tables and partitions of a catalog: only what changed"
    )
    parser.add_argument("--database", metavar="NAME", help="with --register: the database, made when it is not there")
    parser.add_argument("--dry-run", action="store_true", help="with --register: say what would be sent, and why")
    parser.add_argument(
        "--deep", action="store_true",
        help="with --verify: read every row group, check every offset; with --stats: nulls, range, distinct values",
    )
    parser.add_argument(
        "--remote", action="store_true", help="with --verify: the remote instead; --deep: read every object"
    )
    parser.add_argument(
        "--since", type=_day, metavar="YYYY-MM-DD", help="with --stats, --csv, --history: this day and later ones"
    )
    parser.add_argument("--open", action="store_true", help="with --html: show the page in the browser")
    parser.add_argument("--feed", metavar="NAME", help="only this feed")
    parser.add_argument("--lake", type=Path, metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    return parser


BELONG = {  # an option that goes with some only is no silent nothing with the others
    "dry_run": ("register",), "database": ("register",), "location": ("sql", "register"), "date": ("reconcile",),
    "deep": ("verify", "stats"), "remote": ("verify",), "since": ("stats", "csv", "history"), "open": ("html",),
}


def _refuse_strangers(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not any(getattr(args, name) for name in (*LOOKS, *OTHERS)):
        parser.error("say what to do, for instance --report")
    for option, owners in BELONG.items():
        if getattr(args, option) and not any(getattr(args, owner) for owner in owners):
            named = " or ".join(f"--{owner}" for owner in owners)
            parser.error(f"--{option.replace('_', '-')} goes with {named}")


def _look(args: argparse.Namespace, config: data_lake_config.Config, lake: Path) -> int:
    """What is shown or checked from metadata; those that cannot be used are told, and the others shown."""
    records = read(lake, args.feed, dt.datetime.now(dt.UTC))
    problems = [f"{record.name}: {record.metadata_problem}" for record in records if record.metadata_problem]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    code = ExitCode.FINDINGS if problems else ExitCode.OK
    exported = sorted((record for record in records if record.state is not None), key=lambda r: (r.type, r.name))
    states = {record.name: record.state for record in exported if record.state is not None}
    reports = args.report or args.html or (args.json and not args.stats)
    if args.feed and not (records if reports else exported or problems):
        print(f"error: {args.feed}: was never exported; see: python manage_feeds.py list", file=sys.stderr)
        return ExitCode.FINDINGS
    if args.verify and args.remote:
        from ksql_lake.cli import remote

        args.name = [args.feed] if args.feed else []
        return max(remote.verify(replace(config, lake_dir=lake), args), code)
    if args.verify:
        return max(_verify(lake, states, args.deep), code)
    if args.sql:
        return max(_sql(args.sql, states, lake, args.location), code)
    if args.register:
        return max(_register(args, lake, states), code)
    if args.csv:
        _csv(args.csv, exported, args.since)
    elif args.stats:
        _stats(lake, exported, args)
    else:
        _report(args, lake, records, config.max_delete_percent / 100)
    return code


def _report(args: argparse.Namespace, lake: Path, records: Sequence[FeedRecord], max_share: float) -> None:
    now = dt.datetime.now(dt.UTC)
    summaries = [summary_of(record, now, max_share) for record in records]
    if args.html:
        from ksql_lake.reporting.html.page import page

        atomic_write(args.html.resolve(), page(lake.name, records, summaries, now).encode())
        print(f"wrote {args.html}")
        if args.open:
            _open(args.html.resolve())
    elif args.json:
        print(json.dumps([as_json(summary) for summary in summaries], indent=2))
    else:
        print(report.report(lake, summaries, now, _colour(), _width() or report.WIDTH), end="")


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.as_uri()):
        print(f"note: no browser was found to show it; open {page} yourself", file=sys.stderr)


def _width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _stats(lake: Path, records: Sequence[FeedRecord], args: argparse.Namespace) -> None:
    partitions = [part for record in records for part in partitions_of(record, args.since)]
    columns = _columns(lake, records, partitions) if args.deep else {}
    if not args.json:
        print(report.stats(partitions), end="")
        print("".join(f"{name}: columns\n{report.columns(found)}" for name, found in columns.items()), end="")
        return
    shown = [asdict(part) for part in partitions]
    deep = [{"feed": name, **asdict(column)} for name, found in columns.items() for column in found]
    print(json.dumps({"partitions": shown, "columns": deep} if args.deep else shown, indent=2, default=str))


def _columns(
    lake: Path, records: Sequence[FeedRecord], partitions: Sequence[PartitionSummary]
) -> dict[str, list[ColumnStats]]:
    """Of all chosen days of a stream, and of a table's current version."""
    from ksql_lake.query.column_stats import column_stats  # Arrow is loaded only where files are read
    from ksql_lake.store.remote.places import Places

    found = {}
    for record in records:
        if record.state is None:
            continue
        chosen = [p.path for p in partitions if p.feed == record.name and (record.type == "stream" or p.current)]
        dataset = metadata.Dataset(lake, record.name, record.type)
        found[record.name] = column_stats(dataset.directory, record.state, chosen, Places(dataset))
    return found


def _csv(target: Path, records: Sequence[FeedRecord], since: dt.date | None) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for part in (part for record in records for part in partitions_of(record, since)):
        row = (part.feed, part.type, part.source, part.path, part.rows, round(part.bytes / 1e6, 6), part.exported_at)
        writer.writerow(cell(value) for value in (*row, "yes" if part.current else ""))
    atomic_write(target.resolve(), text.getvalue().encode(errors="replace"))
    print(f"wrote {target}")


def _history(lake: Path, args: argparse.Namespace) -> int:
    """Run by run as it is read: the history of years does not fit into memory."""
    start = history.since(lake, args.since) if args.since else 0
    unreadable = history.Unreadable()
    runs = (
        run for run in history.read(lake, start, unreadable)
        if args.feed in (None, run.feed) and run.ended[:10] >= str(args.since or "")
    )
    shown = report.json_list(run.line for run in runs) if args.json else report.history(runs, _colour(), _width())
    sys.stdout.writelines(shown)
    if unreadable.lines:
        print(f"note: {lake / history.RUNS}: passed over {unreadable.lines:,} lines that are not runs", file=sys.stderr)
    return ExitCode.OK


def _sql(dialect: str, states: dict[str, FeedState], lake: Path, location: str | None) -> int:
    from ksql_lake.catalogs.ddl import script

    sys.stdout.write(script(dialect, states, lake, location))
    return ExitCode.OK


def _rebuild(lake: Path, feed: str | None) -> int:
    """Restore one feed's metadata, or that of every feed where it is missing or not readable."""
    from ksql_lake.maintain.rebuild import rebuild

    stamp = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}"
    chosen = [dataset for dataset in _datasets(lake) if feed in (None, dataset.feed)]
    broken = [dataset for dataset in chosen if feed or not _is_usable(dataset)]
    code = ExitCode.FINDINGS if feed and not chosen else ExitCode.OK
    for dataset in broken:
        try:
            with exclusive_lock(dataset.lock, dataset.feed):
                print("\n".join(f"{dataset.feed}: {line}" for line in rebuild(dataset, stamp)))
        except LakeError as error:
            print(f"error: {Finding('failed', str(error), feed=dataset.feed).line}", file=sys.stderr)
            code = max(code, error.exit_code)
    if not broken:
        print(f"{feed}: was never exported" if feed else "every feed's metadata is readable; nothing to rebuild")
    return code


def _reconcile(config: data_lake_config.Config, lake: Path, name: str, days: Sequence[dt.date]) -> int:
    """One line a day; exit code 1 when a day differs and nothing explains it."""
    from ksql_lake.ingest.streams.reconcile import reconcile
    from ksql_lake.sources.ksqldb.client import Client, Server
    from ksql_lake.sources.pace import Limits

    server = Server(config.url, config.user, config.password, config.ca_cert, config.timeout)
    limits = Limits(first_row=config.timeout, retry=config.timeout * 4)
    with Client(server) as client:
        counts = reconcile(client, metadata.Dataset(lake, name, "stream"), days, limits)
    for count in counts:
        print(count)
    unexplained = sum(not count.explained for count in counts)
    print(f"{name}: {len(counts)} days, {unexplained} differ without an explanation")
    return ExitCode.FINDINGS if unexplained else ExitCode.OK


def _register(args: argparse.Namespace, lake: Path, states: dict[str, FeedState]) -> int:
    """The lake's feeds as tables of a Glue database; one that cannot be is said and does not stop the others."""
    if not args.database:
        raise ConfigError("--register needs --database NAME")
    if args.location and not re.match(r"[a-z][a-z0-9]*://", args.location):
        raise ConfigError(f"--location is {args.location!r}; expected a URI such as s3://bucket/lake")
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise ConfigError("--register glue needs boto3: pip install -r requirements-glue.txt") from None
    from ksql_lake.catalogs import glue

    location = args.location or lake.as_uri()
    if not args.location:
        print(f"note: tables will point at {location}; Athena needs --location s3://...", file=sys.stderr)
    tables, failures = [], []
    for name, state in states.items():
        try:
            tables.append(glue.wanted(name, state, location))
        except LakeError as error:
            failures.append(f"{args.database}.{name}: {error}")
    try:
        client = boto3.client("glue")
    except (BotoCoreError, ValueError) as error:  # no region, no profile of that name, an endpoint that is no URL
        raise ConfigError(f"Glue: {_one_line(error)}") from None
    try:
        with exclusive_lock(lake / glue.LOCK, "the Glue catalog"):
            registry = glue.Registry(client, lake, args.database.lower())
            done = glue.register(registry, tables, print, args.dry_run)
    except (BotoCoreError, ClientError) as error:  # no credentials, no permission, no way there
        raise CatalogError(f"Glue: {_one_line(error)}") from None
    failures += done.failures
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    would = "would change" if args.dry_run else "changed"
    print(f"{len(states)} tables, {done.changed} {would}, {len(failures)} failed")
    return ExitCode.FINDINGS if failures else ExitCode.OK


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _compare(lake: Path, what: Sequence[str], form: str) -> int:
    from ksql_lake.query.compare import compare

    name, before, after = what
    dataset = metadata.Dataset(lake, name, "table")
    state = metadata.load(dataset)
    if state is None:
        raise StateError(f"{dataset.metadata}: missing; {name} is no table that was exported")
    found = compare(dataset, state, before, after)
    if form == "json":
        shown = ({"kind": d.kind, "key": d.key, "changed": d.changed} for d in found)
        sys.stdout.writelines(report.json_list(shown))
        return ExitCode.OK
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("kind", "key", "column", "before", "after"))
        for d in found:
            key = ", ".join(f"{k}={v}" for k, v in d.key.items())
            lines = [(d.kind, key, c, a, b) for c, (a, b) in d.changed.items()] or [(d.kind, key, "", "", "")]
            writer.writerows(map(cell, line) for line in lines)
        return ExitCode.OK
    count = dict.fromkeys(("added", "removed", "changed"), 0)
    for d in found:
        print(d)
        count[d.kind] += 1
    print(f"{name} {before} to {after}: " + ", ".join(f"{n:,} {kind}" for kind, n in count.items()))
    return ExitCode.OK


def _day(text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; expected YYYY-MM-DD such as 2025-01-15") from None


def _datasets(lake: Path) -> list[metadata.Dataset]:
    """Every feed that has a directory or a history in the lake."""
    return [
        metadata.Dataset(lake, directory.name, kind, not directory.stat().st_mode & 0o005)
        for kind in ("stream", "table")
        for directory in sorted((lake / f"{kind}s").glob("*"))
        if directory.is_dir()
    ]


def _dataset_of(lake: Path, name: str, kind: str) -> metadata.Dataset:
    """A feed with the access its file gives it; without one, as its directory stands."""
    for state in ("active", "archived"):
        path = lake / "feeds" / state / f"{name}.json"
        if path.exists():
            with contextlib.suppress(LakeError):
                return metadata.Dataset(lake, name, kind, feeds.load(path).access == "restricted")
    mode = (lake / f"{kind}s" / name).stat().st_mode
    return metadata.Dataset(lake, name, kind, not mode & 0o005)


def _is_usable(dataset: metadata.Dataset) -> bool:
    try:
        metadata.current(dataset)
    except StateError:
        return False
    return True


def _verify(lake: Path, states: dict[str, FeedState], deep: bool) -> int:
    from ksql_lake.maintain.permissions import drift
    from ksql_lake.maintain.verify import verify  # Arrow is loaded only where files are read

    findings: list[Finding] = []
    for name, state in states.items():
        try:
            metadata.current(metadata.Dataset(lake, name, state.type))
        except StateError as error:
            findings.append(Finding("metadata", str(error), feed=name))
        findings += [Finding("access", str(one), feed=name) for one in drift(_dataset_of(lake, name, state.type))]
        findings += verify(lake / f"{state.type}s" / name, state, deep=deep)
    for finding in findings:
        print(finding.line)
    print(f"{len(states)} feeds, {sum(len(state.files) for state in states.values())} files, {len(findings)} findings")
    return ExitCode.FINDINGS if findings else ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
