"""Times and addresses as options take them."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """A time such as 60s, 5m, 1h or 90."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", text.strip())
    if not found or not float(found[1]):
        raise ArgumentTypeError(f"{text!r} is not a time; expected something like 60s, 5m or 1h")
    return float(found[1]) * UNITS[found[2]]


def address(text: str) -> tuple[str, int]:
    """host:port to listen on."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ArgumentTypeError(f"{text!r} is not an address; expected HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)
