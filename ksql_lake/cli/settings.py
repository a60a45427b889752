"""Create the data lake's directories and show the settings in force.

Each setting comes from the environment, else from settings.toml (or the file that DATA_LAKE_SETTINGS names), else from
data_lake_config.py; the last column says from where.

exit codes: 0 done, and with --check all well; 1 --check found something wrong; 2 usage or configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import data_lake_config
from data_lake_config import STREAMS, TABLES, Config
from ksql_lake import __version__
from ksql_lake.base.errors import ConfigError, LakeError
from ksql_lake.base.settings import lake_path
from ksql_lake.cli import hints, start
from ksql_lake.cli.hints import guards_output


@guards_output
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"ksql-lake {__version__}")
    parser.add_argument("--lake", metavar="DIR", help="the lake (default: DATA_LAKE_DIR or data_lake/)")
    parser.add_argument(
        "--check", action="store_true", help="check the server, the disk, the rights and the clock; change nothing"
    )
    args = parser.parse_args(argv)
    try:
        config = data_lake_config.load(os.environ)
        if args.lake:
            config = replace(config, lake_dir=lake_path("--lake", args.lake))
            hints.called(config.lake_dir)
        if args.check:
            from ksql_lake.cli import check

            return check.check(config)
        _create(config)
    except LakeError as error:
        return start.refused(error)
    except OSError as error:
        print(
            f"error: {error.filename}: {error.strerror}; set DATA_LAKE_DIR to a directory that you may write "
            "to", file=sys.stderr
        )
        return ConfigError.exit_code
    _show(config)
    return 0


def _create(config: Config) -> None:
    made = data_lake_config.create(config)
    for directory in made:
        print(f"created {directory}")
    if not made:
        print(f"{config.lake_dir} is complete")


def _show(config: Config) -> None:
    values = {
        "DATA_LAKE_DIR": config.lake_dir, "KSQLDB_URL": _without_password(config.url), "KSQLDB_USER": config.user,
        "KSQLDB_PASSWORD": "********" if config.password else None, "KSQLDB_CA_CERT": config.ca_cert,
        "KSQLDB_TIMEOUT": config.timeout, "KAFKA_BOOTSTRAP_SERVERS": config.kafka_servers,
        "KAFKA_CONFIG_FILE": config.kafka_config_file, "PARQUET_COMPRESSION": config.compression,
        "PARQUET_COMPRESSION_LEVEL": config.compression_level, "BATCH_SIZE": config.batch_size,
        "FILE_ROWS": config.file_rows, "IDLE_SECONDS": config.idle_seconds,
        "MAX_DURATION_SECONDS": config.max_duration, "JOBS": config.jobs,
        "RETENTION": "on" if config.retention else "off",
        "TRASH_DAYS": config.trash_days, "MAX_DELETE_PERCENT": config.max_delete_percent, "LOG_LEVEL": config.log_level,
        "CONFIG_FEEDS": _config_feeds(config),
        "DELTA": "on" if config.delta else "off", "REGISTER": config.register,
        "REMOTE": config.remote, "REMOTE_AFTER_EXPORT": "on" if config.remote_after_export else "off",
        "METRICS_FILE": config.alerts.metrics_file, "PING_URL": _masked(config.alerts.ping_url),
        "ON_FAILURE": config.alerts.on_failure,
    }
    for name, value in values.items():
        origin = config.origins["KSQLDB_HOST"] if name == "KSQLDB_URL" and _by_host(config) else config.origins[name]
        print(f"{name:<25} {'-' if value is None else value!s:<44} {origin}")
    from ksql_lake.base import native  # here, so that whoever reads the settings does not load it

    why = native.ensure()
    print(f"{'native reader':<25} {'in use' if why is None else f'not built: {why}'}")


def _config_feeds(config: Config) -> str:
    """On, off, or the names of the feeds that are left on."""
    kept = [name for name in (*STREAMS, *TABLES) if name not in config.switched_off]
    return ("on" if not config.switched_off else ", ".join(kept)) if kept else "off"


def _by_host(config: Config) -> bool:
    """Whether the URL is made of host and port, and one of these was set."""
    unset = ("not set", "data_lake_config.py")
    return config.origins["KSQLDB_URL"] in unset and config.origins["KSQLDB_HOST"] not in unset


def _without_password(url: str) -> str:
    """The scripts refuse a URL with a password in it; it is not shown either."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}********@{rest.rpartition('@')[2]}" if "@" in rest else url


def _masked(url: str | None) -> str | None:
    parts = urlsplit(url) if url else None
    return f"{parts.scheme}://{parts.hostname}/********" if parts else None
