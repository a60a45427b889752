"""The state of a feed that was never exported."""

from __future__ import annotations

from typing import Any


def empty_stream(source: str, timezone: str, timestamp_column: str | None, now: str) -> dict[str, Any]:
    """The state of a stream that was never exported, in the order a reader of the file expects."""
    return {
        "source": source,
        "type": "stream",
        "storage_mode": "append",
        "format": "parquet",
        "partitioning": "date",
        "last_export": None,
        "total_records": 0,
        "total_size_mb": 0.0,
        "partitions": [],
        "schema_version": "1.0",
        "created_at": now,
        "sequence": 0,
        "run": None,
        "timezone": timezone,
        "timestamp_column": timestamp_column,
        "columns": [],
        "generation": 1,
        "resume": {},
        "heads": {},
        "coverage": {},
        "findings": [],
        "last_run": None,
        "files": [],
    }


def empty_table(source: str, now: str) -> dict[str, Any]:
    """The state of a table that was never exported."""
    return {
        "source": source,
        "type": "table",
        "storage_mode": "overwrite",
        "format": "parquet",
        "partitioning": "version",
        "last_export": None,
        "total_records": 0,
        "total_size_mb": 0.0,
        "partitions": [],
        "schema_version": "1.0",
        "created_at": now,
        "sequence": 0,
        "run": None,
        "current": None,
        "last_version": 0,
        "columns": [],
        "findings": [],
        "last_run": None,
        "files": [],
    }
