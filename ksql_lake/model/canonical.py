"""The canonical text of a value, the same for equal values: used for hashes and comparisons of rows."""

from __future__ import annotations


def canonical(value: object) -> object:
    """A MAP comes as a list of pairs in the server's order, which may differ from answer to answer."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        pairs = bool(value) and all(isinstance(item, tuple) for item in value)
        items = [canonical(list(item) if pairs else item) for item in value]
        return sorted(items, key=repr) if pairs else items
    return value
