"""The workers of a Dask cluster as an Executor: they read and stage over the shared lake directory, and never publish.

When a worker dies, the scheduler gives its work to another one, which stages under a name of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ksql_lake import __version__
from ksql_lake.base.errors import ConfigError, LakeError
from ksql_lake.ingest.workers import Workers
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of

PATIENCE = 15  # seconds to wait for the scheduler to answer, and for a first worker


@contextmanager
def workers(address: str, lake: Path) -> Iterator[Workers]:
    """The workers of the scheduler at `address` (tcp:// or tls://), checked before they get any work.

    Raises:
        ConfigError: nothing answers there, it has no worker, or a worker has another version of this package or
            does not see the lake.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError("--cluster needs Dask: pip install -r requirements-cluster.txt") from None
    try:
        connect: Any = Client  # it has no type hints
        client = connect(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--cluster {address}: no scheduler answers ({_first_line(error)})") from None
    with client:
        executor = _Executor(client.get_executor(pure=False))
        try:
            yield Workers(executor, _inspect(client, address, lake))
        finally:
            executor.shutdown(wait=False)


def _inspect(client: Any, address: str, lake: Path) -> int:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise ConfigError(f"--cluster {address}: the scheduler has no worker; start one with: dask worker "
                          f"{address}") from None
    probe, storage = layout.probe(lake, secrets.token_hex(4)), storage_of(lake)
    storage.close(probe.parent)
    storage.put(probe, b"do the workers see this lake?")
    try:
        found = client.run(probe_worker, str(probe), on_error="return")
    finally:
        storage.delete(probe)
    for worker, answer in sorted(found.items()):
        if "No module named" in str(answer) and isinstance(answer, Exception):  # Dask may wrap the ImportError
            raise ConfigError(f"--cluster: worker {worker} cannot import ksql_lake; start it with PYTHONPATH set to it")
        if isinstance(answer, BaseException):
            raise ConfigError(f"--cluster: worker {worker} cannot work: {_first_line(answer)}")
        version, sees = answer
        if version != __version__:
            raise ConfigError(
                f"--cluster: worker {worker} has version {version} of ksql_lake, but this machine has {__version__}; "
                "install the same version"
            )
        if not sees:
            raise ConfigError(f"--cluster: worker {worker} does not see {lake}; mount it there under the same path")
    return sum(client.nthreads().values())


def probe_worker(probe: str) -> tuple[str, bool]:
    """On a worker: its version of this package, and whether it sees a file that was just written."""
    return __version__, storage_of(Path(probe)).stat(Path(probe)) is not None


class _Executor(Executor):
    """Dask's executor, whose own failures become one line that an operator understands."""

    def __init__(self, dask: Executor) -> None:
        self._dask = dask

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        outer: Future[Any] = Future()
        self._dask.submit(fn, *args, **kwargs).add_done_callback(lambda inner: _hand_on(inner, outer))
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._dask.shutdown(wait=wait)


def _hand_on(inner: Future[Any], outer: Future[Any]) -> None:
    try:
        outer.set_result(inner.result())
    except CancelledError:
        outer.set_exception(LakeError("the cluster cancelled the work; nothing is lost, the next run reads it again"))
    except Exception as error:
        lost = type(error).__module__.startswith("distributed")
        text = f"the cluster lost the work ({_first_line(error)}); nothing is lost, the next run reads it again"
        outer.set_exception(LakeError(text) if lost else error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
