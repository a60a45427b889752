"""A lake with every type ksqlDB has, exported from an embedded server: a stream of two ages and a table."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB

JAN15 = 1_736_899_200_000
DAY = 86_400_000
BIG = 2**63 - 1
COLUMNS = (
    "`ID` STRING, `B` BOOLEAN, `I` INTEGER, `L` BIGINT, `D` DOUBLE, `DEC` DECIMAL(38, 18), `BYT` BYTES, `DT` DATE, "
    "`TM` TIME, `TS` TIMESTAMP, `A` ARRAY<BIGINT>, `M` MAP<STRING, INTEGER>, "
    "`S` STRUCT<`X` BIGINT, `b c` DECIMAL(4, 2), `date` DATE, `N` STRUCT<`IN` ARRAY<STRING>>>, `DAY` STRING"
)
VALUES: list[Any] = [
    "e0", True, -(2**31), BIG, 0.1, Decimal("12345678901234567890.123456789012345678"), b"\0\xff", dt.date(2024, 2, 29),
    dt.time(12, 34, 56), dt.datetime(2023, 11, 14, 22, 13, 20, 123_000), [BIG, None], {"k": 1, "n": None},
    {"X": 2**53 - 1, "b c": Decimal("1.25"), "date": dt.date(2025, 1, 1), "N": {"IN": ["a", None]}}, "Monday",
]
NULLS: list[Any] = ["e1", *[None] * (len(VALUES) - 1)]


def build(lake: Path, database: EmbeddedKsqlDB, patch: pytest.MonkeyPatch, *settings: str) -> None:
    """Streams `all_types` (two days, then two more rows with a column LATE), `events` (20 rows, no TIME among its
    columns), `empty`; table `t.totals` (v1 of one row, v2 of two). Each has `settings` (KEY=VALUE) in its feed file."""
    for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2"),
                        ("RETENTION", "off"), ("DATA_LAKE_DIR", str(lake))):
        patch.setenv(name, value)
    database.create_table("TOTALS", "`K` STRING KEY, `TOTAL` DECIMAL(12, 2)")
    database.upsert("TOTALS", ["a", Decimal("1.50")])
    database.create_stream("EMPTY", "`ID` STRING", 1)
    database.create_stream("EVENTS", "`ID` STRING, `AMOUNT` DECIMAL(12, 2), `N` BIGINT", 2)
    for i in range(20):
        number = None if i % 5 == 0 else BIG - i
        database.append("EVENTS", i % 2, JAN15 + i % 3 * DAY, [f"e{i}", Decimal(i) / 4, number])
    database.create_stream("ALL_TYPES", COLUMNS, 1)
    for i, row in enumerate((VALUES, NULLS)):
        database.append("ALL_TYPES", 0, JAN15 + i * DAY, row)
    for name, kind, source in (("all_types", "stream", "all_types"), ("t.totals", "table", "totals"),
                               ("events", "stream", "events"), ("empty", "stream", "empty")):
        assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", source, *settings]) == 0
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    database.drop("ALL_TYPES")
    database.create_stream("ALL_TYPES", COLUMNS + ", `LATE` INTEGER", 1)
    for i, row in enumerate((VALUES, NULLS)):
        database.append("ALL_TYPES", 0, JAN15 + i * DAY, [*row, None])
    for i in range(2):
        database.append("ALL_TYPES", 0, JAN15 + i * DAY, [f"e{i + 2}", *VALUES[1:], 7])
    database.upsert("TOTALS", ["b", Decimal("2.25")])
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
