"""The receipt of an erasure: what was asked and by whom, what was done where, and what could not be searched."""

from __future__ import annotations

import json
import secrets
from pathlib import PurePath
from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.maintain.erased import hashed, is_same
from ksql_lake.model.target import Target
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of
from ksql_lake.store.storage import CLOSED, RESTRICTED


def begin(lake: PurePath, target: Target, receipt: str, *, rule: str, now: str, by: str) -> dict[str, Any]:
    """A receipt of what was begun; an unfinished one of the same value and column is continued.

    Call with the lock of erasures held.

    Raises:
        StateError: a receipt cannot be read.
    """
    storage, receipts = storage_of(lake), layout.receipts(lake)
    for temporary in storage.list(receipts, ".*.inprogress"):
        storage.delete(temporary)  # of a call that was killed: with the lock held nobody else writes
    for path in storage.list(receipts, "*.json"):
        try:
            known: dict[str, Any] = json.loads(storage.read(path))
            goes_on = is_same(known, target) and not known["ended"] and known["later"] == rule
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"{path}: not readable as a receipt ({error}); move it away") from None
        if goes_on:
            return known
    begun: dict[str, Any] = {
        "receipt": receipt, "begun": now, "ended": None, "by": by, "column": target.column,
        **hashed(secrets.token_hex(16), target.value), "later": rule, "feeds": [], "rows": 0, "rows_left": None,
    }
    write(lake, begun)
    return begun


def concern(lake: PurePath, feed: str) -> bool:
    """Whether an erasure took rows out of a feed; also when a receipt cannot be read."""
    storage = storage_of(lake)
    for path in storage.list(layout.receipts(lake), "*.json"):
        try:
            if any(line["feed"] == feed and line["rows"] for line in json.loads(storage.read(path))["feeds"]):
                return True
        except (ValueError, KeyError, TypeError, AttributeError):
            return True
    return False


def write(lake: PurePath, receipt: dict[str, Any]) -> PurePath:
    """Write a receipt, readable by the owner and the group only."""
    path, storage = layout.receipt(lake, receipt["receipt"]), storage_of(lake)
    storage.make(path.parent, CLOSED)
    storage.put(path, (json.dumps(receipt, indent=2, ensure_ascii=False) + "\n").encode(), RESTRICTED)
    return path
