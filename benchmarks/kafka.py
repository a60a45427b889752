"""From a Kafka topic to Snappy Parquet: ours and the alternatives, in turns, each in a fresh process.

    python -m benchmarks.kafka [--rows N] [--rounds N] [--servers HOST:PORT]

Without --servers the broker is the one that librdkafka carries, in this process; with it a real one, on which the
topics `bench_flat` and `bench_nested` are made (and left). `naive` is consume, json.loads and pandas; `msgspec` decodes
into structs; `duckdb` reads the same values as a file of lines, without the time to fetch and to write that file.

Measured is the way from the broker (or the file of lines) to a finished Parquet file. The time to load Python's
libraries is shown beside it and not counted, for anyone: it is the same for ten rows and for ten million. Ours
describes the topic first, adds ROWTIME, ROWPARTITION and ROWOFFSET to each row, and is the only way that waits until
the file is durable.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

PARTITIONS = 48  # the embedded broker keeps 5 MB of each
WAYS = ("naive", "msgspec", "duckdb", "ours")
LIBRARIES = {
    "naive": ("confluent_kafka", "pandas", "pyarrow.parquet"),
    "msgspec": ("confluent_kafka", "msgspec", "pyarrow.parquet", "ksql_lake.model.types"),
    "duckdb": ("duckdb",),
    "ours": ("confluent_kafka.admin", "ksql_lake.sources.kafka.topic_rows", "ksql_lake.store.writer"),
}
GOALS = {("ours", "naive"): 10.0, ("ours", "duckdb"): 1.0}
FLAT = (
    "`TRANSACTION_ID` STRING, `USER_ID` STRING, `PRODUCT_ID` STRING, `AMOUNT` DECIMAL(12, 2), `CURRENCY` STRING, "
    "`PAYMENT_METHOD` STRING, `COUNTRY` STRING, `CITY` STRING, `IP_ADDRESS` STRING, `IS_REFUND` BOOLEAN, "
    "`EVENT_TS` BIGINT"
)
NESTED = (
    "`TRANSACTION_ID` STRING, `USER_ID` STRING, `PRODUCT_ID` STRING, `AMOUNT` DECIMAL(12, 2), `CURRENCY` STRING, "
    "`CUSTOMER` STRUCT<`COUNTRY` STRING, `CITY` STRING, `IP_ADDRESS` STRING>, "
    "`ITEMS` ARRAY<STRUCT<`SKU` STRING, `QTY` INTEGER, `PRICE` DECIMAL(10, 2)>>, `TAGS` MAP<STRING, STRING>, "
    "`IS_REFUND` BOOLEAN, `EVENT_TS` BIGINT"
)
SCHEMAS = {"flat": FLAT, "nested": NESTED}
CITIES = ("Berlin", "Orléans", "London", "Kraków", "New York", "東京")


def values(kind: str, rows: int) -> Iterator[bytes]:
    """Reproducible values of the demo's shape."""
    r = random.Random(7)
    for number in range(rows):
        where = {"COUNTRY": "DE", "CITY": r.choice(CITIES), "IP_ADDRESS": f"10.0.{r.randrange(256)}.{r.randrange(256)}"}
        row: dict[str, Any] = {
            "TRANSACTION_ID": f"tx_{number:09d}", "USER_ID": f"user_{r.randrange(3000)}",
            "PRODUCT_ID": f"prod_{r.randrange(300)}", "AMOUNT": r.randrange(100, 90_000) / 100, "CURRENCY": "EUR",
        }
        if kind == "flat":
            row |= {"PAYMENT_METHOD": "card", **where}
        else:
            items = [{"SKU": f"s{r.randrange(100)}", "QTY": 1 + r.randrange(4), "PRICE": r.randrange(100, 9999) / 100}
                     for _ in range(1 + r.randrange(3))]
            row |= {"CUSTOMER": where, "ITEMS": items, "TAGS": {"channel": r.choice(("web", "app")), "ref": "mail"}}
        row |= {"IS_REFUND": r.random() < 0.05, "EVENT_TS": 1_736_899_200_000 + number}
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", help="bootstrap servers of a real broker")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.way:
        _one(args.way, args.kind, args.servers, Path(args.out))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench_kafka_") as name:
        held = None if args.servers else _mock()
        servers = str(args.servers or held and held.bootstrap)
        print("| values | way | seconds | CPU s | loading s | peak MB | rows/s |\n|---|---|---|---|---|---|---|")
        for kind in SCHEMAS:
            _fill(servers, held, kind, args.rows, Path(name))
            _section(kind, servers, args.rows, args.rounds, Path(name))
    return 0


