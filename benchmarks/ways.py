"""One way from bytes to Parquet, in a process of its own: prints its seconds, CPU seconds and peak memory as JSON.

    python -m benchmarks.ways WAY KIND DIR OUT [URL]
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data import SCHEMAS, header

BLOCK = 1 << 20


def naive(kind: str, directory: Path, out: Path, url: str) -> None:
    """The whole body, json.loads, a DataFrame, to_parquet: what people write first. Decimals become floats."""
    import pandas as pd

    body = (directory / f"{kind}.query").read_bytes()
    elements = json.loads(header(kind) + body)
    rows = [element["row"]["columns"] for element in elements[1:]]
    pd.DataFrame(rows, columns=list(SCHEMAS[kind][1])).to_parquet(out / "naive.parquet", compression="snappy")


def orjson_blocks(kind: str, directory: Path, out: Path, url: str) -> None:
    """Blocks of lines through orjson, pa.array by column; decimals are exact to 15 digits only."""
    import gc

    import orjson
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ksql_lake.model.types import arrow_schema, parse_schema

    gc.disable()
    columns = parse_schema(SCHEMAS[kind][0])
    schema = arrow_schema(columns)
    loose = pa.schema([_loose(field) for field in schema])
    with pq.ParquetWriter(out / "orjson.parquet", schema, compression="snappy") as writer:
        waiting: list[pa.RecordBatch] = []
        for block in _blocks(directory / f"{kind}.query", 8 * BLOCK):
            text = block.rstrip().removesuffix(b"]").removesuffix(b",")
            rows = [element["row"]["columns"] for element in orjson.loads(b"[" + text + b"]")]
            arrays = []
            for i, values in enumerate(zip(*rows, strict=True)):
                if pa.types.is_map(schema.field(i).type):
                    values = tuple(None if v is None else list(v.items()) for v in values)
                array = pa.array(values, loose.field(i).type)
                if pa.types.is_timestamp(schema.field(i).type):
                    array = array.cast(pa.timestamp("ms"))
                arrays.append(array.cast(schema.field(i).type))
            waiting.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
            if sum(map(len, waiting)) > 262_144:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting = []
        writer.write_table(pa.Table.from_batches(waiting, schema))


def _loose(field: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_decimal(field.type):
        return pa.field(field.name, pa.float64())
    return pa.field(field.name, pa.string()) if pa.types.is_timestamp(field.type) else field


def duckdb_named(kind: str, directory: Path, out: Path, url: str) -> None:
    """DuckDB's own JSON reader, types given, on the easier input: NDJSON with names."""
    import duckdb

    from ksql_lake.model.types import parse_schema

    types = ", ".join(f"'{c.name}': '{_duck(c.type)}'" for c in parse_schema(SCHEMAS[kind][0]))
    duckdb.sql(
        f"COPY (FROM read_json('{directory}/{kind}.ndjson', format='newline_delimited', columns={{{types}}})) "
        f"TO '{out}/duckdb.parquet' (FORMAT parquet, COMPRESSION snappy)"
    )


def _duck(kind: Any) -> str:
    if kind.base == "ARRAY":
        return f"{_duck(kind.element)}[]"
    if kind.base == "MAP":
        return f"MAP({_duck(kind.key)}, {_duck(kind.element)})"
    if kind.base == "STRUCT":
        return "STRUCT(" + ", ".join(f'"{name}" {_duck(inner)}' for name, inner in kind.fields) + ")"
    return {"STRING": "VARCHAR", "DECIMAL": f"DECIMAL({kind.precision}, {kind.scale})"}.get(kind.base, str(kind.base))


def polars_named(kind: str, directory: Path, out: Path, url: str) -> None:
    """Polars' NDJSON reader on the easier input (decimals as floats, a MAP left out: it has none)."""
    import polars as pl

    pl.scan_ndjson(directory / f"{kind}.ndjson", infer_schema_length=1000).sink_parquet(
        out / "polars.parquet", compression="snappy"
    )


def ours(kind: str, directory: Path, out: Path, url: str) -> None:
    """This project's decoder and writer, exact; with the native reader where it is built."""
    _ours(kind, directory, out, native=True)


def ours_python(kind: str, directory: Path, out: Path, url: str) -> None:
    """The same without the native reader."""
    _ours(kind, directory, out, native=False)


