"""Atomic writes, durable renames, and locks that the kernel releases.

Nothing here follows a link in the last part of a path it writes, locks or removes. `refuse_links` looks at the parts
before it; a function that changes a lake calls it with the lake's directory before the first change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ksql_lake.base.errors import LakeBusyError, LinkError

PRIVATE_DIR, PRIVATE_FILE = 0o700, 0o600


def refuse_links(root: Path, paths: Iterable[Path | str]) -> None:
    """Make sure that each path is inside `root` and no part of it is a symbolic link; parts may be missing.

    Args:
        root: the lake's directory, which may itself be reached through links.
        paths: below `root`, or relative to it.

    Raises:
        LinkError: names the first path that leads, or might lead, out of the lake.
    """
    seen: set[Path] = set()
    for given in paths:
        path = Path(given)
        if path.is_absolute():
            if not path.is_relative_to(root):
                raise LinkError(f"{path}: lies outside the lake {root}; nothing was changed")
            path = path.relative_to(root)
        if ".." in path.parts or not path.parts:
            raise LinkError(f"{path}: leads out of the lake {root}; nothing was changed")
        current = root
        for part in path.parts:
            current = current / part
            if current not in seen and current.is_symlink():
                raise LinkError(
                    f"{current}: is a link, and the lake is never written through links; remove it, or replace "
                    "it by what it points to"
                )
            seen.add(current)


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


def make_closed(directory: Path, mode: int = PRIVATE_DIR) -> None:
    """Create a directory no more open than `mode`, or restrict an existing one that an older version left open."""
    make_dirs(directory.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, mode)
        fsync_dir(directory.parent)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(handle)
        if stat.S_IMODE(found.st_mode) & ~mode and found.st_uid == os.geteuid():
            os.fchmod(handle, mode)
    finally:
        os.close(handle)


def make_file(path: Path, mode: int = PRIVATE_FILE) -> None:
    """Create an empty file that nobody else may open, for a library that opens files by name.

    Raises:
        FileExistsError: something is there already, even if only a dangling link.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode))


def read_regular(path: Path, most: int) -> bytes:
    """The content of a small file.

    Raises:
        OSError: it is a FIFO, a device or a directory (none is read), or larger than `most` bytes.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"it is {_kind(mode)}, not a file", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(most + 1)
    finally:
        os.close(handle)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return data


def _kind(mode: int) -> str:
    for test, word in (
        (stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"),
        (stat.S_ISLNK, "a link"),
    ):
        if test(mode):
            return word
    return "a device"


def atomic_write(path: Path, data: bytes, mode: int = 0o644, *, new: bool = False) -> None:
    """Replace a file by these bytes: a reader sees the old content or the new, also after a power cut.

    Args:
        new: there must be no such file yet, not even one that somebody adds at this moment.

    Raises:
        FileExistsError: there is one, and `new` is asked for.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.inprogress")
    made = False
    try:
        handle = _create(temporary, mode)
        made = True
        try:
            _write_all(handle, data)
            os.fchmod(handle, mode)
            os.fsync(handle)
        finally:
            os.close(handle)
        if new:
            _add(temporary, path)
        else:
            os.replace(temporary, path)
    except OSError as error:
        if made:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        error.filename, error.filename2 = str(path), None  # what the caller asked for, not our name for it meanwhile
        raise
    fsync_dir(path.parent)


def _add(temporary: Path, path: Path) -> None:
    """Give a file its name where nothing has that name, unlike a rename, which replaces what is there."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if os.path.lexists(path):  # a file system without hard links, where looking first is all that can be done
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _create(temporary: Path, mode: int) -> int:
    """A new file for writing. Leftovers of a killed process with the same id are removed; a link is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        return os.open(temporary, flags, mode)
    except FileExistsError:
        os.unlink(temporary)
        return os.open(temporary, flags, mode)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def append_line(path: Path, line: bytes, mode: int = 0o644) -> None:
    """Append one line durably: either all of it, or an error and the file as it was before.

    A torn last line of an earlier crash is ended first, so that it spoils only itself. Several processes may append.

    Raises:
        OSError: the disk is full, or the path is a link or not a regular file.
    """
    handle = open_regular(path, os.O_RDWR | os.O_APPEND, mode)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        try:
            _write_all(handle, (b"\n" if torn else b"") + line + b"\n")
            os.fsync(handle)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            error.filename = str(path)
            raise
    finally:
        os.close(handle)


def open_regular(path: Path, flags: int, mode: int) -> int:
    """Open or create a regular file, never through a link and without waiting for the other end of a FIFO.

    Raises:
        LinkError: the path is a link, or not a regular file.
    """
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, mode)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise LinkError(f"{path}: is a link, and the lake is never written through links; remove it") from None
        if error.errno in (errno.ENXIO, errno.EISDIR):
            raise LinkError(f"{path}: is not a regular file; remove it") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise LinkError(f"{path}: is not a regular file; remove it")
    return handle


def remove_tree(directory: Path) -> None:
    """Remove a directory; links are removed, never followed. Other processes may still be creating files in it.

    Raises:
        LinkError: the directory itself is a link.
    """
    for pause in (0.05, 0.2, 0.5, None):
        if directory.is_symlink():
            raise LinkError(f"{directory}: is a link; it was left alone, remove it")
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
        LinkError: the lock file is a link, or not a regular file.
    """
    make_closed(path.parent, 0o750)
    handle = open_regular(path, os.O_RDWR, 0o640)
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
    except (OSError, ValueError, KeyError, TypeError):
        return "another run holds the lock"
