"""`manage_feeds.py erase`: delete every row of one person from the lake."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import secrets
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError, LakeError, StateError
from ksql_lake.base.figures import counted
from ksql_lake.cli import changing, context
from ksql_lake.cli.observing import observed
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of

if TYPE_CHECKING:
    from ksql_lake.cli.remote_erasing import Erasing
    from ksql_lake.model.state import FeedState
    from ksql_lake.model.target import Target
    from ksql_lake.store.dataset import Dataset


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--where", required=True, type=_condition, metavar="COLUMN=VALUE",
        help="such as user_id=user_42; a field at any depth is written customer.ip_address=...",
    )
    parser.add_argument("--feeds", nargs="+", default=[], metavar="NAME", help="only these (default: all in the lake)")
    parser.add_argument("--dry-run", action="store_true", help="only show where the rows are")
    parser.add_argument(
        "--later", choices=("drop", "keep"), help="what to do with this person's rows in later exports"
    )
    parser.add_argument("--wait", action="store_true", help="wait for a feed that is being exported")


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.maintain import erased, receipts
    from ksql_lake.model.target import Target

    if not args.later and not args.dry_run:
        raise ConfigError("erase: say what to do with this person's later rows: --later drop, or --later keep")
    target = Target(*args.where)
    if args.dry_run:
        _refuse_unknown(config, args, target)
        return _erase_from(config, args, target, {})
    with storage_of(config.lake_dir).lock(layout.erasure_lock(config.lake_dir), "erase"):
        _refuse_unknown(config, args, target)
        if args.later == "drop":
            erased.remember(config.lake_dir, target, args.feeds)
        run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
        receipt = receipts.begin(config.lake_dir, target, run, rule=args.later, **context.signed())
        return _erase_from(config, args, target, receipt)


def _refuse_unknown(config: Config, args: argparse.Namespace, target: Target) -> None:
    """Refuse a column that no feed has, and a value that the column cannot hold in any feed."""
    from ksql_lake.maintain import erase
    from ksql_lake.model.values import Unfit, meanings, type_name
    from ksql_lake.store import metadata

    fits, problems, known = False, [], []
    for dataset in _asked(config, args.feeds):
        try:
            state = metadata.load(dataset)
        except StateError:
            return  # reported when it is opened; it may have the column
        if state is None:
            continue
        known.append((dataset, state))
        for kind in dict.fromkeys(erase.declared(state, erase.aimed(state, target.column, target.value))):
            try:
                meanings(target.value, kind)
                fits = True
            except Unfit as problem:
                problems.append(f"{dataset.feed}: {target.column} is {type_name(kind)}, which cannot hold "
                                f"{target.value!r}; expected {problem}")
    if problems and not fits:
        raise FeedError("erase: " + "; ".join(problems))
    for line in problems:
        print(f"{line}, so no row of this column can match", file=sys.stderr)
    if not fits and not any(erase.has_key(dataset, state, target) for dataset, state in known):
        raise FeedError(f"erase: no feed has a column {target.column}; see: python manage_feeds.py list")


def _erase_from(config: Config, args: argparse.Namespace, meant: Target, receipt: dict[str, Any]) -> int:
    """Feed by feed; one that is busy or damaged is reported and does not hold up the others."""
    from ksql_lake.cli.remote_erasing import Erasing

    closed: dict[str, str] = {}
    rows = 0
    there = Erasing(config, args.dry_run)
    for dataset in _asked(config, args.feeds):
        try:
            with _opened(dataset, args) as (state, run):
                rows += _erase_one(config, args, dataset, state, run, meant, receipt, there)
        except LakeError as error:
            closed[dataset.feed] = str(error)
            print(f"{dataset.feed}: {error}", file=sys.stderr)
    if args.dry_run:
        print(f"{counted(rows, 'row')} would be erased; nothing was changed")
        return ExitCode.OK
    return _finish_erasure(config, args, meant, receipt, closed, there.problems)


def _asked(config: Config, names: Sequence[str]) -> Sequence[Dataset]:
    """The feeds named, or all of which the lake has any files."""
    from ksql_lake.store.lake import traces

    there = {dataset.feed: observed(config, dataset) for dataset in traces(config.lake_dir)}
    if not names:
        return list(there.values())
    if set(names) <= set(there):
        return [there[name] for name in dict.fromkeys(names)]
    return changing.datasets(config, names)


@contextlib.contextmanager
def _opened(dataset: Dataset, args: argparse.Namespace) -> Iterator[tuple[FeedState | None, str]]:
    """(state, run) of a feed with its lock held and interrupted work finished; None for one without metadata.

    Raises:
        LakeBusyError: it is being exported or changed.
        StateError: its metadata are missing, an old copy or damaged, while it has data.
    """
    from ksql_lake.store import journal, metadata
    from ksql_lake.store.hold import hold

    run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
    with contextlib.ExitStack() as stack:
        if not args.dry_run:
            stack.enter_context(hold(dataset, wait=args.wait))
            journal.recover(dataset)
        if dataset.storage.stat(dataset.directory):
            yield metadata.current(dataset), run
        else:
            yield None, run


def _erase_one(
    config: Config, args: argparse.Namespace, dataset: Dataset, state: FeedState | None, run: str, meant: Target,
    receipt: dict[str, Any], there: Erasing,
) -> int:
    from ksql_lake.maintain import erase, receipts
    from ksql_lake.store import trash

    if state is None:  # never exported, or gone: what is left of it is in the trash
        found = [file for bundle in trash.bundles(dataset.lake, dataset.feed)
                 for file in erase.find_in_bundle(dataset.lake, bundle, meant)]
    else:
        target = erase.aimed(state, meant.column, meant.value)
        there.begin(dataset, state, run, target)
        found = list(erase.find(dataset, state, target))
    for file in found:
        print(f"{dataset.feed}  {counted(file.rows, 'row')} in {file.path.relative_to(config.lake_dir)}")
    if not args.dry_run and state is None and found:
        rows, files = erase.erase_from_trash(dataset, meant, run)
        receipt.setdefault("trash_without_metadata", []).append({"feed": dataset.feed, "rows": rows, "files": files})
        receipts.write(config.lake_dir, receipt)
    elif not args.dry_run and state is not None:
        number = receipt["receipt"]
        recorded = any(e.receipt == number for e in state.erasures)
        if found or (args.later == "drop" and not recorded and erase.declared(state, target)):
            erase.erase(dataset, state, found, target, run, receipt=number, rule=args.later, **context.signed())
        there.settle()
    return sum(file.rows for file in found) + (there.rows if state is not None and args.dry_run else 0)


def _finish_erasure(
    config: Config, args: argparse.Namespace, meant: Target, receipt: dict[str, Any], closed: dict[str, str],
    remote: Sequence[str],
) -> int:
    """Search everywhere again, and record what was done and what could not be searched."""
    from ksql_lake.maintain import leftovers, receipts
    from ksql_lake.store import metadata
    from ksql_lake.store.lake import datasets

    left = leftovers.search(config.lake_dir, meant, args.feeds, closed)
    left.remote += remote
    receipt.pop("remote", None)  # from an earlier attempt
    lines = list(receipt.get("trash_without_metadata", []))
    for dataset in datasets(config.lake_dir):
        if dataset.feed not in closed and (state := metadata.load(dataset)) is not None:
            mine = (e for e in state.erasures if e.receipt == receipt["receipt"])
            lines += [{"feed": dataset.feed, "rows": e.rows, "files": e.files} for e in mine]
    rows = sum(line["rows"] for line in lines)
    done = {
        **receipt, "ended": context.now() if left.clean else None, "only": sorted(args.feeds), "feeds": lines,
        "rows": rows, "rows_left": left.rows, **left.to_json(),
    }
    path = receipts.write(config.lake_dir, done)
    for problem in (*left.left, *left.unseen, *left.remote):
        print(problem, file=sys.stderr)
    print(f"{counted(rows, 'row')} erased in {counted(len(lines), 'feed')}, {left.rows} left; receipt {path}")
    if not left.clean:
        print("this erasure is not complete: see above, then run the same command again", file=sys.stderr)
    return ExitCode.OK if left.clean else ExitCode.FINDINGS


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not column or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: expected COLUMN=VALUE")
    return column, value
