"""Memory stays bounded, whatever the length of a stream or the size of a table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB
from tests.conftest import ROOT

# VmHWM and not ru_maxrss, which a child inherits from the process that started it.
RUN = """
import re, sys
sys.path.insert(0, {root!r})
import export_to_data_lake
code = export_to_data_lake.main(["--all", "--quiet"])
print(code, int(re.search("VmHWM: *\\s*(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["stream", "table"])
def test_peak_memory_of_a_long_export(kind: str, tmp_path: Path) -> None:
    """A million rows over 400 days in random order, and a pulled table of 400,000 keys: each below 400 MB."""
    count = 1_000_000 if kind == "stream" else 400_000
    with EmbeddedKsqlDB() as database:
        if kind == "stream":
            days = ((i * 7919) % 400 for i in range(count))
            rows = ((i % 4, 1_700_000_000_000 + day * 86_400_000, [f"e{i}", i]) for i, day in enumerate(days))
            database.stream("S", "`ID` STRING, `V` BIGINT", 4, rows)
        else:
            database.create_table("S", "`ID` STRING KEY, `V` BIGINT")
            for i in range(count):
                database.upsert("S", [f"k{i}", i])
        assert manage_feeds.main(["add", "--name", "s", "--type", kind, "--source", "s"]) == 0
        environment = {**os.environ, "KSQLDB_URL": database.url, "IDLE_SECONDS": "2"}
        shown = subprocess.run(
            [sys.executable, "-c", RUN.format(root=str(ROOT))], env=environment, capture_output=True, text=True,
            check=True,
        )
    code, peak = map(int, shown.stdout.split())
    files = [pq.ParquetFile(path).metadata.num_rows for path in (tmp_path / "lake").rglob("*.parquet")]
    assert code == 0 and sum(files) == count and peak < 400, (code, sum(files), f"{peak} MB", shown.stderr)
    print(f"{kind}: {count:,} rows in {len(files)} files, peak {peak} MB")
