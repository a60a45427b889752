"""All errors that an operator can fix, and the exit codes.

    LakeError
    ├── ConfigError            settings, command line             exit 2
    ├── FeedError              one feed file is wrong              that feed fails, exit 1
    ├── SchemaError            a column cannot be stored           that feed fails, exit 1
    ├── SourceError            the source contradicts what we know that feed fails, exit 1
    ├── QualityError           a check of level `fail` failed      that feed fails, exit 1
    ├── StateError             metadata or journal unusable        that feed fails, exit 1
    │   └── LinkError          a link leads out of the lake        that feed fails, exit 1
    ├── CatalogError           a catalog of tables refused         that table is left, exit 1
    ├── RemoteError            a bucket refused or is away         the remote lags behind, exit 1
    ├── LakeBusyError          another run holds the lock          exit 3
    ├── BrokerError            Kafka refused                       that feed fails, exit 1
    │   └── BrokerUnavailable  worth another try: not reachable, no leader
    └── KsqlError              the server refused                  that feed fails, exit 1
        ├── KsqlUnavailable    worth another try: down, 429, 503
        ├── AnswerCut          the answer ended before its end
        └── RowNotSent         a row that the server cannot send

Anything else that is raised is a bug: full traceback in the log, one line on the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Self

from ksql_lake.base.text import shown_lines


class ExitCode(IntEnum):
    """Exit codes of the four scripts."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    LOCKED = 3
    INTERRUPTED = 130


class LakeError(Exception):
    """A failure the operator can fix; the message is one line and says how.

    Attributes:
        partition, offset: of the row it concerns, where it concerns one; see `at`.
    """

    exit_code = ExitCode.FINDINGS
    partition: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        return shown_lines(super().__str__())  # a message may repeat text from a server

    def at(self, partition: int | None, offset: int | None) -> Self:
        """The same error, which now names a row of a Kafka topic."""
        self.partition, self.offset = partition, offset
        return self


class ConfigError(LakeError):
    """A setting or an argument is wrong; nothing was attempted."""

    exit_code = ExitCode.USAGE


class FeedError(LakeError):
    """A feed file is missing, unreadable or wrong."""


class SchemaError(LakeError):
    """A column cannot be stored exactly, or changed in a way that plain readers cannot follow."""


class SourceError(LakeError):
    """The source does not match what the lake knows about it."""


class QualityError(LakeError):
    """A check of level `fail` failed and nothing was published; one line for each, and all results of the run."""

    def __init__(self, message: str, results: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.results = tuple(results)


class StateError(LakeError):
    """Metadata, journal or state log cannot be used as they are."""


class LinkError(StateError):
    """A link, a FIFO or a device is in the place of a directory or file of the lake; nothing was changed."""


class CatalogError(LakeError):
    """A catalog refused what was sent, or has a table that this tool must not change."""


class RemoteError(LakeError):
    """The lake's remote did not do what was asked; the files on the disk are unchanged."""


class LakeBusyError(LakeError):
    """Another process holds the lock of a feed."""

    exit_code = ExitCode.LOCKED


class BrokerError(LakeError):
    """Kafka refused to show a topic."""


class BrokerUnavailable(BrokerError):
    """The same request may succeed later: a broker that is not reachable, or a partition without a leader."""


class KsqlError(LakeError):
    """ksqlDB refused a statement; keeps the server's own words.

    Args:
        message: one line for a person.
        statement: the SQL sent, or "".
        status: HTTP status, or 0 when there was none (an error row, no connection).
        code: ksqlDB's `error_code` , or 0.
    """

    def __init__(self, message: str, *, statement: str = "", status: int = 0, code: int = 0) -> None:
        super().__init__(message)
        self.statement = statement
        self.status = status
        self.code = code


class KsqlUnavailable(KsqlError):
    """The same request may succeed later: not reachable, starting, rate limited."""


class RowNotSent(KsqlUnavailable):
    """A row that the server cannot send, in no query; `partition` and `offset` say which.

    Attributes:
        rowtime: its ROWTIME, epoch ms.
        last: the offset of the last row of its partition that was sent, -1 for none.
    """

    rowtime: int = 0
    last: int = -1


class AnswerCut(KsqlUnavailable):
    """The connection ended before the answer did; rows that were received are complete."""


MAY_PASS = (KsqlUnavailable, BrokerUnavailable)  # failures of a source that may be gone at the next attempt
