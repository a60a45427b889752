"""Commands that change the data of a feed, each as a commit of its own under the feed's lock."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError, LakeBusyError, LakeError, StateError
from ksql_lake.base.figures import counted
from ksql_lake.cli import context
from ksql_lake.cli.observing import observed
from ksql_lake.model import feeds
from ksql_lake.model.feeds import Feed


def retention(config: Config, args: argparse.Namespace) -> int:
    names = args.name or [feed.name for feed in feeds.load_all(context.active(config)) if isinstance(feed, Feed)]
    total = Counter[str]()
    code = each(names, lambda name: _retain(config, args, name, total))
    word = "would go" if args.dry_run else f"went into the trash for {config.trash_days} days"
    print(f"{counted(total['rows'], 'row')}, {counted(total['bytes'], 'byte')} {word}")
    return code


def each(names: Sequence[str], act: Callable[[str], int]) -> int:
    """Feed by feed: what is wrong with one is told, and the others are done; the exit code of the whole."""
    codes = set()
    for name in names:
        try:
            codes.add(act(name))
        except LakeError as error:
            print(f"error: {'' if name in str(error) else f'{name}: '}{error}", file=sys.stderr)
            codes.add(error.exit_code)
        except OSError as error:
            print(f"error: {name}: {error.filename}: {error.strerror}", file=sys.stderr)
            codes.add(ExitCode.FINDINGS)
    others = codes - {ExitCode.OK, ExitCode.LOCKED}
    return max(others) if others else ExitCode.LOCKED if ExitCode.LOCKED in codes else ExitCode.OK


def _retain(config: Config, args: argparse.Namespace, name: str, total: Counter[str]) -> int:
    from ksql_lake.maintain import retention
    from ksql_lake.store import trash

    share = (config.max_delete_percent if args.max_delete is None else args.max_delete) / 100
    feed, code = context.feed_of(config, name), ExitCode.OK
    rule = retention.Rule(feed.retention_days, feed.retention_versions, share, frozenset(args.allow))
    dataset, moment = _dataset(config, name), dt.datetime.now(dt.UTC)
    with changing(dataset, args.dry_run) as (state, run):
        if state is None:
            return code
        plan = retention.plan(name, state, rule, moment)
        for decision in plan.decisions:
            if args.dry_run or decision in plan.going:
                word = "goes " if decision.goes else "stays"
                print(f"{name}  {word} {decision.partition}  {decision.rows:,} rows  {decision.bytes:,} bytes  "
                      f"{decision.reason}")
        if plan.refusal:
            print(f"refused: {plan.refusal}", file=sys.stderr)
            code = ExitCode.FINDINGS
        total.update(rows=plan.rows, bytes=plan.bytes)
        if args.dry_run:
            return code
        retention.remember(dataset, state, plan, rule, f"{run}n", **context.signed())
        for path in retention.apply(dataset, state, plan, run, **context.signed()):
            print(f"{path}: a symbolic link stands in the way; left alone", file=sys.stderr)
            code = ExitCode.FINDINGS
        for path in trash.empty(dataset, config.trash_days, moment.date()):
            print(f"{name}  removed {path} for good")
    return code


def undo(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.store import metadata, trash
    from ksql_lake.store.trash import IN_THE_LAKE

    if not args.list and _finish_interrupted(config, args.name):
        return ExitCode.OK
    held = trash.bundles(config.lake_dir, args.name)
    if args.list:
        for bundle in held:
            print(f"{bundle.at}  {bundle.feed:<32} {bundle.rows:>10,} rows  {len(bundle.every)} files  {bundle.why}")
        return ExitCode.OK
    held = [bundle for bundle in held if bundle.why not in IN_THE_LAKE]
    if not held:
        of = f" of {args.name}" if args.name else ""
        raise StateError(f"{config.lake_dir / metadata.TRASH}: there is nothing{of} to bring back")
    last = held[-1].at if args.name else held[-1].at[:10]
    for bundle in held:
        if not bundle.at.startswith(last):
            continue
        dataset = _dataset(config, bundle.feed)
        with changing(dataset) as (state, run):
            if state is None:
                raise StateError(f"{dataset.metadata}: missing, though the trash holds files of the feed")
            trash.undo(dataset, state, bundle, run, **context.signed())
        print(f"{bundle.feed}: {counted(bundle.rows, 'row')} back in {counted(len(bundle.every), 'file')}")
    print("raise retention_days or retention_versions, or the next --all takes them again")
    return ExitCode.OK


def _finish_interrupted(config: Config, name: str | None) -> bool:
    """Finish a change that was interrupted, perhaps this very one: going on from there would undo one more."""
    from ksql_lake.store import metadata

    staging = config.lake_dir / ".staging"
    journalled = {path.parents[1].name for path in staging.glob(f"{name or '*'}/*/{metadata.JOURNAL}")}
    for interrupted in sorted({path.parent.name for path in staging.glob(f"{name or '*'}/*/")}):
        try:
            with changing(_dataset(config, interrupted)):
                pass
        except LakeBusyError:
            continue  # an export at work: it finishes what it finds itself
        if interrupted in journalled:
            print(f"{interrupted}: finished a change that was interrupted; run again to undo more")
    return bool(journalled)


def percent(text: str) -> float:
    """A number from 0 to 100."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to 100")
    return number


def days(text: str) -> int:
    number = text.removesuffix("d")
    if not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of days such as 2d, 1 or more")
    return int(number)


