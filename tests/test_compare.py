"""Versions compared by key: every type, null keys, times of any year, and large tables in bounded memory."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ksql_lake.base.errors import SourceError
from ksql_lake.model.state import FeedState
from ksql_lake.query.arrays_differ import codes, differ
from ksql_lake.query.compare import Difference, compare
from ksql_lake.store.metadata import Dataset
from tests.conftest import ROOT

TYPES: list[tuple[str, pa.DataType, list[Any]]] = [
    ("BOOLEAN", pa.bool_(), [True, False]),
    ("INTEGER", pa.int32(), [1, -1]),
    ("BIGINT", pa.int64(), [2**53, 2**53 + 1]),
    ("DOUBLE", pa.float64(), [0.0, -0.0, float("nan"), float("inf")]),
    ("DECIMAL(21, 2)", pa.decimal128(21, 2), [Decimal("1.00"), Decimal("1.01")]),
    ("STRING", pa.string(), ["", "a", "é"]),
    ("BYTES", pa.binary(), [b"", b"\xff"]),
    ("DATE", pa.date32(), [0, 99_999_999, -99_999_999]),
    ("TIME", pa.time32("ms"), [0, 86_399_999]),
    ("TIMESTAMP", pa.timestamp("ms", "UTC"), [0, 2**62, -(2**62)]),
    ("STRUCT<`A` INTEGER, `B` ARRAY<STRING>>", pa.struct([("A", pa.int32()), ("B", pa.list_(pa.string()))]), [
        {"A": 1, "B": ["x"]}, {"A": None, "B": ["x"]}, {"A": 1, "B": None}, {"A": 1, "B": []}, {"A": 1, "B": [None]}]),
    ("ARRAY<ARRAY<INTEGER>>", pa.list_(pa.list_(pa.int32())), [[], [[]], [[1], [2]], [[1, 2], []], [None, [1]]]),
    ("ARRAY<TIMESTAMP>", pa.list_(pa.timestamp("ms", "UTC")), [[2**62], [2**62 - 1], [None]]),
    ("MAP<STRING, INTEGER>", pa.map_(pa.string(), pa.int32()), [[], [("a", 1)], [("a", None)], [("a", 1), ("b", 2)]]),
    ("MAP<STRING, ARRAY<DATE>>", pa.map_(pa.string(), pa.list_(pa.date32())), [[("a", [9**9])], [("a", [9**8])]]),
    ("ARRAY<MAP<STRING, STRING>>", pa.list_(pa.map_(pa.string(), pa.string())), [[[("a", "b")]], [[("a", None)]]]),
]


@pytest.mark.parametrize(("name", "kind", "values"), TYPES, ids=[name for name, _, _ in TYPES])
def test_every_value_differs_from_every_other_one(name: str, kind: pa.DataType, values: list[Any]) -> None:
    choices = [None, *values]
    pairs = [(a, b) for a in range(len(choices)) for b in range(len(choices))]
    before, after = (pa.array([choices[pair[side]] for pair in pairs], kind) for side in (0, 1))
    expected = [a != b for a, b in pairs]
    assert differ(before, after).tolist() == expected
    for start in (1, 2):  # slices have offsets of their own
        assert differ(before[start:], after[start:]).tolist() == expected[start:]
    assert len(set(codes([pa.array(choices, kind)]).tolist())) == len(choices), "as keys, too"
    assert codes([pa.array([choices[-1], None, choices[-1], None], kind)]).tolist()[:2] == (
        codes([pa.array([choices[-1], None, choices[-1], None], kind)]).tolist()[2:])


def test_the_order_of_a_map_s_entries_is_no_difference() -> None:
    kind = pa.list_(pa.map_(pa.string(), pa.int32()))
    before = pa.array([[[("a", 1), ("b", 2)]], [[("a", 1), ("b", 2)]]], kind)
    after = pa.array([[[("b", 2), ("a", 1)]], [[("b", 1), ("a", 2)]]], kind)
    assert differ(before, after).tolist() == [False, True]


def table(
    lake: Path, versions: list[pa.Table], ksql: dict[str, str], keys: tuple[str, ...]
) -> tuple[Dataset, FeedState]:
    """A table of the lake whose versions hold these rows, each in two files."""
    directory = lake / "tables" / "t"
    names = list(dict.fromkeys(name for version in versions for name in version.schema.names))
    types = {field.name: str(field.type) for version in versions for field in version.schema}
    columns = [
        {"name": n, "disk_name": n, "ksql_type": ksql[n], "arrow_type": types[n], "key": n in keys, "since": "1.0"}
        for n in names
    ]
    files = []
    for number, rows in enumerate(versions, 1):
        path = directory / f"version=v{number}"
        path.mkdir(parents=True)
        half = len(rows) // 2
        for part, piece in enumerate((rows[:half], rows[half:])):
            pq.write_table(piece, path / f"part{part}.parquet", row_group_size=1000)
            files.append({"path": f"version=v{number}/part{part}.parquet", "partition": f"version=v{number}",
                          "rows": len(piece), "bytes": 1, "crc32": 0, "exported_at": "2025-01-18T01:00:00Z"})
    state = FeedState.from_json({
        "source": "T", "type": "table", "sequence": 1, "columns": columns, "files": files,
        "created_at": "2025-01-01T00:00:00Z", "last_export": "2025-01-18T01:00:00Z", "partitions": [],
        "schema_version": "1.0", "current": {"version": "v1", "path": "version=v1"}, "last_version": len(versions),
    })
    return Dataset(lake, "t", "table"), state


def by_kind(found: list[Difference]) -> dict[str, list[str]]:
    return {kind: [str(one) for one in found if one.kind == kind] for kind in ("added", "removed", "changed")}


def test_every_type_at_once_with_null_keys_and_a_column_that_came_later(tmp_path: Path) -> None:
    ksql = {"K": "STRING", "D": "DATE", **{f"C{i}": name for i, (name, _, _) in enumerate(TYPES)}, "LATER": "STRING"}
    keys = {"K": pa.array(["a", None, "a", "gone"]), "D": pa.array([99_999_999, 0, 1, 2], pa.int32()).cast(pa.date32())}
    first = pa.table(keys | {f"C{i}": pa.array([v[0]] * 4, kind) for i, (_, kind, v) in enumerate(TYPES)})
    after = {"K": pa.array([None, "a", "a", "new"]), "D": pa.array([0, 1, 99_999_999, 2], pa.int32()).cast(pa.date32())}
    second = pa.table(
        after | {f"C{i}": pa.array([v[1], v[0], v[0], v[0]], kind) for i, (_, kind, v) in enumerate(TYPES)}
        | {"LATER": pa.array([None, None, "x", None], pa.string())})
    dataset, state = table(tmp_path, [first, second], ksql, ("K", "D"))
    for rows in (1000, 1, 2):
        found = list(compare(dataset, state, "1", "v2", rows))
        kinds = by_kind(found)
        assert kinds["added"] == ["added    K=new, D=1970-01-03"] and kinds["removed"] == [
            "removed  K=gone, D=1970-01-03"]
        changed = {str(one.key): set(one.changed) for one in found if one.kind == "changed"}
        assert changed == {
            "{'K': None, 'D': datetime.date(1970, 1, 1)}": {f"C{i}" for i in range(len(TYPES))},
            "{'K': 'a', 'D': '+275760-09-12'}": {"LATER"},
        } or set(map(len, changed.values())) == {len(TYPES), 1}
        (later,) = [one for one in found if set(one.changed) == {"LATER"}]
        assert later.changed["LATER"] == (None, "x") and later.key["K"] == "a"
    assert list(compare(dataset, state, "v2", "v2")) == []
    with pytest.raises(SourceError, match="has no version v7"):
        compare(dataset, state, "7", "v2")


@pytest.mark.parametrize("slice_rows", [10_000, 90, 7])
def test_against_a_comparison_row_by_row(tmp_path: Path, slice_rows: int) -> None:
    rng = random.Random(slice_rows)

    def version() -> dict[tuple[Any, Any], dict[str, Any]]:
        rows = {}
        for _ in range(400):
            key = (rng.choice([None, *"abcdefgh"]), rng.randrange(60))
            rows[key] = {"V": rng.choice([None, 1.5, float("nan")]), "L": rng.choice([None, [], ["x"], ["x", None]]),
                         "M": rng.choice([None, [("p", 1), ("q", 2)], [("q", 2), ("p", 1)], [("p", 2)]])}
        return rows

    kinds = {"A": pa.string(), "B": pa.int64(), "V": pa.float64(), "L": pa.list_(pa.string()),
             "M": pa.map_(pa.string(), pa.int32())}
    versions = [version(), version()]
    tables = []
    for rows in versions:
        lines = [{"A": a, "B": b, **row} for (a, b), row in rows.items()]
        rng.shuffle(lines)
        tables.append(pa.table({name: pa.array([line[name] for line in lines], kind) for name, kind in kinds.items()}))
    ksql = {"A": "STRING", "B": "BIGINT", "V": "DOUBLE", "L": "ARRAY<STRING>", "M": "MAP<STRING, INTEGER>"}
    dataset, state = table(tmp_path, tables, ksql, ("A", "B"))
    found = {(one.key["A"], one.key["B"]): one for one in compare(dataset, state, "v1", "v2", slice_rows)}

    def spelled(value: Any) -> str:
        return repr(sorted(value) if isinstance(value, list) and value and isinstance(value[0], tuple) else value)

    expected: dict[Any, Any] = {key: ("removed", set()) for key in versions[0].keys() - versions[1].keys()}
    expected |= {key: ("added", set()) for key in versions[1].keys() - versions[0].keys()}
    for key in versions[0].keys() & versions[1].keys():
        names = {n for n in "VLM" if spelled(versions[0][key][n]) != spelled(versions[1][key][n])}
        if names:
            expected[key] = ("changed", names)
    assert {key: (one.kind, set(one.changed)) for key, one in found.items()} == expected
    if slice_rows == 10_000:
        keys = [repr([*one.key.values()]) for one in compare(dataset, state, "v1", "v2", slice_rows)]
        assert keys == sorted(keys)


def test_an_empty_version_and_a_table_without_keys(tmp_path: Path) -> None:
    rows = pa.table({"K": ["a", "b"], "V": pa.array([1, 2], pa.int32())})
    dataset, state = table(tmp_path, [rows, rows[:0]], {"K": "STRING", "V": "INTEGER"}, ("K",))
    assert [one.kind for one in compare(dataset, state, "v1", "v2")] == ["removed", "removed"]
    assert [one.kind for one in compare(dataset, state, "v2", "v1")] == ["added", "added"]
    other = tmp_path / "other"
    dataset, state = table(other, [rows, rows], {"K": "STRING", "V": "INTEGER"}, ())
    with pytest.raises(SourceError, match="no key column"):
        compare(dataset, state, "v1", "v2")


@pytest.mark.slow
def test_two_million_rows_in_bounded_memory(tmp_path: Path) -> None:
    count = 2_000_000
    numbers = np.arange(count)
    rows = pa.table({"K": pa.array(numbers).cast(pa.string()), "V": pa.array(numbers % 97),
                     "T": pa.array(numbers, pa.timestamp("ms", "UTC")), "S": pa.array(numbers * 7).cast(pa.string())})
    changed = rows.set_column(1, "V", pa.array(np.where(numbers % 100_000 == 5, -1, numbers % 97)))
    ksql = {"K": "STRING", "V": "BIGINT", "T": "TIMESTAMP", "S": "STRING"}
    dataset, state = table(tmp_path, [rows, changed], ksql, ("K",))
    del rows, changed, numbers
    (tmp_path / "tables" / "t" / "_metadata.json").write_text(json.dumps(state.to_json()))
    code = (
        "import re, metadata_utils\n"
        f"assert metadata_utils.main(['--compare', 't', '1', '2', '--lake', {str(tmp_path)!r}]) == 0\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
    )
    before = dt.datetime.now()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[-2] == "t v1 to v2: 0 added, 0 removed, 20 changed" and int(lines[-1]) < 600, lines[-2:]
    assert (dt.datetime.now() - before).total_seconds() < 120
