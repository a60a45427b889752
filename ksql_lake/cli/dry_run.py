"""`export_to_data_lake.py --dry-run`: what an export would read, and from where; nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, LakeError
from ksql_lake.base.figures import counted
from ksql_lake.base.retry import until_answered
from ksql_lake.cli.run import Order, server_of
from ksql_lake.model.feeds import Feed
from ksql_lake.model.state import FeedState
from ksql_lake.sources.ksqldb.client import Client
from ksql_lake.store import metadata


def dry_run(config: Config, order: Order) -> int:
    """A line for each feed: its source, the offsets from which it continues, the days it is limited to."""
    import sys

    wrong = 0
    for problem in order.problems:
        print("\n".join(f"error: {line}" for line in problem.message.splitlines()), file=sys.stderr)
        wrong += 1
    if order.feeds:
        with Client(server_of(config)) as client:
            until_answered(client.server_info, config.timeout, lambda note: print(note, file=sys.stderr))
            for feed in order.feeds:
                try:
                    print(_plan(client, config.lake_dir, feed, order))
                except LakeError as error:
                    print(f"error: {feed.name}: {error}", file=sys.stderr)
                    wrong += 1
    print(f"{counted(len(order.feeds), 'feed')}; nothing was written")
    return ExitCode.FINDINGS if wrong else ExitCode.OK


def _plan(client: Client, lake: Path, feed: Feed, order: Order) -> str:
    source = client.resolve(feed.source, feed.type)
    state = metadata.current(metadata.Dataset(lake, feed.name, feed.type))
    if feed.type == "table":
        number = state.last_version + 1 if state else 1
        return f"{feed.name}: table {source.name}, whole, as version v{number}"
    where = "from its first row" if state is None or not state.resume else f"after {_offsets(state)}"
    if order.since and (state is None or not state.resume):
        where += f", events since {order.since} only"
    if order.days:
        where = "only " + (str(order.days[0]) if len(order.days) == 1 else f"{order.days[0]} to {order.days[-1]}")
    partitions = f"{source.partitions} partition{'' if source.partitions == 1 else 's'}"
    return f"{feed.name}: stream {source.name} ({partitions}), {where}, by days of {feed.timezone}"


def _offsets(state: FeedState) -> str:
    """partition:offset of the last known row of each partition."""
    anchors = {str(partition): state.resume[partition].offset for partition in sorted(state.resume)}
    return "offsets " + json.dumps(anchors).replace('"', "")