def compact(config: Config, args: argparse.Namespace) -> int:
    active = [feed for feed in feeds.load_all(context.active(config)) if isinstance(feed, Feed)]
    names = args.name or [feed.name for feed in active if feed.type == "stream"]
    total = Counter[str]()
    code = each(names, lambda name: _compact(config, args, name, total))
    print(f"{total['before']} files {'would become' if args.dry_run else 'became'} {total['after']}")
    return code


def _compact(config: Config, args: argparse.Namespace, name: str, total: Counter[str]) -> int:
    from ksql_lake import __version__
    from ksql_lake.maintain.compact import compact
    from ksql_lake.maintain.merges import plan

    if context.feed_of(config, name).type != "stream":
        raise FeedError(f"{name}: is a table; each version is written whole, so there is nothing to merge")
    dataset = _dataset(config, name)
    with changing(dataset, args.dry_run) as (state, run):
        merges = plan(state, args.older_than, dt.datetime.now(dt.UTC)) if state else []
        for number, merge in enumerate(merges):
            made = 1
            if not args.dry_run:
                made = compact(dataset, state, merge, f"{run}c{number}", tool=__version__, **context.signed())
            total.update(before=len(merge.files), after=made)
            print(f"{name}  {merge.partition}  {merge.rows:,} rows  {len(merge.files)} files into {made}")
    return ExitCode.OK


def quarantine(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.quality.quarantine import held

    dataset = _dataset(config, args.name)
    if args.back:
        return _import(config, args, dataset)
    if args.force:
        raise ConfigError("quarantine: --force goes with --import")
    with changing(dataset, True) as (state, _):
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
    with changing(dataset) as (state, run):
        entries = held(state, args.of)
        move = Import(dataset, state, feed.checks, run, force=args.force, tool=__version__, options=options)
        done = move.carry_out(entries, **context.signed()) if entries else None
    rows, left = (done.rows, done.left) if done else (0, 0)
    print(f"{feed.name}: {counted(rows, 'row')} imported, {left:,} stay in quarantine")
    return ExitCode.FINDINGS if left else ExitCode.OK


def versions(config: Config, args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ksql_lake.maintain.versions import versions

    with changing(_table(config, args.name), True) as (state, _):
        found = versions(state) if state else []
    if args.json:
        print(json.dumps([asdict(version) for version in found], indent=2))
        return ExitCode.OK
    for version in found:
        marks = " ".join(word for word, so in (("current", version.current), ("pinned", version.pinned)) if so)
        print(f"{version.name:<6} {version.rows:>12,} rows {version.size_mb:>10.3f} MB  {version.exported_at}  {marks}")
    return ExitCode.OK


def rollback(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.maintain.versions import rollback

    dataset, version = _table(config, args.name), context.version_name(args.version)
    with changing(dataset) as (state, run):
        if state is None:
            raise StateError(f"{args.name}: was never exported")
        changed = rollback(dataset, state, version, run, **context.signed())
        number = state.last_version + 1
    print(f"{args.name}: {version} is current{'' if changed else ' already'}; the next export makes v{number}")
    return ExitCode.OK


def pin(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.maintain.versions import pin

    dataset, version = _table(config, args.name), context.version_name(args.version)
    with changing(dataset) as (state, run):
        if state is None:
            raise StateError(f"{args.name}: was never exported")
        pin(dataset, state, version, run, pinned=args.pinned, **context.signed())
    print(f"{args.name}: {version} is {'pinned' if args.pinned else 'not pinned'}")
    return ExitCode.OK


def permissions(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.maintain.permissions import apply, drift

    found = []
    for dataset in datasets(config, []):
        found += list(drift(dataset))
    for one in found:
        print(f"{one.path}  {one.found:o} -> {one.wanted:o}")
    if args.apply:
        apply(found)
    print(f"{len(found)} {'fixed' if args.apply else 'are not as they should be'}")
    return ExitCode.OK if args.apply or not found else ExitCode.FINDINGS


def datasets(config: Config, names: Sequence[str]) -> list[Any]:
    """Every feed that has data in the lake, or those named: archived and removed ones too."""
    from ksql_lake.store.lake import datasets

    there = datasets(config.lake_dir)
    known = [dataset.feed for dataset in there]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise FeedError(f"{', '.join(unknown)}: nothing in the lake; there are {', '.join(known) or 'none'}")
    return [observed(config, dataset) for dataset in there if not names or dataset.feed in names]


def _table(config: Config, name: str) -> Any:
    dataset = _dataset(config, name)
    if dataset.kind != "table":
        raise FeedError(f"{name}: is a stream; only tables have versions")
    return dataset


def _dataset(config: Config, name: str) -> Any:
    from ksql_lake.store.lake import find

    return observed(config, find(config.lake_dir, name))


@contextlib.contextmanager
def changing(dataset: Any, look: bool = False) -> Iterator[tuple[Any, str]]:
    """(state, run) of a feed with its lock held and interrupted work finished; only a look takes no lock."""
    from ksql_lake.store import metadata
    from ksql_lake.store.hold import hold

    run = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(3)}"
    if look:
        yield metadata.load(dataset), run
        return
    with hold(dataset):
        metadata.recover(dataset)
        state = metadata.current(dataset)
        for problem in metadata.catch_up(dataset, state) if state else ():
            print(f"warning: {problem.line}", file=sys.stderr)
        yield state, run
