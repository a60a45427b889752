"""A lake knows the Kafka cluster that fills it, and accepts a different one only when asked to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB, Fault

JAN15 = 1_736_899_200_000


def filled() -> EmbeddedKsqlDB:
    database = EmbeddedKsqlDB()
    database.create_stream("S", "`ID` STRING", 1)
    database.create_table("T", "`ID` STRING KEY")
    for i in range(5):
        database.append("S", 0, JAN15 + i, [f"e{i}"])
        database.upsert("T", [f"k{i}"])
    return database


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    monkeypatch.setenv("IDLE_SECONDS", "0.2")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "0.5")
    with filled() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        for kind, name in (("stream", "s"), ("table", "t")):
            assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
        yield database


def note(lake: Path) -> dict[str, Any]:
    return dict(json.loads((lake / ".state" / "kafka_cluster.json").read_text()))


def rows(lake: Path) -> int:
    return len(ksql_lake.read("s", lake=lake))


def test_another_cluster_is_refused_until_it_is_accepted(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    lake = tmp_path / "lake"
    assert export_to_data_lake.main(["--all"]) == 0 and export_to_data_lake.main(["--all"]) == 0
    before = note(lake)
    assert before["kafka_cluster_id"] == ksqldb.cluster_id and before["url"] == ksqldb.url
    with filled() as other:
        other.cluster_id = "another-cluster-id"
        monkeypatch.setenv("KSQLDB_URL", other.url)
        for argv in (["--all"], ["--stream", "s"], ["--table", "t", "--allow-shrink"]):
            capsys.readouterr()
            assert export_to_data_lake.main(argv) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert all(word in line for word in (
                str(lake), before["kafka_cluster_id"], "another-cluster-id", ksqldb.url, other.url, "--accept-cluster",
                "a second time"))
        assert note(lake) == before and rows(lake) == 5
        assert sorted(path.name for path in (lake / "tables" / "t").glob("version=*")) == ["version=v1", "version=v2"]
        assert export_to_data_lake.main(["--all", "--accept-cluster"]) in (0, 1)
        assert "is filled from Kafka cluster another-cluster-id from now on" in capsys.readouterr().err
        assert note(lake)["kafka_cluster_id"] == "another-cluster-id"
        assert note(lake)["before"] == [{key: before[key] for key in ("kafka_cluster_id", "since")}]
        assert export_to_data_lake.main(["--all"]) in (0, 1)
    monkeypatch.setenv("KSQLDB_URL", ksqldb.url)
    assert export_to_data_lake.main(["--all"]) == 2


def test_a_lake_of_an_earlier_version_takes_the_cluster_it_has(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    assert export_to_data_lake.main(["--all"]) == 0
    (tmp_path / "lake" / ".state" / "kafka_cluster.json").unlink()
    ksqldb.cluster_id = "moved"
    assert export_to_data_lake.main(["--all"]) == 0
    assert note(tmp_path / "lake")["kafka_cluster_id"] == "moved" and rows(tmp_path / "lake") == 5


def test_a_server_that_does_not_tell_its_cluster_is_let_in(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    told = Fault(status=200, body=b'{"KsqlServerInfo":{"version":"0.6.0"}}', path="/info")
    ksqldb.faults.add(told)
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    assert not (tmp_path / "lake" / ".state" / "kafka_cluster.json").exists() and rows(tmp_path / "lake") == 5


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kafka_cluster_id": 5}', "[" * 100_000])
def test_a_note_that_cannot_be_read_is_named(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, text: str, capsys: Any
) -> None:
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    (tmp_path / "lake" / ".state" / "kafka_cluster.json").write_text(text)
    capsys.readouterr()
    assert export_to_data_lake.main(["--stream", "s"]) == 1
    assert "kafka_cluster.json" in (told := capsys.readouterr().err) and "remove it" in told, told
