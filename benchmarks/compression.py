"""The codecs side by side on the demo's transactions: size, time to write, time to read; medians of interleaved rounds.

    python -m benchmarks.compression [--events N] [--rounds N]
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import data_lake_config
import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo
from ksql_lake.store.writer import PartitionWriter, WriterOptions

CODECS: tuple[tuple[str, int | None], ...] = (
    ("none", None), ("snappy", None), ("lz4", None), ("zstd", None), ("zstd", 3), ("zstd", 9), ("gzip", None),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench_") as name:
        rows = demo_rows(Path(name), args.events)
        found: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
        for number in range(args.rounds):
            for codec, level in (*CODECS[number % len(CODECS) :], *CODECS[: number % len(CODECS)]):
                title = codec if level is None else f"{codec} {level}"
                directory = Path(name) / f"{codec}{level}{number}"
                found[title].append(measure(rows, directory, WriterOptions(compression=codec, compression_level=level)))
    snappy = statistics.median(size for size, _, _ in found["snappy"])
    print(f"{rows.num_rows:,} rows of transaction_stream\n")
    print("| codec | MB | of snappy | write s | read s |\n|---|---|---|---|---|")
    for codec, level in CODECS:
        title = codec if level is None else f"{codec} {level}"
        size, write, read = (statistics.median(column) for column in zip(*found[title], strict=True))
        print(f"| {title} | {size / 1e6:.1f} | {size / snappy:.0%} | {write:.2f} | {read:.3f} |")
    return 0


def demo_rows(directory: Path, events: int) -> pa.Table:
    """The demo's transactions, exported once."""
    with EmbeddedKsqlDB() as database:
        fill_demo(database, events, 1, export_to_data_lake.DEMO_START, 3)
        environment = {"DATA_LAKE_DIR": str(directory / "lake"), "KSQLDB_URL": database.url, "RETENTION": "off"}
        os.environ.update({**environment, "IDLE_SECONDS": "2"})
        config = replace(data_lake_config.load(os.environ), retention=False)
        data_lake_config.create(config)
        manage_feeds.sync(config, f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}")
        assert export_to_data_lake.main(["--stream", "transaction_stream", "--quiet"]) == 0
    files = sorted((directory / "lake" / "streams" / "transaction_stream").rglob("*.parquet"))
    return pa.concat_tables(pq.ParquetFile(path).read() for path in files).replace_schema_metadata(None)


def measure(rows: pa.Table, directory: Path, options: WriterOptions) -> tuple[int, float, float]:
    """Bytes, seconds to write with this project's writer, seconds to read all of it."""
    began = time.perf_counter()
    with PartitionWriter(directory, rows.schema, "r", "data", options, {}) as writer:
        for batch in rows.to_batches():
            writer.write(batch, "p", "20250115")
        files = writer.close()
    written = time.perf_counter()
    for file in files:
        pq.ParquetFile(file.staged).read()
    return sum(file.bytes for file in files), written - began, time.perf_counter() - written


if __name__ == "__main__":
    raise SystemExit(main())
