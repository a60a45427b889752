"""What a feed file sets, seen in the lake: compression, bloom filters, columns that must never come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model import feeds

JAN15 = 1_736_899_200_000
COLUMNS = "`ID` STRING, `CUSTOMER` STRUCT<`USER_ID` STRING, `IP_ADDRESS` STRING>, `TAGS` ARRAY<STRUCT<`OWNER` STRING>>"


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        database.create_stream("S", COLUMNS, 1)
        for i in range(500):
            customer = {"USER_ID": f"u{i}", "IP_ADDRESS": "10.0.0.1"}
            database.append("S", 0, JAN15, [f"e{i * 2:06d}", customer, [{"OWNER": "x"}]])
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        yield tmp_path / "lake"


def edit(lake: Path, **settings: Any) -> None:
    path = lake / "feeds" / "active" / "s.json"
    feeds.save(path, {**json.loads(path.read_text()), **settings})


@pytest.mark.parametrize(("name", "level", "written"), [
    ("zstd", 3, "ZSTD"), ("lz4", None, "LZ4"), ("gzip", 1, "GZIP"), ("none", None, "UNCOMPRESSED"),
    ("snappy", None, "SNAPPY"),
])
def test_compression_of_one_feed(lake: Path, name: str, level: int | None, written: str) -> None:
    edit(lake, compression=name, **({"compression_level": level} if level else {}))
    assert export_to_data_lake.main(["--all"]) == 0
    (path,) = (lake / "streams").rglob("*.parquet")
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == written
    metadata = lake / "streams" / "s" / "_metadata.json"
    before = json.loads(metadata.read_text())
    assert before["files"][0]["compression"] == name
    assert before["files"][0].get("compression_level") == level
    assert len(duckdb.sql(f"from read_parquet('{path}')").fetchall()) == 500
    metadata.unlink()
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 0
    assert json.loads(metadata.read_text())["files"] == before["files"]


def test_compression_of_the_whole_lake(lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PARQUET_COMPRESSION_LEVEL", "9")
    assert export_to_data_lake.main(["--all"]) == 2
    assert "PARQUET_COMPRESSION_LEVEL needs PARQUET_COMPRESSION zstd or gzip, not snappy" in capsys.readouterr().err
    monkeypatch.setenv("PARQUET_COMPRESSION", "zstd")
    monkeypatch.setenv("PARQUET_COMPRESSION_LEVEL", "23")
    assert export_to_data_lake.main(["--all"]) == 2 and "from 1 to 22" in capsys.readouterr().err
    monkeypatch.setenv("PARQUET_COMPRESSION_LEVEL", "9")
    assert export_to_data_lake.main(["--all"]) == 0
    (file,) = json.loads((lake / "streams" / "s" / "_metadata.json").read_text())["files"]
    assert (file["compression"], file["compression_level"]) == ("zstd", 9)
    edit(lake, compression="gzip", compression_level=10)
    assert manage_feeds.main(["check"]) == 1
    assert '"compression_level" is 10; the highest level of gzip is 9' in capsys.readouterr().err


def test_rewritten_files_keep_codec_and_bloom_filters(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(lake, compression="zstd", compression_level=5, bloom_filter_columns=["id"])
    monkeypatch.setenv("RETENTION", "off")
    for _ in range(2):
        assert export_to_data_lake.main(["--all"]) == 0
    assert manage_feeds.main(["erase", "--where", "id=e000102", "--later", "drop"]) == 0
    (path,) = (lake / "streams").rglob("*.parquet")
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    assert (column.path_in_schema, column.compression) == ("ID", "ZSTD") and column.bloom_filter_length > 0
    (file,) = json.loads((lake / "streams" / "s" / "_metadata.json").read_text())["files"]
    assert (file["compression"], file["compression_level"], file["rows"]) == ("zstd", 5, 499)


def test_bloom_filters_prune(lake: Path, capsys: Any) -> None:
    """DuckDB skips the row group for a value inside of its minimum and maximum that is not there."""
    edit(lake, bloom_filter_columns=["ID", "NAME"])
    assert export_to_data_lake.main(["--all"]) == 1
    assert "bloom_filter_columns: NAME not among the columns: ROWTIME" in capsys.readouterr().err
    edit(lake, bloom_filter_columns=["id"])
    assert export_to_data_lake.main(["--all"]) == 0
    (path,) = (lake / "streams").rglob("*.parquet")
    probe = "select bloom_filter_excludes from parquet_bloom_probe('{}', 'ID', '{}')"
    assert duckdb.sql(probe.format(path, "e000101")).fetchall() == [(True,)]
    assert duckdb.sql(probe.format(path, "e000102")).fetchall() == [(False,)]
    assert duckdb.sql(f"from read_parquet('{path}') where ID = 'e000102'").fetchall()


@pytest.mark.parametrize("name", ["id", "CUSTOMER", "customer.ip_address", "ip_address", "Tags.Owner", "owner"])
def test_columns_that_must_never_come(lake: Path, name: str, capsys: Any) -> None:
    edit(lake, forbidden_columns=["nothing", name])
    assert export_to_data_lake.main(["--all"]) == 1
    assert f"s: the source carries {name}, which the feed's forbidden_columns excludes" in capsys.readouterr().err
    assert not list((lake / "streams").rglob("*.parquet"))
    edit(lake, forbidden_columns=["address", "id.address", "customer.owner"])
    assert export_to_data_lake.main(["--all"]) == 0
