"""The KAFKA format: one value in the bytes of Kafka's own serializers."""

from __future__ import annotations

import struct
from typing import Any

from ksql_lake.sources.kafka.java_text import utf8
from ksql_lake.sources.kafka.verdicts import Skipped

PACKED = {"INTEGER": ">i", "BIGINT": ">q", "DOUBLE": ">d"}


def read(base: str, data: bytes) -> Any:
    """The value of a column of this type.

    Raises:
        Skipped: the bytes have another length.
    """
    if base == "STRING":
        return utf8(data)
    if base == "BYTES":
        return data
    packed = PACKED[base]
    if len(data) != struct.calcsize(packed):
        raise Skipped(f"{len(data)} bytes for {base}")
    return struct.unpack(packed, data)[0]
