"""`_lake.json` at the top of a remote: which lake it belongs to. A second lake is refused before it uploads."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

from ksql_lake.store.remote.seam import Gone, ObjectStore, Refused, Taken

KEY = "_lake.json"


@dataclass(frozen=True)
class Marker:
    """A lake's id (random, made once), when its remote was first used and by whom."""

    lake: str
    at: str
    by: str


def read(store: ObjectStore) -> Marker | None:
    """The remote's marker; None when no lake uses it yet.

    Raises:
        Refused: the object is not one of ours.
    """
    content = io.BytesIO()
    try:
        store.get(KEY, content)
    except Gone:
        return None
    try:
        told: dict[str, Any] = json.loads(content.getvalue())
        return Marker(str(told["lake"]), str(told["at"]), str(told["by"]))
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{store.url}/{KEY}: was not written by this tool; choose another prefix") from None


def bind(store: ObjectStore, mine: Marker) -> Marker:
    """Claim a remote for a lake, or confirm that this lake has claimed it already.

    Raises:
        Refused: it belongs to another lake.
    """
    there = read(store)
    if there is None:
        content = json.dumps({"lake": mine.lake, "at": mine.at, "by": mine.by}, indent=2).encode()
        try:
            store.swap(KEY, content, None)
            return mine
        except Taken:
            there = read(store)
    if there is None or there.lake != mine.lake:
        owner = f"{there.lake}, since {there.at} by {there.by}" if there else "another one"
        raise Refused(
            f"{store.url} belongs to another lake ({owner}); this lake is {mine.lake}. Choose another prefix; to bring "
            "that lake to this machine, restore it into an empty directory with the command `remote restore`"
        )
    return there
