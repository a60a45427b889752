"""The most that a server may send. All limits on what comes from outside are here.

Times are not here: KSQLDB_TIMEOUT is how long the server may be silent, and `PATIENCE` times as long is how long the
whole answer to a small request, or one line of a large one, may take.
"""

from __future__ import annotations

PATIENCE = 4  # times KSQLDB_TIMEOUT
STATUS_AND_HEADERS = 64 << 10  # bytes before the body
HEADERS = 100  # lines
INTERIM = 10  # answers such as 100 Continue before the answer
INFO = 1 << 20  # bytes of an answer of /info
METADATA = 64 << 20  # bytes of an answer of /ksql: lists of sources, descriptions
REFUSAL = 64 << 10  # bytes read of an error's text
LINE = 64 << 20  # bytes of one row; Kafka's own default for a message is 1 MB
CHUNK_SIZE_LINE = 1 << 10  # bytes of the line before an HTTP chunk
TRAILERS = 16 << 10  # bytes after the last HTTP chunk
DIGITS = 1000  # of a number; a DOUBLE written in full has 325 at most, a DECIMAL 38
NESTED_TYPES = 64  # types inside each other
COLUMNS = 10_000  # of one source, fields of STRUCTs counted
SOURCES = 100_000  # streams and tables of a server
PARTITIONS = 1_000_000  # of a topic
"""Kafka's clusters have a few hundred thousand in all."""
SHOWN = 200  # characters of an unexpected answer that a message repeats
WORDS = 2000  # characters of the server's own message of an error
