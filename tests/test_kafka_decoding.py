"""What a real ksqlDB made of 2,762 JSON values and of 25 streams of other formats: we make the same of every record."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ksql_lake.base import native
from ksql_lake.base.errors import LakeError, SchemaError
from ksql_lake.model.types import Column, SqlType, parse_schema
from ksql_lake.sources.kafka import delimited, formats, java_text, json_text, json_values
from ksql_lake.sources.kafka.block import Block
from ksql_lake.sources.kafka.formats import Plan, Refusal, plan_of
from ksql_lake.sources.kafka.messages import MessageDecoder
from ksql_lake.sources.kafka.records import Decoded, Record, RecordDecoder
from ksql_lake.sources.kafka.verdicts import Skipped, Unsure
from ksql_lake.sources.ksqldb.rows import Decoder
from ksql_lake.sources.row_source import Flawed
from tests.conftest import ROOT

RECORDINGS = ROOT / "tests" / "recordings"
JSON_STREAM = (
    "`K` STRING, `C_BOOL` BOOLEAN, `C_INT` INTEGER, `C_BIG` BIGINT, `C_DBL` DOUBLE, `C_STR` STRING, "
    "`C_DEC` DECIMAL(6, 2), `C_BYTES` BYTES, `C_DATE` DATE, `C_TIME` TIME, `C_TS` TIMESTAMP, `C_ARR` ARRAY<INTEGER>, "
    "`C_ARRS` ARRAY<STRING>, `C_MAP` MAP<STRING, INTEGER>, `C_ST` STRUCT<`A` INTEGER, `B` STRING, `c` DOUBLE, "
    "`D` DECIMAL(20, 4), `E` DATE, `F` TIME, `G` TIMESTAMP, `H` BYTES, `I` MAP<STRING, DECIMAL(6, 2)>, "
    "`J` ARRAY<DECIMAL(6, 2)>>, `C_BIGDEC` DECIMAL(38, 0), `C_ADEC` ARRAY<DECIMAL(20, 4)>, "
    "`C_AST` ARRAY<STRUCT<`X` INTEGER>>, `C_ADATE` ARRAY<DATE>, `C_MTS` MAP<STRING, TIMESTAMP>"
)
PSEUDO = "`ROWTIME` BIGINT, `ROWPARTITION` INTEGER, `ROWOFFSET` BIGINT, "


def numbers(kind: pa.DataType) -> pa.DataType:
    """The type with numbers for dates and times: Python's own end with the year 9999."""
    if pa.types.is_temporal(kind):
        return pa.int64() if kind.bit_width == 64 else pa.int32()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, numbers(f.type)) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, numbers(kind.item_type))
    return pa.list_(numbers(kind.value_type)) if pa.types.is_list(kind) else kind


def plain(batch: pa.RecordBatch) -> list[str]:
    """Rows as text, in which NaN equals NaN."""
    columns = [column.cast(numbers(column.type)).to_pylist() for column in batch.columns]
    return [repr(row) for row in zip(*columns, strict=True)]


def described(schema: str) -> dict[str, Any]:
    """DESCRIBE ... EXTENDED of the JSON stream, as a server would answer."""
    fields = [{"name": c.name, "schema": as_json(c.type)} for c in parse_schema(schema)]
    fields[0]["type"] = "KEY"
    return {
        "name": "KD_JSON", "type": "STREAM", "topic": "kd_json", "keyFormat": "KAFKA", "valueFormat": "JSON",
        "windowType": None, "timestamp": "", "fields": fields,
        "statement": "CREATE STREAM KD_JSON (K STRING KEY) WITH (KAFKA_TOPIC='kd_json', VALUE_FORMAT='JSON');",
    }


def as_json(kind: Any) -> dict[str, Any]:
    return {
        "type": kind.base,
        "fields": [{"name": name, "schema": as_json(inner)} for name, inner in kind.fields] or None,
        "memberSchema": as_json(kind.element) if kind.element else None,
        "parameters": {"precision": kind.precision, "scale": kind.scale},
    }