def _ours(kind: str, directory: Path, out: Path, native: bool) -> None:
    import pyarrow as pa

    from ksql_lake.model.types import arrow_schema, parse_schema
    from ksql_lake.sources.ksqldb.rows import Decoder
    from ksql_lake.store.writer import PartitionWriter, WriterOptions

    columns = parse_schema(SCHEMAS[kind][0])
    schema = arrow_schema(columns)
    writer = PartitionWriter(out / "ours", schema, "r", "data", WriterOptions(file_rows=10**9, file_bytes=1 << 40), {})
    decoder = Decoder(columns, native=native)
    for block in _blocks(directory / f"{kind}.query", BLOCK):
        for element in decoder.decode(block):
            if isinstance(element, pa.RecordBatch):
                writer.write(pa.RecordBatch.from_arrays(element.columns, schema=schema), "p", "20250115")
    writer.close()


def read_only(kind: str, directory: Path, out: Path, url: str) -> None:
    """The bare cost of reading the bytes."""
    for _ in _blocks(directory / f"{kind}.query", BLOCK):
        pass


def _blocks(path: Path, size: int) -> Any:
    with path.open("rb", BLOCK) as file:
        while piece := file.read(size):
            yield piece + file.readline()


def naive_http(kind: str, directory: Path, out: Path, url: str) -> None:
    """requests.post().json(), a DataFrame, one file a day."""
    import pandas as pd
    import requests

    letter, push = (("S", " EMIT CHANGES LIMIT 1000000000") if out.name.endswith("stream") else ("T", ""))
    sql = f"SELECT * FROM {letter}_{kind.upper()}{push};"
    answer = requests.post(f"{url}/query", json={"ksql": sql, "streamsProperties": {}}, timeout=600).json()
    rows = [element["row"]["columns"] for element in answer[1:]]
    frame = pd.DataFrame(rows, columns=list(SCHEMAS[kind][1]))
    if letter == "S":
        frame["day"] = pd.to_datetime(frame["ROWTIME"], unit="ms").dt.date
        for day, part in frame.groupby("day"):
            part.to_parquet(out / f"{day}.parquet", compression="snappy")
    else:
        frame.to_parquet(out / "table.parquet", compression="snappy")


def export_http(kind: str, directory: Path, out: Path, url: str) -> None:
    """The whole road of this project: read, parse, split by day, Parquet, commit; less the silence it waits for."""
    from ksql_lake.ingest.export import FeedTask, export_feed
    from ksql_lake.model.feeds import load, new, save
    from ksql_lake.sources.ksqldb.client import Server
    from ksql_lake.sources.pace import Limits
    from ksql_lake.store.writer import WriterOptions

    letter, type_ = ("S", "stream") if out.name.endswith("stream") else ("T", "table")
    feed = out / "feed.json"
    save(feed, new("feed", type_, f"{letter}_{kind.upper()}", "2025-01-01T00:00:00Z"))
    limits = Limits(first_row=30, idle=IDLE)
    task = FeedTask(load(feed), out / "lake", Server(url), "20250115T000000_bench", limits, WriterOptions())
    result = export_feed(task)
    assert result.result == "ok" and result.rows, result


def drain_http(kind: str, directory: Path, out: Path, url: str) -> None:
    """The bare cost of reading the answer with our client: bytes off the socket, whole lines."""
    from ksql_lake.sources.ksqldb.client import Client, Server

    letter, push = ("S", " EMIT CHANGES") if out.name.endswith("stream") else ("T", "")
    with Client(Server(url)) as client, client.query(f"SELECT * FROM {letter}_{kind.upper()}{push};") as answer:
        while (lines := answer.read(IDLE)) is not None and lines:
            pass


IDLE = 0.2
WAITS = {"export_http": IDLE, "drain_http": IDLE}  # for the end of a query that never ends: not work
WAYS: dict[str, Callable[[str, Path, Path, str], None]] = {
    way.__name__: way
    for way in (naive, orjson_blocks, duckdb_named, polars_named, ours, ours_python, read_only, naive_http,
                export_http, drain_http)
}


def _peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: list[str]) -> int:
    way, kind, directory, out = argv[0], argv[1], Path(argv[2]), Path(argv[3])
    out.mkdir(parents=True, exist_ok=True)
    # what every way needs, whether it shows it or not
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import requests  # noqa: F401

    begun, cpu = time.perf_counter(), time.process_time()
    WAYS[way](kind, directory, out, argv[4] if len(argv) > 4 else "")
    seconds = time.perf_counter() - begun
    if out.name.endswith("stream"):
        seconds -= WAITS.get(way, 0.0)
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "mb": _peak_mb()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
