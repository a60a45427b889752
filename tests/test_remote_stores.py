"""The ten verbs over every store: in memory, moto, versitygw and Azurite; and what a broken line does to them."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import os
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ksql_lake.base.errors import ConfigError, RemoteError
from ksql_lake.store.remote import marker
from ksql_lake.store.remote.address import parse
from ksql_lake.store.remote.connect import connect
from ksql_lake.store.remote.marker import Marker
from ksql_lake.store.remote.seam import Archived, Away, Gone, ObjectStore, Refused, Taken
from tests.conftest import ROOT
from tests.fault_proxy import FaultProxy, Kind
from tests.memory_store import MemoryStore
from tests.stores import REAL, Opener, Server, at, free_port

KEY = "streams/clicks/year=2025/month=1/day=15/data_20250115_001.parquet"


def a_file(path: Path, content: bytes = b"rows of a day") -> tuple[Path, int]:
    path.write_bytes(content)
    return path, zlib.crc32(content)


def content_of(store: ObjectStore, key: str) -> bytes:
    sink = io.BytesIO()
    store.get(key, sink)
    return sink.getvalue()


def test_a_file_goes_up_and_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    path, crc = a_file(tmp_path / "a")
    store.create(KEY, path, crc)
    assert content_of(store, KEY) == path.read_bytes()
    there = store.stat(KEY)
    assert there.holds(path.stat().st_size, crc) and not there.archived and not there.restoring
    assert not there.holds(path.stat().st_size, crc ^ 1) and not there.holds(1, crc)


def test_the_same_file_twice_is_done_and_another_one_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    path, crc = a_file(tmp_path / "a")
    store.create(KEY, path, crc)
    store.create(KEY, path, crc)
    other, other_crc = a_file(tmp_path / "b", b"rows of another")
    with pytest.raises(Taken):
        store.create(KEY, other, other_crc)
    assert content_of(store, KEY) == path.read_bytes()


def test_a_file_that_differs_from_its_record_never_arrives(
    store: ObjectStore, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if "moto" in request.node.callspec.id:
        pytest.skip("moto takes any checksum")
    path, crc = a_file(tmp_path / "a")
    with pytest.raises(Refused):
        store.create(KEY, path, crc ^ 1)
    with pytest.raises(Gone):
        store.stat(KEY)


def test_what_is_not_there(store: ObjectStore) -> None:
    with pytest.raises(Gone):
        store.stat(KEY)
    with pytest.raises(Gone):
        store.get(KEY, io.BytesIO())
    with pytest.raises(Gone):
        store.retier(KEY, "STANDARD" if store.url.startswith("s3") else "Hot")
    assert store.purge(KEY) == () and store.purge(KEY, versions=True) == ()
    assert list(store.list()) == []


def test_a_swap_replaces_only_what_it_knows(store: ObjectStore) -> None:
    first = store.swap("m", b"1", None)
    with pytest.raises(Taken):
        store.swap("m", b"other", None)
    second = store.swap("m", b"2", first)
    assert second != first
    with pytest.raises(Taken):
        store.swap("m", b"3", first)
    sink = io.BytesIO()
    assert store.get("m", sink) == second and sink.getvalue() == b"2"
    with pytest.raises(Taken):
        store.swap("never made", b"3", first)


def test_a_swap_whose_answer_was_lost_is_ours(store: ObjectStore) -> None:
    first = store.swap("m", b"1", None)
    assert store.swap("m", b"1", None) == first
    second = store.swap("m", b"2", first)
    assert store.swap("m", b"2", first) == second


def test_of_eight_who_swap_at_once_one_wins(opener: Opener, request: pytest.FixtureRequest) -> None:
    if "moto" in request.node.callspec.id:
        pytest.skip("moto looks and writes in two steps, so that two may win on a busy machine")
    first = opener().swap("m", b"start", None)
    won: list[int] = []
    stores = [opener() for _ in range(8)]

    def swap(number: int) -> None:
        try:
            stores[number].swap("m", f"writer {number}".encode(), first)
            won.append(number)
        except Taken:
            pass

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert content_of(opener(), "m") == f"writer {won[0]}".encode()


def test_a_listing_has_every_key_of_a_prefix_and_no_other(store: ObjectStore, tmp_path: Path) -> None:
    path, crc = a_file(tmp_path / "a")
    for key in ("streams/a/1", "streams/a/2", "streams/ab/1", "tables/a/1"):
        store.create(key, path, crc)
    assert [found.key for found in store.list("streams/a/")] == ["streams/a/1", "streams/a/2"]
    assert len([*store.list()]) == 4 and {found.size for found in store.list()} == {path.stat().st_size}


def test_purged_is_gone(store: ObjectStore, tmp_path: Path) -> None:
    path, crc = a_file(tmp_path / "a")
    for key in (KEY, f"{KEY}.other"):
        store.create(key, path, crc)
    assert store.purge(KEY) == ()
    with pytest.raises(Gone):
        store.stat(KEY)
    assert store.purge(f"{KEY}.other", versions=True) == ()
    assert list(store.list()) == []


def test_arrow_reads_what_went_up(store: ObjectStore, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "a.parquet")
    store.create(KEY, tmp_path / "a.parquet", zlib.crc32((tmp_path / "a.parquet").read_bytes()))
    files, base = store.arrow()
    fragment = ds.ParquetFileFormat().make_fragment(f"{base}/{KEY}", files)
    assert fragment.to_table()["x"].to_pylist() == [1, 2, 3]


def test_a_large_file_goes_up_in_parts(
    store: ObjectStore, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "moto" in request.node.callspec.id:
        pytest.skip("moto keeps no whole checksum of a file in parts")
    for name in ("s3", "azure"):
        monkeypatch.setattr(f"ksql_lake.store.remote.{name}.SINGLE", 5 << 20)
    path, crc = a_file(tmp_path / "a", os.urandom(13 << 20))
    store.create(KEY, path, crc)
    store.create(KEY, path, crc)
    assert store.stat(KEY).holds(path.stat().st_size, crc)
    assert hashlib.md5(content_of(store, KEY)).digest() == hashlib.md5(path.read_bytes()).digest()
    other, other_crc = a_file(tmp_path / "b", os.urandom(13 << 20))
    with pytest.raises(Taken):
        store.create(KEY, other, other_crc)
    with pytest.raises(Refused):
        store.create(f"{KEY}.2", other, other_crc ^ 1)
    assert store.abort_stale(dt.datetime.now(dt.UTC) + dt.timedelta(days=1)) == 0, "a failed upload leaves no parts"
    assert [found.key for found in store.list()] == [KEY]


@pytest.mark.parametrize("server", [
    "moto", pytest.param("versitygw", marks=pytest.mark.slow)
], indirect=True)
def test_parts_that_a_killed_upload_left_are_removed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.url()
    store, bucket = at(url, server.environment, monkeypatch), url.split("/")[2]
    upload = server.s3().create_multipart_upload(Bucket=bucket, Key=f"lake/{KEY}")["UploadId"]
    server.s3().upload_part(Bucket=bucket, Key=f"lake/{KEY}", UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20))
    server.s3().create_multipart_upload(Bucket=bucket, Key="not/ours")
    # moto's uploads all began in 2010
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=6000 if server.name == "moto" else 1)
    assert store.abort_stale(yesterday) == 0, "it may still be going on"
    assert store.abort_stale(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)) == 1
    left = server.s3().list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [one["Key"] for one in left] == ["not/ours"]


@pytest.mark.parametrize("server", [
    "moto", pytest.param("versitygw", marks=pytest.mark.slow)
], indirect=True)
def test_in_a_versioned_bucket_every_version_goes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url(versioned=True)
    store, bucket = at(url, server.environment, monkeypatch), url.split("/")[2]
    path, crc = a_file(tmp_path / "a")
    etag = store.swap("m", b"1", None)
    store.swap("m", b"2", etag)
    for key in (KEY, f"{KEY}.other"):
        store.create(key, path, crc)
    store.purge(KEY)

    def versions(key: str) -> int:
        told = server.s3().list_object_versions(Bucket=bucket, Prefix=f"lake/{key}")
        every = (*told.get("Versions", ()), *told.get("DeleteMarkers", ()))
        return sum(one["Key"] == f"lake/{key}" for one in every)

    assert versions(KEY) == 2, "the object and the mark that hides it"
    assert store.purge(KEY, versions=True) == () and store.purge("m", versions=True) == ()
    assert versions(KEY) == versions("m") == 0 and versions(f"{KEY}.other") == 1


@pytest.mark.parametrize("server", ["moto", pytest.param("azurite", marks=pytest.mark.slow)], indirect=True)
def test_an_archived_object_is_named_and_asked_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = at(server.url(), server.environment, monkeypatch)
    cool, archive = ("STANDARD_IA", "GLACIER") if server.scheme == "s3" else ("Cool", "Archive")
    path, crc = a_file(tmp_path / "a")
    store.create(KEY, path, crc, cool)
    assert store.stat(KEY).tier == cool and content_of(store, KEY) == path.read_bytes()
    store.retier(KEY, archive)
    there = store.stat(KEY)
    assert there.tier == archive and there.archived and not there.restoring and there.size == path.stat().st_size
    assert [found.archived for found in store.list()] == [True]
    with pytest.raises(Archived):
        store.get(KEY, io.BytesIO())
    store.restore(KEY, 2)
    store.restore(KEY, 2)
    assert not store.stat(KEY).archived, "both play stores restore at once"
    assert content_of(store, KEY) == path.read_bytes()


def test_a_restore_in_memory_takes_its_time(tmp_path: Path) -> None:
    store = MemoryStore(tmp_path / "objects")
    path, crc = a_file(tmp_path / "a")
    store.create(KEY, path, crc, "GLACIER")
    store.restore(KEY, 2)
    assert store.stat(KEY).restoring and store.stat(KEY).archived
    store.finish_restores()
    assert content_of(store, KEY) == path.read_bytes()


def test_a_remote_belongs_to_one_lake(store: ObjectStore) -> None:
    mine, other = Marker("1", "2025-01-01T00:00:00Z", "ada"), Marker("2", "2025-01-02T00:00:00Z", "bob")
    assert marker.read(store) is None
    assert marker.bind(store, mine) == mine and marker.bind(store, mine) == mine
    with pytest.raises(Refused, match="belongs to another lake"):
        marker.bind(store, other)
    assert marker.read(store) == mine


def test_somebody_elses_object_is_no_marker(store: ObjectStore) -> None:
    store.swap(marker.KEY, b'{"theirs": 1}', None)
    with pytest.raises(Refused, match="not written by this tool"):
        marker.bind(store, Marker("1", "2025-01-01T00:00:00Z", "ada"))


# What a broken line does.


@pytest.fixture(params=REAL)
def behind(request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue(f"{request.param}_server")
    assert isinstance(found, Server)
    return found


def test_a_store_that_says_slow_down_is_waited_for(
    behind: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, crc = a_file(tmp_path / "a")
    with FaultProxy(behind.port) as proxy:
        store = at(behind.url(), behind.through(proxy.port), monkeypatch)
        proxy.breaks("slow_down", f"PUT .*{KEY[-20:]}")
        store.create(KEY, path, crc)
        assert sum(line.startswith("PUT") for line in proxy.log) == 2
        assert store.stat(KEY).holds(path.stat().st_size, crc)


def test_an_answer_that_was_lost_is_no_conflict(
    behind: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, crc = a_file(tmp_path / "a")
    with FaultProxy(behind.port) as proxy:
        store = at(behind.url(), behind.through(proxy.port), monkeypatch)
        proxy.breaks("lost_answer", f"PUT .*{KEY[-20:]}")
        store.create(KEY, path, crc)
        first = store.swap("m", b"1", None)
        lost = proxy.breaks("lost_answer", "PUT .*/m")
        second = store.swap("m", b"2", first)
        assert lost.seen == 1 and store.swap("m", b"3", second) not in (first, second)
        assert content_of(store, KEY) == path.read_bytes()


def test_a_cut_upload_is_sent_again(behind: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, crc = a_file(tmp_path / "a", os.urandom(3 << 20))
    with FaultProxy(behind.port) as proxy:
        store = at(behind.url(), behind.through(proxy.port), monkeypatch)
        proxy.breaks("cut_upload", f"PUT .*{KEY[-20:]}")
        store.create(KEY, path, crc)
        assert store.stat(KEY).holds(path.stat().st_size, crc)


def test_a_cut_download_is_continued(behind: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, crc = a_file(tmp_path / "a", os.urandom(3 << 20))
    with FaultProxy(behind.port) as proxy:
        store = at(behind.url(), behind.through(proxy.port), monkeypatch)
        store.create(KEY, path, crc)
        proxy.breaks("cut_answer", f"GET .*{KEY[-20:]}", 2)
        with (tmp_path / "back").open("w+b") as sink:
            store.get(KEY, sink)
        assert (tmp_path / "back").read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("server", ["versitygw", "azurite"], indirect=True)
@pytest.mark.parametrize("kind", ["cut_upload", "lost_answer", "slow_down"])
def test_a_part_of_a_large_file_that_fails_is_sent_again(
    server: Server, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("s3.SINGLE", "azure.SINGLE", "azure.BLOCK"):
        monkeypatch.setattr(f"ksql_lake.store.remote.{name}", 5 << 20)
    path, crc = a_file(tmp_path / "a", os.urandom(13 << 20))
    with FaultProxy(server.port) as proxy:
        store = at(server.url(), server.through(proxy.port), monkeypatch)
        one = proxy.breaks(kind, "partNumber=2" if server.scheme == "s3" else "comp=block&")
        last = proxy.breaks(kind, "POST .*uploadId=" if server.scheme == "s3" else "comp=blocklist")
        store.create(KEY, path, crc)
        assert (one.seen, last.seen) == (1, 1)
        assert store.stat(KEY).holds(path.stat().st_size, crc)
        assert hashlib.md5(content_of(store, KEY)).digest() == hashlib.md5(path.read_bytes()).digest()
        assert store.abort_stale(dt.datetime.now(dt.UTC) + dt.timedelta(days=1)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("server", ["versitygw"], indirect=True)
def test_a_part_that_never_arrives_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ksql_lake.store.remote.s3.SINGLE", 5 << 20)
    monkeypatch.setattr("ksql_lake.store.remote.s3.RETRIES", 2)
    path, crc = a_file(tmp_path / "a", os.urandom(13 << 20))
    with FaultProxy(server.port) as proxy:
        store = at(server.url(), server.through(proxy.port), monkeypatch)
        proxy.breaks("cut_upload", "partNumber=2", 99)
        with pytest.raises(Away):
            store.create(KEY, path, crc)
        assert list(store.list()) == []
        assert store.abort_stale(dt.datetime.now(dt.UTC) + dt.timedelta(days=1)) == 0, "it was aborted at once"


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_expired_credentials_are_told_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultProxy(server.port) as proxy:
        store = at(server.url(), server.through(proxy.port), monkeypatch)
        proxy.breaks("expired", "GET", 9)
        with pytest.raises(Refused, match="expired; sign in again.*ExpiredToken"):
            store.get(KEY, io.BytesIO())
        assert len(proxy.log) == 1, "nothing is gained by asking again"


@pytest.mark.parametrize("server", ["moto"], indirect=True)
def test_a_store_that_stays_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ksql_lake.store.remote.s3.RETRIES", 2)
    with FaultProxy(server.port) as proxy:
        store = at(server.url(), server.through(proxy.port), monkeypatch)
        proxy.breaks("slow_down", "GET", 9)
        with pytest.raises(Away, match="503 SlowDown"):
            store.get(KEY, io.BytesIO())
    away = at("s3://bucket/lake", server.through(free_port()), monkeypatch)
    with pytest.raises(Away, match="does not answer"):
        away.get(KEY, io.BytesIO())


@pytest.mark.slow
@pytest.mark.parametrize("server", ["versitygw"], indirect=True)
@pytest.mark.parametrize(("name", "value", "words"), [
    ("AWS_ACCESS_KEY_ID", "nobody", "access key is not known"),
    ("AWS_SECRET_ACCESS_KEY", "wrong", "secret key does not belong"),
])
def test_wrong_keys(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    store = at(server.url(), {**server.environment, name: value}, monkeypatch)
    with pytest.raises(Refused, match=words):
        store.get(KEY, io.BytesIO())
    assert value not in str(pytest.raises(RemoteError, store.get, KEY, io.BytesIO()).value)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["versitygw"], indirect=True)
def test_a_wrong_clock(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.auth

    store = at(server.url(), server.environment, monkeypatch)
    late = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(minutes=20)
    for name in ("get_current_datetime", "get_current_utc_datetime"):
        monkeypatch.setattr(botocore.auth, name, lambda *_, **__: late, raising=False)
    with pytest.raises(Refused, match="set the clock"):
        store.get(KEY, io.BytesIO())


@pytest.mark.parametrize("server", REAL, indirect=True)
def test_a_missing_bucket(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = at(f"{server.scheme}://was-never-made/lake", server.environment, monkeypatch)
    with pytest.raises(Refused, match="no such (bucket|container); create it first"):
        store.get(KEY, io.BytesIO())
    path, crc = a_file(tmp_path / "a")
    with pytest.raises(Refused, match="no such (bucket|container)"):
        store.create(KEY, path, crc)


# The setting, and libraries that are missing.


@pytest.mark.parametrize(("text", "url"), [
    ("s3://lake", "s3://lake"), ("s3://my-bucket/a/b/", "s3://my-bucket/a/b"), ("az://data/lake", "az://data/lake"),
])
def test_an_address(text: str, url: str) -> None:
    address = parse(text)
    assert address.url == url and address.key(address.name(KEY)) == KEY
    assert address.name(KEY).endswith(KEY)


@pytest.mark.parametrize(("text", "words"), [
    ("gs://bucket/lake", "Google Cloud Storage, which is not supported"),
    ("/mnt/bucket", "must look like"), ("http://host/bucket", "must look like"), ("s3:bucket", "must look like"),
    ("s3://AKIA:hunter2@bucket/x", "a bucket and a prefix only"), ("az://c/x?sig=hunter2", "a bucket and a prefix"),
    ("s3://Bucket", "cannot be the name of a bucket"), ("s3://b/x", "cannot be the name"), ("s3://", "cannot be"),
    ("s3://bucket/a//b", "a prefix may hold"), ("s3://bucket/../b", "a prefix may hold"), ("s3://bucket/a b", "prefix"),
])
def test_an_address_that_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse(text)
    assert "REMOTE" in str(caught.value) and "hunter2" not in str(caught.value)


def test_azure_without_an_account() -> None:
    with pytest.raises(ConfigError, match="AZURE_STORAGE_CONNECTION_STRING"):
        connect(parse("az://container/lake"), {})


@pytest.mark.parametrize(("url", "module", "name"), [
    ("s3://bucket/lake", "boto3", "requirements-s3.txt"),
    ("az://container/lake", "azure", "requirements-azure.txt"),
])
def test_a_missing_library_is_one_clear_line(url: str, module: str, name: str) -> None:
    code = f"""
import sys
sys.modules[{module!r}] = None
from ksql_lake.base.errors import ConfigError
from ksql_lake.store.remote import address, connect
try:
    connect.connect(address.parse({url!r}), {{}})
except ConfigError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.count("\n") == 1 and f"pip install -r {name}" in told


def test_the_setting_alone_loads_no_library() -> None:
    code = """
import sys
import ksql_lake.store.remote.address, ksql_lake.store.remote.connect, ksql_lake.store.remote.marker
sys.exit(bool({"boto3", "azure", "pyarrow"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
