"""The receipt of an erasure: what was asked and by whom, what was done where, and what could not be looked at."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import StateError
from ksql_lake.base.files import atomic_write, make_dirs
from ksql_lake.maintain.erased import hashed, is_same
from ksql_lake.model.target import Target

RECEIPTS = "logs/erasures"


def lock(lake: Path) -> Path:
    """Hold the lock of erasures: only one runs at a time."""
    return lake / ".state" / "erase.erasure"


def begin(lake: Path, target: Target, receipt: str, *, rule: str, now: str, by: str) -> dict[str, Any]:
    """A receipt of what was begun; an unfinished one of the same value and column is continued.

    Call with `lock` held.

    Raises:
        StateError: a receipt cannot be read.
    """
    for temporary in (lake / RECEIPTS).glob(".*.inprogress"):
        os.unlink(temporary)  # of a call that was killed: with the lock held nobody else writes
    for path in sorted((lake / RECEIPTS).glob("*.json")):
        try:
            known: dict[str, Any] = json.loads(path.read_bytes())
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


def concern(lake: Path, feed: str) -> bool:
    """Whether an erasure took rows out of a feed; also when a receipt cannot be read."""
    for path in (lake / RECEIPTS).glob("*.json"):
        try:
            if any(line["feed"] == feed and line["rows"] for line in json.loads(path.read_bytes())["feeds"]):
                return True
        except (ValueError, KeyError, TypeError, AttributeError):
            return True
    return False


def write(lake: Path, receipt: dict[str, Any]) -> Path:
    """Write a receipt, readable by the owner and the group only."""
    path = lake / RECEIPTS / f"{receipt['receipt']}.json"
    make_dirs(path.parent, 0o750)
    atomic_write(path, (json.dumps(receipt, indent=2, ensure_ascii=False) + "\n").encode(), 0o640)
    return path
