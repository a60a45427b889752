"""Each check against a naive one in plain Python, over all types it judges; the verdict of a run of several queries."""

from __future__ import annotations

import datetime as dt
import json
import math
import pickle
import re
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksql_lake.base.errors import FeedError, QualityError, SchemaError
from ksql_lake.model import feeds
from ksql_lake.model.checks import Check, Result, parse, problems
from ksql_lake.quality.checker import Checker, Occasion, count_reasons, judge, results
from ksql_lake.store import history
from tests.conftest import ROOT

NOW = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)
TIMES = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)).map(
    lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000, tzinfo=dt.UTC)
)
DECIMALS = st.decimals(-9999, 9999, places=2)
NUMBERS = st.one_of(
    st.integers(-(1 << 70), 1 << 70), st.integers(-5, 5), st.floats(-100, 100), st.decimals(-9, 9, places=4).map(str)
)
COLUMNS: dict[str, tuple[pa.DataType, Any, Any]] = {
    "int32": (pa.int32(), st.one_of(st.integers(-5, 5), st.integers(-(1 << 31), (1 << 31) - 1)), NUMBERS),
    "int64": (pa.int64(), st.one_of(st.integers(-5, 5), st.integers(-(1 << 63), (1 << 63) - 1)), NUMBERS),
    "double": (pa.float64(), st.floats(allow_nan=True), NUMBERS),
    "decimal": (pa.decimal128(12, 2), DECIMALS, NUMBERS),
    "wide": (pa.decimal128(38, 4), st.decimals(-9, 9, places=4), NUMBERS),
    "timestamp": (pa.timestamp("ms", "UTC"), TIMES, st.one_of(
        TIMES.map(dt.datetime.isoformat), st.datetimes().map(dt.datetime.isoformat), st.dates().map(str))),
    "date": (pa.date32(), st.dates(), st.dates().map(str)),
    "time": (pa.time32("ms"), st.times().map(lambda t: t.replace(microsecond=0)), st.times().map(str)),
}


def run(check: Check, values: list[Any], kind: pa.DataType, cut: int = 0) -> tuple[Result, list[bool], list[str]]:
    """The result, which rows were set aside, and the reasons; the rows come in two batches, of slices."""
    schema = pa.schema([pa.field("ROWTIME", pa.int64()), pa.field("V", kind)])
    checker = Checker("f", [check], schema, {"v": "V"})
    rowtimes = pa.array([0] * len(values), pa.int64())
    whole = pa.RecordBatch.from_arrays([rowtimes, pa.array(values, kind)], schema=schema)
    aside: list[bool] = []
    reasons: list[str] = []
    for batch in (whole.slice(0, cut), whole.slice(cut)):
        bad = checker.inspect(batch)
        aside += [False] * len(batch) if bad is None else bad.mask.tolist()
        if bad is not None:
            reasons += bad.reasons.to_pylist()
            assert bad.rows.column("V").to_pylist() == [
                pytest.approx(v, nan_ok=True) if isinstance(v, float) else v
                for v, bad_ in zip(batch.column("V").to_pylist(), bad.mask, strict=True) if bad_
            ]
            assert count_reasons(bad.reasons, [check_label(check)]) == dict(bad.counts)
    (result,) = results([check], [checker], Occasion(NOW))
    return result, aside, reasons


def check_label(check: Check) -> str:
    return f"{check.check} v"


def exact(value: Any) -> Any:
    """A bound, or a value of a column, as something that Python compares exactly."""
    if isinstance(value, str):
        for read in (Decimal, dt.date.fromisoformat, dt.time.fromisoformat, dt.datetime.fromisoformat):
            try:
                return exact(read(value))
            except (ValueError, ArithmeticError):
                continue
    if isinstance(value, dt.datetime):
        return value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    return Fraction(Decimal(repr(value))) if isinstance(value, float) else value


def holds(value: Any, kind: str, low: Any, high: Any) -> bool:
    if value is None:
        return True
    if kind == "double":
        number = {id(b): float(Decimal(str(b))) for b in (low, high) if b is not None}
        return (low is None or value >= number[id(low)]) and (high is None or value <= number[id(high)])
    if kind == "timestamp":
        low, high = (
            b and dt.datetime.combine(dt.date.fromisoformat(b), dt.time()).isoformat() if b and len(b) == 10 else b
            for b in (low, high)
        )
    return (low is None or value >= exact(low)) and (high is None or value <= exact(high))


