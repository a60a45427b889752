"""Azure keeps versions and soft-deleted copies: all go with an erasure, or what stays is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ksql_lake.store.remote.address import parse
from ksql_lake.store.remote.connect import connect
from ksql_lake.store.remote.seam import ObjectStore
from tests.azure_versions import VersionedBlobs
from tests.stores import ACCOUNT_KEY

KEY = "streams/s/year=2025/month=01/day=15/a.parquet"
NAME = f"lake/{KEY}"


@pytest.fixture
def blobs() -> Iterator[VersionedBlobs]:
    with VersionedBlobs() as made:
        made.put(NAME, 3)
        made.put(f"{NAME}.other", 2)
        yield made


def store_of(blobs: VersionedBlobs) -> ObjectStore:
    return connect(parse("az://container/lake"), {
        "AZURE_STORAGE_ACCOUNT": "acme", "AZURE_STORAGE_KEY": ACCOUNT_KEY, "AZURE_STORAGE_ENDPOINT": blobs.endpoint,
    })


def left(blobs: VersionedBlobs) -> list[tuple[str, bool]]:
    return [(blob.id[:10], blob.deleted) for blob in blobs.blobs if blob.name == NAME]


def test_every_version_goes(blobs: VersionedBlobs) -> None:
    store = store_of(blobs)
    assert store.purge(KEY) == () and len(left(blobs)) == 3, "hidden, and all still there"
    assert store.purge(KEY, versions=True) == () and left(blobs) == []
    assert sum(blob.name == f"{NAME}.other" for blob in blobs.blobs) == 2
    assert store.purge(KEY, versions=True) == ()


def test_what_soft_delete_keeps_is_named(blobs: VersionedBlobs) -> None:
    """Also versions that this very purge has deleted."""
    blobs.soft_delete = True
    kept = store_of(blobs).purge(KEY, versions=True)
    assert len(kept) == 3 and all("a soft-deleted copy stays for 7 more days" in line for line in kept)
    assert [deleted for _, deleted in left(blobs)] == [True] * 3


def test_a_locked_version_is_named(blobs: VersionedBlobs) -> None:
    blobs.locked = {blobs.blobs[1].id}
    (line,) = store_of(blobs).purge(KEY, versions=True)
    assert "version 2026-01-02T00:00:00.0000000Z stays" in line and "a policy of the container forbids it" in line
    assert left(blobs) == [("2026-01-02", False)]


def test_credentials_that_may_not_list_do_not_prove_anything(blobs: VersionedBlobs) -> None:
    blobs.can_list = False
    (line,) = store_of(blobs).purge(KEY, versions=True)
    assert "earlier versions may still exist" in line and "may not do this" in line


def test_an_account_without_versions(blobs: VersionedBlobs) -> None:
    blobs.versions_known = False
    for blob in list(blobs.blobs):
        if not blob.current:
            blobs.blobs.remove(blob)
    assert store_of(blobs).purge(KEY, versions=True) == ()
