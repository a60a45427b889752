"""A full disk takes half a line: erasure rules, state log and run history are whole, or it is an error."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB

RULES = ".state/_erasures.jsonl"

JAN15 = 1_736_899_200_000
REAL = os.write


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def ksqldb(lake: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2")):
            monkeypatch.setenv(name, value)
        database.create_stream("S", "`N` INTEGER", 1)
        for n in range(5):
            database.append("S", 0, JAN15, [n])
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s"]) == 0
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        yield database


def full(patch: pytest.MonkeyPatch, path: Path, room: int) -> None:
    """The disk has room for so many bytes more of one file."""
    left = [room]

    def write(handle: int, data: Any) -> int:
        if Path(os.readlink(f"/proc/self/fd/{handle}")) != path:
            return REAL(handle, data)
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = REAL(handle, bytes(data)[: left[0]])
        left[0] -= written
        return written

    patch.setattr(os, "write", write)


def numbers(lake: Path) -> list[int]:
    return sorted(n for p in (lake / "streams").rglob("*.parquet") for n in pq.read_table(p)["N"].to_pylist())


@pytest.mark.parametrize("room", [0, 1, 70])
def test_an_erasure_rule(
    room: int, ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Without the rule nothing is erased, and no receipt says so; the next call does it all."""
    assert manage_feeds.main(["erase", "--where", "n=1", "--later", "drop"]) == 0
    before = (lake / RULES).read_bytes()
    with monkeypatch.context() as patch:
        full(patch, lake / RULES, room)
        assert manage_feeds.main(["erase", "--where", "n=2", "--later", "drop"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert (lake / RULES).read_bytes() == before and numbers(lake) == [0, 2, 3, 4]
    assert manage_feeds.main(["erase", "--where", "n=2", "--later", "drop"]) == 0
    assert len([json.loads(line) for line in (lake / RULES).read_bytes().splitlines()]) == 2
    for n in range(5):
        ksqldb.append("S", 0, JAN15 + 1, [n])
    assert manage_feeds.main(["add", "--name", "again", "--type", "stream", "--source", "s"]) == 0
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert numbers(lake) == sorted([0, 3, 4] * 4)


@pytest.mark.parametrize("room", [0, 1, 300])
@pytest.mark.parametrize("name", [".state/s.jsonl", "logs/runs.jsonl"])
def test_the_state_log_and_the_history(
    name: str, room: int, ksqldb: EmbeddedKsqlDB, lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    before = (lake / name).read_bytes()
    ksqldb.append("S", 0, JAN15 + 1, [5])
    with monkeypatch.context() as patch:
        full(patch, lake / name, room)
        export_to_data_lake.main(["--all", "--quiet"])
    assert "No space left" in capsys.readouterr().err
    assert (lake / name).read_bytes() == before
    ksqldb.append("S", 0, JAN15 + 1, [6])
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert numbers(lake) == list(range(7)) and metadata_utils.main(["--verify", "--deep"]) == 0
    for line in (lake / name).read_bytes().splitlines():
        json.loads(line)
