"""What more than one command asks the server."""

from __future__ import annotations

from typing import Any

from data_lake_config import Config


def server_of(config: Config, timeout: float | None = None) -> Any:
    from ksql_lake.sources.ksqldb.client import Server

    seconds = min(timeout or config.timeout, config.timeout)
    return Server(config.url, config.user, config.password, config.ca_cert, seconds)
