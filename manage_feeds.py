"""Manage the feeds of the data lake: one JSON file per stream or table in feeds/active."""

from __future__ import annotations

if __name__ == "__main__":
    from ksql_lake.cli.start import launch

    launch("ksql_lake.cli.feeds")

from ksql_lake.cli.feeds import main
from ksql_lake.cli.feeds.sync import sync

__all__ = ["main", "sync"]
