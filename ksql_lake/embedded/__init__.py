"""An embedded ksqlDB for demos and tests: real HTTP, the bytes of a ksqlDB 0.29.0 server, no Kafka behind it.

It answers GET /info, /healthcheck, /clusterStatus; POST /ksql with LIST/SHOW STREAMS/TABLES [EXTENDED],
LIST PROPERTIES and DESCRIBE [EXTENDED];
POST /query with `SELECT columns FROM source [WHERE ...] [EMIT CHANGES] [LIMIT n];` in the format
application/vnd.ksql.v1+json, whatever else Accept allows. `topics` copies its streams to a Kafka broker.

What it does NOT do: no other format (/query-stream, protobuf, delimited, legacy), no HTTP/2, TLS,
authentication or websocket; no CREATE, INSERT, joins, aggregates, GROUP BY or expressions in SELECT; sources
are made by Python calls and are not derived from one another. WHERE is evaluated by SQLite, not by ksqlDB:
DECIMAL compares as double, dates and times as text, there are few functions, and errors have SQLite's words.
A WHERE in a push query on a table hides rows instead of making tombstones of them. Rows of different
partitions come in the order of appending, one of the orders a real server may choose. Everything is in memory
and never compacted. No heartbeat lines, no rate limits of its own (queue a Fault), no Julian calendar before
1582. Any long OR is accepted (a real server fails). DESCRIBE shows no statistics and no CREATE ... AS text.
"""

from __future__ import annotations

from .demo import fill_demo, live_demo
from .engine import Engine, Record, Source
from .faults import Fault, Faults
from .server import EmbeddedKsqlDB

__all__ = ["EmbeddedKsqlDB", "Engine", "Fault", "Faults", "Record", "Source", "fill_demo", "live_demo"]
