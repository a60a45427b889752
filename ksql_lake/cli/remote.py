"""`manage_feeds.py remote ...`: a second home of the lake in a bucket of S3 or a container of Azure Blob."""

from __future__ import annotations

import argparse
import datetime as dt
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.base.figures import counted
from ksql_lake.cli import changing, context
from ksql_lake.cli.hints import here
from ksql_lake.cli.remote_forget import forget
from ksql_lake.cli.remote_turn import STALE, Remote, address_of, now, open_store, policy_of, size_text

if TYPE_CHECKING:
    from ksql_lake.model.entries import FileEntry
    from ksql_lake.remote.plans import Plan, Selection
    from ksql_lake.remote.turn import Turn

OVER_DAYS = 2  # the default of the command compact
DAYS = re.compile(r"(\d{4}-\d\d-\d\d)(?:\.\.(\d{4}-\d\d-\d\d))?")


def arguments(remote: argparse.ArgumentParser) -> None:
    """The verbs below `remote`."""
    verbs = _Verbs(remote.add_subparsers(required=True, metavar="COMMAND"))
    moving = (
        ("push", push, "upload what is not in the remote yet"),
        ("drop", drop, "remove days from this disk that are verified to be in the remote (default: by local_days)"),
        ("pull", pull, "bring days back to this disk"),
        ("tier", tier, "move older files to the feeds' remote_tier"),
        ("purge", purge, "delete from the remote what is no longer in the lake, and what interrupted uploads left "
                         "behind"),
    )
    for name, run, says in moving:
        verb = verbs.add(name, run, says)
        verb.add_argument("name", nargs="*", help="only these feeds (default: all in the lake)")
        if name in ("push", "drop", "pull"):
            verb.add_argument("--days", type=_days, metavar="DAY[..DAY]", help="such as 2025-01-01..2025-01-31")
            verb.add_argument("--versions", nargs="+", default=[], metavar="VERSION", help="of tables")
        if name == "push":
            verb.add_argument("--repair", action="store_true", help="also what is missing or altered in the remote")
        if name == "purge":
            verb.add_argument("--unknown", action="store_true", help="also objects that are in no feed's metadata")
        verb.add_argument("--dry-run", action="store_true", help="only show the plan, its bytes and its requests")
    status_ = verbs.add("status", status, "where the files are and what is due; sends no request")
    status_.add_argument("name", nargs="*")
    verify_ = verbs.add("verify", verify, "compare the size and checksum of every object with the metadata")
    verify_.add_argument("name", nargs="*")
    verify_.add_argument("--deep", action="store_true", help="also read every object")
    verbs.add("check", check, "try the store with one small object, and show which of its features matter to a lake")
    verbs.add("policy", policy, "print a lifecycle rule for the bucket; it is not applied for you")
    restore_ = verbs.add("restore", restore, "bring a whole lake back into an empty directory")
    restore_.add_argument("--metadata-only", action="store_true", help="leave the files in the remote for now")
    forget_ = verbs.add("forget", forget, "use the lake without its remote from now on; needs no answer from the store")
    forget_.add_argument("--give-up-rows", action="store_true", help="also days that are only in the remote")
    forget_.add_argument("--dry-run", action="store_true", help="only show what the lake would lose")


