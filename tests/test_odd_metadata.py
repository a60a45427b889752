"""Metadata of an unexpected shape are a finding of their feed alone: nothing crashes, the other feeds are told."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import metadata_utils
from ksql_lake.model.shapes import problem
from ksql_lake.reporting import summary
from ksql_lake.reporting.html.page import page
from ksql_lake.store import metadata
from ksql_lake.store.metadata import Dataset

ODD: tuple[Any, ...] = (None, 7, -1, "x", "", [], {}, [None], {"x": None}, True, 10**300, float("nan"), "../../x")
NOW = dt.datetime(2025, 1, 18, 2, tzinfo=dt.UTC)
COMMANDS = (["--report"], ["--json"], ["--stats"], ["--csv", "{}/x.csv"], ["--html", "{}/x.html"])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("odd") / "lake"
    assert export_to_data_lake.main(["--demo", "--quiet", "--lake", str(lake), "--events", "60"]) == 0
    return lake


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and, of lists, the first element."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return copy


@pytest.mark.parametrize("feed", ["streams/transaction_stream", "tables/payment_method_totals"])
def test_every_key_with_every_odd_value(lake: Path, tmp_path: Path, capsys: Any, feed: str) -> None:
    copy = Path(shutil.copytree(lake, tmp_path / "lake"))
    path = copy / feed / "_metadata.json"
    good = json.loads(path.read_text())
    good["checks"] = [{"check": "c", "column": "x", "level": "warn", "failed": 1, "rows": 2, "message": "m"}]
    good["changes"] = [{"at": "2025-01-15T02:00:00Z", "by": "me", "what": "x"}]
    good["findings"] = [{"at": "2025-01-15T02:00:00Z", "kind": "gap", "level": "error", "message": "m"}]
    refused = 0
    for number, place in enumerate(places(good)):
        value = ODD[number % len(ODD)]
        path.write_text(json.dumps(changed(good, place, value)))
        argv = [part.format(tmp_path) for part in COMMANDS[number // len(ODD) % len(COMMANDS)]]
        code = metadata_utils.main([*argv, "--lake", str(copy)])
        told = capsys.readouterr()
        assert code in (0, 1) and "Traceback" not in told.err, (place, value)
        refused += code
        if code and argv == ["--json"]:
            assert len(json.loads(told.out)) == 8, "the others are told"
    assert refused > 20


def test_every_odd_value_of_what_reports_go_by(lake: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(lake, tmp_path / "lake"))
    path = copy / "streams" / "transaction_stream" / "_metadata.json"
    good = json.loads(path.read_text())
    for place in (
        ("files",), ("files", 0), ("files", 0, "rows"), ("files", 0, "rowtime_max"), ("files", 0, "partition"),
        ("last_export",), ("columns", 0, "disk_name"), ("schema_history", 0, "at"), ("type",), ("findings",),
    ):
        for odd in ODD:
            path.write_text(json.dumps(changed(good, place, odd)))
            records = summary.read(copy, "transaction_stream", NOW)
            assert page("lake", records, [summary.summary_of(one, NOW) for one in records], NOW)


def test_what_is_good_stays_good(lake: Path) -> None:
    for kind in ("stream", "table"):
        for directory in (lake / f"{kind}s").iterdir():
            assert metadata.load(Dataset(lake, directory.name, kind)) is not None


@pytest.mark.parametrize(("value", "kind", "found"), [
    (1, int, None), (True, int, ": expected int, found bool"), (1, float | None, ": expected float | None, found int"),
    (None, str | None, None), ((1, "a"), tuple[int, str], None), ((1,), tuple[int, str], "expected 2 values"),
    ((1, 2), tuple[int, ...], None), (("a",), tuple[int, ...], ": expected int, found str"),
    ({"a": (1,)}, dict[str, tuple[int, ...]], None), ({1: 1}, dict[str, int], ": expected str, found int"),
    (1 << 63, int, ": a number of 64 bits"), ([1], tuple[int, ...], "found list"),
])
def test_shapes(value: Any, kind: Any, found: str | None) -> None:
    told = problem(value, kind)
    assert told is None if found is None else told is not None and found in told
