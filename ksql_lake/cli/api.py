"""What `ksql_lake` offers to notebooks and schedulers: the commands as functions, with the results of `--json`."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data_lake_config
from data_lake_config import Config
from ksql_lake.base.errors import ConfigError
from ksql_lake.base.settings import lake_path
from ksql_lake.model import feeds as feed_files
from ksql_lake.model.feeds import Feed, FeedProblem
from ksql_lake.store import layout

SOURCES = ("auto", "rest", "kafka")
Row = dict[str, Any]
Settings = Mapping[str, object] | None


def configured(lake: str | Path | None, settings: Settings) -> Config:
    """The settings in force: those given, then the environment, then the settings file, then the defaults."""
    given = {name: str(value) for name, value in (settings or {}).items()}
    config = data_lake_config.load({**os.environ, **given})
    unknown = sorted(set(given) - set(config.origins) - {"DATA_LAKE_SETTINGS"})
    if unknown:
        raise ConfigError(f"settings: no setting is called {unknown[0]}; see settings.example.toml")
    return replace(config, lake_dir=lake_of(lake, config))


def lake_of(lake: str | Path | None, config: Config | None = None) -> Path:
    """The lake that was given; else DATA_LAKE_DIR, wherever it is set; else data_lake in the current directory if there
    is one; else where the scripts would look."""
    if lake is not None:
        return lake_path("lake", lake)
    known = config.lake_dir if config else data_lake_config.lake_dir(os.environ)
    here = Path.cwd() / "data_lake"
    return here if known == data_lake_config.HERE / "data_lake" and here.is_dir() else known


@dataclass(frozen=True)
class Wishes:
    """What `export_to_data_lake.py` has options for."""

    days: Sequence[dt.date | str] = ()
    since: dt.date | str | None = None
    source: str | None = None
    allow_shrink: bool = False
    accept_cluster: bool = False
    wait: bool = False


def export(
    feeds: Sequence[str] | str | None, lake: str | Path | None, settings: Settings, wishes: Wishes
) -> list[Row]:
    from ksql_lake.cli.remote_export import to_remote
    from ksql_lake.cli.run import Listener, Order, carry_out, logged_beside  # loads Arrow

    config = configured(lake, settings)
    chosen, problems = _chosen(config, feeds)
    limited = tuple(sorted({_day(day) for day in wishes.days}))
    if limited:
        chosen = [feed for feed in chosen if feed.type == "stream"]
    if wishes.source not in (None, *SOURCES):
        raise ConfigError(f"source is {wishes.source!r}; expected one of {', '.join(SOURCES)}")
    order = Order(
        tuple(chosen), tuple(problems), limited, feeds is None, wishes.wait, wishes.allow_shrink,
        accept_cluster=wishes.accept_cluster, jobs=config.jobs, source=wishes.source,
        since=None if wishes.since is None else _day(wishes.since),
    )
    results: list[Any] = []
    with logged_beside(config.lake_dir, config.log_level, config.log_format):
        carry_out(config, order, Listener(), results)
        if (there := to_remote(config, order, results)) is not None:
            results.append(there)
    return [result.as_json() for result in sorted(results, key=lambda result: result.feed)]


def _day(given: dt.date | str) -> dt.date:
    if isinstance(given, dt.date):
        return given
    try:
        return dt.date.fromisoformat(given)
    except ValueError:
        raise ConfigError(f"{given!r} is not a day; expected YYYY-MM-DD such as 2025-01-15") from None


def _chosen(config: Config, names: Sequence[str] | str | None) -> tuple[list[Feed], list[FeedProblem]]:
    """Every enabled feed, or those named; a name that is not there is a problem of its own."""
    active = layout.feed_files(config.lake_dir)
    loaded = feed_files.load_all(active)
    good = {feed.name: feed for feed in loaded if isinstance(feed, Feed)}
    bad = [feed for feed in loaded if isinstance(feed, FeedProblem)]
    if names is None:
        return [feed for feed in good.values() if feed.enabled and feed.name not in config.switched_off], bad
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    missing = [name for name in wanted if name not in good]
    broken = {problem.path.stem: problem for problem in bad}
    problems = [
        broken.get(name) or FeedProblem(Path(f"{name}.json"), f"{feed_files.file_of(active, name)}: no such feed")
        for name in missing
    ]
    return [good[name] for name in wanted if name in good], problems


def feeds(lake: str | Path | None, settings: Settings) -> list[Row]:
    from ksql_lake.cli.feeds.list import listed

    rows, problems = listed(configured(lake, settings))
    broken = [{"name": problem.path.stem, "state": "broken", "problem": problem.message} for problem in problems]
    return sorted([*rows, *broken], key=lambda row: str(row["name"]))


def report(feed: str | None, lake: str | Path | None, settings: Settings) -> list[Row]:
    from ksql_lake.reporting.summary import as_json, summarise

    config = configured(lake, settings)
    now = dt.datetime.now(dt.UTC)
    share = config.max_delete_percent / 100
    return [as_json(one) for one in summarise(config.lake_dir, now, feed, share, config.switched_off)]