def of_server(columns: tuple[Column, ...], rest: str) -> list[str] | type[SchemaError]:
    try:
        [batch] = Decoder(columns, native=False).decode(rest.encode() + b"\n")
    except SchemaError:
        return SchemaError
    assert isinstance(batch, pa.RecordBatch)
    return plain(batch)


def of_topic(decoder: RecordDecoder, record: Record) -> list[str] | type[Exception] | None:
    try:
        decoded = decoder.decode([record])
    except LakeError as error:
        return type(error)
    assert isinstance(decoded.rows, pa.RecordBatch) and len(decoded.rows) + len(decoded.passed) == 1
    return plain(decoded.rows) if len(decoded.rows) else None


def bytes_of(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def json_cases() -> list[dict[str, Any]]:
    lines = (RECORDINGS / "kafka-json-values" / "values.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


COLUMNS = [column.name for column in parse_schema(JSON_STREAM)][1:]


@pytest.mark.parametrize("column", [*COLUMNS, "*", "raw"])
def test_json_values_become_what_the_server_said(column: str) -> None:
    plan = plan_of(described(JSON_STREAM))
    assert isinstance(plan, Plan)
    decoder, columns = RecordDecoder(plan), parse_schema(PSEUDO + JSON_STREAM)
    cases = [case for case in json_cases() if case["column"] == column]
    assert cases
    wrong = []
    for case in cases:
        offset = case["offset"]
        record = Record(0, offset, 1_700_000_000_000 + offset, f"k{offset}".encode(), bytes_of(case["value"]))
        found = of_topic(decoder, record)
        wanted = of_server(columns, case["rest"]) if case["rest"] else None
        wanted = SchemaError if case.get("breaks_the_query") else wanted
        if found != wanted:
            wrong.append(f"{offset}: {record.value!r}: server {wanted}, topic {found}")
    assert not wrong, "\n".join(wrong)


# What Jackson 2.14.2 makes of it (readTree, on Java 17), as found by comparing millions of damaged records.
JACKSON: list[tuple[bytes, Any]] = [
    (b'\xff\xfe"\x00\x00\xd8"\x00', Skipped),  # a high surrogate takes the quotes with it
    (b'\x00"\xd8\x00\x00x\x00y\x00"', "\ufffdy"),
    (b'\xfe\xff\x00"\xdc\x00\x00x\x00"\x00', "\ufffdx"),
    (b'\xfe\xff\x00"\x00x\x00"\xd8', "x"),
    (b"\x00t\x00r\x00u\x00e\x00\xa0", True),
    (b"\x00t\x00r\x00u\x00e\x00\xe9", Skipped),
    (b"\x00t\x00r\x00u\x00e\xd8\x3d\xde\x00", True),
    (b"true\xc2\xa0", Skipped),
    (b"true\x01", True),
    (b"null$", None),
    (b'"\xff"', Skipped),
    (b'{"k\xff":1}', Skipped),
    (b'{"C_IN\xffT":1}', Unsure),  # the same as C_INT, but only when an earlier record had that name
    (b'{"\xffA":1}', Unsure),
    (b'{"\xf0\x80\x80\x80":1}', Unsure),
    (b"true\xc0\xaf", Unsure),
    (b'\x00"\x00\\\x00u/0\x000\x004\x001\x00"', Unsure),
]


@pytest.mark.parametrize(("data", "wanted"), JACKSON, ids=[repr(data) for data, _ in JACKSON])
def test_damaged_records_are_what_jackson_makes_of_them(data: bytes, wanted: Any) -> None:
    if isinstance(wanted, type):
        with pytest.raises(wanted):
            json_text.parse(data)
    else:
        assert json_text.parse(data) == wanted


def test_what_is_too_small_for_a_double_keeps_its_sign() -> None:
    for text, shown in ((b"-1e-400", "-0.0"), (b"-0.0", "0.0"), (b"-0e-5", "0.0"), (b"1e-400", "0.0")):
        assert repr(json_values.coercion(SqlType("DOUBLE"))(json_text.parse(text))) == shown


@pytest.mark.parametrize("native_reader", [False, True])
def test_names_of_one_hash_in_java_are_not_certain(native_reader: bool) -> None:
    plan = plan_of(described("`K` STRING, `M` MAP<STRING, INTEGER>"))
    assert isinstance(plan, Plan)
    same = ["".join(pair) for pair in itertools.product(("Aa", "BB"), repeat=4)]  # all hash alike
    for names, sure in ((same[:8], True), (same[:9], False)):
        value = json.dumps({"M": dict.fromkeys(names, 1)}).encode()
        decoder = MessageDecoder(plan, native=native_reader, asks=True)
        decoded = decoder.decode(Block.of([Record(0, 0, 0, b"k", value)]))
        assert bool(decoded.unsure) is not sure


def test_a_character_that_switches_csv_off_is_not_certain() -> None:
    reader = delimited.DelimitedReader([Column("A", SqlType("STRING"))], ",")
    assert reader.read(b"x") == ["x"]
    with pytest.raises(Unsure):
        reader.read("x\ufffe".encode())


FORMATS = sorted((RECORDINGS / "kafka-formats").glob("*.jsonl"))


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: path.stem)
def test_other_formats_become_what_the_server_said(path: Path) -> None:
    about, *cases = [json.loads(line) for line in path.read_text().splitlines()]
    plan = plan_of(about["describe"])
    if about["describe"]["valueFormat"] == "NONE":
        assert isinstance(plan, Refusal) and "never has a row" in str(plan)
        assert not any(case["rest"] for case in cases)
        return
    assert isinstance(plan, Plan), plan
    columns = parse_schema(json.loads(about["header"])["header"]["schema"])
    assert [(c.name, c.type) for c in plan.columns] == [(c.name, c.type) for c in columns[3:]]
    decoder = RecordDecoder(plan)
    wrong = []
    for case in cases:
        headers = [(name, bytes_of(value)) for name, value in case["headers"] or ()]
        key, value = bytes_of(case["key"]), bytes_of(case["value"])
        record = Record(case["partition"], case["offset"], case["timestamp"], key, value, headers)
        found, wanted = of_topic(decoder, record), of_server(columns, case["rest"]) if case["rest"] else None
        if found != wanted:
            wrong.append(f"{record}: server {wanted}, topic {found}")
    assert not wrong, "\n".join(wrong)


FREELY = settings(deadline=None, suppress_health_check=list(HealthCheck))
INT_STREAM = "`K` STRING, `V` INTEGER, `W` STRING"
INT_PLAN = plan_of(described(INT_STREAM))
assert isinstance(INT_PLAN, Plan)
DECODER = RecordDecoder(INT_PLAN)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def outcome(value: bytes) -> list[str] | type[Exception] | None:
    return of_topic(DECODER, Record(0, 0, 0, b"k", value))


@FREELY
@given(VALUES, st.integers(), st.sampled_from(["", " ", "\n\t\r "]))
def test_what_stands_beside_a_column_changes_nothing(other: object, whole: int, blank: str) -> None:
    alone = outcome(json.dumps({"V": whole}).encode())
    text = f'{blank}{{"x":{json.dumps(other)}{blank},{blank}"V"{blank}:{whole}{blank}}}{blank}and more'
    assert alone == outcome(text.encode(errors="surrogatepass")) is not None


@FREELY
@given(st.integers(-(10**40), 10**40))
def test_integers_wrap_as_numbers_and_fail_as_texts(whole: int) -> None:
    low = (whole + 2**31) % 2**32 - 2**31
    assert outcome(b'{"V":%d}' % whole) == [repr((0, 0, 0, "k", low, None))]
    fits = [repr((0, 0, 0, "k", whole, None))] if -(2**31) <= whole < 2**31 else None
    assert outcome(b'{"V":"%d"}' % whole) == fits


@FREELY
@given(VALUES)
def test_json_in_a_text_column_is_still_the_same_json(value: object) -> None:
    if not isinstance(value, dict):
        return
    node = json_text.parse(json.dumps(value).encode())
    try:
        written = json_values.text_of(node)
    except Skipped:
        return
    assert json_text.parse(written.encode(errors="surrogatepass")) == node


@FREELY
@given(st.lists(st.text(), unique=True))
def test_a_map_keeps_every_name_once(names: list[str]) -> None:
    assert sorted(json_values.hash_order(names)) == sorted(names)


@FREELY
@given(st.binary())
def test_no_bytes_stop_the_decoder(data: bytes) -> None:
    outcome(data)
    outcome(b'{"V":1,"W":"' + data + b'"}')
    java_text.utf8(data)


@FREELY
@given(st.text())
def test_what_is_utf8_is_read_as_it_is(text: str) -> None:
    data = text.encode(errors="ignore")
    assert java_text.utf8(data) == data.decode() and java_text._malformed(data) == data.decode()


@FREELY
@given(st.recursive(st.integers(0, 9), lambda inner: st.lists(inner) | st.dictionaries(st.text("ab\"\\"), inner)))
def test_the_reading_of_deep_json_means_the_same(value: object) -> None:
    text = json.dumps(value) + ", and more"
    assert json_text._scan_deep(text, 0) == (value, len(text) - len(", and more"))


BROKEN = ["", "[", "{", "[1", '{"a"', '{"a":', '{"a":1', "[1,", "[1 2]", '{"a":1,}', "[,]", "{1:2}"]


@pytest.mark.parametrize("text", BROKEN)
def test_deep_json_that_is_broken_is_passed_over(text: str) -> None:
    with pytest.raises(Skipped):
        json_text.parse(b"[" * 2000 + text.encode())


def test_json_nested_beyond_any_recursion_is_read() -> None:
    deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"V":7}'
    assert outcome(deep) == outcome(b'{"V":7}')