class _Verbs:
    """Adds commands below `remote`, each of which also takes --lake behind its name."""

    def __init__(self, verbs: Any) -> None:
        self._verbs = verbs

    def add(self, name: str, run: Callable[[Config, argparse.Namespace], int], says: str) -> argparse.ArgumentParser:
        verb: argparse.ArgumentParser = self._verbs.add_parser(name, help=says)
        verb.add_argument("--lake", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        verb.set_defaults(run=run)
        return verb


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

    selection, remote = _selection(args), Remote(config, args)

    def act(one: Turn) -> int:
        if args.repair and not args.dry_run:
            for line in turn.forget_wrong(one):
                print(f"{one.dataset.feed}: {line}")
        plan = plans.push(one.dataset.feed, one.state, selection)
        if args.dry_run:
            _show(plan)
            _advise_merging(one, plan)
            return ExitCode.OK
        with remote.progress(one, plan):
            turn.push(one, plan)
        code = _finish(one)
        _did(plan, "pushed")
        return code

    code = remote.each(act)
    if not args.dry_run:
        mirror.keep_lake(config.lake_dir, remote.store)
        remote.store.abort_stale(now() - STALE)
    return code


def drop(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import plans, turn

    selection = _selection(args)

    def act(one: Turn) -> int:
        policy, today = policy_of(config, one.dataset.feed), plans.today_of(one.state, now())
        plan = plans.drop(one.dataset.feed, one.state, policy, today, selection)
        if args.dry_run:
            _show(plan, every=True)
            return ExitCode.OK
        asked_for = [] if selection.everything else [part for part in plan.parts if not part.goes]
        stay = [f"{part.partition} stays: {part.reason}" for part in asked_for]
        stay += turn.drop(one, plan)
        for line in stay:
            _warn(f"{plan.feed}: {line}")
        code = max(ExitCode.FINDINGS if stay else ExitCode.OK, _finish(one))
        away = {file.path for file in one.state.files if not file.local}
        _did(plan, "dropped from this disk", [file for file in plan.files if file.path in away])
        return code

    return Remote(config, args).each(act)


def pull(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import plans, turn

    selection, remote = _selection(args), Remote(config, args)

    def act(one: Turn) -> int:
        plan = plans.pull(one.dataset.feed, one.state, selection)
        if args.dry_run:
            _show(plan)
            return ExitCode.OK
        with remote.progress(one, plan):
            waiting = turn.pull(one, plan)
        for line in waiting:
            _warn(f"{plan.feed}: {line}")
        code = max(ExitCode.FINDINGS if waiting else ExitCode.OK, _finish(one))
        here_ = {file.path for file in one.state.files if file.local}
        _did(plan, "pulled", [file for file in plan.files if file.path in here_])
        return code

    return remote.each(act)


def tier(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import plans, turn

    remote = Remote(config, args)

    def act(one: Turn) -> int:
        plan = plans.retier(one.dataset.feed, one.state, remote.policy(one), plans.today_of(one.state, now()),
                            remote.address.tiers[0])
        if args.dry_run:
            _show(plan, every=True)
            return ExitCode.OK
        turn.retier(one, plan)
        code = _finish(one)
        _did(plan, f"moved to {plan.tier}")
        return code

    return remote.each(act)


def purge(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote import audit, plans

    remote = Remote(config, args)

    def act(one: Turn) -> int:
        due = [one.key_of(gone.path)
               for gone in plans.due(one.state, config.trash_days, now().date(), audit.in_trash(one.dataset))]
        unknown = audit.unknown(one) if args.unknown else []
        if args.dry_run:
            for key in [*due, *unknown]:
                print(f"would be deleted: {remote.store.url}/{key}")
            return ExitCode.OK
        for key in unknown:
            remote.store.purge(key, versions=True)
        code = _finish(one)
        print(f"{one.dataset.feed}: {counted(len(due) + len(unknown), 'object')} deleted from the remote")
        return code

    code = remote.each(act)
    if not args.dry_run:
        print(f"{counted(remote.store.abort_stale(now() - STALE), 'interrupted upload')} removed")
    return code


def status(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.remote.standing import standing
    from ksql_lake.store import metadata
    from ksql_lake.store.remote import binding

    bound = binding.load(config.lake_dir)
    unused = f"{config.remote}, nothing was pushed yet" if config.remote else "none; set REMOTE"
    print(f"remote: {bound.url if bound else unused}")
    for dataset in changing.datasets(config, args.name):
        state = metadata.load(dataset)
        if state is None:
            continue
        one = standing(dataset.feed, state, policy_of(config, dataset.feed), now())
        here_, there = size_text(one.local_bytes), size_text(one.remote_bytes)
        print(f"{dataset.feed:<32} here {here_:>9}  remote {there:>9}  not pushed {_files(one.unpushed_files)}  "
              f"to drop {size_text(one.due_bytes)}  to delete {one.to_delete}")
    return ExitCode.OK


def verify(config: Config, args: argparse.Namespace) -> int:
    """Also what `metadata_utils.py --verify --remote` runs."""
    from ksql_lake.remote import audit

    remote, found = Remote(config, args, read_only=True), list[str]()

    def act(one: Turn) -> int:
        for line in audit.verify(one, deep=args.deep):
            print(here(line))
            found.append(line)
        return ExitCode.OK

    code = remote.each(act)
    if found:
        print(counted(len(found), "finding"))
    elif code == ExitCode.OK:
        print(f"every object of {remote.address.url} is as recorded")
    return max(code, ExitCode.FINDINGS if found else ExitCode.OK)


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

    address = address_of(config)
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


def _finish(one: Turn) -> int:
    from ksql_lake.remote import turn

    kept = turn.finish(one)
    for line in kept:
        _warn(f"{one.dataset.feed}: {line}")
    return ExitCode.FINDINGS if kept else ExitCode.OK


def _advise_merging(one: Turn, plan: Plan) -> None:
    """Each file is a request, and cold tiers bill small ones as if they were larger."""
    from ksql_lake.maintain.merges import small_files

    files, days = small_files(one.state, OVER_DAYS, now())
    if files and plan.files:
        print(here(f"{plan.feed}: {_files(files)} of {days} days that are over are small; merge them before the first "
                   f"push with: python manage_feeds.py compact {plan.feed}"))


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def _show(plan: Plan, every: bool = False) -> None:
    for part in plan.parts if every else plan.going:
        word = f"{plan.verb:<6}" if part.goes else "stays "
        print(f"{plan.feed}  {word} {part.partition}  {_files(len(part.files))}  {part.bytes:,} bytes  {part.reason}")
    if not plan.files:
        print(f"{plan.feed}: nothing to {plan.verb}")
        return
    asked = ", ".join(f"{number} {verb}" for verb, number in plan.requests.items() if number)
    print(f"{plan.feed}: {_files(len(plan.files))}, {plan.bytes:,} bytes to {plan.verb}, with about {asked}; "
          "nothing was changed")


def _did(plan: Plan, word: str, files: Sequence[FileEntry] | None = None) -> None:
    """What was done: all of the plan, or these files of it."""
    done = plan.files if files is None else files
    print(f"{plan.feed}: {_files(len(done))}, {sum(file.bytes for file in done):,} bytes {word}")


def _files(number: int) -> str:
    return f"{number:,} file{'' if number == 1 else 's'}"
