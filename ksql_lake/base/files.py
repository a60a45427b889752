"""Files that are whole or absent: atomic writes, durable renames, and locks the kernel releases."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ksql_lake.base.errors import LakeBusyError


def fsync_dir(directory: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_dirs(directory: Path, mode: int = 0o755) -> None:
    """Create a directory and its missing parents with exactly this mode, whatever the umask."""
    missing = []
    current = directory
    while not current.exists():
        missing.append(current)
        current = current.parent
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)  # never more open than that, also if killed right here
            os.chmod(path, mode)
        fsync_dir(path.parent)


def atomic_write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file by these bytes: a reader sees the old content or the new, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.inprogress")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fchmod(handle, mode)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        error.filename, error.filename2 = str(path), None  # what the caller asked for, not our name for it meanwhile
        raise
    fsync_dir(path.parent)


def append_line(path: Path, line: bytes, mode: int = 0o644) -> None:
    """Append one line durably. A torn last line of an earlier crash is first ended, so that it spoils nothing."""
    torn = path.exists() and path.stat().st_size > 0 and not _ends_with_newline(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
    try:
        os.write(handle, (b"\n" if torn else b"") + line + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def last_line(path: Path) -> bytes:
    """The last line of a file, however long the file is; b"" where there is none."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        start, tail = file.seek(0, os.SEEK_END), b""
        while start and b"\n" not in tail.rstrip(b"\n"):
            start = max(start - (64 << 10), 0)
            file.seek(start)
            tail = file.read()
    return tail.rstrip(b"\n").rpartition(b"\n")[2]


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def remove_tree(directory: Path) -> None:
    """Remove a directory of ours; links are removed, never followed. Somebody may still be making files in it."""
    for pause in (0.05, 0.2, 0.5, None):
        try:
            if directory.exists():
                shutil.rmtree(directory)
            return
        except OSError as error:
            if pause is None or error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
            time.sleep(pause)


@contextlib.contextmanager
def exclusive_lock(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `what`. The kernel releases it when the process dies; the file itself stays.

    Raises:
        LakeBusyError: another process holds it and `wait` is False; says which and since when.
    """
    make_dirs(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LakeBusyError(f"{what}: {_holder(path)}; wait for it (an export waits with --wait)") from None
        owner = json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        os.ftruncate(handle, 0)
        os.pwrite(handle, owner.encode(), 0)
        yield
    finally:
        os.close(handle)


def _holder(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"another run (pid {owner['pid']}) has held the lock since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "another run holds the lock"
