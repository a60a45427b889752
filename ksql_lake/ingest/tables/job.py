"""What to export of a table, and how."""

from __future__ import annotations

from dataclasses import dataclass

from ksql_lake.ingest.progress import SILENT, Progress
from ksql_lake.model.checks import Check
from ksql_lake.sources.pace import Limits
from ksql_lake.store import metadata
from ksql_lake.store.writer import WriterOptions

RESERVED = ("version",)


@dataclass(frozen=True)
class TableJob:
    """What to export and how; `max_shrink` is the share of the last version's rows that a new one may lack."""

    dataset: metadata.Dataset
    source: str
    run: str
    limits: Limits = Limits()
    writer: WriterOptions = WriterOptions()
    max_shrink: float = 0.5
    allow_shrink: bool = False
    batch_size: int = 10_000
    progress: Progress = SILENT
    forbidden_columns: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    usual_rows: tuple[int, ...] = ()
    on_bad_value: str = "fail"
