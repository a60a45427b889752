"""The options of an export, and what they add up to: which feeds, which days."""

from __future__ import annotations

import argparse
import datetime as dt
import difflib
from collections.abc import Sequence
from pathlib import Path

from ksql_lake import __version__
from ksql_lake.base.errors import ConfigError
from ksql_lake.cli.words import address, seconds
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed, FeedProblem

MOST_DAYS = 36_600  # in a range of --from and --to: more is a typing mistake in a year


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--version", action="version", version=f"ksql-lake {__version__}")
    _what(made.add_argument_group("what to export"))
    _how(made.add_argument_group("how"))
    told = made.add_argument_group("notifications (default: METRICS_FILE, PING_URL, ON_FAILURE)")
    told.add_argument(
        "--metrics-file", metavar="FILE", help="write Prometheus text for node_exporter's textfile collector"
    )
    told.add_argument("--ping-url", metavar="URL", help="post to URL/start, then URL, or URL/fail with the last lines")
    told.add_argument(
        "--on-failure", metavar="COMMAND",
        help="run by the shell when the exit code is not 0, with the messages on its stdin",
    )
    return made


def _what(what: argparse._ArgumentGroup) -> None:
    what.add_argument("--all", action="store_true", help="every enabled feed in feeds/active")
    what.add_argument("--stream", action="append", default=[], metavar="NAME", help="one stream feed; may be repeated")
    what.add_argument("--table", action="append", default=[], metavar="NAME", help="one table feed; may be repeated")
    what.add_argument(
        "--date", action="append", default=[], type=day, metavar="YYYY-MM-DD",
        help="only events of this day (streams); may be repeated, in any order. No row is exported twice",
    )
    what.add_argument("--from", dest="first", type=day, metavar="YYYY-MM-DD", help="first day of a range")
    what.add_argument(
        "--to", dest="last", type=day, metavar="YYYY-MM-DD", help="last day of a range, included (default: today)"
    )
    what.add_argument(
        "--since", type=day, metavar="YYYY-MM-DD",
        help="the first export of a stream skips events of earlier days, for good; later exports continue as usual",
    )
    what.add_argument("--demo", action="store_true", help="export an embedded ksqlDB's sources into demo_lake/")