@pytest.mark.parametrize("name", COLUMNS)
@settings(deadline=None)
@given(data=st.data())
def test_range(name: str, data: st.DataObject) -> None:
    kind, values, bounds = COLUMNS[name]
    column = data.draw(st.lists(st.none() | values, max_size=12))
    low = data.draw(st.none() | bounds)
    high = data.draw(bounds if low is None else st.none() | bounds)
    check = Check("range", "quarantine", ("v",), min=low, max=high)
    result, aside, reasons = run(check, column, kind, data.draw(st.integers(0, len(column))))
    assert aside == [not holds(value, name, low, high) for value in column]
    assert (result.failed, result.rows, result.column) == (sum(aside), len(column), "v")
    assert len(reasons) == sum(aside) and all(reason.startswith("range: v is ") for reason in reasons)


@pytest.mark.parametrize("name", [*COLUMNS, "string", "bool"])
@settings(deadline=None)
@given(data=st.data())
def test_accepted_values(name: str, data: st.DataObject) -> None:
    kinds = {**COLUMNS, "string": (pa.string(), st.text(max_size=2), st.text(max_size=2)),
             "bool": (pa.bool_(), st.booleans(), st.booleans())}
    kind, values, bounds = kinds[name]
    column = data.draw(st.lists(st.none() | values, max_size=12))
    as_text = values.map(lambda v: v if isinstance(v, int | str) else str(v) if math.isfinite(
        v if isinstance(v, float) else 0) else "0")
    accepted = data.draw(st.lists(bounds | as_text, min_size=1, max_size=4))
    if column and column[0] is not None and not (isinstance(column[0], float) and not math.isfinite(column[0])):
        first = column[0]
        accepted.append(first if isinstance(first, int | str) else str(first))
    check = Check("accepted_values", "quarantine", ("v",), values=tuple(accepted))
    result, aside, _ = run(check, column, kind, data.draw(st.integers(0, len(column))))
    if name in ("string", "bool"):
        allowed: list[Any] = accepted
    elif name == "double":
        allowed = [float(Decimal(str(value))) for value in accepted]
    elif name == "timestamp":
        allowed = [exact(dt.datetime.fromisoformat(value)) for value in accepted]
    else:
        allowed = [exact(value) for value in accepted]
    assert aside == [value is not None and value not in allowed for value in column]
    assert result.failed == sum(aside)


@settings(deadline=None)
@given(st.lists(st.none() | st.text("ab1_\n", max_size=4), max_size=12),
       st.sampled_from(["^a", "b$", "a.b", "[ab]+1", "_"]))
def test_regex(column: list[str | None], pattern: str) -> None:
    result, aside, _ = run(Check("regex", "quarantine", ("v",), pattern=pattern), column, pa.string(), len(column) // 2)
    found = re.compile(pattern.replace("$", r"\Z"))
    assert aside == [value is not None and not found.search(value) for value in column]
    assert result.failed == sum(aside)


@settings(deadline=None)
@given(st.lists(st.none() | st.dictionaries(st.just("A"), st.none() | st.integers(0, 3)), max_size=12))
def test_not_null_reaches_into_structs(column: list[Any]) -> None:
    kind = pa.struct([pa.field("A", pa.int32())])
    schema = pa.schema([pa.field("C", kind)])
    checks = parse([{"check": "not_null", "column": "c.a"}, {"check": "range", "column": "C.a", "min": 2}])
    checker = Checker("f", checks, schema, {"C": "C"})
    checker.inspect(pa.RecordBatch.from_arrays([pa.array(column, kind)], schema=schema))
    missing = [value is None or value.get("A") is None for value in column]
    small = [value is not None and value.get("A") is not None and value["A"] < 2 for value in column]
    assert checker.failed == [sum(missing), sum(small)]
    assert checker.rules[0].check.columns == ("C.A",)


VALUES = st.one_of(st.none(), st.integers(0, 5))


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, st.none() | st.sampled_from(["a", "b", ""]), st.sampled_from([0.0, -0.0, 1.5])),
                max_size=30), st.integers(0, 30))