def _mock() -> Any:
    from tests.mock_broker import MockBroker

    return MockBroker()


def _fill(servers: str, mock: Any, kind: str, rows: int, directory: Path) -> None:
    from confluent_kafka import Producer

    topic = f"bench_{kind}"
    if mock is not None:
        mock.create(topic, PARTITIONS)
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 20, "log_level": 0})
    known = producer.list_topics(topic, timeout=10).topics[topic].partitions
    with (directory / f"{kind}.ndjson").open("wb", 1 << 20) as file:
        for number, value in enumerate(values(kind, rows)):
            while True:
                try:
                    partition = number % max(len(known), 1)
                    producer.produce(topic, value, b"k", partition, timestamp=1_736_899_200_000 + number)
                    break
                except BufferError:
                    producer.poll(0.1)
            file.write(value + b"\n")
    producer.flush(60)


def _section(kind: str, servers: str, rows: int, rounds: int, directory: Path) -> None:
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.kafka", "--way", way, "--kind", kind, "--servers", servers,
                       "--out", str(directory)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{way}: {done.stderr[-2000:]}")
            measured = json.loads(done.stdout.splitlines()[-1])
            if measured["rows"] < rows:
                raise SystemExit(f"{way}: {measured['rows']} of {rows} rows")
            found[way].append(measured)
    middle = {way: statistics.median(one["seconds"] for one in all_) for way, all_ in found.items()}
    for way, all_ in found.items():
        cpu, load, peak = (statistics.median(one[what] for one in all_) for what in ("cpu", "load", "peak"))
        took = middle[way]
        print(f"| {kind} | {way} | {took:.2f} | {cpu:.2f} | {load:.2f} | {peak:.0f} | {rows / took:,.0f} |", flush=True)
    for (ours, other), goal in GOALS.items():
        ratio = middle[other] / middle[ours]
        met = "met" if ratio >= goal else "NOT met"
        print(f"{kind}: {ours} is {ratio:.1f} times as fast as {other}; goal {goal:g}: {met}")


def _one(way: str, kind: str, servers: str, directory: Path) -> None:
    run: Callable[[str, str, Path], int] = globals()[f"_{way}"]
    before = time.perf_counter()
    for name in LIBRARIES[way]:
        importlib.import_module(name)
    load = time.perf_counter() - before
    started, cpu = time.perf_counter(), time.process_time()
    rows = run(kind, servers, directory)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu,
                      "load": load, "peak": peak}))


def _messages(kind: str, servers: str) -> Iterator[list[Any]]:
    """All messages of a topic, by the usual loop."""
    from confluent_kafka import Consumer, TopicPartition

    topic = f"bench_{kind}"
    consumer = Consumer({
        "bootstrap.servers": servers, "group.id": "bench", "enable.auto.commit": False, "log_level": 0,
        "auto.offset.reset": "earliest", "enable.partition.eof": True, "fetch.queue.backoff.ms": 10,
    })
    partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    left = len(partitions)
    while left:
        found = consumer.consume(10_000, 0.1)
        left -= sum(message.error() is not None for message in found)
        yield [message for message in found if message.error() is None]
    consumer.close()


def _naive(kind: str, servers: str, directory: Path) -> int:
    import pandas as pd

    rows = [json.loads(message.value()) for messages in _messages(kind, servers) for message in messages]
    pd.DataFrame(rows).to_parquet(directory / "naive.parquet", compression="snappy")
    return len(rows)


