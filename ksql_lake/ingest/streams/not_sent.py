"""A row that the server cannot send: it is skipped, and quarantined without its content."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ksql_lake.model.recorded import MILLISECONDS
from ksql_lake.model.types import timestamp_type
from ksql_lake.quality.checker import BadRows, reason_head

MOST = 100  # rows that one run may skip; each costs a few queries
LABEL = "on_bad_value row"


@dataclass(frozen=True)
class NotSent:
    """Where such a row is; `rowtime` in epoch ms, `what` for people."""

    partition: int
    offset: int
    rowtime: int
    what: str

    def bad_row(self, schema: pa.Schema) -> BadRows:
        """The row for quarantine, with nothing but its place."""
        place = [[self.partition], [self.offset]]
        values = [[None], *place, *([[None]] * (len(schema) - len(place) - 1))]
        arrays = [pa.array(value, field.type) for value, field in zip(values, schema, strict=True)]
        arrays[0] = pa.array([self.rowtime], timestamp_type(MILLISECONDS)).cast(schema.field(0).type)
        reason = f"{reason_head(LABEL)}was not sent: {self.what}"
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        return BadRows(np.ones(1, bool), batch, pa.array([reason], pa.string()), Counter({LABEL: 1}))