def _how(how: argparse._ArgumentGroup) -> None:
    how.add_argument("--lake", metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    how.add_argument("--dry-run", action="store_true", help="say what would be read, and write nothing")
    how.add_argument(
        "--wait", action="store_true", help="wait for a lock that another run holds (default: exit code 3)"
    )
    how.add_argument("--jobs", type=_jobs, metavar="N", help="feeds to export at the same time (default: JOBS, 4)")
    how.add_argument(
        "--cluster", metavar="ADDRESS", help="let the workers of this Dask scheduler read (tcp://scheduler:8786)"
    )
    how.add_argument("--allow-shrink", action="store_true", help="accept a table that is empty or much smaller")
    how.add_argument(
        "--accept-cluster", action="store_true",
        help="fill the lake from a different Kafka cluster from now on; its streams count as recreated",
    )
    how.add_argument(
        "--reconcile", action="store_true", help="afterwards count the streams' rows per day at the source and compare"
    )
    _sources(how)
    how.add_argument("--events", type=_events, default=10_000, metavar="N", help="events of the demo (default: 10000)")
    how.add_argument(
        "--start", type=day, metavar="YYYY-MM-DD",
        help="first day of the demo's events (default: so that they end now)",
    )
    how.add_argument("--json", action="store_true", help="results as JSON on stdout")
    how.add_argument("--quiet", action="store_true", help="print nothing unless something is wrong")
    how.add_argument(
        "--progress", choices=("auto", "plain", "off"), default="auto",
        help="auto: shown on a terminal only; plain: a line a minute on stderr",
    )


def _sources(how: argparse._ArgumentGroup) -> None:
    how.add_argument(
        "--source", choices=("auto", "rest", "kafka"),
        help="where streams are read: kafka reads their topics, rest asks ksqlDB, auto takes Kafka where it can "
        "(default: read_from of each feed, else auto)",
    )
    how.add_argument("--follow", action="store_true", help="keep exporting in small batches until SIGTERM or Ctrl-C")
    how.add_argument(
        "--every", type=seconds, default=60.0, metavar="TIME", help="--follow: time between batches (default: 60s)"
    )
    how.add_argument(
        "--tables-every", type=seconds, default=3600.0, metavar="TIME",
        help="--follow: time between exports of a table (default: 1h)",
    )
    how.add_argument(
        "--tidy-every", type=seconds, default=3600.0, metavar="TIME",
        help="--follow: time between merging small files and applying retention (default: 1h)",
    )
    how.add_argument(
        "--batch-rows", type=int, default=200_000, metavar="N",
        help="--follow: commit earlier when this many rows are waiting",
    )
    how.add_argument(
        "--batch-mb", type=float, default=64.0, metavar="MB",
        help="--follow: commit earlier at about this many MB of files",
    )
    how.add_argument("--listen", type=address, metavar="HOST:PORT", help="serve /healthz and /metrics of --follow")
    how.add_argument("--for", dest="limit", type=seconds, metavar="TIME", help="end --follow after this time")


def day(text: str) -> dt.date:
    try:
        return dt.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; expected YYYY-MM-DD such as 2025-01-15") from None


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 1 to 64")
    return int(text)


def _events(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 <= int(text[:12]) <= 100_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 100000000")
    return int(text)


def days(args: argparse.Namespace, today: dt.date) -> tuple[dt.date, ...]:
    """The days given by --date, or by --from and --to; none for everything.

    Raises:
        ConfigError: these options contradict each other.
    """
    found = set(args.date)
    if args.last is not None and args.first is None:
        raise ConfigError("--to needs --from")
    if args.first is not None:
        last = args.last or today
        if last < args.first:
            raise ConfigError(f"--from {args.first} is after {'--to' if args.last else 'today,'} {last}")
        if (last - args.first).days > MOST_DAYS:
            raise ConfigError(f"--from {args.first} to {last} is more than {MOST_DAYS:,} days")
        found |= {args.first + dt.timedelta(days=i) for i in range((last - args.first).days + 1)}
    return tuple(sorted(found))


def choose(
    args: argparse.Namespace, active: Path, switched_off: Sequence[str] = ()
) -> tuple[list[Feed], list[FeedProblem]]:
    """(feeds to export, those that cannot be), in the order of their names or as they were named.

    Args:
        switched_off: feeds that --all leaves out, whatever is in their files.

    Raises:
        ConfigError: the options contradict each other, or there is no feed at all.
    """
    if args.all and (args.stream or args.table) and not args.demo:
        raise ConfigError("--all exports every enabled feed; use it alone, or use --stream and --table without it")
    if not (args.all or args.stream or args.table):
        raise ConfigError("nothing to export: give --all, --stream NAME or --table NAME (see --help)")
    loaded = feeds.load_all(active)
    if not loaded:
        raise ConfigError(f"{active}: there are no feeds yet; add them with: python manage_feeds.py discover --add, "
                          "or write those of data_lake_config.py with: python manage_feeds.py sync")
    good = [feed for feed in loaded if isinstance(feed, Feed)]
    bad = [feed for feed in loaded if isinstance(feed, FeedProblem)]
    if args.all:
        return [feed for feed in good if feed.enabled and feed.name not in switched_off], bad
    return _named(args, active, good, bad)


def _named(
    args: argparse.Namespace, active: Path, good: Sequence[Feed], bad: Sequence[FeedProblem]
) -> tuple[list[Feed], list[FeedProblem]]:
    """A wrong name is reported by itself, and the other feeds are exported."""
    chosen: list[Feed] = []
    problems: list[FeedProblem] = []
    for kind, names in (("stream", args.stream), ("table", args.table)):
        for name in dict.fromkeys(names):
            match = next((feed for feed in good if feed.name == name), None)
            broken = [problem for problem in bad if problem.path.stem == name]
            if match is None:
                words = f"{feeds.file_of(active, name)}: no such feed{_elsewhere(active, name)}"
                missing = FeedProblem(Path(f"{name}.json"), words)
                problems += broken or [missing]
            elif match.type != kind:
                raise ConfigError(f"{name} is a {match.type}; use --{match.type} {name}")
            else:
                chosen.append(match)
    return chosen, problems


def _elsewhere(active: Path, name: str) -> str:
    if any(path.stem == name for path in feeds.files(active.with_name("archived"))):
        return f"; it is archived: python manage_feeds.py restore {name}"
    close = difflib.get_close_matches(name, [path.stem for path in feeds.files(active)], 1)
    return f"; did you mean {close[0]}?" if close else "; see: python manage_feeds.py list"
