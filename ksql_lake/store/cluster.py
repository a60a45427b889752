"""Which Kafka cluster a lake is filled from: recorded at the first export, as protection from a wrong KSQLDB_URL."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

from ksql_lake.base.errors import ConfigError, StateError
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of
from ksql_lake.store.storage import CLOSED, RESTRICTED

WAY_OUT = "remove it, and the next export records the cluster again"


def known(lake: PurePath) -> dict[str, Any] | None:
    """What the lake has recorded: `kafka_cluster_id`, `since`, `url`; None for a lake without a record.

    Raises:
        StateError: the record cannot be read.
    """
    path = layout.kafka_cluster(lake)
    try:
        found = json.loads(storage_of(lake).read(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StateError(f"{path}: cannot be read ({error}); {WAY_OUT}") from None
    if not isinstance(found, dict) or not isinstance(found.get("kafka_cluster_id"), str):
        raise StateError(f"{path}: names no Kafka cluster; {WAY_OUT}")
    return found


def admit(lake: PurePath, cluster_id: str | None, url: str, now: str, *, accept: bool = False) -> str | None:
    """Allow a cluster to fill the lake: the recorded one, the first one, or with `accept` a different one.

    Args:
        cluster_id: from /info; None, from servers that do not send one, is allowed without a record.

    Returns:
        A line when the lake now belongs to another cluster.

    Raises:
        ConfigError: it is not the cluster that filled the lake.
    """
    if cluster_id is None:
        return None
    noted = known(lake)
    if noted is not None and noted["kafka_cluster_id"] == cluster_id:
        return None
    if noted is not None and not accept:
        raise ConfigError(
            f"{lake}: was filled from Kafka cluster {noted['kafka_cluster_id']} ({noted.get('url')}, since "
            f"{noted.get('since')}), but {url} leads to cluster {cluster_id}. Nothing was exported. Set KSQLDB_URL "
            "back; or, if the cluster was replaced, run once with --accept-cluster: each stream then counts as "
            "recreated, and rows that were copied to the new cluster are exported a second time, as a new "
            "generation"
        )
    record: dict[str, Any] = {"kafka_cluster_id": cluster_id, "since": now, "url": url}
    if noted is not None:
        record["before"] = [*noted.get("before", ()), {key: noted.get(key) for key in ("kafka_cluster_id", "since")}]
    path, storage = layout.kafka_cluster(lake), storage_of(lake)
    storage.close(path.parent, CLOSED)
    storage.put(path, (json.dumps(record, indent=2) + "\n").encode(), RESTRICTED)
    _forget_halves(path)
    return None if noted is None else f"{lake}: is filled from Kafka cluster {cluster_id} from now on"


def _forget_halves(path: PurePath) -> None:
    """Remove temporary files of runs that were killed while writing the record; their names end with the process id."""
    storage = storage_of(path)
    for half in storage.list(path.parent, f".{path.name}.*.inprogress"):
        number = half.name.split(".")[-2]
        if number.isdecimal() and not Path("/proc", number).exists():
            storage.delete(half)
