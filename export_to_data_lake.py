"""Export ksqlDB streams and tables into the data lake."""

from __future__ import annotations

import datetime as dt

if __name__ == "__main__":
    from ksql_lake.cli.start import launch

    launch("ksql_lake.cli.export")

from ksql_lake.cli.export import main

__all__ = ["DEMO_START", "main"]
DEMO_START = dt.date(2025, 1, 15)  # for `--demo --start`, where the same events are wanted each time
