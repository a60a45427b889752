"""`manage_feeds.py show`: a feed file and the history of its schema."""

from __future__ import annotations

import argparse
import json

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.cli import context
from ksql_lake.model import feeds
from ksql_lake.store import metadata
from ksql_lake.store.dataset import Dataset


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def run(config: Config, args: argparse.Namespace) -> int:
    path = context.existing(config, args.name)
    print(feeds.text_of(path), end="")
    content = metadata.content(Dataset(config.lake_dir, args.name, feeds.load(path).type))
    for entry in json.loads(content).get("schema_history", []) if content else ():
        print(f"# schema {entry['version']} since {entry['at']}: {', '.join(entry['added'])}")
    return ExitCode.OK
