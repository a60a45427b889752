"""`_REMOTE.txt` in a feed's directory: which data is not in the directory, and how to read it."""

from __future__ import annotations

from ksql_lake.model.partitions import parse_day
from ksql_lake.model.state import FeedState
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.remote.binding import Binding

NAME = "_REMOTE.txt"  # readers of a directory skip what begins with an underscore
NAMED = 20  # partitions


def write(dataset: Dataset, state: FeedState, binding: Binding) -> None:
    """Write the notice, or remove it where everything is here."""
    path, storage = dataset.file(NAME), dataset.storage
    away = sorted({file.partition for file in state.files if not file.local})
    if not away:
        storage.delete(path)
        return
    text = _text(dataset.feed, f"{binding.url}/{dataset.kind}s/{dataset.feed}", away)
    if not storage.stat(path) or storage.read(path) != text.encode():
        storage.put(path, text.encode(), dataset.file_mode)


def _text(feed: str, url: str, away: list[str]) -> str:
    shown = [str(parse_day(partition) or partition.removeprefix("version=")) for partition in away[:NAMED]]
    more = f" and {len(away) - NAMED:,} more" if len(away) > NAMED else ""
    return (
        f"Some data of {feed} is not in this directory, so programs that read the directory miss it:\n"
        f"{', '.join(shown)}{more}\n\nIt is in {url}\n\n"
        f'Read all of it with:         ksql_lake.read("{feed}")\n'
        "or with SQL made by:         python metadata_utils.py --sql duckdb\n"
        f"Bring it back here with:     python manage_feeds.py remote pull {feed}\n"
    )
