"""Notifications of an export: the metrics file, a ping and a command, as given by options or settings."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
import sys
from pathlib import Path

import data_lake_config
from ksql_lake import __version__
from ksql_lake.base.errors import ConfigError
from ksql_lake.base.settings import local_path, ping_url
from ksql_lake.reporting import alerts

log = logging.getLogger("export_to_data_lake")


def chosen(args: argparse.Namespace) -> data_lake_config.Alerts:
    """Whom to notify of this run: options override settings; a demo or a dry run uses only the options."""
    settings = data_lake_config.Alerts()
    if not args.demo and not args.dry_run:
        settings = data_lake_config.load_alerts(os.environ)
    return data_lake_config.Alerts(
        local_path("--metrics-file", args.metrics_file) if args.metrics_file else settings.metrics_file,
        ping_url("--ping-url", args.ping_url) if args.ping_url else settings.ping_url,
        args.on_failure or settings.on_failure,
    )


def begin(settings: data_lake_config.Alerts) -> None:
    if settings.ping_url:
        _warn(alerts.Ping(settings.ping_url).start())


def end(ending: alerts.Ending, settings: data_lake_config.Alerts, lake: Path, seconds: float) -> None:
    """Send the notifications of how the run ended."""
    if settings.metrics_file:
        from ksql_lake.reporting import metrics

        run = metrics.ExportRun(ending.exit_code, dt.datetime.now(dt.UTC), seconds)
        _warn(metrics.write(settings.metrics_file, lake, run, __version__, *_rules()))
    if settings.ping_url:
        _warn(alerts.Ping(settings.ping_url).end(ending))
    if settings.on_failure and ending.exit_code:
        _warn(alerts.on_failure(settings.on_failure, ending, lake, os.environ))


def _rules() -> tuple[float, tuple[str, ...]]:
    """What the report depends on: MAX_DELETE_PERCENT as a share, and the feeds that CONFIG_FEEDS leaves out; the
    defaults where the settings are wrong."""
    try:
        config = data_lake_config.load(os.environ)
    except ConfigError:
        return data_lake_config.MAX_DELETE_PERCENT / 100, ()
    return config.max_delete_percent / 100, config.switched_off


def _warn(warning: str | None) -> None:
    if warning:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
        if logging.getLogger().handlers:  # without one, logging would print it a second time
            log.warning("%s", warning)
