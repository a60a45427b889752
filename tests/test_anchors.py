"""Which rows are new, and when a topic is not the one we knew."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksql_lake.base.errors import SourceError
from ksql_lake.ingest.streams.anchors import Anchor, Sieve, TopicRecreated, anchor_of
from ksql_lake.model.coverage import merge, ranges

NAMES = ["ID", "M"]


def batch(rows: list[tuple[int, int, int, str]]) -> pa.RecordBatch:
    """Rows of (rowtime, partition, offset, id)."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array([r[0] for r in rows], pa.int64()),
            pa.array([r[1] for r in rows], pa.int32()),
            pa.array([r[2] for r in rows], pa.int64()),
            pa.array([r[3] for r in rows]),
            pa.array([[("k", 1), ("j", 2)] for _ in rows], pa.map_(pa.string(), pa.int64())),
        ],
        names=["0", "1", "2", "3", "4"],
    )


def sieve_at(row: tuple[int, int, int, str]) -> Sieve:
    sieve = Sieve("S", {row[1]: anchor_of(batch([row]), 0, NAMES)})
    sieve.start_query()
    return sieve


def test_first_run_takes_everything_once() -> None:
    sieve = Sieve("S", {})
    sieve.start_query()
    rows = batch([(1, 0, 0, "a"), (1, 1, 0, "b"), (2, 0, 1, "c"), (2, 0, 0, "a"), (2, 0, 1, "c"), (3, 0, 5, "d")])
    assert sieve.new_rows(rows, NAMES).tolist() == [True, True, True, False, False, True]
    assert {p: a.offset for p, a in sieve.anchors.items()} == {0: 5, 1: 0}
    assert not sieve.new_rows(rows, NAMES).any()


def test_ticks_and_the_anchor_itself_are_not_new() -> None:
    sieve = sieve_at((5, 0, 1200, "x"))
    assert sieve.new_rows(batch([(1, 0, 0, "a"), (1, 0, 1000, "b")]), NAMES).tolist() == [False, False]
    assert sieve.pending == {0}
    assert sieve.new_rows(batch([(5, 0, 1200, "x"), (6, 0, 1201, "y")]), NAMES).tolist() == [False, True]
    assert not sieve.pending and not sieve.gaps


def test_another_row_at_the_anchor_means_a_recreated_topic() -> None:
    with pytest.raises(TopicRecreated):
        sieve_at((5, 0, 7, "x")).new_rows(batch([(5, 0, 7, "other")]), NAMES)


def test_another_rowtime_of_the_same_row_means_a_redefined_stream() -> None:
    with pytest.raises(SourceError, match="partition 0, offset 7 now has another ROWTIME"):
        sieve_at((5, 0, 7, "x")).new_rows(batch([(6, 0, 7, "x")]), NAMES)


def test_a_first_row_above_the_anchor_is_a_possible_loss_and_is_reported() -> None:
    sieve = sieve_at((5, 0, 7, "x"))
    assert sieve.new_rows(batch([(9, 0, 12, "z")]), NAMES).tolist() == [True]
    assert sieve.gaps == [(0, 4)]


def test_an_added_column_does_not_change_the_anchor() -> None:
    old = anchor_of(batch([(5, 0, 7, "x")]), 0, ["ID"])
    sieve = Sieve("S", {0: Anchor(old.offset, old.rowtime, old.hash, ("ID",))})
    sieve.start_query()
    assert sieve.new_rows(batch([(5, 0, 7, "x"), (5, 0, 8, "y")]), NAMES).tolist() == [False, True]


def test_ranges_exported_by_date_are_skipped() -> None:
    sieve = Sieve("S", {}, {0: [(1, 2)]})
    sieve.start_query()
    rows = batch([(1, 0, i, "r") for i in range(5)])
    assert sieve.new_rows(rows, NAMES).tolist() == [True, False, False, True, True]


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.integers(-1, 60))
def test_merged_ranges_are_the_union_above_the_resume_point(a: set[int], b: set[int], upto: int) -> None:
    merged = merge(ranges(np.array(sorted(a))), ranges(np.array(sorted(b))), upto)
    covered = [n for low, high in merged for n in range(low, high + 1)]
    assert covered == sorted(n for n in a | b if n > upto)


def test_a_topic_recreated_with_fewer_rows_shows_at_its_first_tick() -> None:
    sieve = sieve_at((5, 0, 700, "x"))
    sieve.heads = {0: anchor_of(batch([(1, 0, 0, "first")]), 0, NAMES)}
    with pytest.raises(TopicRecreated):
        sieve.new_rows(batch([(9, 0, 0, "other")]), NAMES)


def test_an_expired_or_equal_first_tick_proves_nothing() -> None:
    for first in ((1, 0, 0, "first"), (1, 0, 1000, "later")):
        sieve = sieve_at((5, 0, 1700, "x"))
        sieve.heads = {0: anchor_of(batch([(1, 0, 0, "first")]), 0, NAMES)}
        assert not sieve.new_rows(batch([first]), NAMES).any()
        assert sieve.new_heads[0].offset == first[2]
