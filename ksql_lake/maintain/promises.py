"""Compares what the footers of a reading promise with the rows that are there: a commit may be published in part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ksql_lake.maintain.found_files import Found

Key = tuple[int, int]  # generation, Kafka partition
Order = tuple[int, str]  # number of the change, name of the reading


@dataclass(frozen=True)
class Missing:
    """Rows that a reading wrote to files but that are in none; `rows` is None where only their end is known."""

    run: str
    order: Order
    generation: int
    partition: int
    rows: int | None


def missing_of_streams(files: Sequence[Found], elsewhere: Iterable[Found] = ()) -> list[Missing]:
    """What is missing of each reading, oldest first.

    Args:
        files: all that are in the lake, quarantine included.
        elsewhere: files in the trash: not in the lake, but not lost either.
    """
    there: dict[str, Counter[int]] = defaultdict(Counter)
    for file in (*files, *elsewhere):
        if file.footer.reading is not None:
            there[file.footer.reading].update({partition: span[2] for partition, span in file.entry.spans.items()})
        for reading, counts in file.footer.merged.items():
            there[reading].update(counts)
    found: dict[tuple[Order, Key], Missing] = {}
    for file in files:
        for one in _promised(file, there) if file.footer.reading else _cut_short(file, files):
            found.setdefault((one.order, (one.generation, one.partition)), one)
    return [found[key] for key in sorted(found)]


def _promised(file: Found, there: dict[str, Counter[int]]) -> Iterable[Missing]:
    for partition, rows in (file.footer.taken or {}).items():
        left = rows - there[str(file.footer.reading)][partition or 0]
        if left > 0:
            yield Missing(file.footer.run, file.order, file.generation, partition or 0, left)


def _cut_short(file: Found, files: Sequence[Found]) -> Iterable[Missing]:
    """Footers of older versions promise no number of rows, but the last row read must be one of the run's."""
    if file.footer.origin != "export":
        return
    run = [one for one in files if one.footer.run == file.footer.run and one.generation == file.generation]
    for partition, anchor in (file.footer.resume or {}).items():
        ends = [one.entry.spans[partition][1] for one in run if partition in one.entry.spans]
        if ends and max(ends) < anchor.offset:
            yield Missing(file.footer.run, file.order, file.generation, partition, None)


def whole_versions(files: Sequence[Found]) -> dict[str, int]:
    """Version of a table -> rows that are missing from it."""
    there: Counter[str] = Counter()
    promised: dict[str, int] = {}
    for file in files:
        there[str(file.footer.version)] += file.entry.rows
        if file.footer.taken is not None:
            promised[str(file.footer.version)] = file.footer.taken.get(None, 0)
    return {version: max(promised.get(version, 0) - rows, 0) for version, rows in there.items()}