@FREELY
@given(st.lists(st.lists(st.text(), min_size=1), min_size=1))
def test_delimited_text_is_split_where_it_was_joined(records: list[list[str]]) -> None:
    def quoted(field: str) -> str:
        return '"' + field.replace('"', '""') + '"'

    text = "\r\n".join(",".join(map(quoted, fields)) for fields in records)
    assert delimited.split(text, ",") == records


BASE = "CREATE STREAM S (A INT, B MAP<STRING, INT>, `with` INT) WITH (KAFKA_TOPIC='it''s', X=true);"


def test_options_are_found_in_a_statement() -> None:
    assert formats.options_of(BASE) == ({"KAFKA_TOPIC": "it's", "X": "true"}, False)
    derived = "CREATE STREAM S WITH (VALUE_DELIMITER='TAB', PARTITIONS=1) AS SELECT * FROM T WITHIN (1 HOUR);"
    assert formats.options_of(derived) == ({"VALUE_DELIMITER": "TAB", "PARTITIONS": "1"}, True)
    assert formats.options_of("CREATE STREAM S AS SELECT 'WITH (a=b)' FROM T;") == ({}, True)


def changed(**fields: Any) -> dict[str, Any]:
    return {**described(INT_STREAM), **fields}


ONE_VALUE = "`K` STRING, `V` INTEGER"
REFUSED = [
    (changed(type="TABLE"), {}, "only streams"),
    (changed(valueFormat="AVRO"), {}, "VALUE_FORMAT AVRO is not read from a topic yet"),
    (changed(keyFormat="PROTOBUF"), {}, "KEY_FORMAT PROTOBUF is not read from a topic yet"),
    (changed(valueFormat="KAFKA"), {}, "VALUE_FORMAT KAFKA with 2 columns"),
    (changed(valueFormat="DELIMITED", statement="CREATE STREAM X AS SELECT * FROM Y;"), {}, "may be inherited"),
    (changed(timestamp="W"), {}, "read by TIMESTAMP_FORMAT '', which is not proven"),
    (changed(timestamp="NONE"), {}, "NONE is not among its columns"),
    (changed(windowType="HOPPING"), {}, "the length of its HOPPING windows is not shown"),
    (changed(fields=described("`K` STRING, `V` INTEGER, `\u10d0` STRING")["fields"]), {}, "not every Java has in"),
    (changed(fields=described("`K` STRING, `V` ARRAY<STRUCT<`\ua7c3` INTEGER>>")["fields"]), {},
     "column V, whose letters"),
    (changed(), {"ksql.timestamp.throw.on.invalid": "true"}, "ksql.timestamp.throw.on.invalid is true"),
    (changed(fields=described(ONE_VALUE)["fields"]), {"ksql.persistence.wrap.single.values": "false"},
     "without WRAP_SINGLE_VALUE"),
]


