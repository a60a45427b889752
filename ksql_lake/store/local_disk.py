"""A lake on the local disk: whole files by renames, durable by fsync, locks by the kernel, nothing through links."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO

from ksql_lake.base import files
from ksql_lake.store.storage import OPEN, PRIVATE, Changed, Stat, directory_mode

if TYPE_CHECKING:
    import pyarrow.fs
    import pyarrow.parquet as pq


class LocalDisk:
    """See `Storage`. A place is a path of this machine."""

    def read(self, place: PurePath) -> bytes:
        return Path(place).read_bytes()

    def open(self, place: PurePath) -> BinaryIO:
        return Path(place).open("rb")

    def parquet(self, place: PurePath) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        return pq.ParquetFile(place)

    def arrow(self, place: PurePath) -> tuple[pyarrow.fs.FileSystem, str]:
        import pyarrow.fs

        return pyarrow.fs.LocalFileSystem(), str(place)

    def stat(self, place: PurePath) -> Stat | None:
        try:
            found = os.stat(place)
        except (FileNotFoundError, NotADirectoryError):
            return None
        tag = f"{found.st_ino}.{found.st_mtime_ns}"
        return Stat(found.st_size, found.st_mtime, tag, stat.S_ISDIR(found.st_mode), not found.st_mode & 0o005)

    def list(self, directory: PurePath, pattern: str = "*") -> Sequence[PurePath]:
        return sorted(Path(directory).glob(pattern))

    def walk(self, directory: PurePath) -> Iterator[tuple[str, Sequence[str]]]:
        root = os.fspath(directory)  # text, not a Path for each: a lake may have 100,000 files
        for top, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith((".", "_"))]
            yield top[len(root) :].strip("/"), names

    def put(self, place: PurePath, data: bytes, mode: int = OPEN) -> None:
        files.atomic_write(Path(place), data, mode)

    def swap(self, place: PurePath, data: bytes, expected: bytes | None, mode: int = OPEN) -> None:
        path = Path(place)
        try:
            if expected is None:
                files.atomic_write(path, data, mode, new=True)
                return
            if path.read_bytes() == expected:
                files.atomic_write(path, data, mode)
                return
        except FileExistsError:
            pass
        except FileNotFoundError:
            if expected is None:
                raise  # not the file, but its directory is missing
        raise Changed(f"{path}: was changed by somebody else meanwhile, so it was left as it is; run again")

    def append(self, place: PurePath, line: bytes, mode: int = OPEN) -> None:
        files.append_line(Path(place), line, mode)

    def make(self, directory: PurePath, mode: int = 0o755) -> None:
        files.make_dirs(Path(directory), mode)

    def close(self, directory: PurePath, mode: int = PRIVATE) -> None:
        files.make_closed(Path(directory), mode)

    def move(self, source: PurePath, target: PurePath, mode: int = OPEN) -> None:
        origin, final = Path(source), Path(target)
        files.make_dirs(final.parent, directory_mode(mode))
        if origin.is_dir():
            os.chmod(origin, directory_mode(mode))
            for path in origin.iterdir():
                os.chmod(path, mode)
        else:
            os.chmod(origin, mode)
        os.rename(origin, final)
        files.fsync_dir(final.parent)

    def delete(self, place: PurePath) -> None:
        path = Path(place)
        if path.is_dir():
            files.remove_tree(path)
        else:
            try:
                os.unlink(path)
            except FileNotFoundError:
                return
        files.fsync_dir(path.parent)

    def prune(self, directory: PurePath, top: PurePath) -> None:
        while top in directory.parents:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return
            directory = directory.parent

    def lock(self, place: PurePath, what: str, *, wait: bool = False) -> AbstractContextManager[None]:
        return files.exclusive_lock(Path(place), what, wait=wait)

    def guard(self, lake: PurePath, places: Iterable[PurePath | str]) -> None:
        files.refuse_links(Path(lake), (Path(place) for place in places))
