"""Where each file of a feed is opened: on this disk, or in the lake's remote."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ksql_lake.base.errors import ConfigError, RemoteError, StateError
from ksql_lake.model.entries import FileEntry
from ksql_lake.store.dataset import Dataset
from ksql_lake.store.remote import binding, connect
from ksql_lake.store.remote.address import ARCHIVES, parse

if TYPE_CHECKING:
    import pyarrow.fs
    import pyarrow.parquet as pq


HADOOP = ("hive", "spark", "delta")  # engines that read a bucket through Hadoop's file systems


def sql_root(lake: Path, engine: str, env: Mapping[str, str]) -> str | None:
    """The lake's remote as an SQL engine writes it, without a slash at the end; None for a lake without one.

    Args:
        env: where the name of an Azure account is read from.

    Raises:
        ConfigError: it does not say the account.
    """
    bound = binding.load(lake)
    if bound is None:
        return None
    address = parse(bound.url, "the remote of this lake")
    if address.scheme == "s3":
        return f"s3a{address.url[2:]}" if engine in HADOOP else address.url
    if engine == "duckdb":
        return address.url
    text = env.get("AZURE_STORAGE_CONNECTION_STRING", "")
    account = env.get("AZURE_STORAGE_ACCOUNT") or dict(
        part.split("=", 1) for part in text.split(";") if "=" in part
    ).get("AccountName")
    if not account:
        raise ConfigError(f"{bound.url}: to name it for {engine}, set AZURE_STORAGE_ACCOUNT")
    root = f"abfss://{address.bucket}@{account}.dfs.core.windows.net"
    return f"{root}/{address.prefix}" if address.prefix else root


class Places:
    """The files of one feed, wherever they are. The remote is contacted only when one of its files is needed.

    Args:
        env: credentials; default: the process's environment at the time of the first file in the remote.
    """

    def __init__(self, dataset: Dataset, env: Mapping[str, str] | None = None) -> None:
        self.dataset, self.env = dataset, env

    def of(self, file: FileEntry) -> tuple[pyarrow.fs.FileSystem, str]:
        """A file system of pyarrow, and the path in it.

        Raises:
            StateError: the file is in a remote that this lake does not know.
            ConfigError: its library is not installed.
        """
        if file.local:
            return self.dataset.storage.arrow(self.dataset.file(file.path))
        files, base = self._remote
        return files, f"{base}/{self._key(file)}"

    def url(self, file: FileEntry) -> str:
        """The file as SQL engines name it; a path for one on this disk."""
        return str(self.dataset.file(file.path)) if file.local else f"{self._binding.url}/{self._key(file)}"

    def open(self, file: FileEntry) -> pq.ParquetFile:
        """The file, to be closed by the caller.

        Raises:
            FileNotFoundError: it is gone.
            RemoteError: it is archived, or the store did not return it.
        """
        import pyarrow.parquet as pq

        if file.local:
            return self.dataset.storage.parquet(self.dataset.file(file.path))
        self.refuse_archived([file])
        files, path = self.of(file)
        try:
            return pq.ParquetFile(files.open_input_file(path))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self.failed(error) from None

    def refuse_archived(self, files: Iterable[FileEntry]) -> None:
        """
        Raises:
            RemoteError: one of these files has to be restored before it can be read.
        """
        for file in files:
            if not file.local and file.remote is not None and file.remote.tier in ARCHIVES:
                raise RemoteError(
                    f"{self.url(file)}: is archived in {file.remote.tier}; bring it back with: "
                    f"python manage_feeds.py remote pull {self.dataset.feed} (takes hours), then ask again"
                )

    def failed(self, error: OSError) -> RemoteError:
        """An error of pyarrow's file system as one line."""
        return RemoteError(f"{self.dataset.feed}: {self._binding.url} cannot be read ({str(error).splitlines()[0]})")

    def _key(self, file: FileEntry) -> str:
        return f"{self.dataset.kind}s/{self.dataset.feed}/{file.path}"

    @cached_property
    def _binding(self) -> binding.Binding:
        found = binding.load(self.dataset.lake)
        if found is None:
            raise StateError(
                f"{binding.path_of(self.dataset.lake)}: missing, though files of {self.dataset.feed} are only in a "
                "remote; set REMOTE and run: python manage_feeds.py remote push"
            )
        return found

    @cached_property
    def _remote(self) -> tuple[pyarrow.fs.FileSystem, str]:
        env = os.environ if self.env is None else self.env
        return connect.connect(parse(self._binding.url, "the remote of this lake"), env).arrow()
