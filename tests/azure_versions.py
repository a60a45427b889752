"""What Azurite lacks: a blob service that keeps versions and soft-deleted copies, as far as deleting them needs.

The answers have the form of the REST reference of Azure ("List Blobs", "Delete Blob", version 2020-08-04 and later): a
delete without a version makes the current blob an earlier version; with soft delete on, a deleted version stays listed
with `<Deleted>` and the days that are left.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DAYS = 7  # that soft delete keeps what was deleted


@dataclass
class Version:
    name: str
    id: str
    current: bool = False
    deleted: bool = False


@dataclass
class VersionedBlobs:
    """Use as a context manager; `endpoint` is that of the account `acme`.

    Attributes:
        soft_delete: what is deleted stays for some days.
        locked: ids of versions that an immutability policy holds.
        can_list: whether the credentials may list.
        versions_known: an account with a hierarchical namespace refuses to be asked for versions.
    """

    soft_delete: bool = False
    locked: set[str] = field(default_factory=set)
    can_list: bool = True
    versions_known: bool = True
    blobs: list[Version] = field(default_factory=list)
    endpoint: str = ""

    def __enter__(self) -> VersionedBlobs:
        owner = self

        class Handler(_Handler):
            blobs = owner

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}/acme"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def put(self, name: str, versions: int) -> None:
        ids = [f"2026-01-{number:02d}T00:00:00.0000000Z" for number in range(1, versions + 1)]
        self.blobs += [Version(name, one, one == ids[-1]) for one in ids]

    def delete(self, name: str, version: str | None) -> tuple[int, str]:
        for blob in self.blobs:
            if version is None and blob.name == name and blob.current and not blob.deleted:
                blob.current = False
                return 202, ""
            if version is not None and (blob.name, blob.id) == (name, version) and not blob.deleted:
                if version in self.locked:
                    return 409, "BlobImmutableDueToPolicy"
                blob.deleted = True
                if not self.soft_delete:
                    self.blobs.remove(blob)
                return 202, ""
        return 404, "BlobNotFound"

    def listing(self, prefix: str, include: list[str]) -> str:
        shown = [
            blob for blob in self.blobs if blob.name.startswith(prefix)
            and (blob.current or "versions" in include) and (not blob.deleted or "deleted" in include)
        ]
        entries = "".join(
            f"<Blob><Name>{escape(blob.name)}</Name><VersionId>{blob.id}</VersionId>"
            + ("<IsCurrentVersion>true</IsCurrentVersion>" if blob.current else "")
            + ("<Deleted>true</Deleted>" if blob.deleted else "")
            + "<Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified><Etag>0x1</Etag>"
            "<Content-Length>1</Content-Length><BlobType>BlockBlob</BlobType>"
            + (f"<RemainingRetentionDays>{DAYS}</RemainingRetentionDays>" if blob.deleted else "")
            + "</Properties></Blob>" for blob in shown
        )
        return (f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="{self.endpoint}" '
                f'ContainerName="container"><Blobs>{entries}</Blobs><NextMarker /></EnumerationResults>')


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    blobs: VersionedBlobs

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        asked = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        include = asked.get("include", "").split(",")
        if not self.blobs.can_list:
            self._reply(403, "AuthorizationPermissionMismatch")
        elif "versions" in include and not self.blobs.versions_known:
            self._reply(400, "InvalidQueryParameterValue")
        else:
            self._reply(200, "", self.blobs.listing(asked.get("prefix", ""), include))

    def do_DELETE(self) -> None:
        asked = urlsplit(self.path)
        name = unquote(asked.path).removeprefix("/acme/container/")
        self._reply(*self.blobs.delete(name, parse_qs(asked.query).get("versionid", [None])[0]))

    def _reply(self, status: int, code: str, text: str = "") -> None:
        body = text or (f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message>'
                        "</Error>" if code else "")
        self.send_response(status)
        for name, value in {"Content-Type": "application/xml", "Content-Length": str(len(body)),
                            **({"x-ms-error-code": code} if code else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())
