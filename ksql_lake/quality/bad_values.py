"""Rows with a value that its type cannot hold: they are counted, and quarantined where the feed says so.

`on_bad_value` of a feed: `fail` stops it at the first such value, `null` stores null instead, `quarantine` puts the row
(with null instead of the value) where rows go that failed a check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ksql_lake.base.arrays import mask
from ksql_lake.model.findings import Finding
from ksql_lake.quality.checker import BadRows, reason_head
from ksql_lake.sources.ksqldb.rows import Flaw


@dataclass
class BadValues:
    """The bad values of one query, or of one attempt at a table.

    Args:
        policy: `null` or `quarantine`; with `fail` the decoder raises, and nothing comes here.
    """

    policy: str
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, Flaw] = field(default_factory=dict)

    def inspect(self, table: pa.RecordBatch, keep: np.ndarray, flaws: Sequence[Flaw]) -> BadRows | None:
        """Count the flaws of the rows in `keep`; returns the rows to quarantine and their mask over all rows."""
        reasons: dict[int, list[str]] = {}
        counts: Counter[str] = Counter()
        for flaw in flaws:
            if keep[flaw.row]:
                label = f"on_bad_value {flaw.column}"
                reasons.setdefault(flaw.row, []).append(f"{reason_head(label)}holds {flaw.reason}")
                counts[label] += 1
                self.counts[flaw.column] += 1
                self.first.setdefault(flaw.column, flaw)
        if self.policy != "quarantine" or not reasons:
            return None
        bad = np.zeros(len(table), bool)
        bad[list(reasons)] = True
        texts = pa.array(["; ".join(reasons[row]) for row in sorted(reasons)], pa.string())
        return BadRows(bad, table.filter(mask(bad)), texts, counts)


def bad_value_findings(feed: str, found: Iterable[BadValues]) -> list[Finding]:
    """One finding for each column with a value that its type cannot hold."""
    counts: Counter[str] = Counter()
    first: dict[str, tuple[Flaw, str]] = {}
    for bad in found:
        counts += bad.counts
        for column, flaw in bad.first.items():
            first.setdefault(column, (flaw, bad.policy))
    after = {"null": "stored as null", "quarantine": f"quarantined: python manage_feeds.py quarantine {feed}"}
    findings = []
    for column, count in sorted(counts.items()):
        flaw, policy = first[column]
        message = (
            f"column {column}: {count:,} {'value' if count == 1 else 'values'} that its type cannot hold, "
            f"{after[policy]}; the first: {flaw}"
        )
        findings.append(Finding("quality", message, "warning", feed, flaw.partition, flaw.offset))
    return findings
