"""Every finding and every failure, on the screen and in the history: of which feed, of what kind, of which row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB

START = 1736942400000  # 2025-01-15T12:00Z


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    monkeypatch.setenv("IDLE_SECONDS", "0.3")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
    with EmbeddedKsqlDB() as server:
        monkeypatch.setenv("KSQLDB_URL", server.url)
        yield server


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "lake"))
    return tmp_path / "lake"


def add(name: str, source: str, kind: str = "stream") -> None:
    assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", source]) == 0


def runs(lake: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lake / "logs" / "runs.jsonl").read_text().splitlines()]


def fill(ksqldb: EmbeddedKsqlDB, first: int, last: int) -> None:
    for i in range(first, last):
        ksqldb.append("S", i % 2, START + i, [f"k{i}", i])


NAMES = ("orders", "value", "text", "dat", "store", "s")


def test_every_error_names_its_feed_however_common_its_name_is(
    ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any
) -> None:
    """A name that stands somewhere in the message is no reason to leave it out."""
    for name in NAMES:
        ksqldb.create_stream(name.upper(), "`ID` STRING, `V` INT", 1)
        ksqldb.append(name.upper(), 0, START, ["a", 1])
        ksqldb.sources[name.upper()].topic.log[-1].cached = '"a","no number"'
        add(name, name.upper())
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == 1
    said = sorted(capsys.readouterr().err.splitlines())
    assert [line.split(":")[1].strip() for line in said] == sorted(NAMES), said
    assert {run["feed"]: [f["kind"] for f in run["findings"]] for run in runs(lake)} == {n: ["failed"] for n in NAMES}
    assert metadata_utils.main(["--report"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert sorted(shown.removeprefix("! failed ").partition(": ")[0].split(", ")) == sorted(NAMES), "one line for all"


def test_a_finding_of_a_partition_says_which_and_is_typed_in_history_and_metadata(
    ksqldb: EmbeddedKsqlDB, lake: Path, capsys: Any
) -> None:
    ksqldb.create_stream("S", "ID STRING, N INT", 2)
    fill(ksqldb, 0, 40)
    add("shop", "S")
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    fill(ksqldb, 40, 80)
    ksqldb.expire("S", 1, 25)
    fill(ksqldb, 80, 120)
    capsys.readouterr()
    assert export_to_data_lake.main(["--all", "--quiet"]) == 1
    assert "finding: shop: " in capsys.readouterr().err
    found = runs(lake)[-1]["findings"]
    assert {f["kind"] for f in found} == {"gap"} and {f["partition"] for f in found} == {1}
    assert {f["level"] for f in found} == {"error"}
    state = json.loads((lake / "streams" / "shop" / "_metadata.json").read_text())
    assert [{**f, "at": 0} for f in state["findings"]] == [{"at": 0, **f} for f in found]
    assert metadata_utils.main(["--json"]) == 0
    (shop,) = json.loads(capsys.readouterr().out)
    assert [(f["feed"], f["partition"]) for f in shop["findings"] if f["kind"] == "gap"] == [("shop", 1)] * len(found)
