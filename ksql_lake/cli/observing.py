"""The observers of every change of this lake."""

from __future__ import annotations

from dataclasses import replace

from data_lake_config import Config
from ksql_lake import __version__
from ksql_lake.catalogs.catalog import CatalogObserver
from ksql_lake.catalogs.delta.observer import DeltaLog
from ksql_lake.catalogs.targets import parse
from ksql_lake.reporting.observers import ChangeLog, MetricsFile
from ksql_lake.store.dataset import Observer
from ksql_lake.store.metadata import Dataset


def observers(config: Config) -> tuple[Observer, ...]:
    """Those that the settings ask for.

    Raises:
        ConfigError: REGISTER is wrong.
    """
    return (DeltaLog(config.delta), *map(CatalogObserver, parse(config.register or "")), ChangeLog())


def observed(config: Config, dataset: Dataset) -> Dataset:
    """The feed with the observers of its changes."""
    chosen = observers(config)
    if config.alerts.metrics_file:  # an export writes them once, at its end
        share = config.max_delete_percent / 100
        chosen += (MetricsFile(config.alerts.metrics_file, __version__, share, config.switched_off),)
    return replace(dataset, observers=chosen)
