"""Numbers and masks without a copy, and without pandas."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import manage_feeds
from ksql_lake.base import native
from ksql_lake.base.arrays import indices, mask, numbers
from ksql_lake.embedded import EmbeddedKsqlDB
from tests.conftest import ROOT


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.timestamp("ms", "UTC")])
def test_numbers(kind: pa.DataType) -> None:
    array = pa.array([5, -1, 7, 9], kind)
    for part in (array, array.slice(1, 2), array.slice(2, 0)):
        assert numbers(part).tolist() == part.cast(pa.int64()).to_pylist()
    with pytest.raises(ValueError, match="1 values are null"):
        numbers(pa.array([1, None], kind))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 1000])
def test_masks_and_indices(length: int) -> None:
    chosen = np.random.default_rng(length).random(length) < 0.5
    assert mask(chosen).to_pylist() == chosen.tolist() and indices(length).to_pylist() == list(range(length))


@pytest.mark.skipif(native.library() is None, reason="the native library is not built; without it pyarrow makes arrays")
@pytest.mark.parametrize("kind", ["stream", "table"])
def test_an_export_does_not_load_pandas(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, export_to_data_lake as e; print(e.main(['--all', '--quiet']), 'pandas' in sys.modules)"
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        if kind == "stream":
            columns = "`ID` STRING, `T` BIGINT, `N` DECIMAL(12, 2), `L` ARRAY<STRUCT<`A` INTEGER>>"
            database.create_stream("S", columns, 2)
        else:
            database.create_table("S", "`ID` STRING KEY, `N` BIGINT")
        assert manage_feeds.main(["add", "--name", "s", "--type", kind, "--source", "s"]) == 0
        for night in range(2):
            for i in range(20):
                values = [f"e{night}_{i}", i, Decimal("1.50"), [{"A": i}]]
                if kind == "stream":
                    database.append("S", i % 2, 1_736_899_200_000 + i % 3 * 86_400_000, values)
                else:
                    database.upsert("S", [values[0], i])
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
            assert done.stdout.split() == ["0", "False"], done
