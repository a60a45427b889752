"""Create the data lake's directories and show the settings in force.

The constants below are the defaults. Rather than editing them, put your own values into settings.toml (see
settings.example.toml) or the environment, which overrides it; nothing secret belongs in this file.
"""

from __future__ import annotations

if __name__ == "__main__":
    from ksql_lake.cli.start import launch

    launch("ksql_lake.cli.settings")

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ksql_lake.base.errors import ConfigError
from ksql_lake.base.settings import Reader, SettingsFile, lake_path, ping_url, read_file

KSQLDB_CONFIG = {"host": "localhost", "port": 8088, "timeout": 30}

KAFKA_BOOTSTRAP_SERVERS = ""  # host:port,...: streams are then read from their topics where that is possible

STORAGE_FORMAT = "parquet"
PARQUET_COMPRESSION = "snappy"
PARQUET_COMPRESSION_LEVEL = ""  # of zstd or gzip; empty: the codec's own
BATCH_SIZE = 10000

JOBS = 4  # feeds that are exported at the same time

RETENTION = "on"  # apply retention after every good export of --all
TRASH_DAYS = 7
MAX_DELETE_PERCENT = 30  # of a feed's bytes, at a time

DELTA = "off"  # keep a Delta Lake log beside every feed's files; a feed file may say otherwise with "delta"
REGISTER = ""  # catalogs to update after every change: "hive:thrift://localhost:9083/lake,glue:lake?location=s3://bucket/lake"
REMOTE = ""  # a second home of the lake: s3://bucket/prefix or az://container/prefix; docs/object_stores.md
REMOTE_AFTER_EXPORT = "on"  # push, and drop what is due, after every good export of --all

METRICS_FILE = ""  # for node_exporter's textfile collector, such as "/var/lib/node_exporter/ksql_lake.prom"
PING_URL = ""  # healthchecks style; it holds a secret, so set it in the environment instead
ON_FAILURE = ""  # a shell command that runs after an export with an exit code other than 0

LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
LOG_LEVEL = "INFO"

CONFIG_FEEDS = "on"  # off: the feeds below are neither written by sync nor exported by --all; or the names to keep

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
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Alerts:
    """Where the outcome of an export is reported; None for each that is not used."""

    metrics_file: Path | None = None
    ping_url: str | None = field(default=None, repr=False)
    on_failure: str | None = None


@dataclass(frozen=True)
class Config:
    """The settings in force; times in seconds. `origins` says where each came from.

    Attributes:
        jobs: feeds that are exported at the same time.
        switched_off: feeds of this file that CONFIG_FEEDS leaves out.
    """

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
    jobs: int
    retention: bool
    trash_days: int
    max_delete_percent: float
    delta: bool
    register: str | None
    remote: str | None
    remote_after_export: bool
    alerts: Alerts
    log_format: str
    log_level: str
    switched_off: tuple[str, ...]
    origins: Mapping[str, str]
    kafka_servers: str | None = None
    kafka_config_file: Path | None = None


def load(env: Mapping[str, str]) -> Config:
    """The constants of this file, overridden by the settings file and then by `env`.

    Raises:
        ConfigError: a value is wrong; names the setting, what it was and what was expected.
    """
    read = Reader(env, settings_file(env))
    host = read.text("KSQLDB_HOST", KSQLDB_CONFIG["host"])
    port = read.number("KSQLDB_PORT", KSQLDB_CONFIG["port"], 1, 65535)
    compression = read.choice("PARQUET_COMPRESSION", PARQUET_COMPRESSION, COMPRESSIONS)
    config = Config(
        lake_dir=_lake_dir(read),
        url=read.text("KSQLDB_URL", f"http://{host}:{port:g}"),
        user=read.optional("KSQLDB_USER"),
        password=read.password("KSQLDB_PASSWORD"),
        ca_cert=_text(read.path("KSQLDB_CA_CERT")),
        timeout=read.number("KSQLDB_TIMEOUT", KSQLDB_CONFIG["timeout"], 0.001, 86400),
        compression=compression,
        compression_level=_level(read, compression),
        batch_size=read.whole("BATCH_SIZE", BATCH_SIZE, 1, 10_000_000),
        file_rows=read.whole("FILE_ROWS", 1_000_000, 1, 1_000_000_000),
        idle_seconds=read.number("IDLE_SECONDS", 10, 0.1, 86400),
        max_duration=read.number("MAX_DURATION_SECONDS", 3600, 1, 604800),
        jobs=read.whole("JOBS", JOBS, 1, 64),
        retention=read.choice("RETENTION", RETENTION, ("on", "off")) == "on",
        trash_days=read.whole("TRASH_DAYS", TRASH_DAYS, 0, 36500),
        max_delete_percent=read.number("MAX_DELETE_PERCENT", MAX_DELETE_PERCENT, 0, 100),
        delta=read.choice("DELTA", DELTA, ("on", "off")) == "on",
        register=read.optional("REGISTER", REGISTER),
        remote=read.optional("REMOTE", REMOTE),
        remote_after_export=read.choice("REMOTE_AFTER_EXPORT", REMOTE_AFTER_EXPORT, ("on", "off")) == "on",
        alerts=_alerts(read),
        log_format=LOG_FORMAT,
        log_level=read.choice("LOG_LEVEL", LOG_LEVEL, LEVELS),
        switched_off=_switched_off(read),
        origins=MappingProxyType(read.origins),
        kafka_servers=read.optional("KAFKA_BOOTSTRAP_SERVERS", KAFKA_BOOTSTRAP_SERVERS),
        kafka_config_file=read.path("KAFKA_CONFIG_FILE"),
    )
    read.refuse_unknown()
    return config


