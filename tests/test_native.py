"""The native reader means what the exact path means, or leaves the lines to it; and it is there where it was built."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import data_lake_config
from ksql_lake.base import native
from ksql_lake.base.errors import KsqlError, SchemaError
from ksql_lake.embedded.encode import RowEncoder
from ksql_lake.embedded.schema import header_text, parse_columns
from ksql_lake.model.types import Column, parse_schema
from ksql_lake.sources.ksqldb import rows
from ksql_lake.sources.ksqldb.body import Body, Cut
from ksql_lake.sources.ksqldb.native_rows import RowReader, Unsupported
from ksql_lake.sources.ksqldb.rows import Decoder
from tests.conftest import ROOT
from tests.native_fuzz import same
from tests.test_types_property import sources

RECORDINGS = sorted((ROOT / "tests" / "recordings").glob("*.http"))
TOKENS = st.sampled_from([
    "null", "true", "false", "0", "1", "-1", "5.0", "1e3", "1.5", "12345678901234567890", "9223372036854775807", '""',
    '"x"', '"null"', '"5"', '"true"', '"1.5"', '"2025-01-15"', '"10:00"', '"2025-01-15T10:00:00.000"', '"a,b"',
    r'"a\"b"', r'"\\"', r'"\n"', r'"\u0022"', r'"\ud83d\ude00"', r'"\ud83d"', r'"\u0000"', '"]}},"',
    r'"{\"row\":{\"columns\":["', "[]", "[1]", '["a"]', "{}", '{"A":1}', '{"A":null}', '{"A":"x"}', "[null]",
    "x", "", "NaN", '"NaN"', '"aGk="', "'a'", '"', '{"B":1}', "-0.0", "0.1", '"+10000-01-01"', '"-0001-12-31"',
    '"0000-02-29"', '"57011-01-23T12:00:00.000"', '"1500-02-29T00:00:00.000"', '"0001-01-01T23:59:59.999"',
    '"1500-02-29"', '"5881580-07-11"', '"5881580-07-12"', '"292278994-08-17T07:12:55.807"',
    '"-0001-01-01T00:00:00.000"',
    '"292278994-08-17T07:12:55.808"', '"24:00"', r'"\ude00\ud83d\ude00"', r'"\ud83d\ud83dx"', '"10:00:00.000"',
])
TYPES = ["BOOLEAN", "INTEGER", "BIGINT", "DOUBLE", "STRING", "BYTES", "DATE", "TIME", "TIMESTAMP", "DECIMAL(6, 2)",
         "ARRAY<INTEGER>", "ARRAY<STRING>", "STRUCT<`A` INTEGER>", "STRUCT<`A` STRING>", "MAP<STRING, INTEGER>"]
LOADED = native.library()
built = pytest.mark.skipif(LOADED is None, reason="the native library is not built: python -m ksql_lake.base.native")
MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def both(columns: Sequence[Column], lines: bytes) -> tuple[pa.RecordBatch | None, int, Any]:
    """What the native reader takes of the first lines, how far it came, and what the exact path makes of all."""
    assert LOADED is not None
    exact = Decoder(columns, 10**9, native=False)
    batch, at = RowReader(LOADED, columns, exact.schema).read(lines, 0, len(lines))
    if batch is not None:
        batch.validate(full=True)
    try:
        (decoded,) = exact.decode(lines[:at] if at else lines)
    except (KsqlError, SchemaError) as error:
        return batch, at, error
    return batch, at, decoded


def line(*values: str) -> bytes:
    return ('{"row":{"columns":[' + ",".join(values) + "]}},\n").encode()


@built
@MANY
@given(sources())
def test_every_type_is_read_and_equal(source: tuple[str, list[list[Any]]]) -> None:
    text, rows_ = source
    columns = parse_columns(text)
    encoder = RowEncoder(columns)
    lines = b"".join(line(encoder.all(row)) for row in rows_)
    batch, at, exact = both(parse_schema(header_text(columns, False)), lines)
    assert at == len(lines) and batch is not None and same(batch, exact)


@built
@settings(MANY, max_examples=1500)
@given(st.data())
def test_odd_tokens_in_any_column(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    made = data.draw(st.lists(st.lists(TOKENS, min_size=len(kinds), max_size=len(kinds)), min_size=1, max_size=3))
    columns = parse_schema(", ".join(f"`C{i}` {kind}" for i, kind in enumerate(kinds)))
    batch, at, exact = both(columns, b"".join(line(*row) for row in made))
    assert (batch is None) == (at == 0)
    assert batch is None or (isinstance(exact, pa.RecordBatch) and same(batch, exact)), (kinds, made, exact)


@built
@MANY
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1, max_size=8), st.booleans())
def test_any_text(texts: list[str], ascii_only: bool) -> None:
    columns = parse_schema("`A` BIGINT, `B` STRING, `C` ARRAY<STRING>")
    shown = [json.dumps(text, ensure_ascii=ascii_only) for text in texts]
    lines = b"".join(line("1", text, f"[{text},null]") for text in shown)
    batch, at, exact = both(columns, lines)
    assert at == len(lines) and batch is not None and same(batch, exact)


NUMBER = st.from_regex(re.compile(r"-?[0-9]{0,24}(\.[0-9]{0,22})?([eE][+-]?[0-9]{1,3})?", re.ASCII), fullmatch=True)


@built
@settings(MANY, max_examples=2000)
@given(st.lists(NUMBER | st.floats(allow_nan=False).map(repr), min_size=1, max_size=4))
def test_numbers_to_the_last_bit(numbers: list[str]) -> None:
    """A DOUBLE is the nearest one, a DECIMAL exact, an integer whole, in whatever way the number is written."""
    for kind in ("DOUBLE", "DECIMAL(38, 10)", "DECIMAL(6, 2)", "BIGINT", "INTEGER"):
        columns = parse_schema(f"`A` ARRAY<{kind}>")
        batch, _, exact = both(columns, line("[" + ",".join(numbers) + "]"))
        if batch is not None:
            assert isinstance(exact, pa.RecordBatch), (kind, numbers, exact)
            assert str(batch.column(0).to_pylist()) == str(exact.column(0).to_pylist()), (kind, numbers)


@built
@pytest.mark.parametrize(("kind", "text"), [
    ("INTEGER", "-2147483648"), ("BIGINT", "-9223372036854775808"), ("DOUBLE", "1.7976931348623157E308"),
    ("DOUBLE", "0.1000000000000000055511151231257827"), ("DOUBLE", '"-Infinity"'), ("DOUBLE", "9007199254740993"),
    ("DECIMAL(38, 0)", "9" * 38), ("DECIMAL(38, 38)", "-0." + "9" * 38), ("DECIMAL(9, 2)", "1.0E5"),
    ("DATE", '"0001-01-01"'), ("DATE", '"9999-12-31"'), ("DATE", '"2000-02-29"'), ("DATE", "-719162"),
    ("TIME", '"10:00"'), ("TIME", '"23:59:59"'), ("TIME", "36000123"), ("BYTES", '""'), ("BYTES", '"AQ=="'),
    ("TIMESTAMP", '"1582-10-15T00:00:00.000"'), ("TIMESTAMP", '"9999-12-31T23:59:59.999"'), ("TIMESTAMP", "-1"),
    ("STRING", r'"\u0000\ud83d\ude00\/\b\f\n\r\t"'), ("MAP<STRING, INTEGER>", '{"":1,"a":null}'),
    ("STRUCT<`q\"` INTEGER, `Ü` STRING>", r'{"q\"":null,"Ü":"x"}'), ("DATE", '"0000-01-01"'),
    ("DATE", '"+5881580-07-11"'), ("DATE", '"-5877641-06-23"'), ("TIMESTAMP", '"1582-10-14T23:59:59.999"'),
    ("TIMESTAMP", '"0001-01-01T23:00:00.000"'), ("TIMESTAMP", '"1500-02-29T00:00:00.000"'),
    ("TIMESTAMP", '"292278994-08-17T07:12:55.807"'), ("TIMESTAMP", "-9223372036854775808"),
    ("STRING", r'"\ud83d"'), ("STRING", r'"\ude00\ud83d"'), ("STRING", r'"\ud83d\ud83d\ude00\ud83dx\u0041"'),
])
def test_what_the_server_writes_is_taken(kind: str, text: str) -> None:
    batch, at, exact = both(parse_schema(f"`A` {kind}"), line(text))
    assert at and batch is not None and isinstance(exact, pa.RecordBatch) and same(batch, exact)
    assert batch.column(0).null_count == 0


@built
@pytest.mark.parametrize(("kind", "text"), [
    ("INTEGER", "2147483648"), ("BIGINT", "9223372036854775808"), ("BIGINT", "01"), ("BIGINT", "5.0"), ("BIGINT", "-"),
    ("DOUBLE", "-0"), ("DOUBLE", "1e400"), ("DOUBLE", "NaN"), ("DOUBLE", '"nan"'), ("DOUBLE", "1."), ("DOUBLE", ".5"),
    ("DECIMAL(4, 2)", "100.00"), ("DECIMAL(4, 2)", "1.005"), ("DECIMAL(4, 2)", '"1.00"'), ("DECIMAL(4, 2)", "1E2"),
    ("DATE", '"2025-02-29"'), ("DATE", '"1900-02-29"'), ("DATE", '"2025-1-01"'), ("DATE", "2147483648"),
    ("TIME", '"24:00"'), ("TIME", "86400000"), ("TIME", '"10:00:00.5"'), ("BYTES", '"AQ"'), ("BYTES", '"A==="'),
    ("TIMESTAMP", '"292278994-08-17T07:12:55.808"'), ("TIMESTAMP", '"2025-01-15T10:00:00Z"'), ("BYTES", '"AQID AQID"'),
    ("DATE", '"+5881580-07-12"'), ("DATE", '"-999-01-01"'), ("STRING", r'"\ud8"'),
    ("STRING", r'"\x"'), ("STRING", '"\t"'), ("STRING", "5"),
    ("MAP<STRING, INTEGER>", '{"a":1,"a":2}'), ("MAP<STRING, INTEGER>", '[["a",1]]'), ("BOOLEAN", "1"),
    ("MAP<STRING, INTEGER>", "{" + ",".join(f'"{i}":1' for i in [*range(40), 7]) + "}"),
    ("STRUCT<`A` INTEGER, `B` INTEGER>", '{"B":1,"A":2}'), ("STRUCT<`A` INTEGER>", '{"A":1,"B":2}'),
    ("STRUCT<`A` INTEGER>", "{}"), ("ARRAY<INTEGER>", "[1,]"), ("ARRAY<INTEGER>", "[1"), ("ARRAY<INTEGER>", "[ 1]"),
])
def test_what_is_odd_is_left_to_the_exact_path(kind: str, text: str) -> None:
    good = line("null")
    batch, at, _ = both(parse_schema(f"`A` {kind}"), good + line(text) + good)
    assert at == len(good) and batch is not None and batch.column(0).to_pylist() == [None]


@built
@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"])
def test_text_that_is_not_utf8_never_reaches_arrow(text: bytes) -> None:
    raw = b'{"row":{"columns":["' + text + b'"]}},\n'
    assert both(parse_schema("`A` STRING"), raw)[:2] == (None, 0)


@built
@pytest.mark.parametrize("count", [9, 1000, 20_000])
def test_a_map_of_many_keys(count: int) -> None:
    text = "{" + ",".join(f'"key{i}":{i}' for i in range(count)) + "}"
    batch, _, exact = both(parse_schema("`A` MAP<STRING, INTEGER>"), line(text))
    assert batch is not None and same(batch, exact)


@built
def test_a_row_of_megabytes_and_many_rows() -> None:
    columns = parse_schema("`A` STRING, `B` ARRAY<BIGINT>, `C` BOOLEAN")
    lines = line(json.dumps("é€\\" * 1_000_000), "[" + ",".join(map(str, range(100_000))) + "]", "true")
    lines += b"".join(line("null", "[]", "null" if i % 3 else "false") for i in range(100_000)) + lines
    batch, at, exact = both(columns, lines)
    assert at == len(lines) and batch is not None and same(batch, exact)


@built
def test_every_cut_of_a_block_leaves_whole_rows() -> None:
    columns = parse_schema("`A` STRING, `B` STRUCT<`X` ARRAY<BOOLEAN>, `Y` MAP<STRING, STRING>>, `C` DOUBLE")
    row = line('"é\\n"', '{"X":[true,null,false],"Y":{"k":"v","n":null}}', "1.25")
    for cut in range(1, len(row) - 1):
        batch, at, exact = both(columns, row + row[:cut] + b"\n" + row)
        assert at == len(row) and batch is not None and same(batch, exact)
        assert both(columns, row[:cut])[:2] == (None, 0)


@built
@pytest.mark.parametrize("kind", ["MAP<INTEGER, STRING>", "STRUCT<`A` INTEGER, `A` INTEGER>",
                                  "ARRAY<" * 40 + "INTEGER" + ">" * 40])
def test_types_it_does_not_know_are_for_the_other_paths(kind: str) -> None:
    assert LOADED is not None
    columns = parse_schema(f"`A` {kind}")
    with pytest.raises(Unsupported):
        RowReader(LOADED, columns, Decoder(columns).schema)
    (batch,) = Decoder(columns).decode(line("null"))
    assert isinstance(batch, pa.RecordBatch) and batch.column(0).to_pylist() == [None]


@built
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recordings(path: Path) -> None:
    raw = path.read_bytes()
    schema = re.search(rb'"schema":"((?:[^"\\]|\\.)*)"', raw)
    head = b'{"row":{"columns":['
    lines = [one + b"\n" for one in raw.split(b"\n") if one.startswith(head) and one.endswith(b"]}},")]
    if not schema or not lines:
        pytest.skip("no rows in this answer")
    columns = parse_schema(json.loads(b'"' + schema[1] + b'"'))
    exact = Decoder(columns, native=False)
    try:
        reader = RowReader(native.library(), columns, exact.schema)  # type: ignore[arg-type]
    except Unsupported:
        assert "MAP<INTEGER" in schema[1].decode()
        return
    taken = 0
    for one in lines:
        batch, at = reader.read(one, 0, len(one))
        if batch is not None:
            (decoded,) = exact.decode(one)
            assert isinstance(decoded, pa.RecordBatch) and same(batch, decoded)
            taken += 1
    assert taken == len(lines) or path.stem.endswith("all_types")  # Julian dates


COLUMNS = parse_schema("`A` BIGINT, `B` STRING")


def numbers(elements: Sequence[Any]) -> list[Any]:
    return sum((e.column(0).to_pylist() if isinstance(e, pa.RecordBatch) else [type(e).__name__] for e in elements), [])


@built
@pytest.mark.parametrize("odd", [
    '{"row":{"columns":[-1,null],"tombstone":true}},', '{"errorMessage":{"message":"x","error_code":50000}},',
    '{"row": {"columns":[-1,"spaces"]}},', '{"continuationToken":"x"},', "",
])
@pytest.mark.parametrize("places", [[0], [7], [99], [0, 1, 2, 50, 98, 99], list(range(0, 100, 2)), list(range(100))])
def test_odd_lines_stand_in_their_place(odd: str, places: list[int]) -> None:
    lines = "".join(f"{odd}\n" if i in places else line(str(i), '"x"').decode() for i in range(100)).encode()
    elements = Decoder(COLUMNS).decode(lines)
    assert numbers(elements) == numbers(Decoder(COLUMNS, native=False).decode(lines))
    if len(places) < 10:
        assert max(len(e) for e in elements if isinstance(e, pa.RecordBatch)) >= 40


@built
def test_an_answer_of_odd_rows_stops_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(COLUMNS)
    odd = b'{"row":{"columns":[1, "a"]}},\n' * 100
    for _ in range(rows.PATIENCE):
        assert decoder._reader is not None and numbers(decoder.decode(odd)) == [1] * 100
    assert decoder._reader is None and numbers(decoder.decode(odd)) == [1] * 100


def test_without_the_library_rows_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "library", lambda: None)
    decoder = Decoder(COLUMNS)
    assert decoder._reader is None and numbers(decoder.decode(line("5", "null") * 3)) == [5, 5, 5]


@built
def test_memory_is_given_back() -> None:
    """A hundred thousand blocks, taken, refused and thrown away, leave the process as large as it was."""
    assert LOADED is not None
    columns = parse_schema("`A` STRING, `B` STRUCT<`X` ARRAY<BOOLEAN>, `Y` MAP<STRING, STRING>>")
    schema = Decoder(columns).schema
    block = line('"' + "x" * 2000 + '"', '{"X":[true,null],"Y":{"k":"v"}}') + line('"x"', '{"X":[true')
    sizes = []
    for _ in range(5):
        for _ in range(2000):
            reader = RowReader(LOADED, columns, schema)
            for _ in range(3):
                assert reader.read(block, 0, len(block))[0] is not None
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert sizes[-1] - sizes[1] < 1000, sizes  # pages of 4 KB; one block lost each time would be 6,000


# HTTP chunks


class _Wire(Body):
    """A body without its socket: pieces are handed in."""

    def __init__(self, loaded: ctypes.CDLL | None) -> None:
        self._chunked, self._left, self.ended, self._pending = True, None, False, 0
        self._wire = b""
        self._start(loaded)

    def feed(self, piece: bytes) -> bytes:
        self._wire += piece
        parts = []
        while not self.ended and (part := self._take()):  # as `read` does, before it asks the socket
            parts.append(part)
        return b"".join(parts)


def unchunked(loaded: ctypes.CDLL | None, pieces: Sequence[bytes]) -> tuple[bytes, bool, bool, bytes]:
    """Body, whether it ended, whether it was broken, and what is left undecided."""
    wire, parts = _Wire(loaded), []
    try:
        for piece in pieces:
            if wire.ended:
                break
            parts.append(wire.feed(piece))
    except Cut:
        return b"".join(parts), False, True, b""  # and what `feed` had in hand
    return b"".join(parts), wire.ended, False, b"" if wire.ended else wire._wire


CHUNKS = st.lists(st.tuples(
    st.binary(max_size=30) | st.sampled_from([b"\r\n", b"5\r\n", b"x" * 300]),
    st.sampled_from([b"", b"", b";ext=1", b" "]), st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"xx", b"\n"]),
    st.sampled_from(["%x", "%x", "%X", "00%x", "0x%x", "g%x"]),
), max_size=8)
LASTS = st.sampled_from([b"", b"0\r\n\r\n", b"0\r\n", b"0\r\nX: y\r\n\r\n", b"zz\r\n"])


@built
@settings(MANY, max_examples=1500)
@given(CHUNKS, LASTS, st.lists(st.integers(0, 600)))
def test_chunks_come_apart_as_in_python(chunks: list[Any], last: bytes, cuts: list[int]) -> None:
    wire = b"".join((form % len(data)).encode() + extension + b"\r\n" + data + end
                    for data, extension, end, form in chunks) + last
    at = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    pieces = [wire[a:b] for a, b in zip(at, at[1:], strict=False)]
    body, *end = unchunked(None, pieces)
    mine, *my_end = unchunked(LOADED, pieces)
    assert my_end == end
    assert mine == body or (end[1] and mine.startswith(body))  # where it breaks, what came before is not thrown away


# Building


def test_built_once_for_each_source_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    source = tmp_path / "native.c"
    source.write_bytes(native.SOURCE.read_bytes())
    monkeypatch.setattr(native, "SOURCE", source)
    made = native.build("cc")
    assert made.name.startswith("_native_") and native.path() == made and ctypes.CDLL(str(made)).ksql_read
    source.write_bytes(source.read_bytes() + b"\n/* changed */\n")
    assert not native.path().exists()
    other = native.build("cc")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["native.c", other.name])


@pytest.mark.parametrize(
    ("why", "words"), [("cc: not there; run it", "not built: cc: not there; run it"), (None, "in use")]
)
def test_the_settings_say_whether_it_is_in_use(
    why: str | None, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "ensure", lambda: why)
    assert data_lake_config.main([]) == 0
    (shown,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("native reader")]
    assert shown.split(None, 2)[2] == words


@pytest.mark.parametrize(("compiler", "words"), [("no-such-cc", "install a C compiler"), ("false", "only slower")])
def test_a_failed_build_says_what_to_do(compiler: str, words: str) -> None:
    before = sorted(path.name for path in native.SOURCE.parent.iterdir())
    done = subprocess.run([sys.executable, "-m", "ksql_lake.base.native"], cwd=ROOT, env={**os.environ, "CC": compiler},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in native.SOURCE.parent.iterdir()) == before


def checkout(tmp_path: Path) -> Path:
    """A copy of the modules, without a library."""
    ignored = shutil.ignore_patterns("_native_*.so", "__pycache__")
    shutil.copytree(ROOT / "ksql_lake", tmp_path / "clone" / "ksql_lake", ignore=ignored)
    shutil.copy(ROOT / "data_lake_config.py", tmp_path / "clone")
    return tmp_path / "clone"


def settings_of(clone: Path, **env: str) -> str:
    """What the settings of a clone say of the native reader."""
    done = subprocess.run([sys.executable, "data_lake_config.py"], cwd=clone, env={**os.environ, **env},
                          capture_output=True, text=True, check=True)
    return next(one for one in done.stdout.splitlines() if one.startswith("native reader"))


def test_showing_the_settings_builds_it_and_never_an_older_one(tmp_path: Path) -> None:
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    clone = checkout(tmp_path)
    base = clone / "ksql_lake" / "base"
    why = settings_of(clone, CC="no-such-cc")
    assert "not built: no-such-cc: No such file" in why and "pip install -r requirements-native.txt" in why
    assert not list(base.glob("*.so"))
    assert settings_of(clone).endswith("in use")
    (first,) = base.glob("*.so")
    (base / "native.c").write_bytes((base / "native.c").read_bytes() + b"\n/* newer */\n")
    assert "not built" in settings_of(clone, CC="no-such-cc")  # that of the older source is there, and not loaded
    assert settings_of(clone).endswith("in use")
    (second,) = base.glob("*.so")
    assert second != first


def test_a_compiler_that_comes_as_a_wheel_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m ziglang cc`, here played by a module that calls the machine's own compiler."""
    if not (compiler := shutil.which("cc")):
        pytest.skip("no C compiler")
    clone = checkout(tmp_path)
    (clone / "ziglang").mkdir()
    (clone / "ziglang" / "__init__.py").touch()
    main = f"import subprocess, sys\nsys.exit(subprocess.run([{compiler!r}, *sys.argv[2:]]).returncode)\n"
    (clone / "ziglang" / "__main__.py").write_text(main)
    monkeypatch.delenv("CC", raising=False)
    tools = tmp_path / "tools"  # without a cc
    tools.mkdir()
    for name in ("as", "ld", "collect2"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    assert settings_of(clone, PATH=str(tools)).endswith("in use")


# Damage and shortage

FAILING = """
#include <stdlib.h>
static int allocations_left = -1;
void fail_after(int count) { allocations_left = count; }
static int fails(void) { return allocations_left >= 0 && allocations_left-- == 0; }
static void *malloc_(size_t n) { return fails() ? NULL : malloc(n); }
static void *calloc_(size_t n, size_t m) { return fails() ? NULL : calloc(n, m); }
static void *realloc_(void *p, size_t n) { return fails() ? NULL : realloc(p, n); }
#define malloc malloc_
#define calloc calloc_
#define realloc realloc_
"""


def test_when_memory_runs_out_rows_are_whole_or_an_error(tmp_path: Path) -> None:
    """One allocation after another fails; what is read is right, and the next block is read as if nothing was."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    header, built_ = tmp_path / "failing.h", tmp_path / "failing.so"
    header.write_text(FAILING)
    subprocess.run(["cc", *native.FLAGS, "-include", str(header), "-o", str(built_), str(native.SOURCE)], check=True)
    library = native.declared(ctypes.CDLL(str(built_)))
    columns = parse_schema("`A` STRING, `B` STRUCT<`X` ARRAY<BOOLEAN>, `Y` MAP<STRING, DECIMAL(5, 1)>>, `C` BYTES")
    keys = ",".join(f'"k{i}":1.5' for i in range(20))
    lines = line('"x"', '{"X":[true,null],"Y":{' + keys + "}}", '"AQID"') + line("null", "null", "null")
    (exact,) = Decoder(columns, native=False).decode(lines * 100)
    assert isinstance(exact, pa.RecordBatch)
    refused = errors = 0
    for count in range(120):
        library.fail_after(-1 if count == 119 else count)
        try:
            reader = RowReader(library, columns, exact.schema)
            batch, at = reader.read(lines * 100, 0, len(lines) * 100)
            assert (batch is None) == (at == 0) and (batch is None or same(batch, exact.slice(0, len(batch))))
            refused += at < len(lines) * 100
        except MemoryError:
            errors += 1
            continue
        library.fail_after(-1)
        batch, at = reader.read(lines * 100, 0, len(lines) * 100)
        assert batch is not None and same(batch, exact)
    assert refused > 10 and errors > 10


@built
def test_damaged_rows() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.native_fuzz", str(native.path()), "4000", "1"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 4000  # rows that were taken and compared


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_damaged_rows_under_sanitizers(tmp_path: Path) -> None:
    """Not a byte beyond a buffer is read or written, nothing is used after it was freed, no number overflows."""
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    if runtime.returncode or not Path(runtime.stdout.strip()).is_absolute():
        pytest.skip("no gcc with its sanitizers")
    library = tmp_path / "sanitized.so"
    flags = ["-O1", "-g", "-fPIC", "-shared", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(native.SOURCE)], check=True)
    env = {**os.environ, "LD_PRELOAD": runtime.stdout.strip(), "PYTHONMALLOC": "malloc",
           "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run([sys.executable, "-m", "tests.native_fuzz", str(library), "100000", "2"], cwd=ROOT, env=env,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
