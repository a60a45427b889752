"""The state of one feed: `_metadata.json`, read, looked at and written. `journal` changes it together with files."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

from ksql_lake.base.errors import StateError
from ksql_lake.model.entries import Partition
from ksql_lake.model.findings import Finding
from ksql_lake.model.state import FeedState
from ksql_lake.model.state_shape import refuse_other_shapes
from ksql_lake.store import manifests, state_log
from ksql_lake.store.dataset import METADATA, Dataset, Move
from ksql_lake.store.layout import storage_of
from ksql_lake.store.manifests import UNREADABLE, ManifestReader
from ksql_lake.store.observers import notify

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode  # made once: a large lake has a thousand partitions

__all__ = ["METADATA", "UNREADABLE", "Dataset", "Move"]


def load(dataset: Dataset) -> FeedState | None:
    """The feed's state, or None when it was never exported.

    Raises:
        StateError: the file exists but cannot be read as a feed's state; it is left unchanged.
    """
    return parsed(dataset, content(dataset))


def content(dataset: Dataset) -> bytes | None:
    """`_metadata.json` as it is now; None where there is none.

    Raises:
        StateError: the storage did not give it.
    """
    try:
        return dataset.storage.read(dataset.metadata)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_json(dataset, error) from None


def parsed(dataset: Dataset, text: bytes | None) -> FeedState | None:
    """The state that a content of `_metadata.json` describes; raises as `load`."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(dataset, error) from None
    if not isinstance(value, dict) or not isinstance(value.get("sequence"), int):
        raise StateError(
            f'{dataset.metadata}: has no "sequence", so it was not written by this tool; restore it with: '
            f"{_rebuild(dataset)}"
        )
    try:
        state = FeedState.from_json(value, ManifestReader(dataset.manifests))
        refuse_other_shapes(state, dataset.kind)
        return state
    except UNREADABLE as error:
        raise StateError(
            f"{dataset.metadata}: is not a feed's metadata ({type(error).__name__}: {error}); restore it with: "
            f"{_rebuild(dataset)}"
        ) from None


def _not_json(dataset: Dataset, error: Exception) -> StateError:
    return StateError(f"{dataset.metadata}: not readable as JSON ({error}); restore it with: {_rebuild(dataset)}")


def load_or_new(dataset: Dataset, new: Callable[[], FeedState]) -> FeedState:
    """The feed's state, or a new one for a feed that was never exported; raises as `current`.

    The caller checks `unknown_files` next.
    """
    return current(dataset, files=False) or new()


def current(dataset: Dataset, *, files: bool = True) -> FeedState | None:
    """The feed's state, known to be the current one, or None for a feed that was never exported.

    Args:
        files: whether to look for files of later changes as well.

    Raises:
        StateError: the metadata is not readable, an old copy, or gone while there is data or a history of it.
    """
    state = load(dataset)
    if state is not None:
        logged = state_log.last_sequence(dataset.log)
        if logged is not None and logged > state.sequence:
            raise StateError(
                f"{dataset.metadata}: is an old copy: it is at change {state.sequence}, but the state log at change "
                f"{logged}; "
                f"bring it up to date with: {_rebuild(dataset)}"
            )
        if files:
            unknown_files(dataset, state)
        return state
    if dataset.storage.stat(dataset.log) or next(parquet_files(dataset.directory), None) is not None:
        raise StateError(
            f"{dataset.metadata}: missing, though the feed was exported before; restore it with: {_rebuild(dataset)}"
        )
    return None


def parquet_files(directory: PurePath) -> Iterator[PurePath]:
    """Every Parquet file in a directory tree; names that begin with a dot or an underscore do not count."""
    for folder, names in _parquet_names(directory):
        yield from (directory / folder / name for name in names)


def _parquet_names(directory: PurePath) -> Iterator[tuple[str, list[str]]]:
    """The same as (subdirectory, file names), without a path for each: a lake may have 100,000 files."""
    for folder, names in storage_of(directory).walk(directory):
        if found := [name for name in names if name.endswith(".parquet")]:
            yield folder, found


