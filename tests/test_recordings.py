"""The client and the scripts against what a real ksqlDB 0.29 server sent."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.base.errors import AnswerCut, KsqlError, KsqlUnavailable, SourceError
from ksql_lake.sources.ksqldb.client import Client, Server
from ksql_lake.sources.ksqldb.rows import ArrayEnd, Decoder, ErrorRow, Final, Tombstone
from tests.recorded_server import RECORDINGS, RecordedServer, recording

pytestmark = pytest.mark.usefixtures("each_reader")
EVERY = sorted(path.stem for path in RECORDINGS.glob("*.json"))
QUERIES = [
    name for name in EVERY
    if recording(name)[1].startswith(b"HTTP/1.1 200") and b'[{"header"' in recording(name)[1][:700]
]
ERRORS = [name for name in EVERY if name.startswith("err_") and recording(name)[0]["request"]["path"] == "/query"]


def lines_of(name: str) -> list[dict[str, Any]]:
    """The elements of a recorded answer, read by other means than the client's: framing cut away by a pattern."""
    body = recording(name)[1].split(b"\r\n\r\n", 1)[1]
    text = re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", body).decode("utf-8", "ignore")
    elements = []
    for line in text.splitlines():
        line = line.strip().removeprefix("[").rstrip(",").removesuffix("]").rstrip(",")
        if line.startswith("{"):
            try:
                elements.append(json.loads(line, parse_float=Decimal))
            except ValueError:
                break  # the row in which a killed server stopped
    return elements


def read(name: str, piece: int = 0) -> tuple[list[Any], list[str], str]:
    """Elements, column names and ending of a recording, through the client over a socket."""
    elements: list[Any] = []
    with RecordedServer(("/query", name), piece=piece) as server, Client(Server(server.url, timeout=5)) as client:
        with client.query("SELECT 1;") as answer:
            decoder = Decoder(answer.columns)
            names = [column.name for column in answer.columns]
            try:
                while lines := answer.read(0.3):
                    elements += decoder.decode(lines)
            except AnswerCut:
                return elements, names, "cut"
            return elements, names, "open" if lines is None else "ended"


def rows_in(elements: list[Any]) -> int:
    return sum(len(e) for e in elements if isinstance(e, pa.RecordBatch))


@pytest.mark.parametrize("name", QUERIES)
def test_every_recorded_query_decodes(name: str) -> None:
    elements, names, ending = read(name)
    sent = lines_of(name)
    rows = [e for e in sent if "row" in e]
    assert rows_in(elements) == len([r for r in rows if not r["row"].get("tombstone")])
    assert len([e for e in elements if isinstance(e, Tombstone)]) == len(rows) - rows_in(elements)
    finals = [e["finalMessage"] for e in sent if "finalMessage" in e]
    assert [e.message for e in elements if isinstance(e, Final)] == finals
    assert not [e for e in elements if isinstance(e, ErrorRow)]
    ended_by = recording(name)[0]["ended_by"]
    assert ending == {"last-chunk": "ended", "server": "cut"}.get(ended_by, "open")
    assert (ending == "ended") == any(isinstance(e, ArrayEnd) for e in elements)
    assert all(f"`{n}` " in sent[0]["header"]["schema"] for n in names)


@pytest.mark.parametrize("piece", [1, 7])
def test_pieces_of_any_size_make_the_same_rows(piece: int) -> None:
    whole = pa.Table.from_batches(read("stream_push_all_types")[0])
    pieces = pa.Table.from_batches(read("stream_push_all_types", piece)[0])
    assert repr(pieces.to_pylist()) == repr(whole.to_pylist())  # as text: NaN equals nothing


@pytest.mark.parametrize("name", ERRORS)
def test_every_recorded_error_keeps_the_servers_words(name: str) -> None:
    answer = recording(name)[1]
    words = re.search(rb'"message":"([^"\\]{8,})', answer)
    with RecordedServer(("/query", name)) as server, Client(Server(server.url, timeout=5)) as client:
        with pytest.raises(KsqlError) as refused:
            client.query("SELECT 1;")
    assert not isinstance(refused.value, KsqlUnavailable)
    assert refused.value.status == int(answer.split()[1])
    assert "\n" not in str(refused.value)
    if words:
        assert words[1].decode()[:40] in str(refused.value)


