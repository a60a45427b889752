"""REMOTE=s3://bucket/prefix or az://container/prefix: where a lake's remote is. Never holds a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ksql_lake.base.errors import ConfigError

TIERS = {
    "s3": ("STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"),
    "az": ("Hot", "Cool", "Cold", "Archive"),
}
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE", "Archive"})
# the least bytes and days that are billed: smaller objects, and those deleted earlier, cost as much
LEAST_DAYS = {
    "STANDARD_IA": 30, "ONEZONE_IA": 30, "GLACIER_IR": 90, "GLACIER": 90, "DEEP_ARCHIVE": 180,
    "Cool": 30, "Cold": 90, "Archive": 180,
}
LEAST_BYTES = 128 << 10
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"[A-Za-z0-9_.=/-]*")


@dataclass(frozen=True)
class Address:
    """An S3 bucket or an Azure container, and the prefix under which the lake is ("" or without slashes at
    its ends)."""

    scheme: str
    bucket: str
    prefix: str = ""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def name(self, key: str) -> str:
        """The whole name of an object inside the bucket."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def key(self, name: str) -> str:
        """The key of an object by its whole name."""
        return name.removeprefix(f"{self.prefix}/") if self.prefix else name

    @property
    def tiers(self) -> tuple[str, ...]:
        return TIERS[self.scheme]


def parse(text: str, setting: str = "REMOTE") -> Address:
    """The address in a setting.

    Raises:
        ConfigError: says what was expected; text that may hold a secret is not repeated.
    """
    scheme, found, rest = text.partition("://")
    if found and scheme == "gs":
        raise ConfigError(
            f"{setting} names Google Cloud Storage, which is not supported, because there is no emulator to test it "
            "with. Use s3:// or az://"
        )
    if not found or scheme not in TIERS:
        raise ConfigError(f"{setting} must look like s3://bucket/prefix or az://container/prefix")
    if any(mark in rest for mark in "@?&#:"):
        raise ConfigError(
            f"{setting} must hold a bucket and a prefix only. Keys, tokens and endpoints come from the cloud's own "
            "settings: AWS_PROFILE, AWS_ENDPOINT_URL ..., or AZURE_STORAGE_CONNECTION_STRING ..."
        )
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"{setting} is {text!r}: {bucket!r} cannot be the name of a bucket; expected 3 to 63 lower-case letters, "
            "digits, dots and dashes"
        )
    if not PREFIX.fullmatch(prefix) or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise ConfigError(f"{setting} is {text!r}: a prefix may hold letters, digits and _ . = - between slashes")
    return Address(scheme, bucket, prefix)
