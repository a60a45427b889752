"""The command that takes every row of one person out of the lake."""

from __future__ import annotations

import argparse
import datetime as dt
import secrets
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError
from ksql_lake.base.files import exclusive_lock
from ksql_lake.cli import context, data

if TYPE_CHECKING:
    from ksql_lake.model.target import Target


def condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not column or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: expected COLUMN=VALUE")
    return column, value


def erase_command(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.maintain import erased, receipts
    from ksql_lake.model.target import Target

    if not args.later and not args.dry_run:
        raise ConfigError("erase: say what becomes of later events: --later drop, or --later keep")
    target = Target(*args.where)
    if args.dry_run:
        _refuse_unknown(config, args, target)
        return _erase_from(config, args, target, {})
    with exclusive_lock(receipts.lock(config.lake_dir), "erase"):
        _refuse_unknown(config, args, target)
        if args.later == "drop":
            erased.remember(config.lake_dir, target, args.feeds)
        run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
        receipt = receipts.begin(config.lake_dir, target, run, rule=args.later, **context.signed())
        return _erase_from(config, args, target, receipt)


def _refuse_unknown(config: Config, args: argparse.Namespace, target: Target) -> None:
    """Refuse a column that no feed has, and a value that is none of the column's type in any feed."""
    from ksql_lake.maintain import erase
    from ksql_lake.model.values import Unfit, meanings, type_name
    from ksql_lake.store import metadata

    fits, problems, known = False, [], []
    for dataset in data.datasets(config, args.feeds):
        state = metadata.load(dataset)
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
    from ksql_lake.maintain import erase

    datasets = data.datasets(config, args.feeds)
    rows = 0
    for dataset in datasets:
        with data.changing(dataset, args.dry_run) as (state, run):
            if state is None:
                continue
            target = erase.aimed(state, meant.column, meant.value)
            name = dataset.feed
            found = list(erase.find(dataset, state, target))
            for file in found:
                print(f"{name}  {file.rows:,} rows in {file.path.relative_to(config.lake_dir)}")
            rows += sum(file.rows for file in found)
            number = receipt.get("receipt", "")
            told = any(e.receipt == number for e in state.erasures)
            drops = args.later == "drop" and not told and erase.declared(state, target)
            if not args.dry_run and (found or drops):
                erase.erase(dataset, state, found, target, run, receipt=number, rule=args.later, **context.signed())
    if args.dry_run:
        print(f"{rows:,} rows would go; nothing was changed")
        return ExitCode.OK
    return _finish_erasure(config, datasets, meant, receipt)


def _finish_erasure(config: Config, datasets: Sequence[Any], meant: Target, receipt: dict[str, Any]) -> int:
    """Look again everywhere, and write down what was done."""
    from ksql_lake.maintain import erase, receipts

    left, lines = 0, []
    for dataset in datasets:
        with data.changing(dataset, True) as (state, _):
            if state is None:
                continue
            target = erase.aimed(state, meant.column, meant.value)
            left += sum(file.rows for file in erase.find(dataset, state, target))
            mine = (e for e in state.erasures if e.receipt == receipt["receipt"])
            lines += [{"feed": dataset.feed, "rows": e.rows, "files": e.files} for e in mine]
    rows = sum(line["rows"] for line in lines)
    ended = None if left else context.now()
    done = {**receipt, "ended": ended, "feeds": lines, "rows": rows, "rows_left": left}
    path = receipts.write(config.lake_dir, done)
    print(f"{rows:,} rows erased in {len(lines)} feeds, {left} left; receipt {path}")
    return ExitCode.FINDINGS if left else ExitCode.OK
