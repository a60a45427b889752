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
from urllib.parse import urlsplit

from ksql_lake.base.errors import ConfigError
from ksql_lake.base.text import guards_output

KSQLDB_CONFIG = {"host": "localhost", "port": 8088, "timeout": 30}

KAFKA_BOOTSTRAP_SERVERS = ""  # host:port,...: streams are then read from their topics where that is possible

STORAGE_FORMAT = "parquet"
PARQUET_COMPRESSION = "snappy"
PARQUET_COMPRESSION_LEVEL = ""  # of zstd or gzip; empty: the codec's own
BATCH_SIZE = 10000

RETENTION = "on"  # apply retention after every good export of --all
TRASH_DAYS = 7
MAX_DELETE_PERCENT = 30  # of a feed's bytes, at a time

REMOTE = ""  # a second home of the lake: s3://bucket/prefix or az://container/prefix; docs/object_stores.md
REMOTE_AFTER_EXPORT = "on"  # push, and drop what is due, after every good export of --all

METRICS_FILE = ""  # for node_exporter's textfile collector, such as "/var/lib/node_exporter/ksql_lake.prom"
PING_URL = ""  # healthchecks style; it holds a secret, so rather set it in the environment
ON_FAILURE = ""  # a command for the shell, run after an export that ended with another exit code than 0

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
LEVELED = {"zstd": 22, "gzip": 9}  # codecs that have levels, and the highest
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True)
class Alerts:
    """Who learns how an export went; None where nobody does."""

    metrics_file: Path | None = None
    ping_url: str | None = field(default=None, repr=False)
    on_failure: str | None = None


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
    compression_level: int | None
    batch_size: int
    file_rows: int
    idle_seconds: float
    max_duration: float
    retention: bool
    trash_days: int
    max_delete_percent: float
    remote: str | None
    remote_after_export: bool
    alerts: Alerts
    log_format: str
    log_level: str
    origins: Mapping[str, str]
    kafka_servers: str | None = None
    kafka_config_file: Path | None = None


def load(env: Mapping[str, str]) -> Config:
    """The constants of this file, overridden from `env`.

    Raises:
        ConfigError: a value is wrong; names the variable, what it was and what was expected.
    """
    read = _Reader(env)
    host = read.text("KSQLDB_HOST", KSQLDB_CONFIG["host"])
    port = read.number("KSQLDB_PORT", KSQLDB_CONFIG["port"], 1, 65535)
    compression = read.choice("PARQUET_COMPRESSION", PARQUET_COMPRESSION, COMPRESSIONS)
    return Config(
        lake_dir=_lake_dir(read),
        url=read.text("KSQLDB_URL", f"http://{host}:{port:g}"),
        user=read.optional("KSQLDB_USER"),
        password=read.password(),
        ca_cert=read.optional("KSQLDB_CA_CERT"),
        timeout=read.number("KSQLDB_TIMEOUT", KSQLDB_CONFIG["timeout"], 0.001, 86400),
        compression=compression,
        compression_level=read.level("PARQUET_COMPRESSION_LEVEL", PARQUET_COMPRESSION_LEVEL, compression),
        batch_size=int(read.number("BATCH_SIZE", BATCH_SIZE, 1, 10_000_000)),
        file_rows=int(read.number("FILE_ROWS", 1_000_000, 1, 1_000_000_000)),
        idle_seconds=read.number("IDLE_SECONDS", 10, 0.1, 86400),
        max_duration=read.number("MAX_DURATION_SECONDS", 3600, 1, 604800),
        retention=read.choice("RETENTION", RETENTION, ("on", "off")) == "on",
        trash_days=int(read.number("TRASH_DAYS", TRASH_DAYS, 0, 36500)),
        max_delete_percent=read.number("MAX_DELETE_PERCENT", MAX_DELETE_PERCENT, 0, 100),
        remote=read.optional("REMOTE", REMOTE),
        remote_after_export=read.choice("REMOTE_AFTER_EXPORT", REMOTE_AFTER_EXPORT, ("on", "off")) == "on",
        alerts=_alerts(read),
        log_format=LOG_FORMAT,
        log_level=read.choice("LOG_LEVEL", LOG_LEVEL, LEVELS),
        origins=MappingProxyType(read.origins),
        kafka_servers=read.optional("KAFKA_BOOTSTRAP_SERVERS", KAFKA_BOOTSTRAP_SERVERS),
        kafka_config_file=Path(file).expanduser() if (file := read.optional("KAFKA_CONFIG_FILE")) else None,
    )


