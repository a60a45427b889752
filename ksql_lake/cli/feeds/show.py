"""`manage_feeds.py show`: a feed file and the history of its schema."""

from __future__ import annotations

import argparse
import json

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode
from ksql_lake.cli import context
from ksql_lake.model import feeds


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")


def run(config: Config, args: argparse.Namespace) -> int:
    path = context.existing(config, args.name)
    print(feeds.text_of(path), end="")
    metadata = config.lake_dir / f"{feeds.load(path).type}s" / args.name / "_metadata.json"
    history = json.loads(metadata.read_bytes()).get("schema_history", []) if metadata.exists() else []
    for entry in history:
        print(f"# schema {entry['version']} since {entry['at']}: {', '.join(entry['added'])}")
    return ExitCode.OK
