"""A key that comes twice is found; different keys are not confused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksql_lake.keys import KeyHashes


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
