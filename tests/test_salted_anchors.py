"""Hashes of rows in the metadata are salted per feed; those of earlier versions are read, and then salted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.ingest.streams.anchors import anchor_of

JAN15 = 1_736_899_200_000


@pytest.fixture
def ksqldb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2")):
            monkeypatch.setenv(name, value)
        database.create_stream("S", "`PHONE` STRING", 2)
        for i in range(20):
            database.append("S", i % 2, JAN15 + i, [f"0171-{i:04d}"])
        for name in ("a", "b"):
            assert manage_feeds.main(["add", "--name", name, "--type", "stream", "--source", "s"]) == 0
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        yield database


def anchors(lake: Path, feed: str) -> list[dict[str, Any]]:
    state = json.loads((lake / "streams" / feed / "_metadata.json").read_text())
    return [*state["resume"].values(), *state["heads"].values()]


def unsalted(value: str) -> str:
    return hashlib.sha256(json.dumps([value]).encode()).hexdigest()[:32]


def test_a_value_is_not_read_out_of_a_hash(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """Anywhere below the lake: metadata, state log, footers of Parquet files."""
    lake = tmp_path / "lake"
    known = anchors(lake, "a")
    assert len(known) == 4 and len({anchor["salt"] for anchor in known}) == 1 and len(known[0]["salt"]) >= 16
    assert not {anchor["hash"] for anchor in known} & {anchor["hash"] for anchor in anchors(lake, "b")}
    guesses = {unsalted(f"0171-{i:04d}").encode() for i in range(20)}
    for path in lake.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += b"".join((pq.read_metadata(path).metadata or {}).values())
            assert not [guess for guess in guesses if guess in content], path


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_lake_of_an_earlier_version(
    rebuild: bool, ksqldb: EmbeddedKsqlDB, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    path = lake / "streams" / "a" / "_metadata.json"
    table = pq.read_table(next(path.parent.rglob("*.parquet")))
    table = table.set_column(0, "ROWTIME", table["ROWTIME"].cast("int64")).combine_chunks()
    state = json.loads(path.read_text())
    for place, row in (("resume", -1), ("heads", 0)):
        for partition in ("0", "1"):
            mine = table.filter([p == int(partition) for p in table["ROWPARTITION"].to_pylist()]).to_batches()[0]
            anchor = anchor_of(mine, row % len(mine), ["PHONE"]).to_json()
            assert anchor["offset"] == state[place][partition]["offset"] and "salt" not in anchor
            state[place][partition] = anchor
    path.write_text(json.dumps(state))
    assert export_to_data_lake.main(["--stream", "a", "--quiet"]) == 0
    assert all(anchor["salt"] for anchor in anchors(lake, "a")), "also where nothing was new"
    ksqldb.append("S", 0, JAN15 + 99, ["0171-9999"])
    if rebuild:
        path.unlink()
        (lake / ".state" / "a.jsonl").unlink()
        assert metadata_utils.main(["--rebuild", "--feed", "a"]) == 0
    assert export_to_data_lake.main(["--stream", "a", "--quiet"]) == 0
    assert sum(pq.read_metadata(file).num_rows for file in path.parent.rglob("*.parquet")) == 21
    ksqldb.recreate("S")
    for i in range(20):
        ksqldb.append("S", i % 2, JAN15 + i, [f"0172-{i:04d}"])
    assert export_to_data_lake.main(["--stream", "a", "--quiet"]) == 1, "another topic is still seen as such"
    assert sum(pq.read_metadata(file).num_rows for file in path.parent.rglob("*.parquet")) == 41
