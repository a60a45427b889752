"""Merges the small files of days that are over: same rows, sorted by (partition, offset), one commit for each day."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import pyarrow as pa

from ksql_lake.base.errors import StateError
from ksql_lake.maintain.merges import Merge
from ksql_lake.model.columns import as_schema, rows_schema
from ksql_lake.model.entries import FileEntry
from ksql_lake.model.footer import Footer
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import FeedState
from ksql_lake.store import journal, trash
from ksql_lake.store.dataset import Dataset, Move
from ksql_lake.store.parquet import footer_of, open_parquet
from ksql_lake.store.writer import PartitionWriter, StagedFile, options_like


def compact(dataset: Dataset, state: FeedState, merge: Merge, run: str, *, tool: str, now: str, by: str) -> int:
    """Carry out one merge as one commit; returns the new files. Call with the feed's lock held.

    The small files stay in the trash for some days, for inspection; whoever has opened them can read on.

    Raises:
        StateError: what was read is not what the metadata says; nothing is changed.
    """
    table = _read(dataset, state, merge)
    if table.num_rows != merge.rows:
        raise StateError(
            f"{dataset.file(merge.partition)}: holds {table.num_rows} rows, the metadata says {merge.rows}; see: "
            f"python metadata_utils.py --verify --deep --feed {dataset.feed}"
        )
    table = table.sort_by([("ROWPARTITION", "ascending"), ("ROWOFFSET", "ascending")])
    made = _write(dataset, state, merge, table, run, tool)
    moves = trash.stage(dataset, merge.files, run, now=now, by=by, why=trash.COMPACTED)
    for staged in made:
        moves.append(Move.of(dataset, staged.staged, dataset.file(f"{staged.partition}/{staged.name}")))
    state.files.replace({file.path for file in merge.files}, [_entry(state, merge, staged, run) for staged in made])
    what = f"compact: {len(merge.files)} files of {merge.partition} into {len(made)}"
    journal.amend(dataset, run, state, moves, kind="compact", now=now, by=by, what=what)
    return len(made)


def _read(dataset: Dataset, state: FeedState, merge: Merge) -> pa.Table:
    """All rows in the full current schema: a column that was added later is null in older files."""
    schema = rows_schema(state)
    parts = []
    for file in merge.files:
        with open_parquet(dataset.file(file.path)) as parquet:
            parts += [as_schema(batch, schema) for batch in parquet.read().to_batches()]
    return pa.Table.from_batches(parts, schema=schema)


def _write(
    dataset: Dataset, state: FeedState, merge: Merge, table: pa.Table, run: str, tool: str
) -> list[StagedFile]:
    footer = Footer.of(
        state, dataset.feed, tool=tool, run=run, origin="compact", generation=merge.generation
    )
    if merge.generation == state.generation:
        footer = replace(footer, resume=state.resume)
    day = parse_day(merge.partition)
    known = {partition: dict(one.days) for partition, one in state.coverage.get(merge.generation, {}).items()}
    days = {partition: covered[str(day)] for partition, covered in known.items() if str(day) in covered}
    footer = replace(footer, merged=_merged(dataset, merge), days=days)
    pairs = footer.pairs()
    with open_parquet(dataset.file(merge.files[-1].path)) as newest:
        options = options_like(newest, merge.files[-1], dataset.file_mode)
    with PartitionWriter(dataset.staged(run, "files"), table.schema, run, "data", options, pairs) as writer:
        for batch in table.to_batches():
            writer.write(batch, merge.partition, f"{day:%Y%m%d}")
        return writer.close()


def _merged(dataset: Dataset, merge: Merge) -> dict[str, Counter[int]]:
    """Reading -> Kafka partition -> rows that this merge holds of it, so that a rebuild does not miss them."""
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for file in merge.files:
        footer = footer_of(dataset.file(file.path))
        if footer is not None and footer.reading is not None:
            found[footer.reading].update({partition: span[2] for partition, span in file.spans.items()})
        for reading, counts in (footer.merged if footer else {}).items():
            found[reading].update(counts)
    return dict(found)


def _entry(state: FeedState, merge: Merge, file: StagedFile, run: str) -> FileEntry:
    newest = merge.files[-1]
    return file.entry(
        run=run, origin="compact", schema_version=state.schema_version,
        exported_at=max(old.exported_at for old in merge.files), generation=merge.generation,
        compression=newest.compression, compression_level=newest.compression_level,
    )
