"""Runs the checks of a feed on its batches before anything is published: counts, bad rows, and a verdict at the end.

A null passes every check but `not_null`. All checks see all new rows, quarantined or not. Messages contain counts, the
feed's own settings and, of the rows, only the newest time: they end up in metadata and logs, which an erasure does not
rewrite.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ksql_lake.base.arrays import milliseconds, numbers, texts
from ksql_lake.base.errors import QualityError
from ksql_lake.base.figures import counted
from ksql_lake.model.checks import Check, Result
from ksql_lake.model.entries import AHEAD
from ksql_lake.model.findings import Finding
from ksql_lake.model.recorded import MILLISECONDS
from ksql_lake.model.types import Column, arrow_schema, pseudo_fields
from ksql_lake.quality.keys import Hashes, KeyHashes, repeats
from ksql_lake.quality.rules import Rule, bind

ENOUGH = 3  # runs of the same weekday that a median needs
DAY_MS = 86_400_000
DAYS_KEPT = 10_000  # of which the newest time is known
REASON_LENGTH = 100  # characters of a bad value that its reason repeats
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class BadRows:
    """Rows of one batch that go into quarantine: which ones, why, and how many for each check."""

    mask: np.ndarray
    rows: pa.RecordBatch
    reasons: pa.Array
    counts: Counter[str]


@dataclass(frozen=True)
class Occasion:
    """What a verdict needs besides the rows of the run.

    Attributes:
        now: with a time zone.
        usual: rows of the earlier runs of this weekday.
        newest: ROWTIME in epoch ms of the newest row the lake has, if any.
        part: why this run is not complete, so that neither its row count nor its age can be judged; else "".
    """

    now: dt.datetime
    usual: Sequence[int] = ()
    newest: int | None = None
    part: str = ""


def fits(feed: str, checks: Sequence[Check], columns: Sequence[Column], kind: str) -> None:
    """Whether the checks can judge what a source has now.

    Raises:
        SchemaError: a check names a column that is not there, or cannot judge its type.
    """
    schema = arrow_schema(columns)
    pseudo = pseudo_fields(MILLISECONDS) if kind == "stream" else []
    Checker(feed, checks, pa.schema([*pseudo, *schema]), {})


class Checker:
    """What the checks found in the rows of one query.

    Args:
        feed: for messages.
        schema: of the batches, under the names on disk.
        names: the source's name of each column -> its name on disk.
        before: the checker of an earlier query of the same run, so that a value seen there counts as a duplicate here.
        seed: the same for checkers that look at parts of one run, for the same reason.

    Raises:
        SchemaError: a check names a column that is not there, or cannot judge its type.
    """

    def __init__(
        self, feed: str, checks: Sequence[Check], schema: pa.Schema, names: Mapping[str, str],
        before: Checker | None = None, seed: int | None = None,
    ) -> None:
        self.rules = [bind(feed, check, schema, names) for check in checks]
        self.checks = [rule.check for rule in self.rules]
        self.rows = 0
        self.failed = [0] * len(self.rules)
        self.newest: list[dict[int, int]] = [{} for _ in self.rules]
        self.hashes: list[list[Hashes]] = [[] for _ in self.rules]
        self._keys: list[KeyHashes] = (
            before._keys if before else [KeyHashes(range(len(rule.paths)), seed) for rule in self.rules]
        )

    def __getstate__(self) -> dict[str, Any]:
        """What it found, which is all that a verdict needs; the rules themselves do not travel."""
        return {**vars(self), "rules": [], "_keys": []}

    def inspect(self, batch: pa.RecordBatch) -> BadRows | None:
        """Count what fails in rows that would be published, and return those that go into quarantine instead."""
        if not self.rules:
            return None
        self.rows += len(batch)
        bad = []
        for i, rule in enumerate(self.rules):
            columns = rule.columns(batch)
            if rule.test:
                failing = rule.test(columns[0])
                count = failing.true_count
                self.failed[i] += count
                if count and rule.check.level == "quarantine":
                    bad.append((rule, columns[0], failing))
            elif rule.check.check == "unique":
                self.hashes[i].append(self._keys[i].of(_without_nulls(columns)))
            elif rule.check.check == "freshness":
                _note_newest(self.newest[i], columns[0])
        return _bad_rows(batch, bad) if bad else None


def _bad_rows(batch: pa.RecordBatch, bad: Sequence[tuple[Rule, pa.Array, pa.BooleanArray]]) -> BadRows:
    mask = bad[0][2]
    for _, _, failing in bad[1:]:
        mask = pc.or_(mask, failing)
    texts = [_reason(rule, column.filter(mask), failing.filter(mask)) for rule, column, failing in bad]
    reasons = pc.binary_join_element_wise(*texts, "; ", null_handling="skip") if len(texts) > 1 else texts[0]
    counts = Counter({rule.check.label: failing.true_count for rule, _, failing in bad})
    return BadRows(np.asarray(mask), batch.filter(mask), reasons, counts)


def _reason(rule: Rule, column: pa.Array, failing: pa.BooleanArray) -> pa.Array:
    """`range: AMOUNT is -3 (min 0)` where it fails, else null."""
    head = reason_head(rule.check.label)
    if rule.check.check == "not_null":
        return pc.if_else(failing, f"{head}is null", pa.scalar(None, pa.string()))
    value = pc.utf8_slice_codeunits(texts(column), 0, REASON_LENGTH)
    text = pc.binary_join_element_wise(f"{head}is ", value, f" ({rule.expected})", "")
    return pc.if_else(failing, text, pa.scalar(None, pa.string()))


def reason_head(label: str) -> str:
    """How a reason of the check begins: `range AMOUNT` -> `range: AMOUNT `."""
    return label.replace(" ", ": ", 1) + " "


def count_reasons(reasons: pa.Array | pa.ChunkedArray, labels: Sequence[str]) -> dict[str, int]:
    """How many of these reasons belong to each check; others are left out."""
    found = {label: pc.sum(pc.match_substring(reasons, reason_head(label))).as_py() or 0 for label in labels}
    return {label: count for label, count in found.items() if count}


def _without_nulls(columns: Sequence[pa.Array]) -> list[pa.Array]:
    """Rows in which no column is null; zeros of a float without their sign."""
    if any(column.null_count for column in columns):
        whole = columns[0].is_valid()
        for column in columns[1:]:
            whole = pc.and_(whole, column.is_valid())
        columns = [column.filter(whole) for column in columns]
    return [pc.add(column, 0.0) if pa.types.is_floating(column.type) else column for column in columns]


def _note_newest(newest: dict[int, int], column: pa.Array) -> None:
    """The newest time of each day: only at the end is it known which ones are in the future."""
    times = numbers(milliseconds(column.drop_null()))
    days, first = np.unique(times // DAY_MS, return_inverse=True)
    latest = np.full(len(days), np.iinfo(np.int64).min)
    np.maximum.at(latest, first, times)
    for day, time in zip(days.tolist(), latest.tolist(), strict=True):
        newest[day] = max(newest.get(day, time), time)
    for day in sorted(newest)[:-DAYS_KEPT]:
        del newest[day]


def results(checks: Sequence[Check], checkers: Sequence[Checker], context: Occasion) -> list[Result]:
    """The verdict of one run over the queries of it that count, in the order of the feed file.

    Call once, at the end: the checkers release what `unique` has collected.
    """
    found = []
    rows = sum(checker.rows for checker in checkers)
    for i, declared in enumerate(checks):
        check = checkers[-1].checks[i] if checkers else declared
        if check.check == "row_count":
            failed, message = _row_count(check, rows, context)
        elif check.check == "freshness":
            times = [time for checker in checkers for time in checker.newest[i].values()]
            failed, message = _freshness(check, times, context)
        else:
            failed = sum(checker.failed[i] for checker in checkers)
            if check.check == "unique":
                failed = repeats(_collected(checkers, i))
            message = f"{failed:,} of {rows:,} rows {_complaint(check)}" if failed else ""
        found.append(Result(check.check, ", ".join(check.columns), check.level, failed, rows, message))
    return found


def _collected(checkers: Sequence[Checker], i: int) -> list[Hashes]:
    """The hashes of one check; the checkers no longer hold them."""
    parts = []
    for checker in checkers:
        parts += checker.hashes[i]
        checker.hashes[i] = []
    return parts


def judge(feed: str, found: Sequence[Result]) -> list[Finding]:
    """The findings of a run; call before it is published.

    Raises:
        QualityError: a check of level `fail` failed; a line for each check that did.
    """
    bad = [result for result in found if result.failed]
    if any(result.level == "fail" for result in bad):
        after = {"fail": "nothing was published", "warn": "a warning only", "quarantine": "would be quarantined"}
        lines = [f"{feed}: {result}; {after[result.level]}" for result in bad]
        raise QualityError("\n".join(lines), found)
    look = f"see: python manage_feeds.py quarantine {feed}"
    after = {"warn": "published nevertheless", "quarantine": f"quarantined; {look}"}
    return [Finding("quality", f"{result}; {after[result.level]}", "warning", feed) for result in bad]


def _complaint(check: Check) -> str:
    if check.check == "accepted_values":
        shown = ", ".join(str(value) for value in check.values[:5])
        return f"hold something other than {shown}{' ...' if len(check.values) > 5 else ''}"
    if check.check == "range":
        low = "" if check.min is None else f"below {check.min}"
        return "are " + " or ".join(filter(None, [low, "" if check.max is None else f"above {check.max}"]))
    return {
        "not_null": "are null", "unique": "repeat a value of the run", "regex": f"do not match {check.pattern}",
    }[check.check]


def _row_count(check: Check, rows: int, context: Occasion) -> tuple[int, str]:
    day = DAYS[context.now.weekday()]
    if context.part:
        return 0, f"not judged: {context.part}"
    if len(context.usual) < ENOUGH:
        return 0, f"not enough history: {counted(len(context.usual), 'run')} on a {day}, {ENOUGH} are needed"
    median = statistics.median(context.usual)
    low, high = median * check.min_share, median * check.max_share
    wanted = f"{low:,.0f} or more" if math.isinf(high) else f"{low:,.0f} to {high:,.0f}"
    text = (
        f"{counted(rows, 'row')}; the median of {len(context.usual)} runs on a {day} is {median:,.0f}, expected "
        f"{wanted}"
    )
    return int(not low <= rows <= high), text


def _freshness(check: Check, times: Sequence[int], context: Occasion) -> tuple[int, str]:
    if context.part:
        return 0, f"not judged: {context.part}"
    known = [*times, *([context.newest] if context.newest is not None and not check.columns else [])]
    latest = (context.now.timestamp() + AHEAD) * 1000  # what is later is wrong, and hides how old the others are
    newest = max((time for time in known if time <= latest), default=None)
    if newest is None and known:
        wanted = f"expected one from the last {check.hours:g} hours"
        return 1, f"the newest row is dated {_at(max(known))}, in the future; {wanted}"
    if newest is None:
        return 1, f"no row with a time; expected one from the last {check.hours:g} hours"
    hours = (context.now.timestamp() - newest / 1000) / 3600
    text = f"the newest row is dated {_at(newest)}, {hours:,.1f} hours ago; expected at most {check.hours:g}"
    return int(hours > check.hours), text


def _at(milliseconds: int) -> str:
    try:
        return f"{dt.datetime(1970, 1, 1) + dt.timedelta(seconds=milliseconds // 1000):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError:
        return f"{milliseconds} ms since 1970"
