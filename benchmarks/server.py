"""Serves prepared rows as ksqlDB does: a pull query in chunks of 64 KiB, a push query with one chunk per row.

    python -m benchmarks.server DIR        prints its port; DIR holds flat.query and nested.query

Sources S_FLAT, S_NESTED are streams, T_FLAT, T_NESTED the same rows as tables. The chunks are framed before a request
comes, so that what is measured is the reader.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from benchmarks.data import SCHEMAS, header

INFO = {"KsqlServerInfo": {"version": "0.29.0", "kafkaClusterId": "x", "ksqlServiceId": "x", "serverStatus": "RUNNING"}}
LARGE = 64 << 10


def main(argv: list[str]) -> int:
    directory = Path(argv[0])
    bodies = {}
    for path in sorted(directory.glob("*.query")):
        kind = path.stem
        head = header(kind)
        data = path.read_bytes()
        each = b"".join(_chunk(line) for line in data.splitlines(keepends=True))
        large = b"".join(_chunk(data[at : at + LARGE]) for at in range(0, len(data), LARGE))
        bodies[f"S_{kind.upper()}"] = _chunk(head) + each
        bodies[f"T_{kind.upper()}"] = _chunk(head) + large
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_until_gone, args=(client, bodies), daemon=True).start()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _until_gone(client: socket.socket, bodies: dict[str, bytes]) -> None:
    with contextlib.suppress(OSError):
        _serve(client, bodies)


def _serve(client: socket.socket, bodies: dict[str, bytes]) -> None:
    with client, client.makefile("rb") as incoming:
        while line := incoming.readline():
            length = 0
            while (field := incoming.readline().strip()) != b"":
                name, _, value = field.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            sql = json.loads(incoming.read(length))["ksql"] if length else ""
            _answer(client.sendall, line, sql, bodies)
            if "EMIT CHANGES;" in sql and b"/query" in line:
                incoming.read(1)  # a push query never ends: until the client hangs up
                return


def _answer(send: Callable[[bytes], None], line: bytes, sql: str, bodies: dict[str, bytes]) -> None:
    if b"/query" in line:
        match = re.search(r"FROM `?(\w+)", sql)
        assert match is not None
        send(b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.ksql.v1+json\r\ntransfer-encoding: chunked\r\n\r\n")
        body = bodies[match[1]]
        view = memoryview(body)
        for at in range(0, len(view), 1 << 20):
            send(view[at : at + (1 << 20)])  # type: ignore[arg-type]
        if "EMIT CHANGES;" not in sql:
            send(b"0\r\n\r\n")
        return
    if sql.startswith("LIST"):
        kind = "streams" if "STREAMS" in sql else "tables"
        names = [name for name in bodies if name[0] == kind[0].upper()]
        content: object = [{kind: [{"name": name, "isWindowed": False} for name in names]}]
    elif sql.startswith("DESCRIBE"):
        content = [{"sourceDescription": _description(sql.split("`")[1])}]
    else:
        content = INFO
    text = json.dumps(content).encode()
    send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))


def _description(name: str) -> dict[str, object]:
    columns = SCHEMAS[name[2:].lower()][1]
    keys = {"TRANSACTION_ID"} if name[0] == "T" else set()
    fields = [{"name": c, "schema": {"type": "STRING"}, **({"type": "KEY"} if c in keys else {})} for c in columns]
    return {
        "name": name, "type": "STREAM" if name[0] == "S" else "TABLE", "topic": name, "partitions": 4,
        "windowType": None, "fields": fields, "statement": "", "writeQueries": [{}],
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
