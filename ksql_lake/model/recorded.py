"""A column as the metadata record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

MILLISECONDS, MICROSECONDS = UNITS = ("ms", "us")  # what a feed's timestamps may count; ksqlDB counts milliseconds


@dataclass(frozen=True)
class RecordedColumn:
    """A column as it is recorded: its name at the source and on disk, types, and the schema version it came with."""

    name: str
    disk_name: str
    ksql_type: str
    arrow_type: str
    key: bool
    since: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RecordedColumn:
        return cls(*(value[key] for key in ("name", "disk_name", "ksql_type", "arrow_type", "key", "since")))

    def to_json(self) -> Json:
        return dict(vars(self))
