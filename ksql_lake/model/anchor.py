"""What is known about the Kafka partitions of a stream: the last rows read, and which offsets are exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Anchor:
    """The last row read of one partition: offset, ROWTIME in epoch ms, and a salted hash over the named columns.

    `salt`: one for each feed, so that a precomputed table of hashes reveals no values; "" in a lake of an earlier
    version, until the row is seen again.
    `missing`: "silent" or "expired" where the row did not come again, so that later runs do not wait for it; else "".
    """

    offset: int
    rowtime: int
    hash: str
    columns: tuple[str, ...]
    missing: str = ""
    salt: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Anchor:
        missing, salt = str(value.get("missing", "")), value.get("salt", "")
        return cls(value["offset"], value["rowtime"], value["hash"], tuple(value["columns"]), missing, salt)

    def to_json(self) -> Json:
        made = {"offset": self.offset, "rowtime": self.rowtime, "hash": self.hash, "columns": list(self.columns)}
        return made | ({"missing": self.missing} if self.missing else {}) | ({"salt": self.salt} if self.salt else {})


def anchors_from(value: Mapping[str, Any]) -> dict[int, Anchor]:
    """Kafka partition -> anchor, from JSON whose keys are text."""
    return {int(partition): Anchor.from_json(anchor) for partition, anchor in value.items()}


def anchors_json(anchors: Mapping[int, Anchor]) -> Json:
    return {str(partition): anchors[partition].to_json() for partition in sorted(anchors)}


@dataclass(frozen=True)
class TopicMark:
    """Where a stream's Kafka topic was left, for runs that read the topic itself.

    Attributes:
        generation: the generation that it is valid for.
        id: of the topic; None where the broker does not send it.
        next: Kafka partition -> the offset to read from, which may be past records that are not rows.
        proof: a hash of what decides how records are read, once that was compared with real rows.
        exact: whether values are stored as the topic has them, where ksqlDB's REST API would lose something.
    """

    generation: int
    id: str | None = None
    next: Mapping[int, int] = field(default_factory=dict)
    proof: str | None = None
    exact: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TopicMark:
        offsets = {int(partition): int(offset) for partition, offset in value.get("next", {}).items()}
        return cls(value["generation"], value.get("id"), offsets, value.get("proof"), bool(value.get("exact", False)))

    def to_json(self) -> Json:
        offsets = {str(partition): self.next[partition] for partition in sorted(self.next)}
        made: Json = {"generation": self.generation, "id": self.id, "next": offsets, "proof": self.proof}
        return {**made, "exact": True} if self.exact else made


@dataclass(frozen=True)
class Covered:
    """What is exported of one Kafka partition: offsets 0 to `upto`, and beyond that ranges and days.

    Attributes:
        beyond: ranges of offsets, both ends included; older versions wrote one for each run of rows of a day.
        days: (day as ISO text, offset): all rows of that day up to the offset are exported, both included.
    """

    upto: int = -1
    beyond: tuple[tuple[int, int], ...] = ()
    days: tuple[tuple[str, int], ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Covered:
        beyond = tuple((low, high) for low, high in value["beyond"])
        return cls(value["upto"], beyond, tuple(sorted(value.get("days", {}).items())))

    def to_json(self) -> Json:
        made: Json = {"upto": self.upto, "beyond": [list(span) for span in self.beyond]}
        return made | ({"days": dict(self.days)} if self.days else {})

    def with_days(self, days: Mapping[str, int]) -> Covered:
        """With days that are exported up to an offset."""
        known = dict(self.days)
        for day, offset in days.items():
            known[day] = max(offset, known.get(day, -1))
        return Covered(self.upto, self.beyond, tuple(sorted((d, at) for d, at in known.items() if at > self.upto)))

    def with_upto(self, offset: int, beyond: tuple[tuple[int, int], ...]) -> Covered:
        """With all offsets up to one, and ranges beyond it."""
        return Covered(offset, beyond, tuple((day, at) for day, at in self.days if at > offset))


NotSent = dict[int, dict[int, tuple[int, ...]]]  # generation -> Kafka partition -> offsets
Coverage = dict[int, dict[int, Covered]]  # generation -> Kafka partition -> what is exported


def _coverage_from(value: Mapping[str, Any]) -> Coverage:
    return {int(g): {int(p): Covered.from_json(c) for p, c in parts.items()} for g, parts in value.items()}


def _not_sent_from(value: Mapping[str, Any]) -> NotSent:
    return {int(g): {int(p): tuple(offsets) for p, offsets in parts.items()} for g, parts in value.items()}


def _not_sent_json(value: NotSent) -> Json:
    return {str(g): {str(p): list(parts[p]) for p in sorted(parts)} for g, parts in sorted(value.items()) if parts}


def _coverage_json(coverage: Coverage) -> Json:
    return {
        str(g): {str(p): parts[p].to_json() for p in sorted(parts)} for g, parts in sorted(coverage.items())
    }
