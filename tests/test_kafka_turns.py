"""One life of a stream, lived by several lakes: by REST, by Kafka and by both in turns. In the end they hold the same.

The life has everything that happens to a feed: rows that checks quarantine, an erasure whose later rows are dropped,
days that were asked for, answers that are cut, a broker that is away, processes that are killed, expiry, recreation.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import manage_feeds
import metadata_utils
from ksql_lake.embedded.faults import Fault
from tests.conftest import ROOT
from tests.test_kafka_export import START, Place
from tests.test_kafka_export import place as place

ORDERS = {"rest": ("rest",), "kafka": ("kafka",), "turns": ("rest", "kafka"), "others": ("kafka", "kafka", "rest")}
CHECKS = [{"check": "range", "column": "n", "min": 0, "level": "quarantine"}]
PLACE = [("generation", "ascending"), ("ROWPARTITION", "ascending"), ("ROWOFFSET", "ascending")]


class Lives:
    """Several lakes of one stream, each with its own order of roads."""

    def __init__(self, place: Place, root: Path, names: tuple[str, ...]) -> None:
        self.place = place
        self.lakes = {name: root / name for name in names}
        self.roads: dict[str, Iterator[str]] = {name: itertools.cycle(ORDERS[name]) for name in names}
        for _ in self.each():
            place.feed(checks=CHECKS)

    def each(self) -> Iterator[str]:
        for name, lake in self.lakes.items():
            self.place.lake = lake
            os.environ["DATA_LAKE_DIR"] = str(lake)
            yield name

    def export(self, *more: str, code: int = 0, cut: int | None = None) -> None:
        for name in self.each():
            road = next(self.roads[name])
            if cut is not None and road == "rest":
                self.place.db.faults.add(Fault(cut_after=cut))
            assert self.place.export(road, *more, code=code)["road"] == road
            self.place.db.faults.clear()

    def kill(self, *delays: float) -> None:
        """An export by the next road, killed; the one after it is for `export`."""
        for name in self.each():
            if len(ORDERS[name]) == 1:
                continue
            road = next(self.roads[name])
            command = [sys.executable, "export_to_data_lake.py", "--all", "--source", road, "--wait"]
            for delay in delays:
                process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                process.wait()

    def manage(self, *arguments: str) -> None:
        for _ in self.each():
            assert manage_feeds.main(list(arguments)) == 0


def odd(place: Place, n: int, key: str = "odd") -> None:
    place.db.append("EVENTS", 0, START, [key, n, None, None, None, None])
    place.topics.publish("EVENTS")


def away(lives: Lives) -> None:
    """The broker is away: nothing comes by Kafka, and nothing is lost."""
    lives.place.kafka.down()
    for name in lives.each():
        if ORDERS[name] != ("rest",):
            assert lives.place.export("kafka", code=1)["rows"] == 0
    lives.place.kafka.up()


@pytest.mark.parametrize(
    ("names", "kills"),
    [(("rest", "turns"), (1.0,)), pytest.param(tuple(ORDERS), (0.4, 0.8, 1.0, 1.2), marks=pytest.mark.slow)],
    ids=["two lakes", "four lakes"],
)
def test_a_lake_does_not_show_by_which_road_its_rows_came(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], kills: tuple[float, ...]
) -> None:
    monkeypatch.setenv("IDLE_SECONDS", "0.2")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
    monkeypatch.setenv("DATA_LAKE_DIR", "")
    lives = Lives(place, tmp_path, names)
    place.append(300)
    odd(place, -1)
    lives.export(code=1)  # with a row in quarantine
    lives.manage("erase", "--where", "id=k7", "--later", "drop")
    place.append(200)
    odd(place, 7, key="k7")  # the rule drops it
    odd(place, -2)
    lives.export(code=1, cut=50)
    place.append(300)
    place.db.append("EVENTS", 1, START, None)  # no row
    place.topics.publish("EVENTS")
    lives.export("--date", "2025-01-16")
    away(lives)
    place.append(100)
    lives.kill(*kills)
    lives.export()
    place.append(100)
    place.db.expire("EVENTS", 0, 480)
    place.kafka.call("partition_delete_records", "EVENTS", 0, 480)
    lives.export(code=1)  # some expired unread
    place.recreate()
    place.made = 5000  # other rows: REST cannot tell a topic that begins with the same ones
    place.append(60)
    odd(place, 7, key="k7")
    lives.export(code=1)
    place.append(40)
    lives.export()
    lives.export()

    kept = {name: content(lake) for name, lake in lives.lakes.items()}
    for name in names:
        for what, found in kept[name].items():
            assert found == kept["rest"][what], f"{name}: {what} differs from what REST alone brings"
    rows = kept["turns"]["rows"]
    assert isinstance(rows, pa.Table) and rows.num_rows > 1000 and "k7" not in rows["ID"].to_pylist()
    assert {"rest", "kafka"} <= set(roads(lives.lakes["turns"]))
    for _ in lives.each():
        assert metadata_utils.main(["--verify", "--deep"]) == 0


def roads(lake: Path) -> list[str]:
    lines = (lake / "logs" / "runs.jsonl").read_text().splitlines()
    return [feed["road"] for line in lines for feed in json.loads(line).get("feeds", [json.loads(line)])]


def content(lake: Path) -> dict[str, Any]:
    """What a lake holds, but for names, times and salted hashes."""
    state = json.loads((lake / "streams" / "events" / "_metadata.json").read_text())
    days: dict[str, list[pa.Table]] = {}
    for file in state["files"]:
        table = pq.read_table(lake / "streams" / "events" / file["path"], partitioning=None)
        numbers = pa.array([file["generation"]] * len(table), pa.int64())
        days.setdefault(str(Path(file["path"]).parent), []).append(table.append_column("generation", numbers))
    tables = {day: pa.concat_tables(found).sort_by(PLACE) for day, found in days.items()}
    aside = [pq.ParquetFile(path).read() for path in sorted((lake / "quarantine" / "events").glob("*.parquet"))]
    return {
        "days": {day: table.to_pydict() for day, table in sorted(tables.items())},
        "rows": pa.concat_tables(tables[day] for day in sorted(tables)).sort_by(PLACE),
        "schema": {day: table.schema.remove_metadata() for day, table in tables.items()},
        "quarantine": sorted(repr(row) for table in aside for row in table.to_pylist()),
        "resume": {p: (anchor["offset"], anchor["rowtime"]) for p, anchor in state["resume"].items()},
        "heads": {p: (anchor["offset"], anchor["rowtime"]) for p, anchor in state["heads"].items()},
        "coverage": state["coverage"],
        "generation": state["generation"],
        "total": state["total_records"],
    }
