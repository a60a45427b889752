"""`manage_feeds.py remote ...`: a second home of the lake in a bucket of S3 or a container of Azure Blob."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import re
import sys
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError, LakeBusyError, LakeError
from ksql_lake.cli import context, data
from ksql_lake.cli.hints import here

if TYPE_CHECKING:
    from ksql_lake.remote.plans import Plan, Policy, Selection
    from ksql_lake.remote.turn import Turn
    from ksql_lake.store.remote.address import Address
    from ksql_lake.store.remote.binding import Binding
    from ksql_lake.store.remote.seam import ObjectStore

STALE = dt.timedelta(days=1)  # an upload that began before and never ended is not at work any more
DAYS = re.compile(r"(\d{4}-\d\d-\d\d)(?:\.\.(\d{4}-\d\d-\d\d))?")


def add_to(commands: Any) -> None:
    """The commands, below `remote`."""
    remote = commands.add_parser("remote", help="a second home of the lake: s3://bucket/prefix or az://container/prefix")
    verbs = remote.add_subparsers(required=True, metavar="COMMAND")
    moving = (
        ("push", push, "upload what is not in the remote yet"),
        ("drop", drop, "take days off this disk that the remote proves to have (default: by local_days)"),
        ("pull", pull, "bring days back to this disk"),
        ("tier", tier, "move older files to the feeds' remote_tier"),
        ("purge", purge, "delete from the remote what left the lake, and what interrupted uploads left"),
    )
    for name, run, says in moving:
        verb = verbs.add_parser(name, help=says)
        verb.add_argument("name", nargs="*", help="only these feeds (default: all in the lake)")
        if name in ("push", "drop", "pull"):
            verb.add_argument("--days", type=_days, metavar="DAY[..DAY]", help="such as 2025-01-01..2025-01-31")
            verb.add_argument("--versions", nargs="+", default=[], metavar="VERSION", help="of tables")
        if name == "push":
            verb.add_argument("--repair", action="store_true", help="also what is missing or altered in the remote")
        if name == "purge":
            verb.add_argument("--unknown", action="store_true", help="also objects that no metadata know")
        verb.add_argument("--dry-run", action="store_true", help="only show the plan, its bytes and its requests")
        verb.set_defaults(run=run)
    status_ = verbs.add_parser("status", help="what lies where and what is due; asks no store")
    status_.add_argument("name", nargs="*")
    status_.set_defaults(run=status)
    verify_ = verbs.add_parser("verify", help="look at every object: size and checksum as the store tells them")
    verify_.add_argument("name", nargs="*")
    verify_.add_argument("--deep", action="store_true", help="also read every object")
    verify_.set_defaults(run=verify)
    check_ = verbs.add_parser("check", help="try the store with one small object, and say what is switched on there")
    check_.set_defaults(run=check)
    policy_ = verbs.add_parser("policy", help="print a lifecycle rule for the bucket; it is not applied for you")
    policy_.set_defaults(run=policy)
    restore_ = verbs.add_parser("restore", help="bring a whole lake back into an empty directory")
    restore_.add_argument("--metadata-only", action="store_true", help="leave the files in the remote for now")
    restore_.set_defaults(run=restore)


def _days(text: str) -> tuple[dt.date, dt.date]:
    match = DAYS.fullmatch(text)
    try:
        assert match is not None
        first, last = (dt.date.fromisoformat(part) for part in (match[1], match[2] or match[1]))
        assert first <= last
    except (AssertionError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a day or 2025-01-01..2025-01-31") from None
    return first, last


def _selection(args: argparse.Namespace) -> Selection:
    from ksql_lake.remote.plans import Selection

    first, last = args.days or (None, None)
    return Selection(first, last, frozenset(f"v{version.removeprefix('v')}" for version in args.versions))


def push(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import mirror, plans, turn

    selection, code = _selection(args), int(ExitCode.OK)
    remote = _Remote(config, args)
    for one in remote.turns():
        if args.repair and not args.dry_run:
            for line in turn.forget_wrong(one):
                print(f"{one.dataset.feed}: {line}")
        plan = plans.push(one.dataset.feed, one.state, selection)
        if args.dry_run:
            _show(plan)
            continue
        with remote.progress(one, plan):
            turn.push(one, plan)
        code = max(code, _finish(one))
        _did(plan, "pushed")
    if not args.dry_run:
        mirror.keep_lake(config.lake_dir, remote.store)
        remote.store.abort_stale(_now() - STALE)
    return code


def drop(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import plans, turn

    selection, code = _selection(args), int(ExitCode.OK)
    remote = _Remote(config, args)
    for one in remote.turns():
        policy, today = _policy(config, one.dataset.feed), plans.today_of(one.state, _now())
        plan = plans.drop(one.dataset.feed, one.state, policy, today, selection)
        if args.dry_run:
            _show(plan, every=True)
            continue
        for part in plan.parts:
            if not part.goes and not selection.everything:
                _warn(f"{plan.feed}: {part.partition} stays: {part.reason}")
                code = ExitCode.FINDINGS
        stay = turn.drop(one, plan)
        for line in stay:
            _warn(f"{plan.feed}: {line}")
        code = max(code, ExitCode.FINDINGS if stay else ExitCode.OK, _finish(one))
        _did(plan, "dropped from this disk")
    return code


def pull(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import plans, turn

    selection, code = _selection(args), int(ExitCode.OK)
    remote = _Remote(config, args)
    for one in remote.turns():
        plan = plans.pull(one.dataset.feed, one.state, selection)
        if args.dry_run:
            _show(plan)
            continue
        with remote.progress(one, plan):
            waiting = turn.pull(one, plan)
        for line in waiting:
            _warn(f"{plan.feed}: {line}")
        code = max(code, ExitCode.FINDINGS if waiting else ExitCode.OK, _finish(one))
        _did(plan, "pulled" if not waiting else f"asked for, {len(waiting)} of them archived")
    return code


def tier(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import plans, turn

    code = int(ExitCode.OK)
    remote = _Remote(config, args)
    for one in remote.turns():
        plan = plans.retier(one.dataset.feed, one.state, remote.policy(one), plans.today_of(one.state, _now()),
                            remote.address.tiers[0])
        if args.dry_run:
            _show(plan, every=True)
            continue
        turn.retier(one, plan)
        code = max(code, _finish(one))
        _did(plan, f"moved to {plan.tier}")
    return code


def purge(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import audit, plans

    code = int(ExitCode.OK)
    remote = _Remote(config, args)
    for one in remote.turns():
        due = plans.due(one.state, config.trash_days, _now().date(), audit.in_trash(one.dataset))
        unknown = audit.unknown(one) if args.unknown else []
        if args.dry_run:
            for key in [*(f"{one.dataset.kind}s/{one.dataset.feed}/{gone.path}" for gone in due), *unknown]:
                print(f"would be deleted: {remote.store.url}/{key}")
            continue
        for key in unknown:
            remote.store.purge(key, versions=True)
        code = max(code, _finish(one))
        print(f"{one.dataset.feed}: {len(due) + len(unknown)} objects deleted from the remote")
    if not args.dry_run:
        parts = remote.store.abort_stale(_now() - STALE)
        print(f"{parts} interrupted uploads removed")
    return code


def status(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote.standing import standing
    from ksql_lake.store import metadata
    from ksql_lake.store.remote import binding

    bound = binding.load(config.lake_dir)
    print(f"remote: {bound.url if bound else config.remote or 'none; set REMOTE'}")
    for dataset in data.datasets(config, args.name):
        state = metadata.load(dataset)
        if state is None:
            continue
        one = standing(dataset.feed, state, _policy(config, dataset.feed), _now())
        print(f"{dataset.feed:<32} here {_size(one.local_bytes):>9}  remote {_size(one.remote_bytes):>9}  not pushed "
              f"{one.unpushed_files} files  to drop {_size(one.due_bytes)}  to delete {one.to_delete}")
    return ExitCode.OK


def verify(config: Config, args: argparse.Namespace) -> int:
    """Also what `metadata_utils.py --verify --remote` runs."""
    from ksql_lake.remote import audit

    found = 0
    remote = _Remote(config, args, look=True)
    for one in remote.turns():
        for line in audit.verify(one, deep=args.deep):
            print(here(line))
            found += 1
    print(f"{found} findings" if found else f"every object of {remote.address.url} is as recorded")
    return ExitCode.FINDINGS if found else ExitCode.OK


def check(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import audit

    address, store = open_store(config)
    for line in audit.check(store, address):
        print(line)
    return ExitCode.OK


def policy(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.model import feeds
    from ksql_lake.model.feeds import Feed
    from ksql_lake.remote import lifecycle

    address = _address(config)
    known = [feed for feed in feeds.load_all(context.active(config)) if isinstance(feed, Feed)]
    print(lifecycle.rules(address, known))
    print(lifecycle.how_to_apply(address), file=sys.stderr)
    return ExitCode.OK


def restore(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import restoring

    address, store = open_store(config)
    print(f"restoring {address.url} into {config.lake_dir}")
    for line in restoring.begin(config.lake_dir, store):
        print(line)
    if args.metadata_only:
        print(here("the files stay in the remote; bring them here with: python manage_feeds.py remote pull"))
        return ExitCode.OK
    args.name, args.days, args.versions, args.dry_run = [], None, [], False
    return pull(config, args)


class _Remote:
    """The store of a command, and the turns of the feeds that it names."""

    def __init__(self, config: Config, args: argparse.Namespace, look: bool = False) -> None:
        from ksql_lake.store.remote import binding

        self.config, self.args = config, args
        self.look = look or bool(getattr(args, "dry_run", False))
        self.address, self.store = open_store(config)
        found = binding.load(self.config.lake_dir)
        if not self.look:
            found = binding.bind(self.config.lake_dir, self.store, **context.signed())
        self.binding = found or binding.Binding("", self.address.url)

    def turns(self) -> Iterator[Turn]:
        """Each feed's turn, with its lock held and interrupted work finished."""
        for dataset in data.datasets(self.config, self.args.name):
            with turn_of(self.config, dataset, self.store, self.binding, self.look) as one:
                if one is not None:
                    yield one

    def policy(self, one: Turn) -> Policy:
        found = _policy(self.config, one.dataset.feed)
        if found.tier is not None and found.tier not in self.address.tiers:
            raise FeedError(
                f"{one.dataset.feed}: remote_tier is {found.tier}, which {self.address.url} does not have; it has "
                f"{', '.join(self.address.tiers)}"
            )
        return found

    @contextlib.contextmanager
    def progress(self, one: Turn, plan: Plan) -> Iterator[None]:
        with Progress(plan.feed, plan.bytes) as shown:
            one.progress = shown.add
            yield


