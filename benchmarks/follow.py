"""How long an event takes from the topic to a Parquet file that any reader sees, while a stream is followed.

    python -m benchmarks.follow [--every 2] [--seconds 60] [--rate 5]

The server and the broker are those of the tests, in this process; the follower is the script, in its own. The events
come at random moments, `--rate` a second; the lake is listed 20 times a second. Goal: median below --every plus 2 s.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from ksql_lake.embedded import EmbeddedKsqlDB
from tests.mock_broker import MockBroker
from tests.test_kafka_export import Place

ROOT = Path(__file__).resolve().parent.parent
SLACK = 2.0  # seconds
GRACE = 30.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=5.0)
    args = parser.parse_args(argv)
    print("| source | events | median | 95 % | longest |\n|---|---|---|---|---|")
    missed = False
    for source in ("kafka", "rest"):
        took = latencies(source, args.every, args.seconds, args.rate)
        middle, most = statistics.median(took), statistics.quantiles(took, n=20)[-1]
        missed |= middle >= args.every + SLACK
        print(f"| {source} | {len(took)} | {middle:.2f} s | {most:.2f} s | {max(took):.2f} s |", flush=True)
    print(f"goal: median below {args.every + SLACK:g} s: {'NOT met' if missed else 'met'}")
    return int(missed)


def latencies(source: str, every: float, seconds: float, rate: float) -> list[float]:
    """Seconds from the topic to the lake, for each event."""
    with tempfile.TemporaryDirectory(prefix="bench_follow_") as name, EmbeddedKsqlDB() as db, MockBroker() as kafka:
        os.environ |= {"KSQLDB_URL": db.url, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "IDLE_SECONDS": "2"}
        place = Place(db, kafka, Path(name) / "lake")
        place.feed()
        place.append(1)
        with _following(place, source, every):
            seen = Seen(place.lake)
            while not seen.look():
                time.sleep(0.05)
            return _measured(place, seen, seconds, rate)


def _measured(place: Place, seen: Seen, seconds: float, rate: float) -> list[float]:
    sent: dict[int, float] = {}
    took: list[float] = []
    random.seed(7)
    begin = following = time.monotonic()
    while time.monotonic() < begin + seconds + GRACE and (time.monotonic() < begin + seconds or sent):
        now = time.monotonic()
        if following <= now < begin + seconds:
            sent[place.made] = now
            place.append(1)
            following += random.expovariate(rate)
        took += [time.monotonic() - sent.pop(number) for number in seen.look() if number in sent]
        time.sleep(0.05)
    if sent:
        raise SystemExit(f"{len(sent)} events did not arrive within {GRACE:.0f} s")
    return took


class Seen:
    """The events of a lake, file by file as they appear."""

    def __init__(self, lake: Path) -> None:
        self._directory, self._files = lake / "streams" / "events", set[Path]()

    def look(self) -> list[int]:
        """The numbers of the events in files that were not there before."""
        found: list[int] = []
        for file in set(self._directory.rglob("year=*/**/*.parquet")) - self._files:
            self._files.add(file)
            found += pq.read_table(file, columns=["N"], partitioning=None)["N"].to_pylist()
        return found


@contextlib.contextmanager
def _following(place: Place, source: str, every: float) -> Iterator[None]:
    command = [sys.executable, str(ROOT / "export_to_data_lake.py"), "--follow", "--stream", "events", "--every",
               f"{every}s", "--source", source, "--lake", str(place.lake)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    raise SystemExit(main())
