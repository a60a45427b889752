"""What DESIGN_DOCUMENT.md promises under "Where to add", done: a column type, a catalog, a kind of finding."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.files import atomic_write
from ksql_lake.catalogs import targets
from ksql_lake.catalogs.hive import hive_type
from ksql_lake.embedded import EmbeddedKsqlDB, encode
from ksql_lake.model import findings, types
from ksql_lake.model.change import Change
from ksql_lake.model.findings import Finding
from ksql_lake.model.state import FeedState
from ksql_lake.reporting import findings as looking
from ksql_lake.sources.kafka.formats import Refusal, plan_of
from ksql_lake.sources.ksqldb import values
from ksql_lake.store import layout
from ksql_lake.store.metadata import Dataset

JAN15 = 1_736_899_200_000
DAY = 86_400_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        yield database


def add(database: EmbeddedKsqlDB, columns: str) -> None:
    database.create_stream("EVENTS", columns, 1)
    assert manage_feeds.main(["add", "--name", "events", "--type", "stream", "--source", "events"]) == 0


def export() -> int:
    return export_to_data_lake.main(["--all", "--quiet"])


def _uuid(value: Any) -> str:
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError):
        raise values.Unfit("expected a UUID") from None


def test_a_column_type_is_three_lines(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(types.SCALARS, "UUID", pa.string())
    monkeypatch.setitem(values.SCALARS, "UUID", _uuid)
    monkeypatch.setitem(encode.SCALARS, "UUID", encode.string)
    add(ksqldb, "`ID` UUID, `SEEN` ARRAY<UUID>, `IN` STRUCT<`A` UUID>")
    ids = [str(uuid.UUID(int=number)) for number in range(3)]
    for one in ids:
        ksqldb.append("EVENTS", 0, JAN15, [one, [one, None], {"A": one}])
    assert export() == 0
    assert ksql_lake.read("events", lake=tmp_path / "lake", arrow=True, columns=["ID", "SEEN", "IN"]).to_pylist() == [
        {"ID": one, "SEEN": [one, None], "IN": {"A": one}} for one in ids
    ]
    ksqldb.append("EVENTS", 0, JAN15, ["not one", [], None])
    capsys.readouterr()
    assert export() == 1 and "does not fit UUID (expected a UUID)" in capsys.readouterr().err
    assert hive_type(types.parse_type("MAP<STRING, UUID>")) == "map<string,string>"
    assert metadata_utils.main(["sql", "hive"]) == 0 and "`SEEN` array<string>" in capsys.readouterr().out


@pytest.mark.parametrize("format_", ["JSON", "DELIMITED", "KAFKA"])
@pytest.mark.parametrize("kind", [
    {"type": "UUID"}, {"type": "ARRAY", "memberSchema": {"type": "UUID"}},
    {"type": "STRUCT", "fields": [{"name": "A", "schema": {"type": "UUID"}}]},
])
def test_a_type_that_no_kafka_format_knows_is_read_over_rest(format_: str, kind: dict[str, Any]) -> None:
    plan = plan_of({
        "name": "S", "type": "STREAM", "topic": "s", "valueFormat": format_, "keyFormat": "NONE",
        "statement": f"CREATE STREAM S (U UUID) WITH (VALUE_FORMAT='{format_}');",
        "fields": [{"name": "U", "schema": kind}],
    })
    assert isinstance(plan, Refusal) and f"VALUE_FORMAT {format_} with column U" in plan.reason


def test_the_embedded_server_refuses_a_type_that_it_does_not_know(ksqldb: EmbeddedKsqlDB) -> None:
    with pytest.raises(ValueError, match="unknown type 'UUID'; expected BOOLEAN"):
        ksqldb.create_stream("S", "`A` ARRAY<UUID>", 1)


@dataclass(frozen=True)
class PartitionsCsv:
    """A CSV file of every feed's partitions."""

    file: Path
    calls: list[str]
    name: str = "partitions"

    def apply(self, dataset: Dataset, state: FeedState, change: Change) -> None:
        self.calls.append(f"apply {change.kind} {dataset.feed}")
        self._write(dataset, state)

    def rebuild(self, dataset: Dataset, state: FeedState) -> None:
        self.calls.append(f"rebuild {dataset.feed}")
        self._write(dataset, state)

    def _write(self, dataset: Dataset, state: FeedState) -> None:
        lock = layout.catalog_lock(dataset.lake, "partitions")
        with dataset.storage.lock(lock, "the CSV of partitions", wait=True):
            known = self.file.read_text().splitlines() if self.file.exists() else []
            others = [line for line in known if not line.startswith(f"{dataset.feed},")]
            mine = [f"{dataset.feed},{one.path},{one.records},{one.bytes}" for one in state.partitions]
            atomic_write(self.file, "\n".join([*others, *mine, ""]).encode())


