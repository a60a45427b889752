"""Writes to the output that a person names: a file is replaced as a whole, anything else is written through."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from ksql_lake.base.files import atomic_write
from ksql_lake.base.text import unguarded

STDOUT = "-"


def write_out(target: str | Path, data: bytes, *, wait: bool = True) -> bool:
    """Write a command's output to where a person wants it; returns whether that is a file, which is worth a message.

    `-` is standard output. A FIFO, a terminal or a pipe of the shell (`>(...)`) is written to as it is. A file is
    replaced in one step; where the path is a link, the file it leads to.

    Args:
        wait: for a reader of the FIFO; otherwise a FIFO without a reader is an error.

    Raises:
        OSError: it cannot be written; names the path as it was given.
    """
    if str(target) == STDOUT:
        out = unguarded(sys.stdout)
        out.flush()
        out.buffer.write(data)
        out.flush()
        return False
    path = Path(target).expanduser()
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        atomic_write(path.resolve(), data)
        return True
    if stat.S_ISREG(mode):
        atomic_write(path.resolve(), data)
        return True
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "it is a disk or a socket; expected a file, a FIFO or -", str(target))
    _write_through(path, data, wait)
    return False


def _write_through(path: Path, data: bytes, wait: bool) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NOCTTY | (0 if wait else os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a FIFO without a reader", str(path)) from None
        raise
    try:
        os.set_blocking(handle, True)
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(handle)
