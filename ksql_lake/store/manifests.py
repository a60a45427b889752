"""Manifests: entries of files in `_manifests/*.jsonl`, which the metadata name when they would be too many to list.

A manifest never changes: a commit adds one with a new name, and the metadata that name it replace the old ones.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import PurePath

from ksql_lake.base.errors import LinkError, StateError
from ksql_lake.model.entries import FileEntry, Manifest
from ksql_lake.model.state import FeedState
from ksql_lake.model.state_shape import refuse_other_entries
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.layout import storage_of

SEAL = 500  # file entries in `_metadata.json`; when there are more, a manifest takes them
# JSON of another shape
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class ManifestReader:
    """Reads the manifests of a feed's directory."""

    directory: PurePath

    def __call__(self, manifest: Manifest) -> list[FileEntry]:
        """The entries of a manifest.

        Raises:
            FileNotFoundError: a commit has replaced it since the metadata were read: read them again.
            StateError: it is damaged.
        """
        path = self.directory / manifest.name
        data = storage_of(path).read(path)
        try:
            entries = [FileEntry.from_json(json.loads(line)) for line in data.splitlines()]
            refuse_other_entries(entries)
        except UNREADABLE as error:
            raise StateError(f"{path}: not readable as a manifest ({error}); restore it with: python "
                             "metadata_utils.py --rebuild") from None
        if len(entries) != manifest.files:
            raise StateError(
                f"{path}: lists {len(entries)} files, expected {manifest.files}; restore it with: python "
                "metadata_utils.py --rebuild"
            )
        return entries


def is_due(state: FeedState) -> bool:
    """Whether the metadata list so many files themselves that a manifest has to take them."""
    return len(state.files.recent) > SEAL


def sealed(state: FeedState) -> tuple[str, bytes]:
    """Take the file entries out of the metadata: name and content of the manifest that has them from now on."""
    name = f"{state.sequence:08d}.jsonl"  # one at most for each change, so no name is used twice
    entries = state.files.seal(name)
    return name, "".join(json.dumps(entry.to_json(), ensure_ascii=False) + "\n" for entry in entries).encode()


def remove_old(dataset: Dataset, state: FeedState) -> None:
    """Remove manifests that are no longer in the metadata; with the feed's lock held nobody writes new ones."""
    kept = {manifest.name for manifest in state.files.manifests}
    with contextlib.suppress(LinkError):  # what a link leads to is not ours
        dataset.storage.guard(dataset.lake, [dataset.manifests])
        for path in dataset.storage.list(dataset.manifests):
            if path.name not in kept:
                dataset.storage.delete(path)
