"""What an export does for the lake's remote afterwards: push, tiers, drop, deletions; findings, never a failure."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, LakeBusyError, LakeError
from ksql_lake.cli import changing, context
from ksql_lake.cli.remote_turn import STALE, now, open_store, policy_of, turn_of
from ksql_lake.cli.run import Order
from ksql_lake.ingest.export import FeedResult
from ksql_lake.model.findings import findings_of

if TYPE_CHECKING:
    from ksql_lake.store.remote.address import Address
    from ksql_lake.store.remote.binding import Binding
    from ksql_lake.store.remote.seam import ObjectStore

log = logging.getLogger("export_to_data_lake")


def to_remote(config: Config, order: Order, results: Sequence[FeedResult]) -> FeedResult | None:
    """Bring the lake's remote up to date after a run of all feeds; a result without a feed for what went wrong."""
    if not order.everything or order.days or not config.remote_after_export:
        return None
    lines = after_export(config, {result.feed for result in results if result.result in ("failed", "busy")})
    for line in lines:
        log.warning("%s", line)
    found = tuple(findings_of("", "remote", "\n".join(lines)))
    return FeedResult("", "", "findings", findings=found, exit_code=ExitCode.FINDINGS) if found else None


def after_export(config: Config, failed: Collection[str]) -> list[str]:
    """Push, change tiers, drop and delete what is due; returns a line for each failure and raises nothing.

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
        for dataset in changing.datasets(config, []):
            if dataset.feed not in failed:
                lines += _nightly(config, dataset, address, store, bound)
        mirror.keep_lake(config.lake_dir, store)
        store.abort_stale(now() - STALE)
    except (LakeError, OSError) as error:
        lines.append(f"remote: {error}; what was exported is committed; the next run tries the remote again")
    return lines


def _nightly(config: Config, dataset: Any, address: Address, store: ObjectStore, bound: Binding) -> list[str]:
    from ksql_lake.remote import plans, turn
    from ksql_lake.store.remote.seam import Away

    try:
        with turn_of(config, dataset, store, bound) as one:
            if one is None:
                return []
            policy, today = policy_of(config, dataset.feed), plans.today_of(one.state, now())
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
