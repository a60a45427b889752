"""What each Parquet file says about itself, so that lost metadata can be restored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ksql_lake.model.anchor import Anchor, anchors_from, anchors_json
from ksql_lake.model.recorded import MILLISECONDS, RecordedColumn
from ksql_lake.model.state import FeedState

Json = dict[str, Any]


FOOTER = "ksql_lake"  # the key of a footer among the key-value metadata of a Parquet file
RESUME = "ksql_lake.resume"
TAKEN = "ksql_lake.taken"


@dataclass(frozen=True)
class Footer:
    """What each Parquet file says about itself in its key-value metadata, so that lost metadata can be restored.

    Attributes:
        sequence: the number of the change that published the file.
        generation, timezone, timestamp_column: of a stream.
        version: of a table, such as "v3".
        resume: Kafka partition -> the last row that the run had read when this file was closed; None when not said.
        reading: the name of the reading of the source that brought the rows; a run may need several.
        taken: Kafka partition (None for a table) -> rows that the reading put into files, quarantine included; None
            when not said. As `resume`, it is in the files that were closed last.
        merged: of a merged file: reading -> Kafka partition -> rows, of the files it was made of.
        days: of a merged file: Kafka partition -> how far its day was covered beyond the resume point.
        timestamps: the feed's unit of time.
    """

    tool: str
    feed: str
    source: str
    created_at: str
    run: str
    origin: str
    sequence: int
    schema_version: str
    columns: tuple[RecordedColumn, ...]
    generation: int | None = None
    timezone: str | None = None
    timestamp_column: str | None = None
    version: str | None = None
    resume: Mapping[int, Anchor] | None = None
    reading: str | None = None
    taken: Mapping[int | None, int] | None = None
    merged: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    days: Mapping[int, int] = field(default_factory=dict)
    timestamps: str = MILLISECONDS

    @classmethod
    def of(
        cls, state: FeedState, feed: str, *, tool: str, run: str, origin: str, generation: int | None = None,
        version: str | None = None, reading: str | None = None,
    ) -> Footer:
        """The footer of files that the next change of a feed publishes."""
        table = state.is_table
        return cls(
            tool, feed, state.source, state.created_at, run, origin, state.sequence + 1, state.schema_version,
            state.columns, None if table else generation or state.generation, None if table else state.timezone,
            None if table else state.timestamp_column, version, reading=reading,
            timestamps=state.timestamps,
        )

    def pairs(self) -> dict[str, str]:
        """As key-value metadata of a Parquet file."""
        made: Json = {
            "tool": self.tool, "feed": self.feed, "source": self.source, "created_at": self.created_at,
            "run": self.run, "origin": self.origin, "sequence": self.sequence, "schema_version": self.schema_version,
            "columns": [column.to_json() for column in self.columns],
        }
        if self.generation is not None:
            made |= {
                "generation": self.generation, "timezone": self.timezone, "timestamp_column": self.timestamp_column
            }
        if self.version is not None:
            made["version"] = self.version
        if self.reading is not None:
            made["reading"] = self.reading
        if self.merged:
            made["merged"] = {reading: _counts_json(counts) for reading, counts in self.merged.items()}
        if self.days:
            made["days"] = _counts_json(self.days)
        if self.timestamps != MILLISECONDS:
            made["timestamps"] = self.timestamps
        return {FOOTER: json.dumps(made, ensure_ascii=False), **(resume_pair(self.resume) if self.resume else {})}

    @classmethod
    def read(cls, pairs: Mapping[bytes, bytes]) -> Footer | None:
        """The footer among a file's key-value metadata; None when another tool wrote the file.

        Raises:
            KeyError, TypeError, ValueError: the footer is not valid.
        """
        text = pairs.get(FOOTER.encode())
        if text is None:
            return None
        value = json.loads(text)
        resume, taken = pairs.get(RESUME.encode()), pairs.get(TAKEN.encode())
        return cls(
            value.get("tool", ""), value["feed"], value["source"], value["created_at"], value["run"],
            value.get("origin", "export"), value["sequence"], value["schema_version"],
            tuple(map(RecordedColumn.from_json, value["columns"])), value.get("generation"), value.get("timezone"),
            value.get("timestamp_column"), value.get("version"),
            None if resume is None else anchors_from(json.loads(resume)), value.get("reading"),
            None if taken is None else {int(p) if p else None: rows for p, rows in json.loads(taken).items()},
            {reading: {int(p): n for p, n in counts.items()} for reading, counts in value.get("merged", {}).items()},
            {int(p): offset for p, offset in value.get("days", {}).items()},
            value.get("timestamps", MILLISECONDS),
        )


def _counts_json(counts: Mapping[Any, int]) -> Json:
    return {"" if partition is None else str(partition): rows for partition, rows in counts.items()}


def taken_pair(counts: Mapping[Any, int]) -> dict[str, str]:
    """How many rows a reading put into files, as another pair of a footer: a rebuild notices missing files by it."""
    return {TAKEN: json.dumps(_counts_json(counts))}


def resume_pair(anchors: Mapping[int, Anchor]) -> dict[str, str]:
    """The resume points as another pair of a footer: they are known only when a run's last files are closed."""
    return {RESUME: json.dumps(anchors_json(anchors))}
