"""What one export of a stream is asked to do."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from ksql_lake.ingest.progress import SILENT, Progress
from ksql_lake.model.checks import Check
from ksql_lake.model.partitions import day_bounds
from ksql_lake.model.types import PSEUDO
from ksql_lake.sources.kafka.connection import Connection
from ksql_lake.sources.ksqldb.long_push import LongPush
from ksql_lake.sources.pace import Limits
from ksql_lake.store import metadata
from ksql_lake.store.writer import WriterOptions

RESERVED = (*PSEUDO, "year", "month", "day")


@dataclass(frozen=True)
class Part:
    """That the job reads some partitions only, beside others; what all of these have in common.

    Attributes:
        name: of its directory in staging, and in the names of its files.
        salt: of the hashes of new anchors.
        seed: of the hashes that find repeated values.
    """

    name: str
    salt: str
    seed: int


@dataclass(frozen=True)
class StreamJob:
    """What to export and how; all values come from the feed file and the command line.

    `since`: a stream's first export skips events of earlier days, for good; later exports ignore it.
    """

    dataset: metadata.Dataset
    source: str
    run: str
    limits: Limits = Limits()
    writer: WriterOptions = WriterOptions()
    timezone: str = "UTC"
    timestamp_column: str | None = None
    days: tuple[dt.date, ...] = ()
    source_retention_days: int = 7
    batch_size: int = 10_000
    progress: Progress = SILENT
    forbidden_columns: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    usual_rows: tuple[int, ...] = ()
    on_bad_value: str = "fail"
    kafka: Connection | None = None
    read_from: str = "auto"
    exact_values: bool = False
    push: LongPush | None = None
    since: dt.date | None = None
    part: Part | None = None

    @property
    def origin(self) -> str:
        """Where the rows of this run come from, as files and footers name it."""
        return "date:" + ",".join(map(str, self.days)) if self.days else "export"

    @property
    def window(self) -> tuple[int, int] | None:
        """One span of ROWTIME, epoch ms, that covers all days asked for; None where another column decides the day."""
        if not self.days or self.timestamp_column:
            return None
        bounds = [day_bounds(day, self.timezone) for day in self.days]
        return min(start for start, _ in bounds), max(end for _, end in bounds)
