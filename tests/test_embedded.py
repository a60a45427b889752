"""The embedded server against the recordings of a real one, byte for byte, and its faults over real sockets."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ksql_lake.embedded import EmbeddedKsqlDB, Fault, fill_demo
from ksql_lake.embedded.schema import Type, parse_columns

RECORDINGS = Path(__file__).parent / "recordings"
KEEP = 0.4  # seconds of silence after which a push query is taken to be exhausted


def recording(name: str) -> tuple[dict[str, Any], bytes]:
    request = json.loads((RECORDINGS / f"{name}.json").read_text())["request"]
    return request, (RECORDINGS / f"{name}.http").read_bytes()


def same_id(data: bytes) -> bytes:
    """The answer with its query id, and the length of the chunk that holds it, taken out."""
    return re.sub(rb'[0-9a-f]+\r\n\[\{"header":\{"queryId":"[^"]*"', b'[{"header":{"queryId":"X"', data)


def exchange(db: EmbeddedKsqlDB, request: Mapping[str, Any], silence: float = KEEP) -> bytes:
    """One request over a bare socket: every byte until the end, or until nothing comes for `silence` seconds."""
    body = request["body"]
    data = b"" if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    head = (f"{request['method']} {request['path']} HTTP/1.1\r\nHost: x\r\nAccept: {request['accept']}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n")
    out = b""
    with socket.create_connection((db.host, db.port), timeout=silence) as connection:
        connection.sendall(head.encode() + data)
        try:
            while not out.endswith(b"\r\n0\r\n\r\n"):
                piece = connection.recv(1 << 20)
                if not piece:
                    break
                out += piece
                length = re.search(rb"content-length: (\d+)\r\n(?:.*\r\n)*?\r\n", out)
                if length and len(out) - length.end() >= int(length.group(1)):
                    break
        except TimeoutError:
            pass
        except ConnectionResetError:
            out += b"<reset>"
    return out


def query(db: EmbeddedKsqlDB, sql: str, earliest: bool = True, silence: float = KEEP) -> bytes:
    properties = {"auto.offset.reset": "earliest", "isolation.level": "read_committed"} if earliest else {}
    return exchange(db, {"method": "POST", "path": "/query", "accept": "application/vnd.ksql.v1+json",
                         "body": {"ksql": sql, "streamsProperties": properties}}, silence)


def elements(data: bytes) -> list[dict[str, Any]]:
    """The elements of an answer, its chunks joined."""
    body, out = data.split(b"\r\n\r\n", 1)[1], b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        out, body = out + rest[:int(size, 16)], rest[int(size, 16) + 2:]
    lines = out.decode().lstrip("[").splitlines()
    return [json.loads(line.removesuffix("]").rstrip(","), parse_float=Decimal) if not line.endswith("}]")
            else json.loads(line[:-1], parse_float=Decimal) for line in lines if line not in ("]", "")]


def columns_of(data: bytes) -> list[list[Any]]:
    return [e["row"]["columns"] for e in elements(data) if "row" in e]


def plain(value: Any, kind: Type) -> Any:
    """A JSON value as Python would hold it, so that encoding it again is a real test."""
    if value is None:
        return None
    if kind.base == "DOUBLE":
        return float(value)
    if kind.base == "BYTES":
        return base64.b64decode(value)
    if kind.base == "DATE" and isinstance(value, str):
        return date.fromisoformat(value)
    if kind.base == "ARRAY" and kind.item:
        return [plain(v, kind.item) for v in value]
    if kind.base == "MAP" and kind.item:
        return {k: plain(v, kind.item) for k, v in value.items()}
    if kind.base == "STRUCT":
        return {n: plain(value[n], t) for n, t in kind.fields}
    return value


def load_stream(db: EmbeddedKsqlDB, name: str, recorded: str, partitions: int) -> None:
    first, *rows = elements(recording(recorded)[1])
    columns = parse_columns(first["header"]["schema"])[3:]
    text = ", ".join(f"`{c.name}` {c.type.text()}" for c in columns)
    db.create_stream(name, text.replace("`ID` STRING", "`ID` STRING KEY", 1), partitions, name.lower())
    for row in rows:
        rowtime, partition, offset, *values = row["row"]["columns"]
        db.skip(name, partition, offset - db.sources[name].topic.next[partition])
        db.append(name, partition, rowtime, [plain(v, c.type) for v, c in zip(values, columns, strict=True)])


def load_table(db: EmbeddedKsqlDB, name: str, recorded: str, window: str | None = None, **more: Any) -> None:
    first, *rows = elements(recording(recorded)[1])
    columns = [c for c in parse_columns(first["header"]["schema"]) if not c.name.startswith("WINDOW")]
    text = ", ".join(f"`{c.name}` {c.type.text()}{' KEY' if c.key else ''}" for c in columns)
    db.create_table(name, text, window=window, **more)
    for row in rows:
        db.upsert(name, row["row"]["columns"], 0)


@pytest.fixture(scope="module")
def db() -> Iterator[EmbeddedKsqlDB]:
    server = EmbeddedKsqlDB(pull_chunk=1 << 30)  # the recorded server sent these small tables in one chunk
    load_stream(server, "TRANSACTION_STREAM", "stream_push_offsets", 4)
    load_stream(server, "ALL_TYPES", "stream_push_all_types", 2)
    server.create_stream("EMPTY_STREAM", "ID STRING KEY, V INTEGER", 1)
    load_table(server, "USER_TRANSACTION_SUMMARY", "table_pull")
    load_table(server, "PAYMENT_METHOD_TOTALS", "table_pull_decimal")
    load_table(server, "PRODUCT_PURCHASE_COUNTS", "table_pull_windowed", "TUMBLING")
    load_table(server, "MULTI_KEY", "table_pull_multi_key", key_format="JSON")
    load_table(server, "SESSION_T", "table_pull_session", "SESSION", key_format="JSON")
    server.upsert("SESSION_T", ["c1", 1, 2, 3])
    server.create_table("EMPTY_TABLE", "K2 STRING KEY, N BIGINT")
    server.create_table("PLAIN_TABLE", "ID STRING KEY, V INTEGER", queryable=False, partitions=2, topic="plain_table")
    server.create_table("SOURCE_TABLE", "ID STRING KEY, V INTEGER", topic="plain_table", partitions=2,
                        source_table=True)
    for element in elements(recording("table_push_offsets")[1])[1:]:
        rowtime, partition, _, key, value = element["row"]["columns"]
        if value is None:
            server.delete("PLAIN_TABLE", [key])
        else:
            server.upsert("PLAIN_TABLE", [key, value], rowtime, partition)
    for row in columns_of(recording("table_pull_source")[1]):
        server.upsert("SOURCE_TABLE", row)
    with server:
        yield server


@pytest.mark.parametrize("name", [
    "stream_push_offsets", "stream_push_all_types", "stream_push_empty", "stream_push_limit", "stream_pull_empty",
    "stream_pull_no_match", "table_pull", "table_pull_windowed", "table_pull_decimal", "table_pull_multi_key",
    "table_pull_session", "table_pull_empty", "table_pull_source", "table_pull_limit", "table_push",
    "table_push_offsets", "healthcheck", "cluster_status", "err_accept", "err_bad_json", "err_empty",
    "err_get_query", "err_no_semicolon", "err_no_such_path", "err_not_queryable", "err_rowoffset_in_pull",
    "err_select_on_ksql", "err_syntax", "err_two_statements", "err_unknown_column", "err_unknown_property",
    "err_unknown_source", "describe_missing"])
def test_answers_as_the_recorded_server(db: EmbeddedKsqlDB, name: str) -> None:
    request, wanted = recording(name)
    assert same_id(exchange(db, request)) == same_id(wanted)


@pytest.mark.parametrize("name", ["stream_push_resume", "stream_push_day"])
def test_where_keeps_the_recorded_rows(db: EmbeddedKsqlDB, name: str) -> None:
    request, wanted = recording(name)
    assert sorted(map(repr, columns_of(exchange(db, request)))) == sorted(map(repr, columns_of(wanted)))


@pytest.mark.parametrize("name", ["describe_all_types", "describe_plain_table", "describe_source_table",
                                  "describe_session_t", "describe_multi_key", "list_streams", "list_tables"])
def test_metadata_shapes(db: EmbeddedKsqlDB, name: str) -> None:
    request, wanted = recording(name)
    ours, real = (json.loads(d.split(b"\r\n\r\n", 1)[1])[0] for d in (exchange(db, request), wanted))
    assert list(ours) == list(real)
    if name.startswith("list"):
        assert {tuple(s) for s in ours[name[5:]]} == {tuple(s) for s in real[name[5:]]}
        return
    mine, theirs = ours["sourceDescription"], real["sourceDescription"]
    assert list(mine) == list(theirs)
    for field in ("name", "windowType", "fields", "type", "keyFormat", "topic"):
        assert mine[field] == theirs[field]
    assert bool(mine["writeQueries"]) == bool(theirs["writeQueries"])
    if not theirs["writeQueries"]:
        assert mine["statement"] == theirs["statement"]
        assert mine["partitions"] == theirs["partitions"]


@pytest.fixture
def small() -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as server:
        server.stream("S", "ID INT, V STRING", 2, [(i % 2, 1000 + i, [i, f"é{i}"]) for i in range(20)])
        server.create_table("T", "ID INT KEY, V STRING")
        for i in range(2000):
            server.upsert("T", [i, "x" * 10])
        yield server


PUSH = "SELECT ROWTIME, ROWPARTITION, ROWOFFSET, * FROM `S` EMIT CHANGES;"


def test_latest_delivers_what_is_appended_later_and_stop_is_polite(small: EmbeddedKsqlDB) -> None:
    body = json.dumps({"ksql": PUSH, "streamsProperties": {}}).encode()
    with socket.create_connection((small.host, small.port), timeout=5) as connection:
        connection.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        out = b""
        while b"header" not in out:
            out += connection.recv(4096)
        time.sleep(0.05)
        small.append("S", 1, 5, [99, None])
        while b"[5,1,10,99,null]" not in out:
            out += connection.recv(4096)
        small.stop()
        while piece := connection.recv(4096):
            out += piece
    assert out.endswith(b'22\r\n{"finalMessage":"Query Completed"}\r\n1\r\n]\r\n0\r\n\r\n')


def test_kill_cuts_and_the_data_survive_a_restart(small: EmbeddedKsqlDB) -> None:
    port = small.port
    small.faults.add(Fault(slow=0.01, slow_bytes=20))
    timer = threading.Timer(0.2, small.kill)
    timer.start()
    data = query(small, PUSH, silence=3)
    timer.join()
    assert b'"header"' in data and not data.endswith(b"0\r\n\r\n")
    small.start()
    assert small.port == port
    assert len(columns_of(query(small, PUSH))) == 20


def test_retention_gaps_aborts_and_recreation(small: EmbeddedKsqlDB) -> None:
    small.expire("S", 0, 8)
    small.append("S", 0, 1, None)
    small.append("S", 0, 2, [7, "aborted"], aborted=True)
    small.append("S", 0, 3, [8, "kept"])
    small.mute("S", 1)
    assert [row[2] for row in columns_of(query(small, PUSH))] == [8, 9, 12]
    small.recreate("S")
    assert small.add_partition("S") == 2
    small.mute("S")
    small.append("S", 2, 3, [8, "new"])
    assert columns_of(query(small, PUSH)) == [[3, 2, 0, 8, "new"]]


def test_table_pull_comes_in_several_chunks(small: EmbeddedKsqlDB) -> None:
    data = query(small, "SELECT * FROM T;")
    assert len(columns_of(data)) == 2000
    sizes = [int(s, 16) for s in re.findall(rb"\r\n([0-9a-f]{3,4})\r\n", data)]
    assert len(sizes) > 5 and 5000 < sizes[0] < 7000


@pytest.mark.parametrize(("fault", "end", "rows"), [
    (Fault(reset=True), b"<reset>", 0),
    (Fault(status=429, body=b'{"message":"slow down"}'), b'{"message":"slow down"}', 0),
    (Fault(status=503), b"content-length: 0\r\n\r\n", 0),
    (Fault(cut_after=3), b"]}},\n\r\n", 3),
    (Fault(error_after=3), b'fault"}},\n\r\n1\r\n]\r\n0\r\n\r\n', 3),
    (Fault(error_after=3, error_closed=False), b'fault"}},\n\r\n0\r\n\r\n', 3),
    (Fault(complete_after=3), b'Completed"}\r\n1\r\n]\r\n0\r\n\r\n', 3),
    (Fault(silent_after=3, silent_seconds=1), b"]}},\n\r\n", 3),
    (Fault(repeat_after=20, repeat_rows=4), b"]}},\n\r\n", 24),
    (Fault(cut_after=3, cut_where="char"), b"\xc3", 3)])
def test_faults_of_a_push(small: EmbeddedKsqlDB, fault: Fault, end: bytes, rows: int) -> None:
    small.faults.add(fault)
    data = query(small, PUSH)
    assert data.endswith(end)
    assert data.count(b'{"row"') == rows + (fault.cut_where == "char")
    assert len(columns_of(query(small, PUSH))) == 20  # used up


def test_cut_pull_html_and_slow_bytes(small: EmbeddedKsqlDB) -> None:
    small.faults.add(Fault(cut_after=5, cut_where="row"))
    assert not query(small, "SELECT * FROM T;").endswith(b"0\r\n\r\n")
    small.faults.html()
    assert b"<html>" in query(small, PUSH)
    small.faults.add(Fault(slow=0.0005, slow_bytes=50))
    assert len(columns_of(query(small, PUSH))) == 20


def test_demo_is_consistent_and_a_large_case_works() -> None:
    with EmbeddedKsqlDB() as server:
        fill_demo(server, 1000, 7, date(2025, 1, 15), 3)
        assert len(server.sources) == 8
        whens = " ".join(f"WHEN ROWPARTITION = {i} THEN {i}" for i in range(900))
        sql = PUSH.replace("`S`", f"`TRANSACTION_STREAM` WHERE ROWOFFSET >= CASE {whens} ELSE 0 END "
                                  "OR ROWOFFSET % 1000 < 2")
        rows = columns_of(query(server, sql))
        assert len(rows) == 999  # offset 2 of partition 3 is dropped, offsets 0 and 1 are ticks
        totals = columns_of(query(server, "SELECT * FROM PAYMENT_METHOD_TOTALS;"))
        assert sum(t[1] for t in totals) == 1000
        masked = columns_of(query(server, "SELECT USER_ID FROM TRANSACTION_STREAM_ANONYMIZED LIMIT 1;"))
        assert masked[0][0].startswith("xxxx-n")
