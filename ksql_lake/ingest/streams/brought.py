"""The result of reading a stream or some of its partitions, as plain values that can travel between machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ksql_lake.base.errors import LakeError
from ksql_lake.ingest.streams.attempt import Attempt
from ksql_lake.ingest.streams.reading import StreamExport
from ksql_lake.model.anchor import Anchor
from ksql_lake.model.findings import Finding
from ksql_lake.model.recorded import RecordedColumn


@dataclass
class Brought:
    """All that a commit needs to know of a reading.

    Attributes:
        attempts: those that count, in order.
        recreated: the topic turned out to be another one, so another reading must follow.
        identity: of the topic, as `RowSource.identity`.
        unseen: rows that should tell whether it is the same topic did not come.
        anchors, heads: how far each partition is read, and its first row.
        positions: the offset that comes next in each partition, where the source knows.
        failure: why nothing was brought.
    """

    attempts: list[Attempt] = field(default_factory=list)
    recreated: bool = False
    identity: str | None = None
    unseen: bool = False
    anchors: dict[int, Anchor] = field(default_factory=dict)
    heads: dict[int, Anchor] = field(default_factory=dict)
    positions: Mapping[int, int] = field(default_factory=dict)
    columns: tuple[RecordedColumn, ...] = ()
    schema_version: str = ""
    findings: list[Finding] = field(default_factory=list)
    remarks: Sequence[Finding] = ()
    notes: list[str] = field(default_factory=list)
    retries: int = 0
    failure: LakeError | None = None

    @classmethod
    def of(cls, export: StreamExport, recreated: bool) -> Brought:
        last = export.attempts[-1] if export.attempts else None
        return cls(
            export.attempts, recreated, export.source.identity, bool(export.sieve.pending), export.anchors,
            dict(export.heads), last.positions if last else {}, export.state.columns, export.state.schema_version,
            [*(found for attempt in export.attempts for found in attempt.findings), *export.findings],
            last.remarks if last else (), export.notes, export.retries,
        )

    @property
    def rows(self) -> int:
        return sum(attempt.rows for attempt in self.attempts)

    @property
    def taken(self) -> int:
        """Rows, quarantined or not."""
        return self.rows + sum(attempt.aside.rows for attempt in self.attempts)


def merged(feed: str, parts: Sequence[Brought]) -> Brought:
    """The results of parts with different partitions of one topic, combined as if one reading had made them.

    A part that could not be read leaves its partitions to the next run. Each part has checked after its last row that
    the topic is still the same, so its result counts even where another part saw a new topic.

    Raises:
        LakeError: no part brought anything, and at least one could not be read.
    """
    failures = [part.failure for part in parts if part.failure is not None]
    read = [part for part in parts if part.failure is None]
    if failures and not any(part.taken or part.recreated for part in read):
        raise failures[0]
    found = [one for part in read for one in part.findings]
    found += [
        Finding("incomplete", f"{failure}; the other partitions are published, the next run reads these", feed=feed,
                partition=failure.partition, offset=failure.offset)
        for failure in failures
    ]
    return Brought(
        [attempt for part in read for attempt in part.attempts],
        any(part.recreated for part in read),
        read[0].identity,
        any(part.unseen for part in read),
        {p: anchor for part in read for p, anchor in part.anchors.items()},
        {p: head for part in read for p, head in part.heads.items()},
        {p: at for part in read for p, at in part.positions.items()},
        read[-1].columns, read[-1].schema_version,
        list(dict.fromkeys(found)),  # each part reports what concerns the whole topic
        tuple(dict.fromkeys(one for part in read for one in part.remarks)),
        list(dict.fromkeys(note for part in read for note in part.notes)),
        sum(part.retries for part in read),
    )
