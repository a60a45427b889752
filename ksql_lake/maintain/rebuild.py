"""Restores `_metadata.json` from what every Parquet file says about itself, and from the state log.

Footers know files, schema, generations and the resume points of the run that wrote them. The state log
(`.state/<feed>.jsonl`) knows what left no file: runs without rows, rollbacks, files removed since. Everything is
decided before anything is touched. Where a footer promises rows that are in no file, the resume point stays before
them, so that the next export reads them again; where two files hold the same rows, one of them goes to the trash.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from ksql_lake.base.errors import StateError
from ksql_lake.base.figures import counted
from ksql_lake.maintain import receipts
from ksql_lake.maintain.found_away import add_away, as_logged, remote_state
from ksql_lake.maintain.found_files import Found, files_below, in_order
from ksql_lake.maintain.overlaps import repeated
from ksql_lake.maintain.promises import Missing, missing_of_streams, whole_versions
from ksql_lake.model.anchor import Covered
from ksql_lake.model.coverage import merge
from ksql_lake.model.entries import FileEntry, FileSet
from ksql_lake.model.footer import Footer
from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import Current, FeedState, new_stream, new_table
from ksql_lake.store import journal, metadata, state_log, trash
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.remote import binding
from ksql_lake.store.state_log import Logged

NAMED = 3  # days that a hint lists one by one


def rebuild(dataset: Dataset, stamp: str) -> list[str]:
    """Restore the metadata of one feed; a copy of what is there is kept. Call with the feed's lock held.

    Args:
        stamp: `20250115T020000`, the present time, which makes the name of the copy unique.

    Returns:
        A line for each thing done, and for each row that is gone.

    Raises:
        StateError: no journal, log or Parquet file says what the feed holds, two files contradict each other, or
            an interrupted change cannot be finished; nothing was touched.
    """
    interrupted = journal.journals(dataset)
    if interrupted:
        return _finish(dataset, [one["moves"] for one in interrupted], stamp)
    found, strange = files_below(dataset, dataset.directory)
    bad, _ = files_below(dataset, dataset.quarantine)
    log = list(state_log.states(dataset.log))
    if not found and not bad and not log and not binding.is_bound(dataset.lake):
        raise StateError(f"{dataset.directory}: no Parquet file of ours and no state log; nothing to rebuild from")
    done = [f"{path}: was not written by this tool; left alone, and not in the metadata" for path in strange]
    twice = repeated(found)
    found = [file for file in found if file not in twice]
    remote = remote_state(dataset)
    if remote is not None:
        log = [*log, as_logged(remote)] if not log or log[-1].sequence < remote.sequence else log
        found, said = add_away(dataset, found, remote, log)
        done += said
    state, lines = (_table if dataset.kind == "table" else _stream)(dataset, found, bad, log)
    copy = metadata.keep_copy(dataset, stamp)
    if copy is not None:
        done.append(f"kept the old metadata as {copy}")
    done += _discard(dataset, twice, stamp) if twice else []
    metadata.restore(dataset, state)
    journal.recover(dataset)
    if not log:
        done.append(
            "there was no state log: runs that wrote no file, and files that were removed since, are no longer known"
        )
    old = [file.entry for file in found if log and file.footer.sequence <= log[-1].sequence]
    done += [*lines, *_gone(dataset, old, log)]
    held = f"{counted(state.total_records, 'row')} in {counted(len(state.files), 'file')}"
    return [*done, f"rebuilt {dataset.metadata}: {held}"]


def _finish(dataset: Dataset, moves: Sequence[Sequence[Sequence[str]]], stamp: str) -> list[str]:
    """An interrupted change has the whole new state in its journal."""
    for some in moves:
        journal.refuse_taken(dataset, some)
    done = []
    copy = metadata.keep_copy(dataset, stamp)
    if copy is not None:
        dataset.storage.delete(dataset.metadata)  # it may be damaged, and the journal has the whole state
        done.append(f"kept the old metadata as {copy}")
    return [*done, *journal.recover(dataset, trusted=True)]


def _discard(dataset: Dataset, twice: Sequence[Found], stamp: str) -> list[str]:
    entries, name = [file.entry for file in twice], f"{stamp}_rebuild"
    where = trash.discard(dataset, entries, name, now=_iso(stamp), by="rebuild", why=trash.REPEATED)
    return [f"{entry.path}: has only rows that are in other files as well; moved to {where}" for entry in entries]


def _iso(stamp: str) -> str:
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:11]}:{stamp[11:13]}:{stamp[13:15]}Z"


def _gone(dataset: Dataset, files: Sequence[FileEntry], log: Sequence[Logged]) -> list[str]:
    """What is in the state log but no longer in any file, with the command that reads it again.

    Args:
        files: those of changes that the log knows.
    """
    if not log:
        return []
    known: dict[str, None] = {}
    for _, _, added, removed in state_log.changes(dataset.log, -1):
        for path in removed or ():
            known.pop(path, None)
        known |= dict.fromkeys(added or ())
        if removed is None:  # too many to list, so what has gone since is not known by name
            known = {}
    there = {file.path for file in files}
    gone = [path for path in known if path not in there]
    lines = [f"{dataset.file(path)}: is missing, but the state log lists it" for path in gone]
    rows = int(log[-1].state.get("total_records") or 0) - sum(file.rows for file in files)
    if rows <= 0:
        return lines
    days = sorted({f"{day}" for path in gone if (day := parse_day(path.rpartition("/")[0])) is not None})
    which = " ".join(f"--date {day}" for day in days) if 0 < len(days) <= NAMED else "--all-missing"
    hint = f"export it again: python export_to_data_lake.py --table {dataset.feed}"
    if binding.is_bound(dataset.lake):
        hint = "look for them in the lake's remote home: python manage_feeds.py remote restore --lake EMPTY_DIR"
    elif dataset.kind == "stream":
        hint = f"read them again from the source: python manage_feeds.py reload {dataset.feed} {which}"
    return [*lines, f"{counted(rows, 'row')} that the lake had are no longer in any file; {hint}"]


def _elsewhere(dataset: Dataset) -> list[Found]:
    """Files in the trash, which are not lost; not those whose rows are in the lake as well."""
    found: list[Found] = []
    for bundle in trash.bundles(dataset.lake, dataset.feed):
        if bundle.why not in trash.IN_THE_LAKE:
            try:
                found += files_below(dataset, bundle.directory, bundle.directory)[0]
            except StateError:
                continue  # a torn file in the trash is no reason to leave the lake without metadata
    return found


def _base(
    dataset: Dataset, found: Sequence[Found], aside: Sequence[Found], log: Sequence[Logged],
    empty: Callable[[Footer], FeedState],
) -> FeedState:
    """The newest state that the log and the footers give, with every file and when it was exported."""
    every = in_order(found, aside)
    state = log[-1].typed() if log else empty(every[-1].footer)
    known = state.sequence if log else 0
    moments = {line.sequence: line.state.get("last_export") for line in log}
    files = [_dated(file, moments) for file in found]
    if every and every[-1].footer.sequence > state.sequence:
        newest = every[-1].footer
        state.sequence, state.run, state.columns = newest.sequence, newest.run, newest.columns
        state.schema_version = newest.schema_version
        state.last_export = _dated(every[-1], moments).exported_at
    state.files = FileSet(files)
    held = {entry.path for entry in state.quarantined}
    lost = [
        _dated(file, moments) for file in aside
        if (state.quarantine is None or file.footer.sequence > known) and file.entry.path not in held
    ]
    if lost:
        state.quarantine = (*state.quarantined, *lost)
    return state


def _dated(file: Found, moments: Mapping[int, str | None]) -> FileEntry:
    return replace(file.entry, exported_at=moments.get(file.footer.sequence) or file.entry.exported_at)


def _stream(
    dataset: Dataset, found: Sequence[Found], bad: Sequence[Found], log: Sequence[Logged]
) -> tuple[FeedState, list[str]]:
    state = _base(dataset, found, bad, log, lambda footer: new_stream(
        footer.source, footer.timezone or "UTC", footer.timestamp_column, footer.created_at, footer.timestamps
    ))
    known = log[-1].sequence if log else 0
    new = [file for file in in_order(found, bad) if file.footer.sequence > known]
    missing, lines = _missing(dataset, state, new)
    first: dict[tuple[int, int], tuple[int, str]] = {}
    for one in missing:
        first.setdefault((one.generation, one.partition), one.order)
    for file in new:
        stuck = {p for (generation, p), order in first.items() if generation == file.generation and file.order >= order}
        _cover(state, file, stuck)
    for parts in state.coverage.values():
        for partition, covered in parts.items():
            parts[partition] = covered.with_upto(covered.upto, merge(covered.beyond, [], covered.upto))
    if state.sequence > known:
        state.run = f"{state.run}g{state.generation}"  # the name that commits of a stream have
    return state, lines


def _missing(dataset: Dataset, state: FeedState, new: Sequence[Found]) -> tuple[list[Missing], list[str]]:
    """What neither the log nor a file has. Rows that an erasure took out must not be read again."""
    missing = missing_of_streams(new, _elsewhere(dataset)) if new else []
    if missing and (state.erasures or receipts.concern(dataset.lake, dataset.feed)):
        return [], ["rows were erased from this feed, and lost rows cannot be distinguished from them: none are read "
                    "again"]
    if missing and binding.is_bound(dataset.lake):
        return [], ["this lake has a remote, where rows may be that are in no file on this disk: none are read again"]
    lines = []
    for one in missing:
        what = "the last rows" if one.rows is None else counted(one.rows, "row")
        lines.append(f"{what} of partition {one.partition} that run {one.run} read are in no file; they are read again "
                    "by the next export")
    return missing, lines


def _cover(state: FeedState, file: Found, stuck: Collection[int]) -> None:
    """Add what a file that is not in the log says about its run.

    Args:
        stuck: partitions whose resume point must not pass what is missing; only what is there is covered.
    """
    generation, origin = file.generation, file.entry.origin
    if generation > state.generation:
        state.generation, state.resume, state.heads = generation, {}, {}
    covered = state.coverage.setdefault(generation, {})
    for partition, anchor in (file.footer.resume or {}).items() if origin in ("export", "compact") else ():
        one = covered.setdefault(partition, Covered())
        if anchor.offset >= one.upto and partition not in stuck:
            state.resume[partition], covered[partition] = anchor, one.with_upto(anchor.offset, one.beyond)
    day = str(parse_day(file.entry.partition))
    for partition, spans in file.ranges.items():
        one = covered.get(partition, Covered())
        if partition in file.footer.days and partition not in stuck:
            one = one.with_days({day: file.footer.days[partition]})
            spans = [span for span in spans if span[1] > file.footer.days[partition]]
        if origin.startswith("date:") and partition not in stuck:
            covered[partition] = one.with_days({day: spans[-1][1]})
        elif origin != "export" or partition in stuck:
            covered[partition] = one.with_upto(one.upto, merge(one.beyond, spans, one.upto))


def _table(
    dataset: Dataset, found: Sequence[Found], bad: Sequence[Found], log: Sequence[Logged]
) -> tuple[FeedState, list[str]]:
    state = _base(dataset, found, bad, log, lambda footer: new_table(
        footer.source, footer.created_at, footer.timestamps
    ))
    known = log[-1].sequence if log else 0
    lost = whole_versions([*found, *bad])
    if state.erasures or receipts.concern(dataset.lake, dataset.feed):
        lost = {}  # rows that were erased cannot be distinguished from them
    whole = [file for file in found if not lost.get(str(file.footer.version))]
    for file in found:
        state.last_version = max(state.last_version, _number(file))
    for file in whole:
        if file.footer.sequence > known and (state.current is None or _number(file) >= _number_of(state.current)):
            state.current = _version(file)
    there = {file.entry.partition for file in found}
    # its files are gone: use the newest one that is there
    if found and (state.current is None or state.current.path not in there):
        state.current = _version(max(whole or found, key=_number))
    lines = [f"version {version} lacks {rows:,} rows that it had" for version, rows in sorted(lost.items()) if rows]
    return state, lines


def _number(file: Found) -> int:
    return int(str(file.footer.version).removeprefix("v"))


def _number_of(current: Current) -> int:
    return int(current.version.removeprefix("v"))


def _version(file: Found) -> Current:
    return Current(str(file.footer.version), file.entry.partition)
