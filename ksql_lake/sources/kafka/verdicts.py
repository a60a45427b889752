"""What a record can turn out to be besides a row."""

from __future__ import annotations

from ksql_lake.base.errors import LakeError
from ksql_lake.sources.ksqldb.values import Unfit


class Skipped(Exception):
    """ksqlDB skips the record: it is not a row. The text says why, without the value."""


class Unsure(LakeError):
    """It is not known how ksqlDB decodes this value, and nothing is guessed."""


class Unreadable(Unfit):
    """A value at which ksqlDB's own answer breaks off, so that its REST API never shows the rows after it."""
