"""Nothing outside the lake is ever written, moved or deleted, and nothing of it is open before it is published."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base import files
from ksql_lake.base.errors import LinkError
from ksql_lake.embedded import EmbeddedKsqlDB
from tests.conftest import ROOT

JAN15 = 1_736_899_200_000
DAY = 86_400_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        monkeypatch.setenv("RETENTION", "off")
        database.create_stream("S", "`ID` STRING, `USER_ID` STRING", 1)
        for i in range(10):
            database.append("S", 0, JAN15 + i, [f"e{i}", f"u{i % 2}"])
        assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S"]) == 0
        yield database


def tree(directory: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else "directory"
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody else's directory with what a run would remove or overwrite."""
    directory = tmp_path / "outside"
    for name in ("s/run/old.parquet", "run/old.parquet", "2024-01-01/s/run/manifest.json", "data.parquet", "s.lock"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return directory


PLACES = (".staging", ".staging/s", ".staging/s/run", ".state", ".state/s.lock", ".state/s.jsonl", ".trash", "streams",
          "streams/s", "streams/s/_metadata.json", "quarantine", "quarantine/s", "streams/s/_manifests")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("first", [True, False], ids=["first export", "later export"])
def test_a_link_in_the_lake_stops_the_feed_before_anything_is_done(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, outside: Path, capsys: Any, place: str, first: bool
) -> None:
    lake = tmp_path / "lake"
    if not first:
        assert export_to_data_lake.main(["--all"]) == 0
        ksqldb.append("S", 0, JAN15 + 100, ["e10", "u0"])
    path = lake / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        os.rename(path, tmp_path / "away")
    target = outside / "s.lock" if path.suffix else outside
    path.symlink_to(target)
    before = tree(outside)
    assert export_to_data_lake.main(["--all"]) == 1
    assert "is a link" in capsys.readouterr().err
    assert tree(outside) == before and path.is_symlink()
    if not first:
        for command in (["compact", "--older-than", "1d"], ["retention"], ["undo"],
                        ["erase", "--where", "USER_ID=u1", "--later", "drop"]):
            manage_feeds.main(command)
            assert tree(outside) == before and path.is_symlink(), command
        metadata_utils.main(["--rebuild", "--feed", "s"])
        assert tree(outside) == before
    path.unlink()
    if not first and (tmp_path / "away").exists():
        os.rename(tmp_path / "away", path)
    code = export_to_data_lake.main(["--all"])
    assert code == 0, capsys.readouterr().err
    held = sum(file["rows"] for file in json.loads((lake / "streams/s/_metadata.json").read_text())["files"])
    assert held == len(ksql_lake.read("s", lake=lake)) >= (5 if not first else 10)


@pytest.mark.parametrize("what", ["erase", "compact", "export"])
def test_a_day_that_is_a_link_is_found_before_the_journal(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, what: str
) -> None:
    lake = tmp_path / "lake"
    assert export_to_data_lake.main(["--all"]) == 0
    ksqldb.append("S", 0, JAN15 + 50, ["e10", "u1"])
    assert export_to_data_lake.main(["--all"]) == 0
    day = lake / "streams" / "s" / "year=2025" / "month=01" / "day=15"
    os.rename(day, tmp_path / "day")
    day.symlink_to(tmp_path / "day")
    before = tree(tmp_path / "day")
    ksqldb.append("S", 0, JAN15 + 60, ["e11", "u0"])
    command = {
        "erase": lambda: manage_feeds.main(["erase", "--where", "USER_ID=u1", "--later", "keep"]),
        "compact": lambda: manage_feeds.main(["compact", "--older-than", "1d"]),
        "export": lambda: export_to_data_lake.main(["--all"]),
    }[what]
    assert command() == 1 and " link" in capsys.readouterr().err
    assert tree(tmp_path / "day") == before
    assert not list((lake / ".staging").rglob("commit.json")), "nothing to stumble over for good"
    day.unlink()
    os.rename(tmp_path / "day", day)
    assert command() == 0 and export_to_data_lake.main(["--all"]) == 0
    assert len(ksql_lake.read("s", lake=lake)) == (6 if what == "erase" else 12)


@pytest.mark.parametrize("move", [
    ["../outside/data.parquet", "streams/s/data.parquet"], ["streams/s/x.parquet", "../outside/x.parquet"],
    ["/etc/hostname", "streams/s/hostname"], [".staging/s/r1/x", "/tmp/planted"], ["", "streams/s/x"],
    [".staging/s/r1/../../../../outside/data.parquet", "streams/s/data.parquet"],
])
def test_a_journal_never_moves_anything_out_of_the_lake_or_into_it(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, outside: Path, capsys: Any, move: list[str]
) -> None:
    lake = tmp_path / "lake"
    assert export_to_data_lake.main(["--all"]) == 0
    state = json.loads((lake / "streams/s/_metadata.json").read_text())
    journal = {"run": "r1", "base": state["sequence"], "moves": [move],
               "state": {**state, "sequence": state["sequence"] + 1, "run": "r1"}}
    staged = lake / ".staging" / "s" / "r1"
    staged.mkdir(parents=True)
    (staged / "commit.json").write_text(json.dumps(journal))
    before = tree(outside)
    assert export_to_data_lake.main(["--all"]) == 1
    assert "out of the lake" in (said := capsys.readouterr().err) or "outside the lake" in said
    assert tree(outside) == before and json.loads((lake / "streams/s/_metadata.json").read_text()) == state


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"run": "r1"}', '{"run": "r1", "base": 1, "moves": [1], "state": 2}']
)
def test_a_journal_of_another_shape_is_told(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, text: str) -> None:
    staged = tmp_path / "lake" / ".staging" / "s" / "r1"
    staged.mkdir(parents=True)
    (staged / "commit.json").write_text(text)
    assert export_to_data_lake.main(["--all"]) == 1
    assert "not readable as a journal" in capsys.readouterr().err


