"""`metadata_utils.py compare NAME V1 V2`: two versions of a table, row by row."""

from __future__ import annotations

import argparse
import csv
import sys

from data_lake_config import Config
from ksql_lake.base.errors import ExitCode, StateError
from ksql_lake.base.text import cell
from ksql_lake.cli.context import version_name
from ksql_lake.reporting.terminal import json_list
from ksql_lake.store import metadata


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a table")
    parser.add_argument("before", metavar="V1", help="a version, such as v3 or 3")
    parser.add_argument("after", metavar="V2", help="a later one")
    parser.set_defaults(compare=None)
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text", help="default: text")


def run(config: Config, args: argparse.Namespace) -> int:
    from ksql_lake.query.compare import compare

    name, *versions = args.compare or (args.name, args.before, args.after)
    before, after = versions
    dataset = metadata.Dataset(config.lake_dir, name, "table")
    state = metadata.load(dataset)
    if state is None:
        raise StateError(f"{dataset.metadata}: missing; {name} is not a table that was exported")
    found = compare(dataset, state, version_name(before), version_name(after))
    if args.format == "json":
        sys.stdout.writelines(json_list({"kind": d.kind, "key": d.key, "changed": d.changed} for d in found))
        return ExitCode.OK
    if args.format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("kind", "key", "column", "before", "after"))
        for d in found:
            key = ", ".join(f"{k}={v}" for k, v in d.key.items())
            lines = [(d.kind, key, c, a, b) for c, (a, b) in d.changed.items()] or [(d.kind, key, "", "", "")]
            writer.writerows(map(cell, line) for line in lines)
        return ExitCode.OK
    count = dict.fromkeys(("added", "removed", "changed"), 0)
    for d in found:
        print(d)
        count[d.kind] += 1
    versions = f"{version_name(before)} to {version_name(after)}"
    print(f"{name} {versions}: " + ", ".join(f"{n:,} {kind}" for kind, n in count.items()))
    return ExitCode.OK
