"""Compares the lake with its metadata: what is missing, extra, torn or altered, and which offsets are there twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePath

import numpy as np
import pyarrow as pa

from ksql_lake.base.figures import counted
from ksql_lake.model.columns import schema_of
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.findings import Finding
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import FeedState
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.layout import storage_of
from ksql_lake.store.metadata import parquet_files
from ksql_lake.store.parquet import checksum_of, open_parquet

Offsets = dict[tuple[int, int], list[np.ndarray]]  # (generation, Kafka partition) -> offsets of one file each


def verify(dataset: Dataset, state: FeedState, *, deep: bool = False) -> list[Finding]:
    """What is wrong with one feed, in quarantine too; nothing when all is well.

    Args:
        deep: read every row group, checksum every file and check each (generation, partition, offset).
    """
    feed = dataset.feed
    known = {dataset.file(file.path): file for file in state.files if file.local}
    known |= {dataset.in_lake(entry.path): entry for entry in state.quarantined}
    found = {path for top in (dataset.directory, dataset.quarantine) for path in parquet_files(top)}
    findings = [
        _finding("damaged", feed, f"{path}: missing, though the metadata lists it", known[path])
        for path in sorted(set(known) - found)
    ]
    findings += [
        Finding("files", f"{path}: extra, not in the feed's metadata; move it out of the lake", feed=feed)
        for path in sorted(found - set(known))
    ]
    offsets: Offsets = defaultdict(list)
    for path in sorted(found & set(known)):
        wrong = _file(path, known[path], state)
        if deep and not wrong:
            wrong = _deep(path, known[path], offsets)
        findings += [_finding("damaged", feed, what, known[path]) for what in wrong]
    return findings + list(_repeated(dataset.directory, feed, offsets))


def _finding(kind: str, feed: str, what: str, file: FileEntry) -> Finding:
    """A finding with the command that helps: a day is read again from the source, a table is exported again."""
    day = parse_day(file.partition)
    hint = f"export it again: python export_to_data_lake.py --table {feed}"
    if day is not None:
        hint = f"read the day again: python manage_feeds.py reload {feed} --date {day}"
    return Finding(kind, f"{what}; {hint}", feed=feed)


def _repeated(directory: PurePath, feed: str, offsets: Offsets) -> Iterator[Finding]:
    for (generation, partition), parts in sorted(offsets.items()):
        every = np.concatenate(parts)
        twice = len(every) - len(np.unique(every))
        if twice:
            where = f"{directory}: generation {generation}, partition {partition}"
            hint = f"python metadata_utils.py --rebuild --feed {feed}"
            yield Finding(
                "damaged", f"{where}: {counted(twice, 'offset')} there twice; {hint}", feed=feed, partition=partition
            )


def _file(path: PurePath, file: FileEntry, state: FeedState) -> list[str]:
    there = storage_of(path).stat(path)
    if there is None or there.size != file.bytes:
        return [f"{path}: altered, it has {there.size if there else 0} bytes, the metadata says {file.bytes}"]
    try:
        with open_parquet(path) as parquet:
            rows, schema = parquet.metadata.num_rows, parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        return [f"{path}: torn, its footer cannot be read ({error})"]
    findings = []
    if rows != file.rows:
        findings.append(f"{path}: holds {counted(rows, 'row')}, the metadata says {file.rows}")
    expected = {field.name: field.type for field in schema_of(state)}
    for field in schema:
        if field.name in expected and expected[field.name] != field.type:
            findings.append(f"{path}: column {field.name} is {field.type}, the metadata says {expected[field.name]}")
    return findings


def _deep(path: PurePath, file: FileEntry, offsets: Offsets) -> list[str]:
    if checksum_of(path) != file.crc32:
        return [f"{path}: altered, its checksum differs from the one in the metadata"]
    findings = []
    with open_parquet(path) as parquet:
        for group in range(parquet.num_row_groups):
            try:
                rows = parquet.read_row_group(group)
            except (pa.ArrowException, OSError) as error:
                return [f"{path}: torn, row group {group} cannot be read ({error})"]
            if file.offsets is not None:
                findings += _offsets(path, file, rows, offsets)
    return findings


def _offsets(path: PurePath, file: FileEntry, rows: pa.Table, offsets: Offsets) -> list[str]:
    findings = []
    partitions, numbers = rows["ROWPARTITION"].to_numpy(), rows["ROWOFFSET"].to_numpy()
    for partition in np.unique(partitions).tolist():
        mine = numbers[partitions == partition]
        offsets[(file.generation or 1, partition)].append(mine)
        low, high, _ = file.spans.get(partition, (0, -1, 0))
        if mine.min() < low or mine.max() > high:
            findings.append(
                f"{path}: partition {partition} has offsets outside {low} to {high}, which the metadata says"
            )
    return findings
