"""A finding: one thing that a person should know about a feed, with its kind, and the partition and offset it concerns.

To add a kind, add a line to `KINDS`; everything else (report, page, metrics, history) takes it from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ksql_lake.base.text import shown

LEVELS = ("error", "warning", "note")
# The worst kind first, each with its level where a finding does not name another.
KINDS = {
    "failed": "error",  # the last run failed
    "missed": "error",  # runs that came regularly no longer do
    "metadata": "error",  # _metadata.json cannot be used
    "feed file": "error",  # the feed file cannot be used
    "gap": "error",  # rows expired before they were exported; as a warning: days without any row
    "drift": "error",  # the source and the lake differ, or the topic was recreated
    "quality": "error",  # checks of the data that failed
    "stale": "error",  # the newest data is older than freshness_hours
    "files": "error",  # files that are in no metadata
    "damaged": "error",  # files that are missing, torn or altered
    "stopped": "warning",  # the last run was interrupted; as an error: it was killed
    "run": "warning",  # anything else the last run reported
    "incomplete": "warning",  # rows that are still at the source; the next run reads them
    "access": "warning",  # file modes that differ from what the feed's access asks for
    "link": "warning",  # a symbolic link that is in the way
    "clock": "warning",  # events in the future, or a clock that is wrong
    "remote": "warning",  # files that are not in the lake's remote yet
    "busy": "warning",  # the last run found the feed locked by another run
    "quarantine": "note",  # rows in quarantine that nobody has dealt with
    "retention": "note",  # data that is due to be removed; as a warning: removing it was refused
    "small files": "note",  # past days in more files than they need
    "schema": "note",  # columns added lately
}


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Args:
        kind: a key of `KINDS`.
        message: a sentence without the feed's name; a leading feed name is removed.
        level: error, warning or note; by default that of the kind.
        feed: the feed it concerns.
        partition: the Kafka partition it concerns, where it concerns one.
        offset: the offset of the row it concerns, where it concerns one.
    """

    kind: str
    message: str
    level: str = ""
    feed: str = ""
    partition: int | None = None
    offset: int | None = None

    def __post_init__(self) -> None:
        if not self.level:
            object.__setattr__(self, "level", KINDS[self.kind])
        object.__setattr__(self, "message", shown(_without(self.feed, self.message)))

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts the worst first."""
        return LEVELS.index(self.level), list(KINDS).index(self.kind)

    @property
    def line(self) -> str:
        """The finding as a person reads it: the feed, the place, the message."""
        return f"{self.feed}: {self.said}" if self.feed else self.said

    @property
    def said(self) -> str:
        """The place and the message."""
        return self._place() + self.message

    def _place(self) -> str:
        """Partition and offset, where the message does not name them itself."""
        words = (("partition", self.partition), ("offset", self.offset))
        missing = [f"{word} {number}" for word, number in words
                   if number is not None and f"{word} {number}" not in self.message]
        return f"{', '.join(missing)}: " if missing else ""

    def as_json(self) -> dict[str, Any]:
        """The form in the run history and in metadata; what is not known is left out."""
        place = {"partition": self.partition, "offset": self.offset}
        known = {name: number for name, number in place.items() if number is not None}
        return {"kind": self.kind, "level": self.level, **known, "message": self.message}


def findings_of(
    feed: str, kind: str, text: str, partition: int | None = None, offset: int | None = None
) -> list[Finding]:
    """A finding for each line of a text, such as an error's."""
    return [Finding(kind, line, feed=feed, partition=partition, offset=offset) for line in text.splitlines()]


def read_findings(feed: str, entries: Any, kind: str = "run") -> Iterator[Finding]:
    """Findings from the run history or metadata; entries of an unknown form are skipped.

    Args:
        entries: objects as `Finding.as_json` makes them; older versions wrote texts, or objects with only a message.
        kind: that of an entry which does not name one known here.
    """
    for entry in entries if isinstance(entries, list | tuple) else ():
        given = entry if isinstance(entry, Mapping) else {"message": entry}
        message = given.get("message")
        if not isinstance(message, str):
            continue
        own, level = given.get("kind"), given.get("level")
        for line in message.splitlines():
            yield Finding(
                own if isinstance(own, str) and own in KINDS else kind, line,
                level if level in LEVELS else "", feed, _number(given.get("partition")), _number(given.get("offset")),
            )


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _without(feed: str, message: str) -> str:
    """The message without the feed's or the source's name in front, which differ in case only."""
    head, colon, rest = message.partition(": ")
    return _without(feed, rest) if feed and colon and head.casefold() == feed.casefold() else message
