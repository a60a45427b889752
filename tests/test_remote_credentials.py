"""How a remote is signed in to: by the conventions of each cloud, for uploads and for what is read from there alike."""

from __future__ import annotations

import datetime as dt
import sys
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ksql_lake.base.errors import ConfigError
from ksql_lake.store.remote.address import parse
from ksql_lake.store.remote.connect import connect
from ksql_lake.store.remote.seam import ObjectStore, Refused
from tests.fault_proxy import FaultProxy
from tests.stores import ACCOUNT, ACCOUNT_KEY, KEY, SECRET, Server, at

NAME = "streams/s/year=2025/month=01/day=15/a.parquet"


def works(store: ObjectStore, tmp_path: Path) -> None:
    """Written by the cloud's own library, and read by pyarrow's."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1, 2, 3]}), path)
    store.create(NAME, path, zlib.crc32(path.read_bytes()))
    files, base = store.arrow()
    fragment = ds.ParquetFileFormat().make_fragment(f"{base}/{NAME}", files)
    assert fragment.to_table()["x"].to_pylist() == [1, 2, 3]
    assert store.purge(NAME, versions=True) == () and list(store.list()) == []


def sas(minutes: int = 60, permission: str = "racwdl") -> str:
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    return str(generate_account_sas(
        ACCOUNT, ACCOUNT_KEY, ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions.from_string(permission), dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes),
    ))


def endpoint(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/{ACCOUNT}"


def azure_ways(server: Server) -> dict[str, dict[str, str]]:
    place = endpoint(server)
    return {
        "connection string with a key": server.environment,
        "connection string with a SAS": {
            "AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={place};SharedAccessSignature={sas()}"},
        "key": {
            "AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": ACCOUNT_KEY, "AZURE_STORAGE_ENDPOINT": place},
        "SAS": {
            "AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_SAS_TOKEN": sas(), "AZURE_STORAGE_ENDPOINT": place},
        "SAS as the portal shows it": {
            "AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_SAS_TOKEN": f"?{sas()}", "AZURE_STORAGE_ENDPOINT": place},
    }


@pytest.mark.slow
@pytest.mark.parametrize("server", ["azurite"], indirect=True)
@pytest.mark.parametrize("way", [
    "connection string with a key", "connection string with a SAS", "key", "SAS", "SAS as the portal shows it",
])
def test_azure(server: Server, way: str, tmp_path: Path) -> None:
    works(connect(parse(server.url()), azure_ways(server)[way]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["azurite"], indirect=True)
@pytest.mark.parametrize(("token", "words"), [
    (lambda: sas(minutes=-5), "(?i)AuthenticationFailed|AuthorizationFailure"),
    (lambda: sas(permission="rl"), "AuthorizationPermissionMismatch"),
    (lambda: sas()[:-6] + "AAA%3D", "AuthenticationFailed|AuthorizationFailure"),
])
def test_a_sas_that_does_not_do(server: Server, token: object, words: str, tmp_path: Path) -> None:
    given = {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_SAS_TOKEN": token(),  # type: ignore[operator]
             "AZURE_STORAGE_ENDPOINT": endpoint(server)}
    with pytest.raises(Refused, match=words) as caught:
        works(connect(parse(server.url()), given), tmp_path)
    assert "sig=" not in str(caught.value)


@pytest.mark.parametrize(("given", "words"), [
    ({"AZURE_STORAGE_CONNECTION_STRING": "hunter2"}, "AZURE_STORAGE_CONNECTION_STRING is wrong"),
    ({"AZURE_STORAGE_ACCOUNT": "acme", "AZURE_STORAGE_KEY": "hunter2!"}, "AZURE_STORAGE_KEY is wrong"),
])
def test_azure_settings_that_are_wrong(given: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        connect(parse("az://container/lake"), given)
    assert "hunter2" not in str(caught.value)


REAL = ["moto", pytest.param("versitygw", marks=pytest.mark.slow)]


@pytest.mark.parametrize("server", REAL, indirect=True)
@pytest.mark.parametrize("way", ["environment", "profile", "shared credentials"])
def test_aws(server: Server, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = server.environment["AWS_ENDPOINT_URL"]
    keys = f"aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    given = dict(server.environment)
    if way != "environment":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
            del given[name]
    if way == "profile":  # which names the endpoint and the region, too
        (tmp_path / "config").write_text(f"[profile lake]\n{keys}endpoint_url = {place}\nregion = eu-west-1\n")
        for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
            del given[name]
        given |= {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "lake"}
    if way == "shared credentials":
        (tmp_path / "credentials").write_text(f"[default]\n{keys}")
        given["AWS_SHARED_CREDENTIALS_FILE"] = str(tmp_path / "credentials")
    works(at(server.url(), given, monkeypatch), tmp_path)


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_a_session_token_goes_with_every_request(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(server.port) as proxy:
        given = {**server.through(proxy.port), "AWS_SESSION_TOKEN": "of-today"}
        works(at(server.url(), given, monkeypatch), tmp_path)
        assert proxy.log and len(proxy.tokens) == len(proxy.log) and set(proxy.tokens) == {"of-today"}


@pytest.mark.parametrize("way", ["none", "no such profile"])
def test_no_credentials_of_aws(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    given = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1",
             "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    if way != "none":
        given["AWS_PROFILE"] = "nobody"
    with pytest.raises(Refused, match="credentials" if way == "none" else "nobody"):
        works(at("s3://bucket/lake", given, monkeypatch), tmp_path)


def test_the_endpoint_of_azure_is_checked() -> None:
    assert urlsplit(connect(parse("az://container/lake"), {
        "AZURE_STORAGE_ACCOUNT": "acme", "AZURE_STORAGE_KEY": ACCOUNT_KEY,
    }).service.url).hostname == "acme.blob.core.windows.net"  # type: ignore[attr-defined]


def test_a_sign_in_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(ConfigError, match="pip install azure-identity"):
        connect(parse("az://container/lake"), {"AZURE_STORAGE_ACCOUNT": "acme"})


def test_a_domain_of_ones_own_cannot_be_read_through() -> None:
    given = {"AZURE_STORAGE_ACCOUNT": "acme", "AZURE_STORAGE_KEY": ACCOUNT_KEY,
             "AZURE_STORAGE_ENDPOINT": "https://blobs.acme.example"}
    with pytest.raises(ConfigError, match=r"cannot be read through blobs\.acme\.example"):
        connect(parse("az://container/lake"), given).arrow()