@contextlib.contextmanager
def turn_of(
    config: Config, dataset: Any, store: ObjectStore, binding: Binding, look: bool = False
) -> Iterator[Turn | None]:
    """One feed's turn; None for a feed that was never exported."""
    from ksql_lake.remote.turn import Turn

    with data.changing(dataset, look) as (state, run):
        if state is None:
            yield None
        else:
            signed = context.signed()
            yield Turn(dataset, state, store, binding, run, signed["now"], signed["by"], config.trash_days)


def open_store(config: Config) -> tuple[Address, ObjectStore]:
    """The remote of the lake, by the setting, or as the lake knows it."""
    from ksql_lake.store.remote import connect

    address = _address(config)
    return address, connect.connect(address, os.environ)


def _address(config: Config) -> Address:
    from ksql_lake.store.remote import binding
    from ksql_lake.store.remote.address import parse

    if config.remote:
        return parse(config.remote)
    bound = binding.load(config.lake_dir)
    if bound is None:
        raise ConfigError(
            f"{config.lake_dir}: this lake has no remote; set REMOTE to s3://bucket/prefix or az://container/prefix"
        )
    return parse(bound.url)


def after_export(config: Config, failed: Collection[str]) -> list[str]:
    """Push, change tiers, drop and delete what is due; a line for each thing that went wrong. Raises nothing.

    Args:
        failed: feeds whose export failed; they are left as they are.
    """
    from ksql_lake.remote import mirror
    from ksql_lake.store.remote import binding

    lines: list[str] = []
    try:
        if not config.remote and not binding.is_bound(config.lake_dir):
            return []
        address, store = open_store(config)
        bound = binding.bind(config.lake_dir, store, **context.signed())
        for dataset in data.datasets(config, []):
            if dataset.feed not in failed:
                lines += _nightly(config, dataset, address, store, bound)
        mirror.keep_lake(config.lake_dir, store)
        store.abort_stale(_now() - STALE)
    except (LakeError, OSError) as error:
        lines.append(f"remote: {error}; what was exported is committed, the next run goes on")
    return lines


