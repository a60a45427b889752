"""Report on the data lake, count what is in it, and verify it against its metadata.

exit codes: 0 all well; 1 a finding; 2 usage or configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime as dt
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data_lake_config
from ksql_lake import feeds, history, metadata
from ksql_lake.errors import ExitCode, LakeError, StateError
from ksql_lake.files import atomic_write, exclusive_lock

CSV_COLUMNS = ("feed", "type", "source", "path", "records", "size_mb", "exported_at", "current")
State = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        config = data_lake_config.load(os.environ)
        lake = args.lake.resolve() if args.lake else config.lake_dir
        if args.reconcile:
            return _reconcile(config, lake, args.reconcile, args.date)
        if args.compare:
            return _compare(lake, args.compare, args.format)
        if args.rebuild:
            return _rebuild(lake, args.feed)
        states, problems = _load(lake)
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        return max(_run(args, lake, states), ExitCode.FINDINGS if problems else ExitCode.OK)
    except LakeError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.FINDINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--report", action="store_true", help="one line for each feed, totals, findings")
    what.add_argument("--stats", action="store_true", help="rows and sizes of each partition or version")
    what.add_argument("--csv", type=Path, metavar="FILE", help=f"one row per partition: {', '.join(CSV_COLUMNS)}")
    what.add_argument("--json", action="store_true", help="the report for machines")
    what.add_argument("--verify", action="store_true", help="check files against metadata; exit code 1 with a finding")
    what.add_argument(
        "--rebuild", action="store_true",
        help="restore metadata that is missing or corrupt from footers and state log; with --feed also a good one",
    )
    what.add_argument(
        "--reconcile", metavar="NAME", help="count a stream's rows per day at the source and compare"
    )
    what.add_argument(
        "--compare", nargs=3, metavar=("NAME", "V1", "V2"), help="rows of a table added, removed and changed, by key"
    )
    what.add_argument(
        "--sql", choices=("duckdb", "hive", "athena", "spark", "bigquery"), metavar="DIALECT",
        help="views (duckdb) or external tables (hive, athena, spark, bigquery) of every feed, as SQL",
    )
    parser.add_argument(
        "--location", metavar="URI", help="with --sql: where the lake lies for that system, such as s3://bucket/lake"
    )
    parser.add_argument(
        "--format", choices=("text", "json", "csv"), default="text", help="with --compare (default: text)"
    )
    parser.add_argument(
        "--date", action="append", default=[], type=_day, metavar="YYYY-MM-DD", help="with --reconcile: only this day"
    )
    parser.add_argument("--deep", action="store_true", help="with --verify: read every row group, check every offset")
    parser.add_argument("--feed", metavar="NAME", help="only this feed")
    parser.add_argument("--lake", type=Path, metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    return parser


def _load(lake: Path) -> tuple[dict[str, State], list[str]]:
    states, problems = {}, []
    for kind in ("stream", "table"):
        for directory in sorted((lake / f"{kind}s").glob("*")):
            try:
                state = metadata.load(metadata.Dataset(lake, directory.name, kind))
            except StateError as error:
                problems.append(str(error))
                continue
            if state is None and any(directory.rglob("*.parquet")):
                problems.append(
                    f"{directory / metadata.METADATA}: missing, though there are Parquet files; restore it with: "
                    f"python metadata_utils.py --rebuild --feed {directory.name}"
                )
            elif state is not None:
                states[directory.name] = state
    return states, problems


def _run(args: argparse.Namespace, lake: Path, states: dict[str, State]) -> int:
    chosen = {name: state for name, state in states.items() if args.feed in (None, name)}
    if args.feed and not chosen and not ((args.report or args.json) and args.feed in history.latest(lake)):
        print(f"error: {args.feed}: was never exported; see: python manage_feeds.py list", file=sys.stderr)
        return ExitCode.FINDINGS
    if args.verify:
        return _verify(lake, chosen, args.deep)
    if args.sql:
        return _sql(args.sql, chosen, lake, args.location)
    if args.csv:
        return _csv(args.csv, chosen)
    if args.json:
        print(json.dumps(_lines(lake, chosen, args.feed), indent=2))
        return ExitCode.OK
    return _stats(chosen) if args.stats else _report(lake, _lines(lake, chosen, args.feed))


def _lines(lake: Path, states: dict[str, State], feed: str | None) -> list[dict[str, Any]]:
    """What the report says of each feed, also of those that were tried and never exported."""
    latest = history.latest(lake)
    names = [name for name in sorted({*states, *latest}) if feed in (None, name)]
    return [
        _line(lake, name, states[name], latest.get(name)) if name in states else _failed_line(lake, name, latest[name])
        for name in names
        if name in states or _feed_state(lake, name) != "no feed"
    ]


def _failed_line(lake: Path, name: str, run: history.Run) -> dict[str, Any]:
    return {
        "feed": name, "type": run["type"], "state": _feed_state(lake, name), "rows": 0, "size_mb": 0.0, "partitions": 0,
        "newest": "-", "last_export": None, "last_run": run["ended"], "result": run["result"],
        "findings": run["findings"], "checks": run.get("checks", []), "quarantined": 0,
    }


def _line(lake: Path, name: str, state: State, run: history.Run | None) -> dict[str, Any]:
    """What the report says of one feed; `run` is its last one as the run history has it."""
    current = state.get("current")
    newest = current["version"] if current else max((p["path"] for p in state["partitions"]), default="-")
    return {
        "feed": name,
        "type": state["type"],
        "state": _feed_state(lake, name),
        "rows": state["total_records"],
        "size_mb": state["total_size_mb"],
        "partitions": len(state["partitions"]),
        "newest": newest.replace("year=", "").replace("/month=", "-").replace("/day=", "-"),
        "last_export": state["last_export"],
        "last_run": run["ended"] if run else state["last_export"],
        "result": run["result"] if run else (state.get("last_run") or {}).get("result", "ok"),
        "findings": run["findings"] if run else [finding["message"] for finding in state["findings"]],
        "checks": (run or state).get("checks", []),
        "quarantined": sum(entry["rows"] for entry in state.get("quarantine", ())),
    }


def _feed_state(lake: Path, name: str) -> str:
    path = lake / "feeds" / "active" / f"{name}.json"
    if path.exists():
        try:
            return "active" if feeds.load(path).enabled else "disabled"
        except LakeError:
            return "broken"
    return "archived" if (lake / "feeds" / "archived" / path.name).exists() else "no feed"


def _report(lake: Path, lines: list[dict[str, Any]]) -> int:
    if not lines:
        print(f"{lake}: nothing was exported yet; python export_to_data_lake.py --all")
        return ExitCode.OK
    for line in lines:
        for finding in line["findings"]:
            print(f"! {finding}")
    print(f"{'feed':<30} {'status':<8} {'rows':>10} {'MB':>8} {'parts':>5} {'newest':<10}")
    for line in lines:
        print(
            f"{line['feed'][:30]:<30} {_status(line):<8} {line['rows']:>10,} {line['size_mb']:>8.1f} "
            f"{line['partitions']:>5} {line['newest']:<10}"
        )
    for line in lines:
        if line["quarantined"]:
            print(f"{line['feed'][:30]:<30} set aside{line['quarantined']:>11,}")
    rows, size = sum(line["rows"] for line in lines), sum(line["size_mb"] for line in lines)
    print(f"{'total':<30} {'':<8} {rows:>10,} {size:>8.1f}")
    print(f"last run {max(line['last_run'] for line in lines)}")
    return ExitCode.OK


def _status(line: dict[str, Any]) -> str:
    """How the last run went, or why there is none to expect."""
    return str(line["result"] if line["state"] == "active" else line["state"])


def _stats(states: dict[str, State]) -> int:
    for name, state in states.items():
        print(f"{name}: {state['total_records']:,} rows, {state['total_size_mb']:.3f} MB")
        for partition in state["partitions"]:
            print(
                f"  {partition['path']:<32} {partition['records']:>10,} rows {partition['size_mb']:>10.3f} MB  "
                f"{partition['exported_at']}"
            )
    return ExitCode.OK


def _csv(target: Path, states: dict[str, State]) -> int:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for name, state in states.items():
        current = (state.get("current") or {}).get("path")
        for p in state["partitions"]:
            row = (name, state["type"], state["source"], p["path"], p["records"], p["size_mb"], p["exported_at"])
            writer.writerow((*row, "yes" if p["path"] == current else ""))
    atomic_write(target.resolve(), text.getvalue().encode())
    print(f"wrote {target}")
    return ExitCode.OK


def _sql(dialect: str, states: dict[str, State], lake: Path, location: str | None) -> int:
    from ksql_lake.ddl import script

    sys.stdout.write(script(dialect, states, lake, location))
    return ExitCode.OK


def _rebuild(lake: Path, feed: str | None) -> int:
    """Restore one feed's metadata, or that of every feed where it is missing or not readable."""
    from ksql_lake.rebuild import rebuild

    stamp = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}"
    chosen = [dataset for dataset in _datasets(lake) if feed in (None, dataset.feed)]
    broken = [dataset for dataset in chosen if feed or not _is_usable(dataset)]
    code = ExitCode.FINDINGS if feed and not chosen else ExitCode.OK
    for dataset in broken:
        try:
            with exclusive_lock(dataset.lock, dataset.feed):
                print("\n".join(f"{dataset.feed}: {line}" for line in rebuild(dataset, stamp)))
        except LakeError as error:
            print(f"error: {error}", file=sys.stderr)
            code = max(code, error.exit_code)
    if not broken:
        print(f"{feed}: was never exported" if feed else "every feed's metadata is readable; nothing to rebuild")
    return code


