"""What Parquet files say about themselves: their entry for the metadata, their footer and their offsets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ksql_lake.base.arrays import milliseconds
from ksql_lake.base.errors import StateError
from ksql_lake.model.coverage import ranges
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.footer import Footer
from ksql_lake.quality import quarantine
from ksql_lake.store import metadata
from ksql_lake.store.layout import storage_of
from ksql_lake.store.metadata import Dataset
from ksql_lake.store.parquet import checksum_of, open_parquet
from ksql_lake.store.writer import LEVEL


@dataclass(frozen=True)
class Found:
    """One Parquet file of a feed: its entry for the metadata, and what else its footer says."""

    entry: FileEntry
    footer: Footer
    ranges: Mapping[int, list[tuple[int, int]]]

    @property
    def generation(self) -> int:
        return self.footer.generation or 1

    @property
    def order(self) -> tuple[int, str]:
        """Files in the order they were made, one reading of a run after the other."""
        return self.footer.sequence, self.footer.reading or ""


def files_below(
    dataset: Dataset, directory: PurePath, root: PurePath | None = None
) -> tuple[list[Found], list[PurePath]]:
    """The files of this tool in the order in which they were written, and other files.

    Args:
        root: what the paths of the entries are relative to; default: the feed's directory.

    Raises:
        StateError: a file is torn.
    """
    found, strange = [], []
    for path in sorted(metadata.parquet_files(directory)):
        try:
            parquet = open_parquet(path)
        except (pa.ArrowException, OSError) as error:
            raise StateError(f"{path}: torn, its footer cannot be read ({error}); move it away and rebuild") from None
        with parquet:
            pairs = parquet.metadata.metadata or {}
            footer = Footer.read(pairs)
            if footer is None:
                strange.append(path)
            else:
                found.append(_found(dataset, root or dataset.directory, path, parquet, footer, pairs))
    found.sort(key=lambda file: (file.footer.sequence, file.entry.path.rpartition("_")[2]))
    return found, strange


def in_order(*lists: Sequence[Found]) -> list[Found]:
    """Files of the lake and those in quarantine, in the order they were made."""
    return sorted((file for files in lists for file in files), key=lambda file: file.order)


def _found(
    dataset: Dataset, root: PurePath, path: PurePath, parquet: pq.ParquetFile, footer: Footer,
    pairs: Mapping[bytes, bytes],
) -> Found:
    labels = json.loads(pairs[quarantine.LABELS.encode()]) if quarantine.LABELS.encode() in pairs else None
    relative = path.relative_to(root if labels is None else dataset.lake)
    codec, level = _compression(parquet)
    entry = FileEntry(
        relative.as_posix(),
        relative.parent.as_posix() if labels is None else quarantine.partition_of(path.name),
        parquet.metadata.num_rows, _size(path), checksum_of(path), footer.run, footer.origin,
        footer.schema_version, _moment(footer.run), codec, level,
        reasons=None if labels is None else quarantine.reasons(path, labels),
    )
    if dataset.kind != "stream":
        return Found(entry, footer, {})
    table = parquet.read(columns=["ROWTIME", "ROWPARTITION", "ROWOFFSET"])
    times = pc.min_max(milliseconds(table["ROWTIME"])).as_py()
    partitions, offsets = table["ROWPARTITION"].to_numpy(), table["ROWOFFSET"].to_numpy()
    mine = {p: np.sort(offsets[partitions == p]) for p in np.unique(partitions).tolist()}
    entry = replace(
        entry, rowtime_min=times["min"], rowtime_max=times["max"], generation=footer.generation,
        offsets={p: (int(o[0]), int(o[-1]), len(o)) for p, o in mine.items()},
    )
    return Found(entry, footer, {p: ranges(sorted_offsets) for p, sorted_offsets in mine.items()})


def _compression(parquet: pq.ParquetFile) -> tuple[str, int | None]:
    groups = parquet.metadata.num_row_groups
    name = parquet.metadata.row_group(0).column(0).compression.lower() if groups else "none"
    level = (parquet.metadata.metadata or {}).get(LEVEL.encode())
    return "none" if name == "uncompressed" else str(name), None if level is None else int(level)


def _size(place: PurePath) -> int:
    there = storage_of(place).stat(place)
    return there.size if there else 0


def _moment(run: str) -> str:
    """The start of a run, from its name: `20250115T020000_...` -> `2025-01-15T02:00:00Z`."""
    return f"{run[:4]}-{run[4:6]}-{run[6:8]}T{run[9:11]}:{run[11:13]}:{run[13:15]}Z"
