"""Messages of confluent-kafka as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ksql_lake.sources.kafka.formats import Plan
from ksql_lake.sources.kafka.records import Decoded, RecordDecoder
from ksql_lake.sources.kafka.topic import record_of


class MessageDecoder:
    """Decodes messages, in their order.

    Args:
        lenient, exact: see `RecordDecoder`.
    """

    def __init__(self, plan: Plan, *, exact: bool = False, lenient: bool = False) -> None:
        self._each = RecordDecoder(plan, exact=exact, lenient=lenient)

    def decode(self, messages: Sequence[Any]) -> Decoded:
        """See `RecordDecoder.decode`."""
        return self._each.decode(map(record_of, messages))