def _msgspec(kind: str, servers: str, directory: Path) -> int:
    from decimal import Decimal

    import msgspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ksql_lake.model.types import SqlType, arrow_schema, parse_schema

    def python(kind: SqlType) -> Any:
        if kind.base == "STRUCT":
            return msgspec.defstruct("S", [(name, python(inner) | None, None) for name, inner in kind.fields])
        if kind.base == "ARRAY" and kind.element:
            return list[python(kind.element) | None]  # type: ignore[misc]
        if kind.base == "MAP" and kind.element:
            return dict[str, python(kind.element) | None]  # type: ignore[misc]
        simple = {"STRING": str, "BOOLEAN": bool, "DOUBLE": float, "DECIMAL": Decimal}
        return simple.get(kind.base, int)

    columns = parse_schema(SCHEMAS[kind])
    root = SqlType("STRUCT", fields=tuple((column.name, column.type) for column in columns))
    decode = msgspec.json.Decoder(python(root)).decode
    schema, count = arrow_schema(columns), 0
    with pq.ParquetWriter(directory / "msgspec.parquet", schema, compression="snappy") as writer:
        for messages in _messages(kind, servers):
            found = [decode(message.value()) for message in messages]
            plain = [msgspec.to_builtins(row, builtin_types=(Decimal,)) for row in found]
            if plain:
                arrays = [pa.array([row[f.name] for row in plain], f.type) for f in schema]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            count += len(found)
    return count


def _duckdb(kind: str, servers: str, directory: Path) -> int:
    import duckdb

    types = {
        "flat": "TRANSACTION_ID: 'VARCHAR', USER_ID: 'VARCHAR', PRODUCT_ID: 'VARCHAR', AMOUNT: 'DECIMAL(12,2)', "
                "CURRENCY: 'VARCHAR', PAYMENT_METHOD: 'VARCHAR', COUNTRY: 'VARCHAR', CITY: 'VARCHAR', "
                "IP_ADDRESS: 'VARCHAR', IS_REFUND: 'BOOLEAN', EVENT_TS: 'BIGINT'",
        "nested": "TRANSACTION_ID: 'VARCHAR', USER_ID: 'VARCHAR', PRODUCT_ID: 'VARCHAR', AMOUNT: 'DECIMAL(12,2)', "
                  "CURRENCY: 'VARCHAR', CUSTOMER: 'STRUCT(COUNTRY VARCHAR, CITY VARCHAR, IP_ADDRESS VARCHAR)', "
                  "ITEMS: 'STRUCT(SKU VARCHAR, QTY INTEGER, PRICE DECIMAL(10,2))[]', TAGS: 'MAP(VARCHAR, VARCHAR)', "
                  "IS_REFUND: 'BOOLEAN', EVENT_TS: 'BIGINT'",
    }[kind]
    source = f"read_json('{directory / kind}.ndjson', format='newline_delimited', columns={{{types}}})"
    target = f"'{directory / 'duckdb.parquet'}' (FORMAT parquet, COMPRESSION snappy)"
    [[count]] = duckdb.execute(f"COPY (SELECT * FROM {source}) TO {target}").fetchall()
    return int(count)


def _ours(kind: str, servers: str, directory: Path) -> int:
    import pyarrow as pa

    from ksql_lake.model.types import arrow_schema, parse_schema
    from ksql_lake.sources.kafka.connection import Connection
    from ksql_lake.sources.kafka.formats import Part, Plan
    from ksql_lake.sources.kafka.messages import MessageDecoder
    from ksql_lake.sources.kafka.topic import Broker
    from ksql_lake.store.writer import PartitionWriter, WriterOptions

    columns = parse_schema(SCHEMAS[kind])
    decoder = MessageDecoder(Plan("S", f"bench_{kind}", Part("NONE", ()), Part("JSON", tuple(columns))))
    pseudo = [("ROWTIME", pa.timestamp("ms", "UTC")), ("ROWPARTITION", pa.int32()), ("ROWOFFSET", pa.int64())]
    schema = pa.schema([*pseudo, *arrow_schema(columns)])
    count = 0
    with Broker(Connection({"bootstrap.servers": servers})) as broker:
        state = broker.describe(f"bench_{kind}")
        spans = {p: (bounds.start, bounds.end) for p, bounds in state.bounds.items()}
        _, blocks = broker.read(state.name, spans)
        out = Path(tempfile.mkdtemp(dir=directory))
        with PartitionWriter(out, schema, "run", "data", WriterOptions(), {}) as writer:
            for block in blocks:
                rows = decoder.decode(block).rows
                assert isinstance(rows, pa.RecordBatch)
                arrays = [rows.column(0).cast(schema.field(0).type), *rows.columns[1:]]
                writer.write(pa.RecordBatch.from_arrays(arrays, schema=schema), "year=2025", "2025")
                count += len(rows)
            writer.close()
    return count


if __name__ == "__main__":
    raise SystemExit(main())
