"""Values whose later rows are dropped: the rules that erasures leave behind, and the rows that they match.

A rule keeps a salted hash of the value as it was typed, and of everything it can mean in a column of another type
(`equal`). Rules of older versions have only the first; they match the spellings that such a value can have.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksql_lake.model.recorded import RecordedColumn
from ksql_lake.model.state import FeedState
from ksql_lake.model.target import Mask, Target, as_mask
from ksql_lake.model.values import canonical, spellings
from ksql_lake.store import layout
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.layout import storage_of
from ksql_lake.store.storage import RESTRICTED


@dataclass
class Hashes:
    """What is known of the erased values of one column under one salt.

    Attributes:
        typed: hashes of the values as they were typed.
        equal: hashes of the canonical texts of all they may mean, but for STRING.
        old: of `typed`, those of rules that have no `equal`.
    """

    typed: set[str] = field(default_factory=set)
    equal: set[str] = field(default_factory=set)
    old: set[str] = field(default_factory=set)

    def add(self, rule: Mapping[str, Any]) -> None:
        self.typed.add(rule["hash"])
        self.equal.update(rule.get("equal", ()))
        if "equal" not in rule:
            self.old.add(rule["hash"])


@dataclass
class Rules:
    """The rules of one feed, by (column, salt); `names`: name on disk -> the source's name."""

    known: dict[tuple[str, str], Hashes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, rule: Mapping[str, Any]) -> None:
        self.known.setdefault((rule["column"], rule["salt"]), Hashes()).add(rule)

    def without(self, others: Rules) -> Rules:
        """The rules that are not among others."""
        mine = {}
        for key, hashes in self.known.items():
            known = others.known.get(key, Hashes())
            left = Hashes(hashes.typed - known.typed, hashes.equal - known.equal, hashes.old - known.old)
            if left.typed or left.equal:
                mine[key] = left
        return Rules(mine, self.names)

    def columns(self, schema: pa.Schema) -> list[str]:
        """The top-level columns of a file that must be read to find the rows."""
        wanted = {name for column, _ in self.known for name in Target(column, "", self.names).columns(schema)}
        return [name for name in schema.names if name in wanted]

    def rows_of(self, table: pa.RecordBatch) -> Mask:
        """Which rows hold an erased value."""
        mask = np.zeros(table.num_rows, bool)
        for (column, salt), hashes in self.known.items():
            mask |= Target(column, "", self.names).rows_where(table, partial(_recognised, salt, hashes))
        return mask


def salted(salt: str, value: str) -> str:
    """What is kept of a value: enough to recognise it, not enough to read it."""
    return hashlib.sha256(f"{salt}:{value}".encode("utf-8", "surrogatepass")).hexdigest()


def hashed(salt: str, value: str) -> dict[str, Any]:
    """The hashes by which a rule or a receipt recognises a value and its equals."""
    return {"salt": salt, "hash": salted(salt, value), "equal": [salted(salt, one) for one in spellings(value)]}


def is_same(rule: Mapping[str, Any], target: Target) -> bool:
    """Whether a rule or a receipt has the same column, in any case, and the same text."""
    same = rule["column"].upper() == target.column.upper()
    return same and bool(rule["hash"] == salted(rule["salt"], target.value))


def remember(lake: PurePath, target: Target, feeds: Sequence[str]) -> None:
    """Record that this person's later rows must be dropped: in all feeds, including those not exported yet.

    Args:
        feeds: only in these; empty for all.
    """
    known = _remembered(lake)
    if any("equal" in r and is_same(r, target) and (not r["feeds"] or set(feeds) and set(feeds) <= set(r["feeds"]))
           for r in known):
        return
    salt = known[0]["salt"] if known else secrets.token_hex(16)  # one for all: a value is hashed once
    rule = {"column": target.column, **hashed(salt, target.value), "feeds": sorted(feeds)}
    path, storage = layout.erasure_rules(lake), storage_of(lake)
    storage.make(path.parent)
    storage.append(path, json.dumps(rule, ensure_ascii=False).encode(), RESTRICTED)


def _remembered(lake: PurePath) -> list[dict[str, Any]]:
    found, storage = [], storage_of(lake)
    for path in (layout.old_erasure_rules(lake), layout.erasure_rules(lake)):
        for line in storage.read(path).splitlines() if storage.stat(path) else ():
            try:
                rule = json.loads(line)
            except ValueError:
                continue  # torn by a crash; its erasure was not finished and is begun again
            if isinstance(rule, dict) and {"column", "salt", "hash", "feeds"} <= rule.keys():
                found.append(rule)
    return found


def lasting(dataset: Dataset, state: FeedState) -> Rules:
    """What a feed drops: by its own rules and those of the whole lake."""
    rules = Rules()
    for rule in _remembered(dataset.lake):
        if not rule["feeds"] or dataset.feed in rule["feeds"]:
            rules.add(rule)
    for erasure in state.erasures:
        if erasure.later == "drop":
            rules.add(erasure.to_json())
    return rules


def later(rules: Rules, table: pa.RecordBatch, columns: Sequence[RecordedColumn]) -> Mask | None:
    """Rows of persons erased before whose later events are to be dropped; None when there is no such rule.

    Args:
        columns: the feed's recorded columns, for their names in the source.
    """
    if not rules.known:
        return None
    rules.names = {column.disk_name: column.name for column in columns}
    return rules.rows_of(table)


def _recognised(salt: str, hashes: Hashes, leaf: pa.Array) -> Mask:
    """Which values of a column are erased ones."""
    if pa.types.is_string(leaf.type):
        chosen = [v for v in leaf.drop_null().unique().to_pylist() if salted(salt, v) in hashes.typed]
        return as_mask(pc.is_in(leaf, value_set=pa.array(chosen, leaf.type)))
    known = [
        value for value, text in canonical(leaf)
        if salted(salt, text) in hashes.equal
        or (hashes.old and any(salted(salt, one) in hashes.old for one in _old_spellings(value)))
    ]
    return as_mask(pc.is_in(leaf, value_set=pa.array(known, leaf.type)))


def _old_spellings(scalar: pa.Scalar) -> set[str]:
    """How a value may have been typed for a rule that kept one spelling only."""
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError):
        return set()  # a time beyond Python's years, which older versions could not read
    found = {str(value)}
    if isinstance(value, bool):
        found |= {str(value).lower(), str(value).upper()}
    elif isinstance(value, bytes):
        found |= {base64.b64encode(value).decode(), value.decode("utf-8", "replace")}
    elif isinstance(value, int | float | Decimal):
        plain = f"{Decimal(str(value)):f}"
        found |= {plain, plain.rstrip("0").rstrip(".") if "." in plain else f"{plain}.0"}
    elif isinstance(value, dt.datetime | dt.time):
        iso = value.replace(tzinfo=None).isoformat()
        found |= {iso, f"{iso}Z", iso.replace("T", " "), value.isoformat()}
        found |= {iso.removesuffix(":00"), iso.removesuffix("T00:00:00")}
    return found