def test_a_temporary_file_never_goes_through_a_planted_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "state.json"
    planted = tmp_path / f".state.json.{os.getpid()}.inprogress"
    for target in (victim, tmp_path / "nowhere"):
        planted.symlink_to(target)
        files.atomic_write(path, b"new")
        assert path.read_bytes() == b"new" and not path.is_symlink() and victim.read_text() == "precious"
        assert not planted.is_symlink() and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "directory"])
def test_logs_and_locks_are_regular_files(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "state" / "log", tmp_path / "victim"
    path.parent.mkdir()
    victim.write_text("precious")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(victim if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(LinkError):
        files.append_line(path, b"line")
    with pytest.raises(LinkError), files.exclusive_lock(path, "s"):
        raise AssertionError("locked")
    assert victim.read_text() == "precious" and not (tmp_path / "nowhere").exists()
    with pytest.raises(LinkError):
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "state")
        files.remove_tree(link)
    assert (tmp_path / "state").is_dir()


@pytest.mark.parametrize("allowed", [0, 1, 5, 20])
def test_a_line_is_appended_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """The disk takes some bytes of it and then is full."""
    path = tmp_path / "log"
    files.append_line(path, b"first")
    real, left = os.write, [allowed]

    def write(handle: int, data: Any) -> int:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(handle, bytes(data)[: min(left[0], 3)])
        left[0] -= count
        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        if allowed < 7:
            with pytest.raises(OSError, match="No space left"):
                files.append_line(path, b"second")
        else:
            files.append_line(path, b"second")
    assert path.read_bytes() == (b"first\n" if allowed < 7 else b"first\nsecond\n")
    path.write_bytes(b"first\ntor")
    files.append_line(path, b"third")
    assert path.read_bytes() == b"first\ntor\nthird\n", "a torn line is ended first"


def test_an_erasure_whose_rule_cannot_be_kept_is_no_success(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert export_to_data_lake.main(["--all"]) == 0
    real = os.write

    def write(handle: int, data: Any) -> int:
        if b'"hash"' in bytes(data) and b'"feeds"' in bytes(data) and b'"receipt"' not in bytes(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        assert manage_feeds.main(["erase", "--where", "USER_ID=u1", "--later", "drop"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert len(ksql_lake.read("s", lake=tmp_path / "lake")) == 10


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_what_is_not_published_is_closed_whatever_the_umask(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, mask: int
) -> None:
    """Looked at from inside, whenever a file is opened for writing: spill files of a changelog too."""
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER", queryable=False)
    for i in range(20):
        ksqldb.upsert("T", [f"k{i}", i])
    assert manage_feeds.main(
        ["add", "--name", "t", "--type", "table", "--source", "T", "--access", "restricted"]
    ) == 0
    (tmp_path / "lake" / ".staging").mkdir(mode=0o755, exist_ok=True)  # as an older version left it
    watch = f"""
import os, stat, sys
os.umask({mask})
lake = os.environ["DATA_LAKE_DIR"]
import export_to_data_lake
from pyarrow import ipc
seen = set()
def look(*_):
    for top in (".staging", ".state"):
        for place, folders, names in os.walk(os.path.join(lake, top)):
            closed = stat.S_IMODE(os.stat(os.path.join(lake, top)).st_mode)
            for name in names:
                mode = stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode)
                seen.add((top, closed, name.rpartition(".")[2], mode))
real_add = __import__("ksql_lake.ingest.tables.fold", fromlist=["Fold"]).Fold.add
def add(self, batch):
    real_add(self, batch); look()
__import__("ksql_lake.ingest.tables.fold", fromlist=["Fold"]).Fold.add = add
code = export_to_data_lake.main(["--all"])
look()
for one in sorted(seen): print(*one)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", watch], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    seen = [line.split() for line in done.stdout.splitlines() if line.startswith(".")]
    assert {one[2] for one in seen} >= {"arrow", "sqlite", "lock", "jsonl"}
    for top, closed, name, mode in seen:
        assert int(closed) & 0o077 & ~(0o050 if top == ".state" else 0) == 0, (top, oct(int(closed)))
        if name in ("arrow", "sqlite"):
            assert int(mode) == 0o600
        assert int(mode) & 0o007 == 0, (name, oct(int(mode)))
    for path in (tmp_path / "lake" / "tables" / "t").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640)