def lake_dir(env: Mapping[str, str]) -> Path:
    """Where the lake lies; known also when another setting is wrong."""
    return _lake_dir(_Reader(env))


def load_alerts(env: Mapping[str, str]) -> Alerts:
    """Who learns how an export went; known also when another setting is wrong, so that this is told too.

    Raises:
        ConfigError: PING_URL is none.
    """
    return _alerts(_Reader(env))


def ping_url(name: str, text: str) -> str:
    """The text, when it can be pinged; the message does not repeat it, for it holds a secret.

    Raises:
        ConfigError: names the setting or option.
    """
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or " " in text or not (text.isascii() and text.isprintable()):
        raise ConfigError(
            f"{name} is no URL that can be pinged; expected http:// or https://, such as https://hc-ping.com/<uuid>"
        )
    return text


def _lake_dir(read: _Reader) -> Path:
    here = Path(__file__).resolve().parent
    return Path(read.text("DATA_LAKE_DIR", here / "data_lake")).expanduser().resolve()


def _alerts(read: _Reader) -> Alerts:
    file, url = read.optional("METRICS_FILE", METRICS_FILE), read.optional("PING_URL", PING_URL)
    return Alerts(
        metrics_file=Path(file).expanduser() if file else None,
        ping_url=ping_url("PING_URL", url) if url else None,
        on_failure=read.optional("ON_FAILURE", ON_FAILURE),
    )


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.origins: dict[str, str] = {}

    def text(self, name: str, default: object) -> str:
        given = self.env.get(name)
        self.origins[name] = "environment" if given else "data_lake_config.py"
        return given or str(default)

    def optional(self, name: str, default: str = "") -> str | None:
        given = self.env.get(name) or None
        self.origins[name] = "environment" if given else "data_lake_config.py" if default else "not set"
        return given or default or None

    def number(self, name: str, default: object, low: float, high: float) -> float:
        text = self.text(name, default)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ConfigError(f"{name} is {text!r}; expected a number from {low:g} to {high:g}")
        return value

    def level(self, name: str, default: object, codec: str) -> int | None:
        if not self.text(name, default):
            return None
        if codec not in LEVELED:
            raise ConfigError(f"{name} goes with PARQUET_COMPRESSION zstd or gzip, not {codec}; unset it")
        return int(self.number(name, default, 1, LEVELED[codec]))

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


@guards_output
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
        "DATA_LAKE_DIR": config.lake_dir, "KSQLDB_URL": _without_password(config.url), "KSQLDB_USER": config.user,
        "KSQLDB_PASSWORD": "********" if config.password else None, "KSQLDB_CA_CERT": config.ca_cert,
        "KSQLDB_TIMEOUT": config.timeout, "KAFKA_BOOTSTRAP_SERVERS": config.kafka_servers,
        "KAFKA_CONFIG_FILE": config.kafka_config_file, "PARQUET_COMPRESSION": config.compression,
        "PARQUET_COMPRESSION_LEVEL": config.compression_level, "BATCH_SIZE": config.batch_size,
        "FILE_ROWS": config.file_rows, "IDLE_SECONDS": config.idle_seconds,
        "MAX_DURATION_SECONDS": config.max_duration, "RETENTION": "on" if config.retention else "off",
        "TRASH_DAYS": config.trash_days, "MAX_DELETE_PERCENT": config.max_delete_percent, "LOG_LEVEL": config.log_level,
        "REMOTE": config.remote, "REMOTE_AFTER_EXPORT": "on" if config.remote_after_export else "off",
        "METRICS_FILE": config.alerts.metrics_file, "PING_URL": _masked(config.alerts.ping_url),
        "ON_FAILURE": config.alerts.on_failure,
    }
    for name, value in values.items():
        print(f"{name:<25} {'-' if value is None else value!s:<44} {config.origins[name]}")
    from ksql_lake.base import native  # here, so that whoever reads the settings does not load it

    why = native.ensure()
    print(f"{'native reader':<25} {'in use' if why is None else f'not built: {why}'}")


def _without_password(url: str) -> str:
    """The scripts refuse a URL with a password in it; it is not shown either."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}********@{rest.rpartition('@')[2]}" if "@" in rest else url


def _masked(url: str | None) -> str | None:
    parts = urlsplit(url) if url else None
    return f"{parts.scheme}://{parts.hostname}/********" if parts else None


if __name__ == "__main__":
    raise SystemExit(main())