def settings_file(env: Mapping[str, str]) -> SettingsFile:
    """What DATA_LAKE_SETTINGS points to (empty: no file); else settings.toml beside this file, or, where this is an
    installed package, in the current directory."""
    if "DATA_LAKE_SETTINGS" in env:
        given = env["DATA_LAKE_SETTINGS"]
        return read_file(Path(given).expanduser(), must_exist=True) if given else SettingsFile()
    return read_file((Path.cwd() if _is_installed() else HERE) / "settings.toml", must_exist=False)


def _is_installed() -> bool:
    return not (HERE / "manage_feeds.py").exists()


def lake_dir(env: Mapping[str, str]) -> Path:
    """Where the lake is; known even when another setting is wrong."""
    return _lake_dir(Reader(env, settings_file(env)))


def switched_off(env: Mapping[str, str]) -> tuple[str, ...]:
    """The feeds that CONFIG_FEEDS leaves out; known even when another setting is wrong."""
    return _switched_off(Reader(env, settings_file(env)))


def load_alerts(env: Mapping[str, str]) -> Alerts:
    """Where the outcome of an export is reported; known even when another setting is wrong, so that this is reported.

    Raises:
        ConfigError: PING_URL cannot be pinged.
    """
    return _alerts(Reader(env, settings_file(env)))


def _lake_dir(read: Reader) -> Path:
    """DATA_LAKE_DIR; else data_lake beside this file, or, where this is an installed package, in the current
    directory."""
    default = (Path.cwd() if _is_installed() else HERE) / "data_lake"
    text = read.text("DATA_LAKE_DIR", default)
    return default if text == str(default) else lake_path("DATA_LAKE_DIR", text)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _level(read: Reader, codec: str) -> int | None:
    if not read.text("PARQUET_COMPRESSION_LEVEL", PARQUET_COMPRESSION_LEVEL):
        return None
    if codec not in LEVELED:
        raise ConfigError(
            f"PARQUET_COMPRESSION_LEVEL needs PARQUET_COMPRESSION zstd or gzip, not {codec}; unset it"
        )
    return read.whole("PARQUET_COMPRESSION_LEVEL", PARQUET_COMPRESSION_LEVEL, 1, LEVELED[codec])


def _alerts(read: Reader) -> Alerts:
    url = read.optional("PING_URL", PING_URL)
    return Alerts(
        metrics_file=read.path("METRICS_FILE", METRICS_FILE),
        ping_url=ping_url("PING_URL", url) if url else None,
        on_failure=read.optional("ON_FAILURE", ON_FAILURE),
    )


def _switched_off(read: Reader) -> tuple[str, ...]:
    text = read.text("CONFIG_FEEDS", CONFIG_FEEDS)
    names = [*STREAMS, *TABLES]
    if text.lower() in ("on", "off"):
        return tuple(names) if text.lower() == "off" else ()
    kept = [name.strip() for name in text.split(",") if name.strip()]
    for name in kept:
        if name not in names:
            raise ConfigError(f"CONFIG_FEEDS names {name}; expected on, off, or some of: {', '.join(names)}")
    return tuple(name for name in names if name not in kept)


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
    from ksql_lake.cli import settings

    return settings.main(argv)
