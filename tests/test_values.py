"""One exact meaning of a value: what equals it has one canonical text, whatever its type and spelling."""

from __future__ import annotations

import math
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksql_lake.model.values import Unfit, canonical, meanings, spellings

TS, DATE, TIME = pa.timestamp("ms", "UTC"), pa.date32(), pa.time32("ms")
FAR = 253_402_300_800_000  # the first millisecond of the year 10000


def found(text: str, kind: pa.DataType, units: int) -> bool:
    """Whether a text stands for the value of so many units."""
    storage = pa.int32() if kind.bit_width == 32 else pa.int64()
    return [one.cast(storage).as_py() for one in meanings(text, kind)] == [units]


@pytest.mark.parametrize(("text", "kind", "units"), [
    ("+10000-01-01", TS, FAR), ("10000-01-01T00:00Z", TS, FAR), ("0001-01-01T00:00:00+02:00", TS, -62_135_604_000_000),
    ("0000-02-29", DATE, -719_469), ("-0001-12-31", DATE, -719_529), ("+10000-01-01", DATE, 2_932_897),
    ("2024-02-29", DATE, 19_782), ("23:59:59.999", TIME, 86_399_999),
])
def test_times_beyond_those_of_python(text: str, kind: pa.DataType, units: int) -> None:
    assert found(text, kind, units)
    array = pa.array([units], pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    assert canonical(array)[0][1] in spellings(text)


@pytest.mark.parametrize("text", ["1e5", "100000", "+100000.00", "0.1e6", " 100000 "])
def test_a_number_is_one_in_every_type(text: str) -> None:
    for array in (pa.array([100_000], pa.int32()), pa.array([100_000], pa.int64()),
                  pa.array([Decimal("100000.000")], pa.decimal128(38, 3)), pa.array([1e5])):
        assert canonical(array)[0][1] in spellings(text), array.type


def test_zeros_and_values_that_are_no_number() -> None:
    assert {text for _, text in canonical(pa.array([0.0, -0.0]))} == {"double:0.0"}
    assert {text for _, text in canonical(pa.array([Decimal("-0.00"), Decimal("0.00")]))} == {"number:0"}
    assert canonical(pa.array([math.nan]))[0][1] in spellings("NaN")
    assert canonical(pa.array([math.inf]))[0][1] in spellings("Infinity")


@given(st.decimals(-(10**12), 10**12, places=4), st.integers(0, 6))
def test_decimals_are_found_however_they_are_written(value: Decimal, zeros: int) -> None:
    kind = pa.decimal128(24, 6)
    text = f"{value:f}" + "0" * zeros
    assert meanings(text, kind)[0].as_py() == value
    assert canonical(pa.array([value], kind))[0][1] in spellings(text)


@given(st.floats(allow_nan=False))
def test_doubles_are_found_as_python_and_json_write_them(value: float) -> None:
    assert meanings(repr(value), pa.float64())[0].as_py() == value
    assert canonical(pa.array([value]))[0][1] in spellings(f"{value:.17g}")


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_millisecond_has_a_canonical_text(value: int) -> None:
    assert canonical(pa.array([value], pa.int64()).cast(TS))[0][1] == f"timestamp:{value}"


@pytest.mark.parametrize("text", ["1e10000", "1" * 5000, "0x" + "f" * 9, "", " ", "1_000", "٣", "--1", "1e", "inf"])
def test_what_is_no_integer(text: str) -> None:
    with pytest.raises(Unfit):
        meanings(text, pa.int64())
