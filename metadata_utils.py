"""Report on the data lake, count what is in it, and verify it against its metadata."""

from __future__ import annotations

if __name__ == "__main__":
    from ksql_lake.cli.start import launch

    launch("ksql_lake.cli.metadata")

from ksql_lake.cli.metadata import main
from ksql_lake.cli.metadata.csv import CSV_COLUMNS

__all__ = ["CSV_COLUMNS", "main"]
