"""What the commands of the remote share: the store of a lake, a feed's turn, its policy, progress on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.base.errors import ConfigError, ExitCode, FeedError
from ksql_lake.cli import changing, context

if TYPE_CHECKING:
    from ksql_lake.remote.plans import Plan, Policy
    from ksql_lake.remote.turn import Turn
    from ksql_lake.store.remote.address import Address
    from ksql_lake.store.remote.binding import Binding
    from ksql_lake.store.remote.seam import ObjectStore

STALE = dt.timedelta(days=1)  # an upload that began earlier and never ended is no longer running


class Remote:
    """The store of a command, and the turns of the feeds that it names."""

    def __init__(self, config: Config, args: argparse.Namespace, read_only: bool = False) -> None:
        from ksql_lake.store.remote import binding

        self.config, self.args = config, args
        self.read_only = read_only or bool(getattr(args, "dry_run", False))
        self.address, self.store = open_store(config)
        found = binding.load(self.config.lake_dir)
        if not self.read_only:
            found = binding.bind(self.config.lake_dir, self.store, **context.signed())
        self.binding = found or binding.Binding("", self.address.url)

    def each(self, act: Callable[[Turn], int]) -> int:
        """Each feed's turn, with its lock held and interrupted work finished; the exit code of the whole.

        A feed that fails is reported, and the others are done.

        Raises:
            Away: the store does not answer: the other feeds would wait as long for nothing.
        """
        from ksql_lake.store.remote.seam import Away

        away: list[Away] = []
        datasets = {dataset.feed: dataset for dataset in changing.datasets(self.config, self.args.name)}

        def turn(name: str) -> int:
            if away:
                return ExitCode.OK
            try:
                with turn_of(self.config, datasets[name], self.store, self.binding, self.read_only) as one:
                    return ExitCode.OK if one is None else act(one)
            except Away as error:
                away.append(error)
                return ExitCode.OK

        code = changing.each(list(datasets), turn)
        if away:
            raise away[0]
        return code

    def policy(self, one: Turn) -> Policy:
        found = policy_of(self.config, one.dataset.feed)
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
    config: Config, dataset: Any, store: ObjectStore, binding: Binding, read_only: bool = False
) -> Iterator[Turn | None]:
    """One feed's turn; None for a feed that was never exported."""
    from ksql_lake.remote.turn import Turn

    with changing.hold_feed(dataset, read_only) as (state, run):
        if state is None:
            yield None
        else:
            signed = context.signed()
            yield Turn(dataset, state, store, binding, run, signed["now"], signed["by"], config.trash_days)


def open_store(config: Config) -> tuple[Address, ObjectStore]:
    """The remote of the lake, by the setting, or as the lake knows it."""
    from ksql_lake.store.remote import connect

    address = address_of(config)
    return address, connect.connect(address, os.environ)


def address_of(config: Config) -> Address:
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


def policy_of(config: Config, name: str) -> Policy:
    """What a feed's file says of its remote; nothing for a feed whose file was removed or is broken."""
    from ksql_lake.remote.plans import Policy

    try:
        feed = context.feed_of(config, name)
    except FeedError:
        return Policy()
    return Policy(feed.local_days, feed.remote_tier, feed.tier_after_days, feed.retention_days)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def size_text(size: float) -> str:
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
        return f"{self.name}: {size_text(self.done)} of {size_text(self.total)}, {size_text(rate)}/s{left}"
