"""A container of Azure Blob Storage, through azure-storage-blob.

Azure keeps no CRC-32: what is uploaded is first read once and compared with it; the MD5 of the same bytes goes with
every block and is stored with the blob, and the CRC-32 is stored beside it as metadata.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.storage.blob import BlobServiceClient, ContentSettings, ExponentialRetry, StandardBlobTier

from ksql_lake.base.errors import ConfigError
from ksql_lake.store.remote.address import Address
from ksql_lake.store.remote.seam import RETRIES, SINGLE, Archived, Away, Gone, Refused, Stat, Taken

if TYPE_CHECKING:
    import pyarrow.fs

    from ksql_lake.base.errors import RemoteError

PIECE = 1 << 20  # bytes
BLOCK = 8 << 20  # bytes held in memory for each upload
GONE = ("BlobNotFound", "ResourceNotFound")
TAKEN = ("BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet")
HINTS = {
    "ContainerNotFound": "there is no such container; create it first",
    "AuthenticationFailed": "the key, or the clock of this machine, is wrong",
    "AuthorizationFailure": "these credentials may not do this",
    "AuthorizationPermissionMismatch": "these credentials may not do this",
    "Md5Mismatch": "the content was altered on its way",
    "BlobImmutableDueToPolicy": "a policy of the container forbids it",
}


class AzureStore:
    """The verbs of `ObjectStore` on one container."""

    def __init__(self, address: Address, service: Any, sas: str | None = None) -> None:
        self.address, self.service, self.sas = address, service, sas
        self.container = service.get_container_client(address.bucket)

    @classmethod
    def open(cls, address: Address, env: Mapping[str, str]) -> AzureStore:
        """With AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and a key, a SAS token or a sign-in.

        Raises:
            ConfigError: neither is set, or one cannot be right.
        """
        logging.getLogger("azure").setLevel(logging.WARNING)  # it logs every request
        pauses = ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=RETRIES)
        options: dict[str, Any] = {"retry_policy": pauses, "max_single_put_size": BLOCK, "max_block_size": BLOCK,
                   "max_single_get_size": BLOCK, "max_chunk_get_size": BLOCK,
                   "connection_timeout": 10, "read_timeout": 60}
        text = env.get("AZURE_STORAGE_CONNECTION_STRING")
        if text:
            try:
                service = BlobServiceClient.from_connection_string(text, **options)
            except ValueError as error:
                raise ConfigError(f"AZURE_STORAGE_CONNECTION_STRING is wrong: {error}") from None
            return cls(address, service, parts_of(text).get("SharedAccessSignature"))
        account = env.get("AZURE_STORAGE_ACCOUNT")
        if not account:
            raise ConfigError(
                f"{address.url} needs an account: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with "
                "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN"
            )
        place = env.get("AZURE_STORAGE_ENDPOINT") or f"https://{account}.blob.core.windows.net"
        key, sas = env.get("AZURE_STORAGE_KEY"), env.get("AZURE_STORAGE_SAS_TOKEN")
        secret: Any = _named_key(account, key) if key else sas or _signed_in()
        return cls(address, BlobServiceClient(place, credential=secret, **options), None if key else sas)

    @property
    def url(self) -> str:
        return self.address.url

    def create(self, key: str, path: Path, crc32: int, tier: str | None = None) -> None:
        size, md5 = path.stat().st_size, _read(path, crc32)
        # The store checks its condition only after everything was sent.
        if size > SINGLE and self._mine(key, size, crc32):
            return
        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(md5))
        try:
            with path.open("rb") as file:
                self._asked(key, lambda: self._blob(key).upload_blob(
                    file, length=size, overwrite=False, metadata={"crc32": str(crc32)}, content_settings=settings,
                    validate_content=True, standard_blob_tier=StandardBlobTier(tier) if tier else None,
                ))
        except Taken:
            if not self._mine(key, size, crc32):
                raise

    def _mine(self, key: str, size: int, crc32: int) -> bool:
        """Whether the blob is there already with the same content: the answer to an earlier attempt was lost."""
        try:
            there = self.stat(key)
        except Gone:
            return False
        if not there.holds(size, crc32):
            raise Taken(f"{self.url}/{key}: there is a different object of {there.size:,} bytes (ours has {size:,}); "
                        "see: python manage_feeds.py remote verify")
        return True

    def swap(self, key: str, data: bytes, etag: str | None) -> str:
        condition = {"overwrite": False} if etag is None else {
            "overwrite": True, "etag": etag, "match_condition": MatchConditions.IfNotModified
        }
        try:
            done = self._asked(key, lambda: self._blob(key).upload_blob(data, validate_content=True, **condition))
            return str(done["etag"])
        except (Taken, Gone):
            content = io.BytesIO()
            try:
                now = self.get(key, content)
            except Gone:
                now = None
            if content.getvalue() == data:
                return str(now)  # it was ours: the answer was lost
            raise Taken(f"{self.url}/{key}: somebody else changed it meanwhile; run it again") from None

    def get(self, key: str, sink: BinaryIO) -> str:
        def read() -> str:
            answer = self._blob(key).download_blob()
            answer.readinto(sink)
            return str(answer.properties.etag)

        return str(self._asked(key, read))

    def stat(self, key: str) -> Stat:
        there = self._asked(key, self._blob(key).get_blob_properties)
        return self._stat(key, there)

    def _stat(self, key: str, there: Any) -> Stat:
        given = (there.metadata or {}).get("crc32", "")
        md5 = there.content_settings.content_md5
        return Stat(
            key, int(there.size), str(there.etag), crc32=int(given) if given.isdecimal() else None,
            md5=bytes(md5) if md5 else None, tier=there.blob_tier or "", archived=there.blob_tier == "Archive",
            restoring=bool(there.archive_status), modified=there.last_modified,
        )

    def list(self, prefix: str = "") -> Iterator[Stat]:
        found = iter(self.container.list_blobs(name_starts_with=self.address.name(prefix)))
        while (there := self._asked("", lambda: next(found, None))) is not None:
            yield self._stat(self.address.key(there.name), there)

    def purge(self, key: str, versions: bool = False) -> tuple[str, ...]:
        self._delete(key, delete_snapshots="include")
        return tuple(self._delete_versions(key)) if versions else ()

    def _delete_versions(self, key: str) -> Iterator[str]:
        """Delete earlier versions one by one; what soft delete keeps cannot be removed before its time."""
        refused: dict[str, Refused] = {}
        try:
            versions = [there.version_id for there in self._older(key) if there.version_id and not there.deleted]
            for version in versions:
                try:
                    self._delete(key, version_id=version)
                except Refused as error:
                    refused[version] = error
            left = self._older(key)
        except Refused as error:
            yield f"{self.url}/{key}: earlier versions may still exist; they cannot be listed ({error})"
            return
        for there in left:
            if there.deleted:
                days = there.remaining_retention_days
                yield f"{self.url}/{key}: a soft-deleted copy stays for {days} more days"
            elif there.version_id:
                why = refused.get(there.version_id, "it is there again")
                yield f"{self.url}/{key} version {there.version_id} stays: {why}"

    def _older(self, key: str) -> Sequence[Any]:
        """Every version and every soft-deleted copy of a blob, and the blob itself where there is one."""
        name = self.address.name(key)

        def ask(*what: str) -> Sequence[Any]:
            return [there for there in self.container.list_blobs(name, include=[*what]) if there.name == name]

        try:
            return ask("versions", "deleted")
        except HttpResponseError as error:
            if error.status_code != 400:
                raise _failure(f"{self.url}/{key}", error) from None
        found: Sequence[Any] = self._asked(key, lambda: ask("deleted"))  # an account that cannot have versions
        return found

    def _delete(self, key: str, **more: str) -> None:
        try:
            self._asked(key, lambda: self._blob(key).delete_blob(**more))
        except Gone:
            pass

    def retier(self, key: str, tier: str) -> None:
        there = self.stat(key)
        if there.tier == tier:
            return
        if there.archived:
            raise Archived(f"{self.url}/{key}: is archived; ask for it with: python manage_feeds.py remote pull")
        self._asked(key, lambda: self._blob(key).set_standard_blob_tier(tier))

    def restore(self, key: str, days: int) -> None:
        there = self.stat(key)
        if there.archived and not there.restoring:
            self._asked(key, lambda: self._blob(key).set_standard_blob_tier("Hot", rehydrate_priority="Standard"))

    def abort_stale(self, before: dt.datetime) -> int:
        return 0  # blocks that were never committed are invisible, and Azure removes them after a week

    def describe(self) -> Iterator[str]:
        """The settings of the account that matter to a lake, one line each."""
        note = "what is erased can be recovered for so long"
        try:
            policy = self.service.get_service_properties().get("delete_retention_policy")
            yield f"soft delete: {policy.days} days; {note}" if policy and policy.enabled else "soft delete: off"
        except AzureError as error:
            yield f"soft delete: not known ({getattr(error, 'error_code', '') or type(error).__name__}); {note}"

    def arrow(self) -> tuple[pyarrow.fs.FileSystem, str]:
        """
        Raises:
            ConfigError: the account is reached by a domain of its own, which pyarrow cannot do.
        """
        import pyarrow.fs

        place, account = urlsplit(self.service.url), self.service.account_name
        plain = place.hostname or ""
        at_azure = plain.endswith(".core.windows.net")
        if not account or not at_azure and place.path.strip("/") != account:
            raise ConfigError(
                f"{self.url}: files there cannot be read through {plain}; set AZURE_STORAGE_ENDPOINT, or BlobEndpoint "
                "in the connection string, to the account's own address: https://ACCOUNT.blob.core.windows.net"
            )
        options: dict[str, Any] = {} if at_azure else {
            "blob_storage_authority": place.netloc, "blob_storage_scheme": place.scheme,
            "dfs_storage_authority": place.netloc, "dfs_storage_scheme": place.scheme,
        }
        if key := getattr(self.service.credential, "account_key", None):
            options["account_key"] = key
        elif self.sas:
            options["sas_token"] = f"?{self.sas.lstrip('?')}"  # pyarrow appends it to the path unchanged
        return pyarrow.fs.AzureFileSystem(account, **options), self.address.url.partition("://")[2]

    def _blob(self, key: str) -> Any:
        return self.container.get_blob_client(self.address.name(key))

    def _asked(self, key: str, ask: Callable[[], Any]) -> Any:
        """Run a request; its failures become the exceptions of `seam`."""
        what = f"{self.url}/{key}".rstrip("/")
        try:
            return ask()
        except HttpResponseError as error:
            raise _failure(what, error) from None
        except (ServiceRequestError, ServiceResponseError) as error:
            raise Away(f"{what}: the store does not answer ({error})") from None
        except AzureError as error:
            raise Refused(f"{what}: {error}") from None


def parts_of(text: str) -> dict[str, str]:
    """The settings in a connection string."""
    return dict(part.split("=", 1) for part in text.split(";") if "=" in part)


def _named_key(account: str, key: str) -> AzureNamedKeyCredential:
    """
    Raises:
        ConfigError: this is not an Azure key; the text is not repeated.
    """
    try:
        base64.b64decode(key, validate=True)
    except ValueError:
        raise ConfigError("AZURE_STORAGE_KEY is wrong: expected Base64 text as shown in the portal") from None
    return AzureNamedKeyCredential(account, key)


def _signed_in() -> Any:
    try:
        from azure.identity import DefaultAzureCredential
    except ModuleNotFoundError:
        raise ConfigError(
            "AZURE_STORAGE_ACCOUNT is set, but neither AZURE_STORAGE_KEY nor AZURE_STORAGE_SAS_TOKEN; to sign in "
            "without them: pip install azure-identity"
        ) from None
    return DefaultAzureCredential()


def _read(path: Path, crc32: int) -> bytes:
    """The file's MD5, when it has the checksum on record."""
    found, md5 = 0, hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found = zlib.crc32(piece, found)
            md5.update(piece)
    if found != crc32:
        raise Refused(f"{path}: does not have the checksum on record; it was altered on this disk")
    return md5.digest()


def _failure(what: str, error: HttpResponseError) -> RemoteError:
    code: Any = getattr(error, "error_code", "") or ""
    code, status = str(getattr(code, "value", code)), int(error.status_code or 0)
    if code in GONE or status == 404 and code != "ContainerNotFound":
        return Gone(f"{what}: there is no such object")
    if code in TAKEN or status == 412:
        return Taken(f"{what}: there is a different object")
    if code == "BlobArchived":
        return Archived(f"{what}: is archived; ask for it with: python manage_feeds.py remote pull")
    if status >= 500 or status == 429:
        return Away(f"{what}: the store answered {status} {code} {RETRIES} times; try again later")
    words = HINTS.get(code) or str(error.message).splitlines()[0]
    return Refused(f"{what}: {words} ({status} {code})")