def test_all_types_value_by_value() -> None:
    elements, names, _ = read("stream_push_all_types")
    rows = pa.Table.from_batches(elements).rename_columns(names).to_pylist()
    first = rows[0]
    assert (first["L"], first["DEC38"]) == (2**63 - 1, Decimal("12345678901234567890.123456789012345678"))
    assert (first["BYT"], first["DT"], first["TM"]) == (b"\0\1\2\3\4\xff", dt.date(2024, 10, 4), dt.time(12, 0))
    assert first["TS"] == dt.datetime(2023, 11, 14, 22, 13, 20, 123_000, dt.UTC)
    assert first["ST"] == {
        "A": 1, "B": "x", "c d": Decimal("1.5000"), "E": dt.date(2024, 10, 4),
        "F": dt.datetime(2023, 11, 14, 22, 13, 20, 123_000, dt.UTC), "G": dt.time(12, 0, 0, 123_000),
        "H": b"\0\1\2", "N": {"X": [1.5, 2e10]},
    }
    assert first["M"] == [("k1", 1), ("k2", None)] and first["ARR_ST"] == [{"K": "a", "V": Decimal("1.250")}, None]
    second = rows[1]
    assert second["S"].startswith('quote " backslash \\ newline \n tab \t ctrl \x01 emoji \U0001F600')
    assert (second["TS"], second["D"]) == (dt.datetime(1969, 12, 31, 23, 59, 59, 999_000, dt.UTC), -4.9e-324)
    assert all(rows[2][name] is None for name in names[4:])
    assert str(rows[3]["D"]) == "nan" and rows[3]["ARR_S"] == ["a,b", 'c"d']


SOURCES = {
    "transaction_stream": ("stream", "describe_transaction_stream", "stream_push_offsets"),
    "all_types": ("stream", "describe_all_types", "stream_push_all_types"),
    "user_transaction_summary": ("table", "describe_user_transaction_summary", "table_pull"),
    "product_purchase_counts": ("table", "describe_product_purchase_counts", "table_pull_windowed"),
    "session_t": ("table", "describe_session_t", "table_push_session"),
    "plain_table": ("table", "describe_plain_table", "table_push"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_scripts_export_what_was_recorded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real input through the front door: every value in the lake equals the recorded one."""
    kind, describe, query = SOURCES[name]
    answers = (
        ("LIST STREAMS", "list_streams"), ("LIST TABLES", "list_tables"), ("DESCRIBE", describe), ("/info", "info"),
        ("LIMIT 1", "stream_pull_limit"), ("/query", query),
    )
    monkeypatch.setenv("IDLE_SECONDS", "0.5")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
    assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
    with RecordedServer(*answers) as server:
        monkeypatch.setenv("KSQLDB_URL", server.url)
        assert export_to_data_lake.main([f"--{kind}", name]) == 0
    elements, names, _ = read(query)
    expected = pa.Table.from_batches([e for e in elements if isinstance(e, pa.RecordBatch)]).rename_columns(names)
    files = sorted((tmp_path / "lake" / f"{kind}s" / name).rglob("*.parquet"))
    tables = [pq.ParquetFile(path).read() for path in files]
    if kind == "table":
        frame = expected.to_pandas()
        keys = {"session_t": ["K2", "WINDOWSTART", "WINDOWEND"], "plain_table": ["ID"]}.get(name)
        if keys:
            frame = frame.drop_duplicates(keys, keep="last")
            frame = frame[frame[keys[0]] != "r4"]  # its tombstone came last
        landed = pa.concat_tables(tables).to_pandas()
        assert sorted(map(repr, landed.to_dict("records"))) == sorted(map(repr, frame.to_dict("records")))
        return
    landed_rows = {(r["ROWPARTITION"], r["ROWOFFSET"]): r for t in tables for r in t.to_pylist()}
    assert len(landed_rows) == len(expected) == sum(len(t) for t in tables)
    for row in expected.to_pylist():
        mine = landed_rows[(row["ROWPARTITION"], row["ROWOFFSET"])]
        mine["ROWTIME"] = mine["ROWTIME"].timestamp() * 1000
        assert repr(list(mine.values())[1:]) == repr(list(row.values())[1:])
        assert mine["ROWTIME"] == row["ROWTIME"]


def test_names_resolve_in_any_case_and_unknown_ones_are_told() -> None:
    answers = (("STREAMS", "list_streams"), ("TABLES", "list_tables"), ("DESCRIBE", "describe_all_types"))
    with RecordedServer(*answers) as server, Client(Server(server.url, timeout=5)) as client:
        assert client.resolve("all_types", "stream").partitions == 2
        with pytest.raises(SourceError, match="did you mean ALL_TYPES"):
            client.resolve("al_types", "stream")
        with pytest.raises(SourceError, match="SESSION_T is a table"):
            client.resolve("session_t", "stream")


def test_a_proxys_page_is_no_answer() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n<html><h1>Sign in</h1></htm"
    with RecordedServer((".", page)) as server, Client(Server(server.url, timeout=5)) as client:
        with pytest.raises(KsqlError, match="Sign in.*proxy"):
            client.query("SELECT 1;")
        with pytest.raises(KsqlError, match="not ksqlDB"):
            client.server_info()
