"""A bucket of S3, or of any store that speaks S3 with conditional writes, through boto3."""

from __future__ import annotations

import base64
import datetime as dt
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from ksql_lake.store.remote.address import ARCHIVES, Address
from ksql_lake.store.remote.seam import RETRIES, SINGLE, Archived, Away, Gone, Refused, Stat, Taken

if TYPE_CHECKING:
    import pyarrow.fs

    from ksql_lake.base.errors import RemoteError

PIECE = 1 << 20  # bytes
CONFLICTS = 5  # of one upload with another one; the object is checked after each
GONE = ("404", "NoSuchKey", "NotFound", "NoSuchVersion")
TAKEN = ("412", "PreconditionFailed", "ConditionalRequestConflict")
AWAY = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503", "504", "429")
HINTS = {
    "NoSuchBucket": "there is no such bucket; create it first",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set the clock",
    "ExpiredToken": "the credentials have expired; sign in again",
    "InvalidAccessKeyId": "the access key is not known there",
    "XAdminUserNotFound": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "AccessDenied": "these credentials may not do this",
    "403": "these credentials may not do this",
    "BadDigest": "the content does not have the checksum on record; the file was altered on this disk or on its way",
}


class S3Store:
    """The verbs of `ObjectStore` on one bucket."""

    def __init__(self, address: Address, client: Any, session: Any) -> None:
        self.address, self.client, self.session = address, client, session

    @classmethod
    def open(cls, address: Address) -> S3Store:
        """With credentials, region and endpoint from where every AWS tool takes them."""
        for name in ("boto3", "botocore"):  # they log every request and where credentials came from
            logging.getLogger(name).setLevel(logging.WARNING)
        session: Any = _told(address.url, boto3.session.Session)
        retries = {"mode": "standard", "max_attempts": RETRIES}
        config = Config(retries=retries, max_pool_connections=32, connect_timeout=10, read_timeout=60)
        return cls(address, _told(address.url, lambda: session.client("s3", config=config)), session)

    @property
    def url(self) -> str:
        return self.address.url

    def create(self, key: str, path: Path, crc32: int, tier: str | None = None) -> None:
        size = path.stat().st_size
        for _ in range(CONFLICTS):
            # The store checks its condition only after everything was sent.
            if size > SINGLE and self._mine(key, size, crc32):
                return
            try:
                if size > SINGLE:
                    self._in_parts(key, path, size, crc32, tier)
                else:
                    with path.open("rb") as file:
                        self._ask("put_object", key, Body=file, ContentLength=size, IfNoneMatch="*",
                                  ChecksumAlgorithm="CRC32", **_checksum(crc32), **_class(tier))
                return
            except Taken:
                if self._mine(key, size, crc32):
                    return
        raise Away(f"{self.url}/{key}: the store reports a conflict each time, though nothing is there")

    def _mine(self, key: str, size: int, crc32: int) -> bool:
        """Whether the object is there already with the same content: the answer to an earlier attempt was lost."""
        try:
            there = self.stat(key)
        except Gone:
            return False
        if not there.holds(size, crc32):
            raise Taken(f"{self.url}/{key}: there is a different object of {there.size:,} bytes (ours has {size:,}); "
                        "see: python manage_feeds.py remote verify")
        return True

    def _in_parts(self, key: str, path: Path, size: int, crc32: int, tier: str | None) -> None:
        whole = {"ChecksumType": "FULL_OBJECT"}
        begun = self._ask("create_multipart_upload", key, ChecksumAlgorithm="CRC32", **whole, **_class(tier))
        upload = begun["UploadId"]
        try:
            parts = []
            with path.open("rb") as file:
                for number, start in enumerate(range(0, size, SINGLE), 1):
                    length = min(SINGLE, size - start)
                    sent = self._ask("upload_part", key, UploadId=upload, PartNumber=number, ContentLength=length,
                                     Body=_Slice(file, start, length), ChecksumAlgorithm="CRC32")
                    told = {"ChecksumCRC32": sent["ChecksumCRC32"]} if "ChecksumCRC32" in sent else {}
                    parts.append({"PartNumber": number, "ETag": sent["ETag"], **told})
            self._ask("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts},
                      IfNoneMatch="*", **whole, **_checksum(crc32))
        except BaseException:
            self._quietly("abort_multipart_upload", key, UploadId=upload)
            raise

    def swap(self, key: str, data: bytes, etag: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        for _ in range(CONFLICTS):
            try:
                return str(self._ask("put_object", key, Body=data, **condition)["ETag"])
            except (Taken, Gone):
                content = io.BytesIO()
                try:
                    now = self.get(key, content)
                except Gone:
                    now = None
                if content.getvalue() == data:
                    return str(now)  # it was ours: the answer was lost
                if now != etag:
                    raise Taken(f"{self.url}/{key}: somebody else changed it meanwhile; run it again") from None
        raise Away(f"{self.url}/{key}: the store reports a conflict each time, though nothing changed there")

    def get(self, key: str, sink: BinaryIO) -> str:
        start, etag = sink.tell(), None
        for attempt in range(1, RETRIES + 1):
            done = sink.tell() - start
            on: dict[str, str] = {"IfMatch": etag, "Range": f"bytes={done}-"} if etag and done else {}
            answer = self._ask("get_object", key, **on)
            etag = str(answer["ETag"])
            if not on:
                sink.seek(start)
            try:
                for piece in answer["Body"].iter_chunks(PIECE):
                    sink.write(piece)
                return etag
            except (HTTPClientError, BotoCoreError, OSError) as error:
                if isinstance(error, OSError) and error.errno:  # of the disk
                    raise
                if attempt == RETRIES:
                    raise Away(f"{self.url}/{key}: the answer was cut off {attempt} times ({error})") from None
        raise AssertionError("not reached")

    def stat(self, key: str) -> Stat:
        there = self._ask("head_object", key, ChecksumMode="ENABLED")
        tier, restore = there.get("StorageClass", "STANDARD"), there.get("Restore", "")
        given = there.get("ChecksumCRC32", "")
        whole = given and "-" not in given  # of parts: a checksum of checksums
        return Stat(
            key, int(there["ContentLength"]), there["ETag"],
            crc32=int.from_bytes(base64.b64decode(given)) if whole else None, tier=tier,
            archived=tier in ARCHIVES and 'ongoing-request="false"' not in restore,
            restoring='ongoing-request="true"' in restore, modified=there.get("LastModified"),
        )

    def list(self, prefix: str = "") -> Iterator[Stat]:
        for page in self._pages("list_objects_v2", prefix):
            for found in page.get("Contents", ()):
                tier = found.get("StorageClass", "STANDARD")
                yield Stat(self.address.key(found["Key"]), int(found["Size"]), found["ETag"], tier=tier,
                           archived=tier in ARCHIVES, modified=found["LastModified"])

    def purge(self, key: str, versions: bool = False) -> tuple[str, ...]:
        self._delete(key)
        if not versions:
            return ()
        kept = []
        name = self.address.name(key)
        try:
            for page in self._pages("list_object_versions", key):
                for found in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    if found["Key"] != name:
                        continue
                    try:
                        self._delete(key, VersionId=found["VersionId"])
                    except Refused as error:
                        kept.append(f"{self.url}/{key} version {found['VersionId']} stays: {error}")
        except Refused as error:
            kept.append(f"{self.url}/{key}: earlier versions, if there are any, were not deleted, because they "
                        "cannot be listed "
                        f"({error}); grant s3:ListBucketVersions")
        return tuple(kept)

    def _delete(self, key: str, **more: str) -> None:
        try:
            self._ask("delete_object", key, **more)
        except Gone:
            pass

    def retier(self, key: str, tier: str) -> None:
        now = self._ask("head_object", key)
        if now.get("StorageClass", "STANDARD") == tier:
            return
        source = {"Bucket": self.address.bucket, "Key": self.address.name(key)}
        self._ask("copy_object", key, CopySource=source, CopySourceIfMatch=now["ETag"], StorageClass=tier,
                  MetadataDirective="COPY", ChecksumAlgorithm="CRC32")

    def restore(self, key: str, days: int) -> None:
        request = {"Days": days, "GlacierJobParameters": {"Tier": "Standard"}}
        try:
            self._ask("restore_object", key, RestoreRequest=request)
        except Refused as error:
            if "RestoreAlreadyInProgress" not in str(error):
                raise

    def abort_stale(self, before: dt.datetime) -> int:
        stale = [
            (found["Key"], found["UploadId"])
            for page in self._pages("list_multipart_uploads", "")
            for found in page.get("Uploads", ()) if found["Initiated"] < before
        ]
        for name, upload in stale:
            self._quietly("abort_multipart_upload", self.address.key(name), UploadId=upload)
        return len(stale)

    def describe(self) -> Iterator[str]:
        """The settings of the bucket that matter to a lake, one line each."""
        questions = (
            ("get_bucket_versioning", "versioning", lambda told: told.get("Status", "off"),
             "what is erased is purged with every version"),
            ("get_object_lock_configuration", "object lock",
             lambda told: told.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled", "off"),
             "a locked version cannot be erased before its time"),
            ("get_bucket_lifecycle_configuration", "lifecycle rules", lambda told: f"{len(told.get('Rules', ()))}",
             "none may touch _metadata.json, quarantine/, feeds/, .state/ or logs/"),
        )
        for verb, name, answer, note in questions:
            try:
                found = str(answer(getattr(self.client, verb)(Bucket=self.address.bucket)))
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                found = "off" if "NotFound" in code or "NoSuch" in code else f"not known ({code})"
            yield f"{name}: {found}" if found == "off" else f"{name}: {found}; {note}"

    def arrow(self) -> tuple[pyarrow.fs.FileSystem, str]:
        import pyarrow.fs

        found = self.session.get_credentials()
        keys = found.get_frozen_credentials() if found else None
        scheme, _, host = str(self.client.meta.endpoint_url).partition("://")
        aws = host.endswith(".amazonaws.com")
        files = pyarrow.fs.S3FileSystem(
            access_key=keys.access_key if keys else None, secret_key=keys.secret_key if keys else None,
            session_token=keys.token if keys else None, region=self._region(), scheme=scheme,
            endpoint_override=None if aws else host, connect_timeout=10, request_timeout=60,
        )
        return files, self.address.url.partition("://")[2]

    def _region(self) -> str | None:
        """The region of the bucket: boto3 finds it even where a different one is configured, pyarrow does not."""
        configured: str | None = self.client.meta.region_name
        try:
            there = self.client.head_bucket(Bucket=self.address.bucket)
        except (ClientError, BotoCoreError):
            return configured  # an error appears when a file is read
        headers = there["ResponseMetadata"]["HTTPHeaders"]
        return there.get("BucketRegion") or headers.get("x-amz-bucket-region") or configured

    def _ask(self, verb: str, key: str, **more: Any) -> Any:
        def ask() -> Any:
            return getattr(self.client, verb)(Bucket=self.address.bucket, Key=self.address.name(key), **more)

        return _told(f"{self.url}/{key}", ask)

    def _quietly(self, verb: str, key: str, **more: Any) -> None:
        try:
            self._ask(verb, key, **more)
        except (Gone, Refused, Away):
            pass  # what is left is found by `abort_stale`

    def _pages(self, verb: str, prefix: str) -> Iterator[dict[str, Any]]:
        pages = iter(self.client.get_paginator(verb).paginate(
            Bucket=self.address.bucket, Prefix=self.address.name(prefix)
        ))
        while (page := _told(self.url, lambda: next(pages, None))) is not None:
            yield page


class _Slice(io.RawIOBase):
    """A part of an open file as a file, so that it need not be held in memory."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self.file, self.start, self.length, self.place = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def __len__(self) -> int:
        return self.length

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.length}[whence]
        self.place = max(0, base + offset)
        return self.place

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.length - self.place)
        size = left if size is None or size < 0 else min(size, left)
        self.file.seek(self.start + self.place)
        data = self.file.read(size)
        self.place += len(data)
        return data


def _checksum(crc32: int) -> dict[str, str]:
    return {"ChecksumCRC32": base64.b64encode(crc32.to_bytes(4)).decode()}


def _class(tier: str | None) -> dict[str, str]:
    return {"StorageClass": tier} if tier else {}


def _told(what: str, ask: Callable[[], Any]) -> Any:
    """Run a request; its failures become the exceptions of `seam`."""
    try:
        return ask()
    except ClientError as error:
        raise _failure(what, error) from None
    except (ConnectionError, HTTPClientError) as error:
        raise Away(f"{what}: the store does not answer ({error})") from None
    except BotoCoreError as error:  # no credentials, no region, a wrong profile
        raise Refused(f"{what}: {error}") from None


def _failure(what: str, error: ClientError) -> RemoteError:
    told = error.response.get("Error", {})
    code, status = str(told.get("Code", "")), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    words = told.get("Message", "")
    if code in GONE:
        return Gone(f"{what}: there is no such object")
    if code in TAKEN:
        return Taken(f"{what}: there is a different object")
    if code == "InvalidObjectState":
        return Archived(f"{what}: is archived; ask for it with: python manage_feeds.py remote pull")
    if code in AWAY or status >= 500 and status != 501:
        return Away(f"{what}: the store answered {status} {code} {RETRIES} times; try again later")
    return Refused(f"{what}: {HINTS.get(code, words)} ({status} {code})")
