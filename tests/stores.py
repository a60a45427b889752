"""Object stores for tests, all on 127.0.0.1: one in memory, moto, versitygw (S3) and Azurite (Azure Blob).

versitygw and Azurite come from their registries: `python -m tests.stores` installs both into ~/.cache/ksql-lake-servers
(or TEST_SERVERS). Tests that need one which is missing are skipped by name. No client gets a chance to look for real
credentials: `environment` gives explicit keys, and turns the clouds' metadata addresses off.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ksql_lake.store.remote.address import Address, parse
from ksql_lake.store.remote.connect import connect
from ksql_lake.store.remote.seam import ObjectStore
from tests.memory_store import MemoryStore

SERVERS = Path(os.environ.get("TEST_SERVERS") or Path.home() / ".cache" / "ksql-lake-servers")
VERSITYGW, AZURITE = SERVERS / "bin" / "versitygw", SERVERS / "node_modules" / ".bin" / "azurite-blob"
KEY, SECRET = "test", "testtest"
ACCOUNT = "devstoreaccount1"
# Known to everybody: the one that Azurite is delivered with.
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def s3_environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def azure_environment(endpoint: str) -> dict[str, str]:
    text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={endpoint}"
    return {"AZURE_STORAGE_CONNECTION_STRING": f"{text}/{ACCOUNT};"}


@dataclass
class Server:
    """A store that answers, and what a process needs in its environment to reach it."""

    name: str
    scheme: str = "s3"
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0

    def bucket(self, *, versioned: bool = False) -> str:
        """A new bucket, empty; its name."""
        name = f"test-{secrets.token_hex(6)}"
        if self.scheme == "az":
            self.azure().create_container(name)
            return name
        client = self.s3()
        client.create_bucket(Bucket=name)
        if versioned:
            client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def s3(self) -> Any:
        import boto3

        return boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
                            aws_access_key_id=KEY, aws_secret_access_key=SECRET)

    def azure(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.environment["AZURE_STORAGE_CONNECTION_STRING"])

    def url(self, prefix: str = "lake", *, versioned: bool = False) -> str:
        return f"{self.scheme}://{self.bucket(versioned=versioned)}/{prefix}"

    def through(self, port: int) -> dict[str, str]:
        """The environment of a client that goes through a proxy on this port."""
        make = azure_environment if self.scheme == "az" else s3_environment
        return make(f"http://127.0.0.1:{port}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with socket.socket() as one:
            one.settimeout(1)
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


def _running(command: list[str], port: int, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, **environment})
    try:
        _answers(port, process)
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Server]:
    """S3 in this process: storage classes and versions, but neither checksums nor keys are looked at."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield Server("moto", "s3", s3_environment(f"http://127.0.0.1:{port}"), port)
    server.stop()


@pytest.fixture(scope="session")
def versitygw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """S3 with conditions, checksums, keys, clock and versions; no storage classes."""
    if not VERSITYGW.exists():
        pytest.skip(f"{VERSITYGW} is missing: python -m tests.stores")
    port, top = free_port(), tmp_path_factory.mktemp("versitygw")
    for name in ("data", "versions"):
        (top / name).mkdir()
    command = [str(VERSITYGW), "--port", f"127.0.0.1:{port}", "--quiet", "posix", "--versioning-dir",
               str(top / "versions"), str(top / "data")]
    for _ in _running(command, port, ROOT_ACCESS_KEY=KEY, ROOT_SECRET_KEY=SECRET):
        yield Server("versitygw", "s3", s3_environment(f"http://127.0.0.1:{port}"), port)
    shutil.rmtree(top, ignore_errors=True)


@pytest.fixture(scope="session")
def azurite_server() -> Iterator[Server]:
    """Azure Blob with conditions, MD5 and tiers; neither versions nor soft delete."""
    if not AZURITE.exists():
        pytest.skip(f"{AZURITE} is missing: python -m tests.stores")
    port = free_port()
    command = [str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent",
               "--skipApiVersionCheck", "--disableTelemetry"]
    for _ in _running(command, port):
        yield Server("azurite", "az", azure_environment(f"http://127.0.0.1:{port}"), port)


MEMORY = "memory"
ALL = [
    MEMORY, "moto", pytest.param("versitygw", marks=pytest.mark.slow), pytest.param("azurite", marks=pytest.mark.slow)
]
REAL = ALL[1:]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """The server that a test's parameter names."""
    found = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(found, Server)
    return found


Opener = Callable[[], ObjectStore]


@pytest.fixture(params=ALL)
def opener(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Opener:
    """Opens a store with nothing in it; every call another client of the same one."""
    if request.param == MEMORY:
        store = MemoryStore(tmp_path / "objects")
        return lambda: store
    found = request.getfixturevalue(f"{request.param}_server")
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    address = parse(found.url())
    return lambda: connect(address, os.environ)


@pytest.fixture
def store(opener: Opener) -> ObjectStore:
    return opener()


def at(url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The store with this address, reached by this environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    address: Address = parse(url)
    return connect(address, os.environ)


def install() -> None:
    """Build versitygw with Go and fetch Azurite with npm; some minutes the first time."""
    SERVERS.mkdir(parents=True, exist_ok=True)
    go = {"GOBIN": str(SERVERS / "bin"), "CGO_ENABLED": "0"}
    if not VERSITYGW.exists():
        subprocess.run(["go", "install", "github.com/versity/versitygw/cmd/versitygw@v1.8.0"], check=True,
                       env={**os.environ, **go})
    if not AZURITE.exists():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "azurite@3.37"], check=True, cwd=SERVERS)


if __name__ == "__main__":
    install()
    sys.exit(0 if VERSITYGW.exists() and AZURITE.exists() else 1)
