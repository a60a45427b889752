"""Staged files: what readers find in them, how many are open, how much waits, what an error leaves."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksql_lake.store.encodings import dictionary_columns
from ksql_lake.store.writer import PartitionWriter, StagedFile, WriterOptions

SCHEMA = pa.schema(
    [
        ("ROWTIME", pa.timestamp("ms", "UTC")),
        ("ROWPARTITION", pa.int32()),
        ("ROWOFFSET", pa.int64()),
        ("CITY", pa.string()),
        ("AMOUNT", pa.decimal128(12, 2)),
    ]
)
DAY = "year=2025/month=01/day=15"


def rows(first: int, count: int) -> pa.RecordBatch:
    numbers = np.arange(first, first + count)
    return pa.record_batch(
        [
            pa.array(numbers * 1000, pa.timestamp("ms", "UTC")),
            pa.array(numbers % 3, pa.int32()),
            pa.array(numbers // 3, pa.int64()),
            pa.array([("Oslo", "Zürich", None)[n % 3] for n in numbers], pa.string()),
            pa.array(numbers, pa.int64()).cast(pa.decimal128(19, 0)).cast(SCHEMA.field("AMOUNT").type),
        ],
        schema=SCHEMA,
    )


def writer(directory: Path, **options: Any) -> PartitionWriter:
    footer = {"feed": "f", "at": "open"}
    return PartitionWriter(directory / "run", SCHEMA, "r1", "data", WriterOptions(**options), footer)


def offsets_in(files: list[StagedFile]) -> list[int]:
    tables = [pq.read_table(file.staged, partitioning=None) for file in files]
    return sorted(int(amount) for table in tables for amount in table["AMOUNT"].to_pylist())


def test_every_reader_finds_the_rows(tmp_path: Path) -> None:
    with writer(tmp_path) as out:
        out.write(rows(0, 500), DAY, "20250115")
        out.write(rows(500, 500), "year=2025/month=01/day=16", "20250116")
        files = out.close({"offsets": "{}"})
    assert [file.name for file in files] == ["data_20250115_r1_0001.parquet", "data_20250116_r1_0002.parquet"]
    root = tmp_path / "run"
    assert len(pd.read_parquet(root, filters=[("day", "=", 16)])) == 500
    assert pq.read_table(root).num_rows == 1000
    query = f"select count(*), count(distinct AMOUNT), sum(AMOUNT) from '{root}/**/*.parquet'"
    assert duckdb.connect().execute(query).fetchall() == [(1000, 1000, 499_500)]
    frame = pl.scan_parquet(f"{root}/**/*.parquet", hive_partitioning=True).filter(pl.col("day") == 15).collect()
    assert frame.height == 500 and frame["CITY"].null_count() == 166
    stored = pq.read_table(files[0].staged, partitioning=None)
    assert stored.schema.equals(SCHEMA) and stored.equals(pa.Table.from_batches([rows(0, 500)]))


def test_what_is_known_of_a_file_is_true(tmp_path: Path) -> None:
    out = writer(tmp_path, row_group_rows=64)
    out.write(rows(30, 300).take(pa.array(np.random.default_rng(1).permutation(300))), DAY, "20250115")
    (file,) = out.close()
    content = file.staged.read_bytes()
    assert (file.bytes, file.crc32, file.rows) == (len(content), zlib.crc32(content), 300)
    assert (file.rowtime_min, file.rowtime_max) == (30_000, 329_000)
    assert file.offsets == {0: (10, 109, 100), 1: (10, 109, 100), 2: (10, 109, 100)}
    parquet = pq.read_metadata(file.staged)
    assert parquet.num_row_groups == 5
    column = parquet.row_group(0).column(0)
    assert column.compression == "SNAPPY" and column.statistics.has_min_max


def test_400_days_in_random_order(tmp_path: Path) -> None:
    out = writer(tmp_path, max_open=8, buffer_bytes=50_000)
    before = len(os.listdir("/proc/self/fd"))
    whole, random = rows(0, 3000), np.random.default_rng(2)
    for start in random.permutation(np.arange(0, 3000, 5)):
        day = f"{random.integers(400):04d}"
        out.write(whole.slice(start, 5), f"year={day}/month=01/day=01", f"{day}0101")
        assert out.open_files <= 8 and out.buffered_bytes <= 50_000
        assert len(os.listdir("/proc/self/fd")) <= before + 8
    files = out.close({"at": "close"})
    assert offsets_in(files) == list(range(3000))
    assert len({file.name for file in files}) == len(files)


@pytest.mark.parametrize("total", [1, 99, 100, 101, 1000])
def test_rolling_and_the_footer_of_close(tmp_path: Path, total: int) -> None:
    out = writer(tmp_path, row_group_rows=40, file_rows=100)
    for start in range(0, total, 7):
        out.write(rows(start, min(7, total - start)), DAY, "20250115")
    files = out.close({"at": "close"})
    assert [file.rows for file in files] == [100] * (total // 100) + [total % 100] * (total % 100 > 0)
    assert offsets_in(files) == list(range(total))
    footers = [pq.read_metadata(file.staged).metadata for file in files]
    assert all(footer[b"feed"] == b"f" for footer in footers)
    assert footers[-1][b"at"] == b"close"
    assert len(files) < 3 or footers[0][b"at"] == b"open"


def test_rolling_by_size(tmp_path: Path) -> None:
    out = writer(tmp_path, row_group_rows=100, file_bytes=1500)
    out.write(rows(0, 1000), DAY, "20250115")
    files = out.close()
    assert len(files) > 1 and offsets_in(files) == list(range(1000))


def test_a_small_slice_does_not_keep_its_batch(tmp_path: Path) -> None:
    out = writer(tmp_path)
    before = pa.total_allocated_bytes()
    for start in range(0, 200_000, 20_000):
        out.write(rows(start, 20_000).slice(5, 2), DAY, "20250115")
    assert pa.total_allocated_bytes() - before < 200_000
    assert [file.rows for file in out.close()] == [20]


def test_nothing_and_an_empty_snapshot(tmp_path: Path) -> None:
    out = writer(tmp_path)
    out.write(rows(0, 0), DAY, "20250115")
    assert out.close({"at": "close"}) == []
    snapshot = PartitionWriter(tmp_path / "s", SCHEMA, "r1", "snapshot", WriterOptions(), {})
    snapshot.write(rows(0, 0), "version=v1", "20250115")
    (file,) = snapshot.close()
    assert (file.rows, file.rowtime_min, file.offsets) == (0, None, {})
    assert pq.read_table(file.staged, partitioning=None).schema.equals(SCHEMA)


def test_dictionaries_only_where_they_pay() -> None:
    table = pa.Table.from_batches([rows(0, 3000)])
    nested = pa.array([[{"A": 1}]] * 3000, pa.list_(pa.struct([("A", pa.int32())])))
    assert dictionary_columns(table.append_column("L", nested)) == [
        "ROWPARTITION", "ROWOFFSET", "CITY", "L.list.element.A",
    ]


def test_a_full_disk_reaches_the_caller_and_abort_cleans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    out = writer(tmp_path)
    out.write(rows(0, 100), DAY, "20250115")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        out.close()
    out.abort()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="closed"):
        out.write(rows(0, 1), DAY, "20250115")


def test_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="schema"):
        writer(tmp_path).write(pa.record_batch({"X": [1]}), DAY, "20250115")
