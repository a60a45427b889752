"""`.state/remote.json`: which remote a lake has. What is removed from such a lake must be deleted there too."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ksql_lake.base.errors import ConfigError, StateError
from ksql_lake.model.change import Change
from ksql_lake.model.entries import Leaving
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of
from ksql_lake.store.remote import marker
from ksql_lake.store.remote.marker import Marker
from ksql_lake.store.remote.seam import ObjectStore, Refused

PURGED_AT_ONCE = ("erase",)  # kinds of changes whose old files must not stay anywhere


@dataclass(frozen=True)
class Binding:
    """The lake's id and its remote."""

    lake: str
    url: str


def path_of(lake: Path) -> PurePath:
    return layout.remote(lake)


def is_bound(lake: Path) -> bool:
    """Whether anything of this lake may be in a remote."""
    return storage_of(lake).stat(path_of(lake)) is not None


def load(lake: Path) -> Binding | None:
    """The lake's remote; None when it has none.

    Raises:
        StateError: the file is damaged.
    """
    path = path_of(lake)
    try:
        told = json.loads(storage_of(lake).read(path))
        return Binding(str(told["lake"]), str(told["url"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"{path}: not readable ({error}); write it again by hand: "
            '{"lake": "<the id in the remote\'s _lake.json>", "url": "<REMOTE>"}'
        ) from None


def save(lake: Path, binding: Binding) -> None:
    storage_of(lake).make(path_of(lake).parent)
    storage_of(lake).put(path_of(lake), json.dumps({"lake": binding.lake, "url": binding.url}, indent=2).encode())


def bind(lake: Path, store: ObjectStore, *, now: str, by: str) -> Binding:
    """Make this store the lake's remote, or confirm that it is. Recorded here before anything is uploaded.

    Raises:
        ConfigError: the lake has a different remote.
        Refused: the store belongs to another lake.
    """
    mine = load(lake)
    if mine is not None and mine.url != store.url:
        raise ConfigError(
            f"REMOTE is {store.url}, but this lake's remote is {mine.url}. To move the lake there, set REMOTE back, "
            "bring its days here (python manage_feeds.py remote pull), give up the old place (python manage_feeds.py "
            "remote forget), then set REMOTE to the new place and push"
        )
    if mine is None:
        there = marker.read(store)
        if there is not None:
            raise Refused(
                f"{store.url} belongs to another lake ({there.lake}, since {there.at} by {there.by}); choose another "
                "prefix. To bring that lake to this machine, restore it into an empty directory: `remote restore`"
            )
        mine = Binding(secrets.token_hex(8), store.url)
        save(lake, mine)
    marker.bind(store, Marker(mine.lake, now, by))
    return mine


def leaving(
    gone: Iterable[Leaving], change: Change, before: Set[str] = frozenset(), after: Set[str] = frozenset()
) -> tuple[Leaving, ...]:
    """What must be deleted from the remote after a change: every file that was removed, but none that came back.

    Args:
        before, after: paths of files in quarantine, of which a change does not say anything.
    """
    added = {file.path for file in change.added} | after - before
    left = ({file.path for file in change.removed} | before - after) - added
    purge = change.kind in PURGED_AT_ONCE
    kept = [one for one in gone if one.path not in added and one.path not in left]
    return (*kept, *(Leaving(path, change.at, purge) for path in sorted(left)))


def purged_now(gone: Iterable[Leaving], paths: Collection[str]) -> tuple[Leaving, ...]:
    """The same, but what is found to hold a person's rows does not wait for the trash."""
    return tuple(replace(one, purge=True) if one.path in paths else one for one in gone)