def _nightly(config: Config, dataset: Any, address: Address, store: ObjectStore, bound: Binding) -> list[str]:
    from ksql_lake.remote import plans, turn
    from ksql_lake.store.remote.seam import Away

    try:
        with turn_of(config, dataset, store, bound) as one:
            if one is None:
                return []
            policy, today = _policy(config, dataset.feed), plans.today_of(one.state, _now())
            turn.push(one, plans.push(dataset.feed, one.state))
            stay = []
            if policy.tier in address.tiers:
                turn.retier(one, plans.retier(dataset.feed, one.state, policy, today, address.tiers[0]))
            elif policy.tier is not None:
                stay.append(f"remote_tier is {policy.tier}, which {address.url} does not have")
            stay += turn.drop(one, plans.drop(dataset.feed, one.state, policy, today))
            return [f"{dataset.feed}: {line}" for line in (*stay, *turn.finish(one))]
    except (Away, LakeBusyError) as error:
        if isinstance(error, Away):
            raise  # the other feeds would wait as long for nothing
        return [str(error)]
    except LakeError as error:
        return [f"{dataset.feed}: remote: {error}"]


class Erasing:
    """The part of an erasure that the lake's remote has, feed by feed; nothing where the lake has no remote.

    Attributes:
        told: a line for each thing that could not be looked at there, or stays there: the erasure is not complete.
        rows: of a dry run, those of the last feed that lie only in the remote.
    """

    def __init__(self, config: Config, dry_run: bool) -> None:
        self.config, self.dry_run = config, dry_run
        self.told: list[str] = []
        self.rows = 0
        self._one: Turn | None = None
        self._away: set[str] = set()
        self._before = 0

    def begin(self, dataset: Any, state: Any, run: str, meant: Any) -> None:
        """Bring what is needed of one feed to this disk. Call with its lock held, before its rows are looked for."""
        from ksql_lake.remote import erasing
        from ksql_lake.remote.turn import Turn
        from ksql_lake.store.remote import binding

        self._one, self._away, self.rows, signed = None, set(), 0, context.signed()
        try:
            bound = binding.load(self.config.lake_dir)
            if bound is None:
                return
            _, store = open_store(self.config)
            one = Turn(dataset, state, store, bound, f"{run}f", signed["now"], signed["by"], self.config.trash_days)
            rows: Any = lambda batch: int(meant.rows_of(batch).sum())  # noqa: E731
            search = erasing.Search(one, meant.columns, rows, wake=not self.dry_run)
            if self.dry_run:
                for file, number in (*search.files(), *((file, n) for _, file, n in search.bundles())):
                    print(f"{dataset.feed}  {number:,} rows in {search.places.url(file)}")
                    self.rows += number
            else:
                self._away = erasing.bring_here(search)
            self.told += [f"{dataset.feed}: {line}" for line in search.unseen]
            self._one, self._before = one, state.sequence
        except LakeError as error:
            self.told.append(f"{dataset.feed}: the remote was not looked at: {error}")

    def settle(self) -> None:
        """After the rows of the feed are out of the lake: out of its remote as well."""
        from ksql_lake.remote import erasing

        if self._one is None or not erasing.is_needed(self._one.state, self._before):
            return
        name = self._one.dataset.feed
        try:
            self.told += [f"{name}: {line}" for line in erasing.settle(self._one, self._away)]
        except LakeError as error:
            self.told.append(f"{name}: the remote still has old files: {error}")


