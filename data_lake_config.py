"""Create the data lake's directories and show the settings in force.

Edit the constants below, or override each from the environment; nothing secret belongs in this file.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ksql_lake.errors import ConfigError

KSQLDB_CONFIG = {"host": "localhost", "port": 8088, "timeout": 30}

STORAGE_FORMAT = "parquet"
PARQUET_COMPRESSION = "snappy"
BATCH_SIZE = 10000

RETENTION = "on"  # apply retention after every good export of --all
TRASH_DAYS = 7
MAX_DELETE_PERCENT = 30  # of a feed's bytes, at a time

LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
LOG_LEVEL = "INFO"

STREAMS: dict[str, dict[str, Any]] = {
    "transaction_stream": {
        "description": "Raw transactions", "retention_days": 365, "access": "restricted",
    },
    "transaction_flattened": {
        "description": "Transactions, customer flattened", "retention_days": 365, "access": "restricted",
    },
    "transaction_stream_anonymized": {
        "description": "Transactions without personal data (GDPR)", "retention_days": 730, "access": "open",
    },
    "transaction_stream_blacklisted": {
        "description": "Transactions of blacklisted countries", "retention_days": 365, "access": "restricted",
    },
}
TABLES: dict[str, dict[str, Any]] = {
    "user_transaction_summary": {"description": "Totals per user", "retention_versions": 7, "access": "open"},
    "user_transaction_summary_eur": {
        "description": "Totals per user in EUR", "retention_versions": 7, "access": "open",
    },
    "payment_method_totals": {"description": "Totals per payment method", "retention_versions": 7, "access": "open"},
    "product_purchase_counts": {
        "description": "Purchases per product and day", "retention_versions": 7, "access": "open",
    },
}

DIRECTORIES = ("streams", "tables", "feeds/active", "feeds/archived", "logs")
COMPRESSIONS = ("snappy", "zstd", "lz4", "gzip", "none")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True)
class Config:
    """The settings in force; times in seconds. `origins` says where each came from."""

    lake_dir: Path
    url: str
    user: str | None
    password: str | None = field(repr=False)
    ca_cert: str | None
    timeout: float
    compression: str
    batch_size: int
    file_rows: int
    idle_seconds: float
    max_duration: float
    retention: bool
    trash_days: int
    max_delete_percent: float
    log_format: str
    log_level: str
    origins: Mapping[str, str]


def load(env: Mapping[str, str]) -> Config:
    """The constants of this file, overridden from `env`.

    Raises:
        ConfigError: a value is wrong; names the variable, what it was and what was expected.
    """
    read = _Reader(env)
    host = read.text("KSQLDB_HOST", KSQLDB_CONFIG["host"])
    port = read.number("KSQLDB_PORT", KSQLDB_CONFIG["port"], 1, 65535)
    here = Path(__file__).resolve().parent
    return Config(
        lake_dir=Path(read.text("DATA_LAKE_DIR", here / "data_lake")).expanduser().resolve(),
        url=read.text("KSQLDB_URL", f"http://{host}:{port:g}"),
        user=read.optional("KSQLDB_USER"),
        password=read.password(),
        ca_cert=read.optional("KSQLDB_CA_CERT"),
        timeout=read.number("KSQLDB_TIMEOUT", KSQLDB_CONFIG["timeout"], 0.001, 86400),
        compression=read.choice("PARQUET_COMPRESSION", PARQUET_COMPRESSION, COMPRESSIONS),
        batch_size=int(read.number("BATCH_SIZE", BATCH_SIZE, 1, 10_000_000)),
        file_rows=int(read.number("FILE_ROWS", 1_000_000, 1, 1_000_000_000)),
        idle_seconds=read.number("IDLE_SECONDS", 10, 0.1, 86400),
        max_duration=read.number("MAX_DURATION_SECONDS", 3600, 1, 604800),
        retention=read.choice("RETENTION", RETENTION, ("on", "off")) == "on",
        trash_days=int(read.number("TRASH_DAYS", TRASH_DAYS, 0, 36500)),
        max_delete_percent=read.number("MAX_DELETE_PERCENT", MAX_DELETE_PERCENT, 0, 100),
        log_format=LOG_FORMAT,
        log_level=read.choice("LOG_LEVEL", LOG_LEVEL, LEVELS),
        origins=MappingProxyType(read.origins),
    )


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.origins: dict[str, str] = {}

    def text(self, name: str, default: object) -> str:
        given = self.env.get(name)
        self.origins[name] = "environment" if given else "data_lake_config.py"
        return given or str(default)

    def optional(self, name: str) -> str | None:
        given = self.env.get(name) or None
        self.origins[name] = "environment" if given else "not set"
        return given

    def number(self, name: str, default: object, low: float, high: float) -> float:
        text = self.text(name, default)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ConfigError(f"{name} is {text!r}; expected a number from {low:g} to {high:g}")
        return value

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
        text = self.text(name, default)
        match = next((item for item in allowed if item.lower() == text.lower()), None)
        if match is None:
            raise ConfigError(f"{name} is {text!r}; expected one of {', '.join(allowed)}")
        return match

    def password(self) -> str | None:
        file = self.optional("KSQLDB_PASSWORD_FILE")
        given = self.optional("KSQLDB_PASSWORD")
        if given or not file:
            return given
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"KSQLDB_PASSWORD_FILE: {file} cannot be read ({error.strerror})") from None


def operator() -> str:
    """Who runs this: for the history of changes."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"


def create(config: Config) -> list[Path]:
    """Make the lake's directories that are missing; returns them."""
    made = []
    for name in DIRECTORIES:
        directory = config.lake_dir / name
        if not directory.is_dir():
            directory.mkdir(parents=True)
            made.append(directory)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    try:
        config = load(os.environ)
        made = create(config)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; set DATA_LAKE_DIR to a place you may write", file=sys.stderr)
        return ConfigError.exit_code
    for directory in made:
        print(f"created {directory}")
    if not made:
        print(f"{config.lake_dir} is complete")
    _show(config)
    return 0


def _show(config: Config) -> None:
    values = {
        "DATA_LAKE_DIR": config.lake_dir, "KSQLDB_URL": config.url, "KSQLDB_USER": config.user,
        "KSQLDB_PASSWORD": "********" if config.password else None, "KSQLDB_CA_CERT": config.ca_cert,
        "KSQLDB_TIMEOUT": config.timeout, "PARQUET_COMPRESSION": config.compression, "BATCH_SIZE": config.batch_size,
        "FILE_ROWS": config.file_rows, "IDLE_SECONDS": config.idle_seconds,
        "MAX_DURATION_SECONDS": config.max_duration, "RETENTION": "on" if config.retention else "off",
        "TRASH_DAYS": config.trash_days, "MAX_DELETE_PERCENT": config.max_delete_percent, "LOG_LEVEL": config.log_level,
    }
    for name, value in values.items():
        print(f"{name:<22} {'-' if value is None else value!s:<44} {config.origins[name]}")
    from ksql_lake import native  # here, so that whoever reads the settings does not load it

    print(f"{'native reader':<22} {'in use' if native.library() else 'not built: python -m ksql_lake.native'}")


if __name__ == "__main__":
    raise SystemExit(main())
