"""What can come of a record besides a row."""

from __future__ import annotations

from ksql_lake.base.errors import LakeError
from ksql_lake.sources.ksqldb.values import Unfit


class Skipped(Exception):
    """ksqlDB passes the record over: it is no row for anyone. The text says why, without the value."""


class Unsure(LakeError):
    """A value of which it is not known what ksqlDB makes; nothing is guessed."""


class Unreadable(Unfit):
    """A value on which ksqlDB's own answer breaks off, so that its REST API never shows the rows behind it."""