def _reconcile(config: data_lake_config.Config, lake: Path, name: str, days: Sequence[dt.date]) -> int:
    """One line a day; exit code 1 when a day differs and nothing explains it."""
    from ksql_lake.ksqldb import Client, Server
    from ksql_lake.pace import Limits
    from ksql_lake.reconcile import reconcile

    server = Server(config.url, config.user, config.password, config.ca_cert, config.timeout)
    limits = Limits(first_row=config.timeout, retry=config.timeout * 4)
    with Client(server) as client:
        counts = reconcile(client, metadata.Dataset(lake, name, "stream"), days, limits)
    for count in counts:
        print(count)
    unexplained = sum(not count.explained for count in counts)
    print(f"{name}: {len(counts)} days, {unexplained} differ without an explanation")
    return ExitCode.FINDINGS if unexplained else ExitCode.OK


def _compare(lake: Path, what: Sequence[str], form: str) -> int:
    from ksql_lake.compare import compare

    name, before, after = what
    dataset = metadata.Dataset(lake, name, "table")
    state = metadata.load(dataset)
    if state is None:
        raise StateError(f"{dataset.metadata}: missing; {name} is no table that was exported")
    found = compare(dataset, state, before, after)
    if form == "json":
        shown = [{"kind": d.kind, "key": d.key, "changed": d.changed} for d in found]
        print(json.dumps(shown, indent=2, default=str))
        return ExitCode.OK
    if form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("kind", "key", "column", "before", "after"))
        for d in found:
            key = ", ".join(f"{k}={v}" for k, v in d.key.items())
            writer.writerows([(d.kind, key, c, a, b) for c, (a, b) in d.changed.items()] or [(d.kind, key, "", "", "")])
        return ExitCode.OK
    for d in found:
        print(d)
    count = {kind: sum(d.kind == kind for d in found) for kind in ("added", "removed", "changed")}
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
        metadata.load_or_new(dataset, dict)
    except StateError:
        return False
    return True


def _verify(lake: Path, states: dict[str, State], deep: bool) -> int:
    from ksql_lake.permissions import drift
    from ksql_lake.verify import verify  # Arrow is loaded only where files are read

    findings = []
    for name, state in states.items():
        findings += [str(one) for one in drift(_dataset_of(lake, name, state["type"]))]
        findings += verify(lake / f"{state['type']}s" / name, state, deep=deep)
    for finding in findings:
        print(finding)
    print(f"{len(states)} feeds, {sum(len(s['files']) for s in states.values())} files, {len(findings)} findings")
    return ExitCode.FINDINGS if findings else ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