def _policy(config: Config, name: str) -> Policy:
    """What a feed's file says of its remote; nothing for a feed whose file was removed or is broken."""
    from ksql_lake.remote.plans import Policy

    try:
        feed = context.feed_of(config, name)
    except FeedError:
        return Policy()
    return Policy(feed.local_days, feed.remote_tier, feed.tier_after_days, feed.retention_days)


def _finish(one: Turn) -> int:
    from ksql_lake.remote import turn

    kept = turn.finish(one)
    for line in kept:
        _warn(f"{one.dataset.feed}: {line}")
    return ExitCode.FINDINGS if kept else ExitCode.OK


def _warn(line: str) -> None:
    print(here(line), file=sys.stderr)


def _show(plan: Plan, every: bool = False) -> None:
    for part in plan.parts if every else plan.going:
        word = f"{plan.verb:<6}" if part.goes else "stays "
        print(f"{plan.feed}  {word} {part.partition}  {len(part.files)} files  {part.bytes:,} bytes  {part.reason}")
    asked = ", ".join(f"{number} {verb}" for verb, number in plan.requests.items() if number)
    print(f"{plan.feed}: {len(plan.files)} files, {plan.bytes:,} bytes would be dealt with, in about "
          f"{asked or 'no request'}; nothing was changed")


def _did(plan: Plan, word: str) -> None:
    print(f"{plan.feed}: {len(plan.files)} files, {plan.bytes:,} bytes {word}")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class Progress:
    """Bytes, rate and time left, on a terminal; silent elsewhere."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        self.began = self.shown = time.monotonic()
        self.on = sys.stderr.isatty() and total > 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def add(self, size: int) -> None:
        self.done += size
        now = time.monotonic()
        if self.on and now - self.shown > 0.2:
            self.shown = now
            print(f"\r\x1b[K{self.line(now - self.began)}", end="", file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """Such as `clicks: 1.2 GB of 3.4 GB, 80.1 MB/s, 27 s left`."""
        rate = self.done / seconds if seconds > 0 else 0.0
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate else ""
        return f"{self.name}: {_size(self.done)} of {_size(self.total)}, {_size(rate)}/s{left}"


