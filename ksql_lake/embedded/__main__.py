"""`python -m ksql_lake.embedded`: serve the demo data on a loopback port until interrupted."""

from __future__ import annotations

import argparse
import signal
import threading
from datetime import UTC, date, datetime, timedelta

from . import EmbeddedKsqlDB, fill_demo


def main(argv: list[str] | None = None) -> int:
    """Fill, start, wait for SIGINT or SIGTERM, stop politely."""
    parser = argparse.ArgumentParser(prog="python -m ksql_lake.embedded", description=__doc__)
    parser.add_argument("--port", type=int, default=8088, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 in a container")
    parser.add_argument("--events", type=int, default=100_000, help="how many demo events")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--start", type=date.fromisoformat, help="first UTC day (default: so many days ago that the events end now)"
    )
    parser.add_argument("--days", type=int, default=3)
    options = parser.parse_args(argv)
    db = EmbeddedKsqlDB(options.port, host=options.host)
    end = None if options.start else datetime.now(UTC)
    start = options.start or (datetime.now(UTC) - timedelta(days=options.days - 1)).date()
    fill_demo(db, options.events, options.seed, start, options.days, end)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with db:
        print(f"embedded ksqlDB on {db.url}, {options.events} events; stop with Ctrl-C", flush=True)
        done.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