def unknown_files(dataset: Dataset, state: FeedState) -> list[Finding]:
    """A finding for each Parquet file in the feed's directory that is not in its metadata.

    Names are only compared in partitions whose number of files or sum of names differs from the metadata.

    Raises:
        StateError: a later change wrote one of them, so the metadata is an old copy.
    """
    known = {partition.path: partition for partition in state.partitions}
    there = _parquet_names(dataset.directory)
    unclear = {folder: names for folder, names in there if not _as_known(known.get(folder), names)}
    paths = {file.path for file in state.files} if unclear else set()
    found = {f"{folder}/{name}".removeprefix("/") for folder, names in unclear.items() for name in names}
    unknown = sorted(found - paths)
    _refuse_newer(dataset, state, unknown)
    return [
        Finding(
            "files", f"{dataset.file(path)}: not in the feed's metadata, though readers see its rows; move it "
            "out of the lake", feed=dataset.feed,
        )
        for path in unknown
    ]


def _refuse_newer(dataset: Dataset, state: FeedState, unknown: Sequence[str]) -> None:
    """Refuse files that a later change of the feed wrote: continuing would export their rows twice."""
    for path in unknown:
        import pyarrow as pa  # only where there is such a file: to look whether there is one loads no Arrow

        from ksql_lake.store.parquet import footer_of

        try:
            footer = footer_of(dataset.file(path))
        except (pa.ArrowException, OSError, *UNREADABLE):
            continue  # torn, or not written by this tool: only a finding
        if footer is not None and footer.feed == dataset.feed and footer.sequence > state.sequence:
            raise StateError(
                f"{dataset.metadata}: is an old copy: it is at change {state.sequence}, but change {footer.sequence} "
                f"wrote {path}; bring it up to date with: {_rebuild(dataset)}"
            )


def _as_known(partition: Partition | None, names: Sequence[str]) -> bool:
    if partition is None or partition.files != len(names):
        return False
    return partition.names == sum(zlib.crc32(name.encode()) for name in names) & 0xFFFFFFFF


def keep_copy(dataset: Dataset, stamp: str) -> PurePath | None:
    """Keep a copy of the metadata under a name that readers skip; None when there is none."""
    if dataset.storage.stat(dataset.metadata) is None:
        return None
    copy = dataset.file(f".{METADATA}.{stamp}.aside")
    dataset.storage.put(copy, dataset.storage.read(dataset.metadata), dataset.file_mode)
    return copy


def restore(dataset: Dataset, state: FeedState) -> None:
    """Write a state that was rebuilt, and add it to the state log unless it is there."""
    dataset.storage.make(dataset.directory, dataset.dir_mode)
    if manifests.is_due(state):
        name, data = manifests.sealed(state)
        dataset.storage.make(dataset.manifests, dataset.dir_mode)
        dataset.storage.put(dataset.manifests / name, data, dataset.file_mode)
    record(dataset, state, as_text(state), content(dataset))
    state_log.append(dataset.log, state, None, None)
    state.files.committed()
    notify(dataset.observers, dataset, state, None)


def record(dataset: Dataset, state: FeedState, text: str, expected: bytes | None) -> None:
    """Make a state the feed's state: from here on readers see it. Call with the feed's lock held.

    Args:
        text: `as_text` of the state.
        expected: the content of `_metadata.json` that the state was made from.

    Raises:
        Changed: there is another content by now.
    """
    dataset.storage.swap(dataset.metadata, text.encode(), expected, dataset.file_mode)
    manifests.remove_old(dataset, state)


def _rebuild(dataset: Dataset) -> str:
    return f"python metadata_utils.py --rebuild --feed {dataset.feed}"


def as_text(state: FeedState) -> str:
    """`_metadata.json`: indented for people, but a line for each file and each partition."""
    lists = {"partitions", "files", "quarantine", "manifests"}
    parts = []
    for key, value in state.to_json().items():
        if key in lists and value:
            body = ",\n    ".join(map(_ENCODE, value))
            text = f"[\n    {body}\n  ]"
        else:
            text = json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        parts.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"
