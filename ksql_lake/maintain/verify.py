"""The lake against its metadata: what is missing, extra, torn or altered, and which offsets stand twice."""

from __future__ import annotations

import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ksql_lake.model.columns import schema_of
from ksql_lake.model.state import FeedState, FileEntry
from ksql_lake.store.metadata import QUARANTINE, parquet_files


def verify(directory: Path, state: FeedState, *, deep: bool = False) -> list[str]:
    """One line per finding for one feed, none when all is well.

    Args:
        directory: the feed's directory; what its checks set aside is looked at as well. What is only in the remote
            is not: `manage_feeds.py remote verify` looks at that.
        deep: read every row group, checksum every file and look at each (generation, partition, offset).
    """
    findings = []
    lake = directory.parents[1]
    known = {directory / file.path: file for file in state.files if file.local}
    known |= {lake / entry.path: entry for entry in state.quarantined}
    found = {path for top in (directory, lake / QUARANTINE / directory.name) for path in parquet_files(top)}
    findings += [f"{path}: missing, the metadata has it" for path in sorted(set(known) - found)]
    findings += [f"{path}: extra, no metadata knows it" for path in sorted(found - set(known))]
    offsets: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for path in sorted(found & set(known)):
        findings += _file(path, known[path], state, deep, offsets)
    for (generation, partition), parts in sorted(offsets.items()):
        every = np.concatenate(parts)
        twice = len(every) - len(np.unique(every))
        if twice:
            findings.append(f"{directory}: generation {generation}, partition {partition}: {twice} offsets stand twice")
    return findings


def _file(
    path: Path, file: FileEntry, state: FeedState, deep: bool, offsets: dict[tuple[int, int], list[np.ndarray]]
) -> list[str]:
    if path.stat().st_size != file.bytes:
        return [f"{path}: altered, {path.stat().st_size} bytes, recorded {file.bytes}"]
    try:
        parquet = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        return [f"{path}: torn, its footer cannot be read ({error})"]
    findings = []
    if parquet.metadata.num_rows != file.rows:
        findings.append(f"{path}: holds {parquet.metadata.num_rows} rows, recorded {file.rows}")
    expected = {field.name: field.type for field in schema_of(state.columns)}
    for field in parquet.schema_arrow:
        if field.name in expected and expected[field.name] != field.type:
            findings.append(f"{path}: column {field.name} is {field.type}, recorded {expected[field.name]}")
    if deep:
        findings += _deep(path, parquet, file, offsets)
    return findings


def _deep(
    path: Path, parquet: pq.ParquetFile, file: FileEntry, offsets: dict[tuple[int, int], list[np.ndarray]]
) -> list[str]:
    checksum = 0
    with path.open("rb") as raw:
        while piece := raw.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
    if checksum != file.crc32:
        return [f"{path}: altered, its checksum is not the recorded one"]
    findings = []
    for group in range(parquet.num_row_groups):
        try:
            rows = parquet.read_row_group(group)
        except (pa.ArrowException, OSError) as error:
            return [f"{path}: torn, row group {group} cannot be read ({error})"]
        if file.offsets is None:
            continue
        partitions, numbers = rows["ROWPARTITION"].to_numpy(), rows["ROWOFFSET"].to_numpy()
        for partition in np.unique(partitions).tolist():
            mine = numbers[partitions == partition]
            offsets[(file.generation or 1, partition)].append(mine)
            low, high, _ = file.offsets.get(partition, (0, -1, 0))
            if mine.min() < low or mine.max() > high:
                findings.append(f"{path}: partition {partition} has offsets outside of the recorded {low} to {high}")
    return findings
