"""The fast path means what the exact path means, or leaves the lines to it; and it is the path that plain rows take."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ksql_lake.base.errors import KsqlError, SchemaError
from ksql_lake.embedded.encode import RowEncoder
from ksql_lake.embedded.schema import header_text, parse_columns
from ksql_lake.model.types import Column, parse_schema
from ksql_lake.sources.ksqldb import blocks
from ksql_lake.sources.ksqldb.blocks import BlockReader
from ksql_lake.sources.ksqldb.rows import Decoder
from tests.conftest import ROOT
from tests.test_types_property import sources

RECORDINGS = sorted((ROOT / "tests" / "recordings").glob("*.http"))


@pytest.fixture(autouse=True)
def _blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LEAST", 1)


def same(a: pa.RecordBatch, b: pa.RecordBatch) -> bool:
    """Equal, NaN too."""
    return a.schema.equals(b.schema) and all(
        str(x.to_pylist()) == str(y.to_pylist()) for x, y in zip(a.columns, b.columns, strict=True)
    )


def fast_and_exact(columns: list[Column] | tuple[Column, ...], lines: bytes) -> tuple[Any, Any]:
    """What the fast path answers (None: it leaves the lines alone), and what the exact one does or says."""
    try:
        (exact,) = Decoder(columns, 10**9, fast=False).decode(lines)
    except (KsqlError, SchemaError) as error:
        exact = error
    return Decoder(columns)._blocks.read(lines), exact  # type: ignore[union-attr]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(sources())
def test_every_type_both_ways(source: tuple[str, list[list[Any]]]) -> None:
    text, rows = source
    columns = parse_columns(text)
    encoder = RowEncoder(columns)
    lines = "".join(f'{{"row":{{"columns":[{encoder.all(row)}]}}}},\n' for row in rows).encode()
    fast, exact = fast_and_exact(parse_schema(header_text(columns, False)), lines)
    assert fast is None or same(fast, exact)


TOKENS = st.sampled_from([
    "null", "true", "false", "0", "1", "-1", "5.0", "1e3", "1.5", "12345678901234567890", "9223372036854775807", '""',
    '"x"', '"null"', '"5"', '"true"', '"1.5"', '"2025-01-15"', '"10:00"', '"2025-01-15T10:00:00.000"', '"a,b"',
    r'"a\"b"', r'"\\"', r'"\n"', r'"\u0022"', r'"\ud83d\ude00"', r'"\ud83d"', r'"\u0000"', '"]}},"',
    r'"{\"row\":{\"columns\":["', "[]", "[1]", '["a"]', "{}", '{"A":1}', '{"A":null}', '{"A":"x"}', "[null]",
    "x", "", "NaN", '"NaN"', '"aGk="', "'a'", '"', '{"B":1}', "-0.0", "0.1",
])
TYPES = ["BOOLEAN", "INTEGER", "BIGINT", "DOUBLE", "STRING", "BYTES", "DATE", "TIME", "TIMESTAMP", "DECIMAL(6, 2)",
         "ARRAY<INTEGER>", "ARRAY<STRING>", "STRUCT<`A` INTEGER>", "STRUCT<`A` STRING>", "MAP<STRING, INTEGER>"]


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_odd_tokens_in_any_column(data: st.DataObject) -> None:
    """What the exact path refuses the fast one must not take, and what both take is the same.

    Left out: what no JSON writer of a Java map makes: a key twice, numbers such as 01 and +1 (pyarrow.csv reads them as
    the number they show), and as many numbers in quotes as strings without (only the sum of quotes is looked at).
    """
    kinds = data.draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    rows = data.draw(st.lists(st.lists(TOKENS, min_size=len(kinds), max_size=len(kinds)), min_size=1, max_size=3))
    cells = [(kind in blocks.QUOTED, token) for row in rows for kind, token in zip(kinds, row, strict=True)]
    assume(not any(not quoted and token[:1] == '"' for quoted, token in cells)
           or not any(quoted and token[:1] not in ('"', "n") for quoted, token in cells))
    columns = parse_schema(", ".join(f"`C{i}` {kind}" for i, kind in enumerate(kinds)))
    lines = "".join('{"row":{"columns":[' + ",".join(row) + "]}},\n" for row in rows).encode()
    fast, exact = fast_and_exact(columns, lines)
    assert fast is None or (isinstance(exact, pa.RecordBatch) and same(fast, exact)), (kinds, rows, fast, exact)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1, max_size=8), st.booleans())
def test_any_text(texts: list[str], ascii_only: bool) -> None:
    columns = parse_schema("`A` BIGINT, `B` STRING, `C` ARRAY<STRING>")
    shown = [json.dumps(text, ensure_ascii=ascii_only).replace("\x7f", "\\u007f") for text in texts]
    lines = "".join(f'{{"row":{{"columns":[1,{text},[{text},null]]}}}},\n' for text in shown)
    fast, exact = fast_and_exact(columns, lines.encode())
    assert fast is not None and same(fast, exact)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recordings_both_ways(path: Any) -> None:
    raw = path.read_bytes()
    schema = re.search(rb'"schema":"((?:[^"\\]|\\.)*)"', raw)
    rows = [line + b"\n" for line in raw.split(b"\n") if line.startswith(blocks.HEAD) and line.endswith(b"]}},")]
    if not schema or not rows:
        pytest.skip("no rows in this answer")
    fast, exact = fast_and_exact(parse_schema(json.loads(b'"' + schema[1] + b'"')), b"".join(rows))
    if path.stem.endswith("all_types"):  # NaN, Julian dates: for the exact path
        assert fast is None
    else:
        assert fast is not None and same(fast, exact)


@pytest.mark.parametrize("odd", [
    '{"row":{"columns":[1,null],"tombstone":true}},', '{"errorMessage":{"message":"x","error_code":50000}},',
    '{"row":{"columns":[1]}},', '{"row":{"columns":[1,"a",2]}},', '{"continuationToken":"x"},', "", "junk",
])
def test_blocks_with_something_else_in_them_are_left_alone(odd: str) -> None:
    columns = parse_schema("`A` BIGINT, `B` STRING")
    row = '{"row":{"columns":[1,"a"]}},\n'
    assert Decoder(columns)._blocks.read(f"{row}{odd}\n{row}".encode()) is None  # type: ignore[union-attr]


def test_a_query_of_odd_rows_stops_trying() -> None:
    columns = parse_schema("`A` TIMESTAMP")
    reader = Decoder(columns)._blocks
    assert isinstance(reader, BlockReader)
    julian, plain = (f'{{"row":{{"columns":["{year}-01-01T00:00:00.000"]}}}},\n'.encode() for year in (1200, 2025))
    for _ in range(blocks.PATIENCE):
        assert reader.read(julian) is None
    assert reader.read(plain) is None


def test_the_decoder_takes_blocks_and_what_is_left() -> None:
    columns = parse_schema("`A` BIGINT, `B` STRING")
    row = '{"row":{"columns":[%d,"a"]}}'
    answer = ",\n".join(row % i for i in range(25)) + "]\n"
    elements = Decoder(columns, batch_size=10, native=False).decode(answer.encode())
    numbers = [v for e in elements if isinstance(e, pa.RecordBatch) for v in e.column(0).to_pylist()]
    assert numbers == list(range(25)) and [len(e) for e in elements[:3] if isinstance(e, pa.RecordBatch)] == [10, 10, 4]
    assert type(elements[-1]).__name__ == "ArrayEnd"


@pytest.mark.parametrize("odd", [0, 10, 2500, 4999])
def test_a_large_block_is_read_in_two_halves(odd: int) -> None:
    """In the order of the wire, also where one half is for the exact path."""
    columns = parse_schema("`A` BIGINT, `B` ARRAY<STRING>")
    lines = [f'{{"row":{{"columns":[{i},["{"x" * 200}"]]}}}},\n' for i in range(5000)]
    lines[odd] = '{"row":{"columns":[7,null],"tombstone":true}},\n'
    elements = Decoder(columns, native=False).decode("".join(lines).encode())
    numbers = [e.column(0).to_pylist() if isinstance(e, pa.RecordBatch) else [e.columns[0]] for e in elements]
    assert sum(numbers, []) == [*range(odd), 7, *range(odd + 1, 5000)]
    assert sum(isinstance(e, pa.RecordBatch) and len(e) > 2000 for e in elements) >= 1
