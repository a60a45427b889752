"""Fixtures of the whole suite, and the guard that keeps tests out of the repository's own lake."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


class YouForgotToChooseALake(AssertionError):
    """A test wrote into the repository's own data_lake/."""


def _refuse_own_lake(event: str, args: tuple[object, ...]) -> None:
    if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") or not isinstance(args[0], str | Path):
        return
    writes = event != "open" or (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    path = Path(args[0]) if Path(args[0]).is_absolute() else Path.cwd() / args[0]
    if writes and (ROOT / "data_lake") in path.parents:
        raise YouForgotToChooseALake(f"{event} {path}")


sys.addaudithook(_refuse_own_lake)


class YouReachedTheWorld(AssertionError):
    """A test opened a connection to something else than this machine."""


def _refuse_the_world(event: str, args: tuple[object, ...]) -> None:
    if event != "socket.connect" or not isinstance(args[1], tuple) or args[0].type != socket.SOCK_STREAM:  # type: ignore[attr-defined]
        return
    host = str(args[1][0])
    if not (host.startswith("127.") or host in ("localhost", "::1", "0.0.0.0", "")):
        raise YouReachedTheWorld(f"{event} {args[1]}")


sys.addaudithook(_refuse_the_world)

pytest_plugins = ["tests.stores"]
CLOUDS = ("AWS_", "AZURE_")  # settings of a developer's own accounts


OWN = ("METRICS_FILE", "PING_URL", "ON_FAILURE", "REMOTE", "DELTA", "REGISTER")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith(("KSQLDB_", "KAFKA_", *CLOUDS)) or name in OWN:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "lake"))
    yield


@pytest.fixture(params=["native", "python"])
def each_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the native library and without it."""
    from ksql_lake.base import native
    from ksql_lake.sources.ksqldb import body, rows

    if request.param == "native" and native.library() is None:
        pytest.skip("the native library is not built: python -m ksql_lake.base.native")
    if request.param == "python":
        for module in (body, rows):
            monkeypatch.setattr(module, "library", lambda: None)
    return str(request.param)