@pytest.mark.parametrize(("description", "settings", "reason"), REFUSED, ids=[reason for _, _, reason in REFUSED])
def test_what_is_not_proven_is_refused_with_its_reason(
    description: dict[str, Any], settings: dict[str, str], reason: str
) -> None:
    refusal = plan_of(description, settings)
    assert isinstance(refusal, Refusal)
    assert reason in str(refusal) and str(refusal).endswith("it is read through ksqlDB's REST API")


def test_a_window_stands_behind_the_key() -> None:
    statement = "CREATE STREAM S (K STRING KEY) WITH (WINDOW_SIZE='5 SECONDS', WINDOW_TYPE='Tumbling');"
    plan = plan_of(changed(windowType="TUMBLING", statement=statement))
    assert isinstance(plan, Plan) and [c.name for c in plan.columns] == ["K", "WINDOWSTART", "WINDOWEND", "V", "W"]
    decoder = RecordDecoder(plan)
    rows = decoder.decode([Record(0, 0, 5, b"key" + (60_000).to_bytes(8, "big"), b'{"V":1}'), SHORT]).rows
    assert isinstance(rows, pa.RecordBatch) and plain(rows) == [repr((5, 0, 0, "key", 60_000, 65_000, 1, None))]


SHORT = Record(0, 1, 5, b"short", b'{"V":1}')