def test_a_catalog_is_a_class_and_a_line(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It follows exports and other changes, catches up with what it missed, and a failure is reported once."""
    calls: list[str] = []
    kind = targets.Kind("partitions:FILE", lambda text: PartitionsCsv(Path(text.partition(":")[2]), calls))
    monkeypatch.setenv("RETENTION", "off")
    monkeypatch.setitem(targets.KINDS, "partitions", kind)
    file = tmp_path / "partitions.csv"
    add(ksqldb, "`A` STRING")

    def run(day: int) -> int:
        ksqldb.append("EVENTS", 0, JAN15 + day * DAY, ["x"])
        return export()

    def listed() -> list[str]:
        return [row[1] for row in csv.reader(file.open())]

    assert run(0) == 0 and not file.exists()
    monkeypatch.setenv("REGISTER", f"partitions:{file}")
    assert export() == 0, "nothing new, and yet it catches up"
    assert listed() == ["year=2025/month=01/day=15"] and calls[0] == "rebuild events"
    calls.clear()
    assert run(1) == 0 and calls == ["apply export events"] and len(listed()) == 2
    assert manage_feeds.main(["update", "events", "retention_days=30"]) == 0
    assert manage_feeds.main(["retention", "events", "--max-delete", "100"]) == 0
    assert calls[1:] == ["apply retention events"] and listed() == []
    file.unlink()
    file.mkdir()
    capsys.readouterr()
    assert run(2) == 1 and "events: partitions: " in capsys.readouterr().err
    file.rmdir()
    assert run(3) == 0 and calls[-1] == "apply export events" and calls[-2] == "rebuild events"
    assert len(listed()) == 2 and [row[-2:] for row in csv.reader(file.open())] == [
        [str(one["records"]), str(round(one["size_mb"] * 1e6))]
        for one in json.loads((tmp_path / "lake/streams/events/_metadata.json").read_text())["partitions"]
    ]


def _shrunk(seen: looking.Seen) -> Iterator[Finding]:
    rows = [one.records for one in seen.state.partitions]
    if len(rows) > 2 and rows[-1] < sum(rows[:-1]) / len(rows[:-1]) / 4:
        yield Finding("shrunk", f"{seen.state.partitions[-1].path} has {rows[-1]} rows", feed=seen.name)


def test_a_kind_of_finding_is_a_line_and_a_function(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Report, its JSON, page and metrics show it."""
    monkeypatch.setitem(findings.KINDS, "shrunk", "warning")
    monkeypatch.setattr(looking, "OF_STATE", (*looking.OF_STATE, _shrunk))
    monkeypatch.setenv("METRICS_FILE", str(tmp_path / "lake.prom"))
    add(ksqldb, "`A` STRING")
    for day, rows in enumerate((20, 20, 2)):
        for _ in range(rows):
            ksqldb.append("EVENTS", 0, JAN15 + day * DAY, ["x"])
    assert export() == 0
    said = "year=2025/month=01/day=17 has 2 rows"
    capsys.readouterr()
    metadata_utils.main(["report"])
    assert f"events: {said}" in capsys.readouterr().out
    metadata_utils.main(["report", "--json"])
    (feed,) = json.loads(capsys.readouterr().out)
    assert ("shrunk", "warning") in [(one["kind"], one["level"]) for one in feed["findings"]]
    metadata_utils.main(["html", str(tmp_path / "page.html")])
    assert said in (tmp_path / "page.html").read_text()
    assert 'ksql_lake_findings{feed="events",type="stream",level="warning"} 1' in (tmp_path / "lake.prom").read_text()