def test_unique_over_the_queries_of_a_run(rows: list[tuple[Any, ...]], cut: int) -> None:
    schema = pa.schema([pa.field("A", pa.int64()), pa.field("B", pa.string()), pa.field("C", pa.float64())])
    whole = pa.RecordBatch.from_arrays(
        [pa.array([row[i] for row in rows], schema.field(i).type) for i in range(3)], schema=schema
    )
    checks = parse([{"check": "unique", "column": "a"}, {"check": "unique", "columns": ["a", "b", "C"]}])
    first = Checker("f", checks, schema, {})
    first.inspect(whole.slice(0, cut))
    second = Checker("f", checks, schema, {}, first)
    second.inspect(whole.slice(cut))
    single, several = results(checks, [first, second], Occasion(NOW))
    known = [row[0] for row in rows if row[0] is not None]
    whole_rows = [row for row in rows if None not in row]
    assert single.failed == len(known) - len(set(known))
    assert several.failed == len(whole_rows) - len(set(whole_rows))
    assert (several.rows, several.column) == (len(rows), "A, B, C")


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=8), st.integers(0, 2000))
def test_row_count(usual: list[int], rows: int) -> None:
    (check,) = parse([{"check": "row_count", "min_share": 0.5, "max_share": 2.0}])
    schema = pa.schema([pa.field("A", pa.int64())])
    checker = Checker("f", [check], schema, {})
    checker.inspect(pa.RecordBatch.from_arrays([pa.array([0] * rows)], schema=schema))
    (result,) = results([check], [checker], Occasion(NOW, usual))
    if len(usual) < 3:
        assert result.failed == 0 and "not enough history" in result.message and "Wednesday" in result.message
    else:
        middle = sorted(usual)[(len(usual) - 1) // 2], sorted(usual)[len(usual) // 2]
        assert result.failed == (not sum(middle) / 4 <= rows <= sum(middle))
    (part,) = results([check], [checker], Occasion(NOW, usual, part="--date"))
    assert part.failed == 0 and part.message == "not judged: --date"


def test_one_share_bounds_one_side() -> None:
    low, high, both = parse([{"check": "row_count", "min_share": 0.1}, {"check": "row_count", "max_share": 3},
                             {"check": "row_count"}])
    assert (low.min_share, low.max_share) == (0.1, math.inf) and (high.min_share, high.max_share) == (0.0, 3)
    assert (both.min_share, both.max_share) == (0.5, math.inf), "a run after missed ones holds a multiple"
    (result,) = results([low], [], Occasion(NOW, [100, 100, 100]))
    assert result.failed == 1
    assert "0 rows; the median of 3 runs on a Wednesday is 100, expected 10 or more" in str(result)


@pytest.mark.parametrize(("kind", "newest", "before", "failed", "words"), [
    (pa.timestamp("ms", "UTC"), dt.timedelta(hours=1), None, 0, "1.0 hours ago"),
    (pa.timestamp("ms", "UTC"), dt.timedelta(hours=27), None, 1, "2025-01-14T09:00:00Z, 27.0 hours ago; expected at "
                                                                 "most 26"),
    (pa.timestamp("ms", "UTC"), None, dt.timedelta(hours=25), 0, "25.0 hours ago"),
    (pa.timestamp("ms", "UTC"), None, None, 1, "no row with a time"),
    (pa.timestamp("ms", "UTC"), -dt.timedelta(hours=3), dt.timedelta(hours=99), 0, "-3.0 hours ago"),
    (pa.timestamp("ms", "UTC"), -dt.timedelta(days=900), dt.timedelta(hours=9), 0, "9.0 hours ago"),
    (pa.timestamp("ms", "UTC"), -dt.timedelta(days=900), dt.timedelta(hours=99), 1, "99.0 hours ago"),
    (pa.timestamp("ms", "UTC"), -dt.timedelta(days=900), None, 1, "in the future"),
])
def test_freshness_of_a_stream(kind: Any, newest: Any, before: Any, failed: int, words: str) -> None:
    (check,) = parse([{"check": "freshness", "hours": 26}])
    schema = pa.schema([pa.field("ROWTIME", kind)])
    checker = Checker("f", [check], schema, {})
    if newest is not None:
        times = [NOW - newest - dt.timedelta(days=9), NOW - newest]
        checker.inspect(pa.RecordBatch.from_arrays([pa.array(times, kind)], schema=schema))
    earlier = None if before is None else int((NOW - before).timestamp() * 1000)
    (result,) = results([check], [checker], Occasion(NOW, newest=earlier))
    assert result.failed == failed and words in result.message, result


@pytest.mark.parametrize("kind", [pa.timestamp("ms", "UTC"), pa.int64()])
def test_freshness_of_a_table_goes_by_its_column(kind: pa.DataType) -> None:
    (check,) = parse([{"check": "freshness", "hours": 26, "column": "updated_at"}])
    schema = pa.schema([pa.field("UPDATED_AT", kind)])
    checker = Checker("f", [check], schema, {})
    at = int(NOW.timestamp() * 1000) - 30 * 3_600_000
    for value in ([at, None], [None]):
        checker.inspect(pa.RecordBatch.from_arrays([pa.array(value, pa.int64()).cast(kind)], schema=schema))
    (result,) = results([check], [checker], Occasion(NOW, newest=int(NOW.timestamp() * 1000)))
    assert result.failed == 1 and "30.0 hours ago" in result.message


def test_reasons_of_several_checks_stand_together() -> None:
    checks = parse([
        {"check": "range", "column": "amount", "min": 0, "max": 10, "level": "quarantine"},
        {"check": "not_null", "column": "id", "level": "quarantine"},
        {"check": "regex", "column": "id", "pattern": "^tx", "level": "quarantine"},
        {"check": "accepted_values", "column": "amount", "values": [1, "2.50"], "level": "warn"},
    ])
    schema = pa.schema([pa.field("ID", pa.string()), pa.field("AMOUNT", pa.decimal128(9, 2))])
    checker = Checker("f", checks, schema, {})
    amounts = [Decimal("-3.00"), Decimal("2.50"), None, Decimal("11.00")]
    bad = checker.inspect(pa.RecordBatch.from_arrays(
        [pa.array(["tx1", "tx2", None, "y" * 200]), pa.array(amounts, schema.field(1).type)], schema=schema))
    assert bad is not None and bad.mask.tolist() == [True, False, True, True]
    assert bad.reasons.to_pylist() == [
        "range: AMOUNT is -3.00 (min 0, max 10)", "not_null: ID is null",
        f"range: AMOUNT is 11.00 (min 0, max 10); regex: ID is {'y' * 100} (expected ^tx)",
    ]
    assert bad.counts == {"range AMOUNT": 2, "not_null ID": 1, "regex ID": 1}
    assert count_reasons(bad.reasons, [*bad.counts, "range X"]) == bad.counts
    told = [str(result) for result in results(checks, [checker], Occasion(NOW))]
    assert told == [
        "range AMOUNT: 2 of 4 rows are below 0 or above 10", "not_null ID: 1 of 4 rows are null",
        "regex ID: 1 of 4 rows do not match ^tx",
        "accepted_values AMOUNT: 2 of 4 rows hold something other than 1, 2.50",
    ]


SOURCE = pa.schema([
    ("ID", pa.string()), ("id", pa.string()), ("DAY_", pa.int32()), ("CUSTOMER", pa.struct([
        ("COUNTRY", pa.string()), ("ADDRESS", pa.struct([("ZIP", pa.string())]))])), ("A.B", pa.int64()),
    ("TAGS", pa.list_(pa.string())), ("AT", pa.timestamp("ms", "UTC")), ("ON", pa.bool_()),
    ("PRICE", pa.decimal128(12, 2)), ("F", pa.float64()),
])


@pytest.mark.parametrize(("check", "column"), [
    ({"check": "not_null", "column": "ID"}, "ID"), ({"check": "not_null", "column": "id"}, "id"),
    ({"check": "range", "column": "day", "min": 1}, "DAY"), ({"check": "range", "column": "DAY_", "min": 1}, "DAY_"),
    ({"check": "regex", "column": "customer.Country", "pattern": "F"}, "CUSTOMER.COUNTRY"),
    ({"check": "not_null", "column": "customer.address.zip"}, "CUSTOMER.ADDRESS.ZIP"),
    ({"check": "range", "column": "a.b", "min": 1}, "A.B"), ({"check": "not_null", "column": "tags"}, "TAGS"),
])
def test_columns_are_found(check: dict[str, Any], column: str) -> None:
    checker = Checker("f", parse([check]), SOURCE, {"DAY": "DAY_", "ID": "ID", "id": "id"})
    assert checker.rules[0].check.columns == (column,)


@pytest.mark.parametrize(("check", "message"), [
    ({"check": "not_null", "column": "custmer.country"}, "no column custmer.country; did you mean CUSTOMER.COUNTRY"),
    ({"check": "not_null", "column": "zzzz"}, "no column zzzz; its columns: ID, id, DAY, CUSTOMER, CUSTOMER.COUNTRY"),
    ({"check": "not_null", "column": "Id"}, "column Id could be any of ID, id"),
    ({"check": "range", "column": "ID", "min": 1}, "range ID: the column is string; expected a number, or a date"),
    ({"check": "range", "column": "at", "min": 1}, "expected a time as ISO 8601 text, found 1"),
    ({"check": "range", "column": "at", "min": "1.5"}, "expected values of its type, found '1.5'"),
    ({"check": "range", "column": "A.B", "min": "2025-01-15"}, "expected a number, found '2025-01-15'"),
    ({"check": "regex", "column": "A.B", "pattern": "x"}, "the column is int64; expected STRING"),
    ({"check": "accepted_values", "column": "ID", "values": [1]}, "expected values of its type, found 1"),
    ({"check": "accepted_values", "column": "ON", "values": ["true"]}, "expected values of its type, found 'true'"),
    ({"check": "accepted_values", "column": "A.B", "values": [True]}, "expected values of its type, found True"),
    *[({"check": "accepted_values", "column": column, "values": [1, value]},
       f"accepted_values {column}: the column is {kind}; expected a number, found '{value}'")
      for column, kind in (("A.B", "int64"), ("PRICE", "decimal128(12, 2)"))
      for value in ("NaN", "sNaN", "Infinity", "-inf")],
    ({"check": "accepted_values", "column": "F", "values": ["sNaN"]}, "the column is double; expected a number, found"),
    ({"check": "accepted_values", "column": "tags", "values": ["x"]}, "the column is list"),
    ({"check": "freshness", "hours": 1, "column": "ID"}, "expected TIMESTAMP, or BIGINT of epoch milliseconds"),
])
def test_what_does_not_fit_the_source(check: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as wrong:
        Checker("f", parse([check]), SOURCE, {"DAY": "DAY_", "ID": "ID", "id": "id"})
    assert message in str(wrong.value) and str(wrong.value).startswith("f: checks: ")


@pytest.mark.parametrize(("check", "place", "message"), [
    ('{"check": "not_nul", "column": "a"}', "6:6", '"check" is "not_nul": did you mean "not_null"?'),
    ('{"column": "a"}', "6:5", 'key "check" is missing; expected not_null, unique, range'),
    ('{"check": "range", "column": "a", "min": 1,\n "levle": "warn"}', "7:2",
     'unknown key "levle" of range: did you mean "level"?'),
    ('{"check": "range", "column": "a"}', "6:5", 'range needs "min" or "max"'),
    ('{"check": "range", "min": 1}', "6:5", 'range needs "column"'),
    ('{"check": "range", "column": "a", "min": 3, "max": 1}', "6:49", '"max" is 1, less than "min", which is 3'),
    ('{"check": "range", "column": "a", "min": 3, "max": "4"}', "6:49", "have different types"),
    ('{"check": "range", "column": "a", "min": "2025-13-01"}', "6:39", "expected a number, or a time such as 2025"),
    ('{"check": "regex", "column": "a", "pattern": "(?=x)"}', "6:39", "not a valid RE2 pattern: invalid perl "
                                                                      "operator: (?="),
    ('{"check": "not_null", "column": "a", "level": "quarantin"}', "6:42", ': did you mean "quarantine"?'),
    ('{"check": "not_null", "column": "a", "level": "no"}', "6:42", "expected warn, fail, quarantine"),
    ('{"check": "unique", "column": "a", "level": "quarantine"}', "6:40", "unique does not check single rows; "),
    ('{"check": "unique", "column": "a", "columns": ["a"]}', "6:40", "keep one of them"),
    ('{"check": "accepted_values", "column": "a", "values": []}', "6:49", '"values" is []; expected a list of values'),
    ('{"check": "freshness", "hours": 0}', "6:28", "expected a number of hours, more than 0"),
    ('{"check": "freshness", "hours": 1, "column": "a"}', "6:40", "uses ROWTIME"),
    ('{"check": "row_count", "min_share": -1}', "6:28", "expected a share such as 0.5"),
    ("3", "6:5", "checks[1] is 3; expected an object such as"),
])
def test_each_mistake_in_a_feed_file(tmp_path: Path, check: str, place: str, message: str) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"feed_name": "s", "feed_type": "stream",\n "ksqldb_source": "s",\n "checks": [\n'
                    '    {"check": "not_null", "column": "level"},\n\n    ' + check + "]}")
    with pytest.raises(FeedError) as wrong:
        feeds.load(path)
    (line,) = str(wrong.value).splitlines()
    assert line.startswith(f"{path}:{place}: checks[1]") and message in line
    schema = jsonschema.Draft202012Validator(feeds.json_schema())
    known_to_the_loader_only = ("less than", "different types", "2025-13-01", "RE2", "keep one", "ROWTIME")
    if not any(word in line for word in known_to_the_loader_only):
        assert list(schema.iter_errors(json.loads(path.read_text())))


def test_a_bound_that_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"feed_name": "s", "feed_type": "stream",\n "ksqldb_source": "s", "checks": [\n'
                    '{"check": "range", "column": "a", "min": NaN}]}')
    with pytest.raises(FeedError, match="s.json:3:42: NaN is not JSON; expected a number"):
        feeds.load(path)


def test_a_table_needs_a_column_for_freshness() -> None:
    ((place, problem),) = problems([{"check": "freshness", "hours": 1}], "table")
    assert place == "checks[0]" and 'freshness of a table needs "column"' in problem
    assert problems([{"check": "freshness", "hours": 1, "column": "at"}], "table") == []
    assert problems({"check": "x"}, "table")[0][1].endswith("expected a list of checks")


def test_the_example_of_the_schema_is_valid(tmp_path: Path) -> None:
    raw = [
        {"check": "not_null", "column": "user_id", "level": "fail"},
        {"check": "range", "column": "amount", "min": 0, "max": 100000, "level": "quarantine"},
        {"check": "range", "column": "at", "min": "2025-01-15T00:00:00Z"},
        {"check": "accepted_values", "column": "currency", "values": ["EUR", "USD"]},
        {"check": "regex", "column": "transaction_id", "pattern": "^tx_"},
        {"check": "unique", "columns": ["transaction_id", "user_id"]},
        {"check": "row_count", "min_share": 0.5, "max_share": 2.0}, {"check": "freshness", "hours": 26},
    ]
    assert problems(raw, "stream") == []
    feed = feeds.new("s", "stream", "s", "now", checks=raw)
    jsonschema.validate(feed, feeds.json_schema())
    path = tmp_path / "s.json"
    path.write_text(json.dumps(feed))
    assert [check.level for check in feeds.load(path).checks] == ["fail", "quarantine", *["warn"] * 6]


def test_runs_of_the_same_weekday() -> None:
    def line(started: str, **more: Any) -> history.Run:
        run = history.Run.read({
            "feed": "s", "started": started, "ended": NOW.isoformat(), "result": "ok", "rows": 10, "days": [], **more})
        assert run is not None
        return run

    runs = [
        line("2025-01-01T02:00:00Z"), line("2025-01-08T02:00:00Z", result="findings", quarantined=5),
        line("2025-01-09T02:00:00Z"), line("2025-01-08T03:00:00Z", feed="t"), line("2025-01-08T03:00:00Z", days=["x"]),
        line("2025-01-08T04:00:00Z", result="failed"), line("?"),
        line("2025-01-15T02:00:00Z", rows=7),
    ]
    assert history.same_weekday(runs, "s", NOW) == (10, 15, 7)


def test_a_refusal_comes_whole_from_a_worker() -> None:
    """Workers of a cluster send it pickled: all lines, all results."""
    missing = Result("not_null", "ID", "fail", 2, 9, "2 of 9 rows are null")
    found = [missing, Result("regex", "ID", "warn", 1, 9, "1 of"), Result("unique", "ID", "warn", 0, 9, "")]
    with pytest.raises(QualityError) as refused:
        judge("s", found)
    error = pickle.loads(pickle.dumps(refused.value))
    assert str(error).splitlines() == [
        "s: not_null ID: 2 of 9 rows are null; nothing was published", "s: regex ID: 1 of; a warning only"]
    assert error.results == tuple(found) and judge("s", found[2:]) == []
    assert [f.line for f in judge("s", found[1:])] == ["s: regex ID: 1 of; published nevertheless"]


def test_listing_a_feed_with_a_pattern_loads_no_arrow(tmp_path: Path) -> None:
    active = tmp_path / "lake" / "feeds" / "active"
    active.mkdir(parents=True)
    checks = [{"check": "regex", "column": "id", "pattern": "("}]
    (active / "s.json").write_text(json.dumps(feeds.new("s", "stream", "s", "now", checks=checks)))
    code = "import sys, manage_feeds; sys.exit(manage_feeds.main(['list']) or 'pyarrow' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert listed.returncode == 0 and listed.stdout.startswith("s "), listed.stderr
    checked = subprocess.run([sys.executable, "manage_feeds.py", "check"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 1 and "not a valid RE2 pattern: missing ): (" in checked.stderr
