"""A ksqlDB to try things with, whose sources are yours: edit `fill`, start it, point KSQLDB_URL at it.

    python examples/own_server.py --port 8088
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ksql_lake.embedded import EmbeddedKsqlDB

DAY = 86_400_000  # ms


def fill(database: EmbeddedKsqlDB) -> None:
    """A stream with three days of orders in two partitions, and a table with the customers."""
    now = int(time.time() * 1000)
    database.create_stream("ORDERS", "`ID` BIGINT, `EMAIL` STRING, `PRICE` DECIMAL(9, 2)", partitions=2)
    for i in range(300):
        rowtime = now - 3 * DAY + i * 3 * DAY // 300
        database.append("ORDERS", i % 2, rowtime, [i, f"{i % 20}@example.com", Decimal(100 + i).scaleb(-2)])
    database.create_table("CUSTOMERS", "`EMAIL` STRING KEY, `NAME` STRING")
    for i in range(20):
        database.upsert("CUSTOMERS", [f"{i}@example.com", f"Customer {i}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8088, help="0 takes a free one")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    database = EmbeddedKsqlDB(parser.parse_args().port)
    fill(database)
    with database:
        print(f"ksqlDB on {database.url}; stop with Ctrl-C", flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