def test_a_session_ends_before_it_starts() -> None:
    plan = plan_of(changed(windowType="SESSION"))
    assert isinstance(plan, Plan)
    key = b"key" + (9).to_bytes(8, "big") + (7).to_bytes(8, "big")
    rows = RecordDecoder(plan).decode([Record(0, 0, 5, key, b'{"V":1}')]).rows
    assert isinstance(rows, pa.RecordBatch) and plain(rows) == [repr((5, 0, 0, "key", 7, 9, 1, None))]


def test_a_value_that_cannot_be_stored_is_told_with_partition_and_offset() -> None:
    plan = plan_of(described("`K` STRING, `T` TIME, `D` DATE"))
    assert isinstance(plan, Plan)
    midnight, far = Record(3, 7, 0, b"k", b'{"T":86400000}'), Record(3, 8, 0, b"k", b'{"D":3000000000,"T":5}')
    with pytest.raises(SchemaError, match=r"^KD_JSON: partition 3, offset 7: column T holds .* \(24:00, which ksqlDB"):
        RecordDecoder(plan).decode([midnight])
    with pytest.raises(SchemaError, match=r"^KD_JSON: partition 3, offset 8: column D holds .* \(the date is too far"):
        RecordDecoder(plan).decode([far])
    rows = RecordDecoder(plan, lenient=True).decode([far, midnight]).rows
    assert isinstance(rows, Flawed)
    assert [(flaw.row, flaw.column, flaw.offset) for flaw in rows.flaws] == [(0, "D", 8), (1, "T", 7)]
    assert plain(rows.batch) == [repr((0, 3, 8, "k", 0, None)), repr((0, 3, 7, "k", None, None))]


def test_the_exact_value_is_kept_where_it_is_asked_for() -> None:
    plan = plan_of(described("`K` STRING, `T` TIME, `S` STRUCT<`D` DECIMAL(20, 4)>"))
    assert isinstance(plan, Plan)
    record = Record(0, 0, 0, b"k", b'{"T":9999,"S":{"D":1234567890123456.7891}}')
    for exact, time, decimal in ((False, 9000, "1234567890123456.8000"), (True, 9999, "1234567890123456.7891")):
        rows = RecordDecoder(plan, exact=exact).decode([record]).rows
        assert isinstance(rows, pa.RecordBatch)
        assert plain(rows) == [repr((0, 0, 0, "k", time, {"D": Decimal(decimal)}))]


built = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


def both_ways(plan: Plan, records: list[Record], *, exact: bool = False) -> tuple[Decoded, int]:
    """What the natively aided decoder makes of records, equal to the exact one; and how many rows were native."""
    block = Block.of(records)
    assert list(block) == records
    aided = MessageDecoder(plan, lenient=True, exact=exact)
    slow: list[Record] = []
    each = aided._each.decode

    def counted(found: Iterable[Record]) -> Decoded:
        slow.extend(found)
        return each(slow[:])

    aided._each.decode = counted  # type: ignore[method-assign, assignment]
    ours = aided.decode(block)
    theirs = MessageDecoder(plan, lenient=True, exact=exact, native=False).decode(block)
    assert ours.passed == theirs.passed and type(ours.rows) is type(theirs.rows)
    mine, wanted = (rows.batch if isinstance(rows, Flawed) else rows for rows in (ours.rows, theirs.rows))
    assert plain(mine) == plain(wanted) and mine.schema.equals(wanted.schema)
    if isinstance(ours.rows, Flawed) and isinstance(theirs.rows, Flawed):
        assert ours.rows.flaws == theirs.rows.flaws
    return ours, len(records) - len(slow)


@built
def test_the_native_reader_makes_the_same_of_every_recorded_value() -> None:
    plan = plan_of(described(JSON_STREAM))
    assert isinstance(plan, Plan)
    records = [
        Record(0, case["offset"], 1_700_000_000_000, f"k{case['offset']}".encode(), bytes_of(case["value"]))
        for case in json_cases()
    ]
    _, native_rows = both_ways(plan, records)
    assert native_rows > 250


@built
@pytest.mark.parametrize("key", ["STRING", "INTEGER", "BIGINT", "DOUBLE", "BYTES", None])
@pytest.mark.parametrize("timestamp", ["", "T"])
@pytest.mark.parametrize("exact", [False, True])
def test_keys_and_times_are_the_same_natively(key: str | None, timestamp: str, exact: bool) -> None:
    schema = "`T` BIGINT, `N` TIME, `M` MAP<STRING, STRING>"
    about = described(f"`K` {key}, {schema}" if key else f"`X` STRING, {schema}")
    if not key:
        del about["fields"][0]
    plan = plan_of({**about, "timestamp": timestamp})
    assert isinstance(plan, Plan)
    keys = [None, b"", b"1234", b"12345678", b"\xff", b"k"]
    values = [b'{"T":5,"N":1999,"M":{"ref":"1","channel":"2","ab":"3","k":"4"}}', b'{"T":null}', b'{"T":-1}', b"{}",
              None, b"", b'{"t":"7"}', b'{"T":8,"N":86400000}', b"{", b'{"T":9} and more']
    records = [Record(i % 3, i, i - 2, keys[i % 6], value) for i, value in enumerate(values * 6)]
    both_ways(plan, records, exact=exact)


@built
def test_damaged_objects() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.kafka_fuzz", str(native.path()), "4000", "1"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[2]) > 1500  # values that were taken and compared


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_damaged_objects_under_sanitizers(tmp_path: Path) -> None:
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    if runtime.returncode or not Path(runtime.stdout.strip()).is_absolute():
        pytest.skip("no gcc with its sanitizers")
    library = tmp_path / "sanitized.so"
    flags = ["-std=gnu11", "-O1", "-g", "-fPIC", "-shared", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(native.SOURCE)], check=True)
    env = {**os.environ, "LD_PRELOAD": runtime.stdout.strip(), "PYTHONMALLOC": "malloc",
           "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run([sys.executable, "-m", "tests.kafka_fuzz", str(library), "60000", "2"], cwd=ROOT, env=env,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
