"""A key that comes twice is found; different keys are not confused."""

from __future__ import annotations

import datetime as dt
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksql_lake.model.checks import parse
from ksql_lake.quality import keys as module
from ksql_lake.quality.checker import Checker, Occasion, results
from ksql_lake.quality.keys import KeyHashes, repeats


def twice(columns: list[pa.Array], positions: list[int], cut: int) -> bool:
    batch = pa.RecordBatch.from_arrays(columns, [str(i) for i in range(len(columns))])
    keys = KeyHashes(positions)
    keys.add(batch.slice(0, cut))
    keys.add(batch.slice(cut))
    return keys.twice()


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=5), st.integers(-5, 5)), min_size=1, max_size=40), st.integers(0, 40))
def test_twice_is_twice(keys: list[tuple[str, int]], cut: int) -> None:
    columns = [pa.array([a for a, _ in keys]), pa.array([b for _, b in keys], pa.int64())]
    cut = min(cut, len(keys))
    assert twice(columns, [0, 1], cut) == (len(set(keys)) < len(keys))
    assert twice(columns, [0], cut) == (len({a for a, _ in keys}) < len(keys))


@pytest.mark.parametrize("values", [
    [-1, -2], ["", "\0"], ["ab", "ba"], [None, "null"], [{"a": 1}, {"a": 2}], [b"a", b"b"], [True, False],
    ["x" * 300, "x" * 301],
])
def test_keys_that_look_alike(values: list[Any]) -> None:
    column = pa.array(values)
    assert not twice([column], [0], 1)
    assert twice([pa.concat_arrays([column, column.slice(1)])], [0], 2)


def test_many_keys_are_all_different() -> None:
    column = pa.array([f"user_{i}" for i in range(300_000)])
    assert not twice([column], [0], 100_000)


def test_no_key_no_claim() -> None:
    assert not twice([pa.array(["a", "a"])], [], 1)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=6), max_size=6), st.integers(1, 4))
def test_repeats_are_counted_piece_by_piece(parts: list[list[int]], piece: int) -> None:
    every = [value for part in parts for value in part]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE", piece)
        hashes = [np.array(part, np.uint64) for part in parts]
        assert repeats(hashes) == len(every) - len(set(every))
        assert hashes == []


def test_a_verdict_needs_sixteen_bytes_a_row() -> None:
    """Eight while the rows come, as many again for a moment, while what was collected is put together."""
    rows, size = 1_000_000, 4_000
    schema = pa.schema([("A", pa.int64())])
    checks = parse([{"check": "unique", "column": "a"}])
    pa.array(range(2))  # loads pandas, which is none of this
    tracemalloc.start()
    try:
        checkers = [Checker("f", checks, schema, {})]
        checkers.append(Checker("f", checks, schema, {}, checkers[0]))
        for start in range(0, rows, size):
            numbers = pa.array(range(start, start + size), pa.int64())
            checkers[start % 3 > 0].inspect(pa.RecordBatch.from_arrays([numbers], schema=schema))
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        (result,) = results(checks, checkers, Occasion(dt.datetime.now(dt.UTC)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result.failed, result.rows) == (0, rows)
    assert 8 <= held / rows < 9 and 8 <= peak / rows < 17
