"""Feed names: one rule, kept at load and wherever a name comes in; feeds and the lake share no file names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model import feeds

JAN15 = 1_736_899_200_000
WRONG = ("..", ".", ".x", "-x", "a=b", "a\nb", "a\x1bb", "a b", "_x", "x/y", "é", "x" * 201, "\u0663")


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
        yield database


def active(tmp_path: Path) -> Path:
    directory = tmp_path / "lake" / "feeds" / "active"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def write(tmp_path: Path, name: str, source: str = "S") -> Path:
    path = active(tmp_path) / f"{name}.json"
    path.write_text(json.dumps(feeds.new("x", "stream", source, "2025-01-01T00:00:00Z") | {"feed_name": name}))
    return path


@pytest.mark.parametrize("name", [name for name in WRONG if "/" not in name])
def test_a_file_written_by_hand_obeys_the_rule_of_add(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, name: str
) -> None:
    write(tmp_path, name)
    write(tmp_path, "good")
    assert manage_feeds.main(["check"]) == 1
    shown = capsys.readouterr()
    assert "1 feed file OK, 1 with errors" in shown.out
    assert "\x1b" not in shown.err and len(shown.err.splitlines()) == 1
    assert "cannot be a feed name" in shown.err or "too long" in shown.err
    kept = tmp_path / "lake" / ".staging" / "other" / "run"
    kept.mkdir(parents=True)
    assert export_to_data_lake.main(["--all"]) == 1, "the wrong one fails"
    assert len(ksql_lake.read("good", lake=tmp_path / "lake")) == 10, "the good one is exported"
    assert kept.is_dir() and sorted(p.name for p in (tmp_path / "lake" / "streams").iterdir()) == ["good"]


@pytest.mark.parametrize("name", WRONG)
def test_every_command_that_takes_a_name_refuses_what_cannot_be_one(tmp_path: Path, capsys: Any, name: str) -> None:
    write(tmp_path, "good")
    before = sorted(path for path in tmp_path.rglob("*"))
    for argv in (
        ["add", f"--name={name}", "--type", "stream", "--source", "S"], ["show", "--", name], ["enable", "--", name],
        ["disable", "--", name], ["archive", "--", name], ["restore", "--", name], ["remove", "--yes", "--", name],
        ["update", "--", name, "retention_days=1"], ["check", "--", name],
    ):
        assert manage_feeds.main(argv) == 1, argv
        assert "name" in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_names_that_differ_only_in_case(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    write(tmp_path, "Orders")
    write(tmp_path, "orders")
    assert export_to_data_lake.main(["--all"]) == 1
    assert "the names orders and Orders differ only in case" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "lake" / "streams").iterdir()] == ["Orders"]
    add = ["add", "--name", "ORDERS", "--type", "stream", "--source", "S"]
    (active(tmp_path) / "orders.json").unlink()
    assert manage_feeds.main(add) == 1 and "differ only in case" in capsys.readouterr().err
    assert manage_feeds.main(["archive", "Orders"]) == 0
    assert manage_feeds.main(add) == 1, "the archived one may come back"
    archived = tmp_path / "lake" / "feeds" / "archived"
    os.rename(archived / "Orders.json", archived / "kept")
    assert manage_feeds.main(add) == 1, "its data are still there"


def test_sync_and_discover_keep_the_rule(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    write(tmp_path, "Transaction_Stream")
    assert manage_feeds.main(["sync"]) == 1 and "differ only in case" in capsys.readouterr().err
    (active(tmp_path) / "Transaction_Stream.json").unlink()
    ksqldb.create_stream("LATER", "`ID` STRING", 1)
    write(tmp_path, "Later", "T")
    assert manage_feeds.main(["discover", "--add"]) == 1, "later is told"
    shown = capsys.readouterr()
    assert "differ only in case" in shown.err and (active(tmp_path) / "s.json").exists(), "and s is added"


@pytest.mark.parametrize("name", ["erasures", "_erasures", "glue", "delta", "erase", "commit", "cluster", "x.lock"])
def test_feeds_and_the_lake_share_no_file_names(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, name: str
) -> None:
    ksqldb.create_stream("LATER", "`ID` STRING, `USER_ID` STRING", 1)
    ksqldb.append("LATER", 0, JAN15, ["l", "u1"])
    good = not name.startswith("_")
    assert (manage_feeds.main(["add", "--name", name, "--type", "stream", "--source", "S"]) == 0) == good
    if not good:
        return
    assert export_to_data_lake.main(["--all"]) == 0
    assert manage_feeds.main(["erase", "--where", "USER_ID=u1", "--later", "drop"]) == 0
    ksqldb.append("S", 0, JAN15 + 100, ["e10", "u0"])
    ksqldb.append("S", 0, JAN15 + 101, ["e11", "u1"])
    assert manage_feeds.main(["add", "--name", "later", "--type", "stream", "--source", "LATER"]) == 0
    assert export_to_data_lake.main(["--all"]) == 0, capsys.readouterr()
    assert sorted(ksql_lake.read(name, lake=tmp_path / "lake")["ID"]) == ["e0", "e10", "e2", "e4", "e6", "e8"]
    assert len(ksql_lake.read("later", lake=tmp_path / "lake")) == 0, "the rule holds for all feeds"
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    (tmp_path / "lake" / "streams" / name / "_metadata.json").unlink()
    assert metadata_utils.main(["--rebuild"]) == 0 and export_to_data_lake.main(["--all"]) == 0


def test_rules_of_an_older_lake_hold(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """They were in a file that a feed called erasures shared with them."""
    assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "S"]) == 0
    assert export_to_data_lake.main(["--all"]) == 0
    assert manage_feeds.main(["erase", "--where", "USER_ID=u1", "--later", "drop"]) == 0
    state = tmp_path / "lake" / ".state"
    rule = (state / "_erasures.jsonl").read_text()
    (state / "_erasures.jsonl").unlink()
    (state / "erasures.jsonl").write_text('{"sequence": 3, "run": "r"}\n' + rule + "[1]\nnull\n")
    assert manage_feeds.main(["add", "--name", "second", "--type", "stream", "--source", "S"]) == 0
    assert export_to_data_lake.main(["--all"]) == 0
    assert set(ksql_lake.read("second", lake=tmp_path / "lake")["USER_ID"]) == {"u0"}


GOOD = '"feed_name": "bad", "feed_type": "stream", "ksqldb_source": "S"'
BROKEN = {
    "deep": ("{" + GOOD + ', "checks": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "deep enough": ("{" + GOOD + ', "partitioning": ' + '{"a":' * 900 + "1" + "}" * 900 + "}", ""),
    "digits": ("{" + GOOD + ', "retention_days": ' + "9" * 5000 + "}", "too many digits"),
    "many digits": ("{" + GOOD + ', "retention_days": ' + "9" * 400 + "}", "expected at most 100,000"),
    "infinite": ("{" + GOOD + ', "idle_seconds": 1e999}', "expected at most 86,400"),
    "nan": ("{" + GOOD + ', "idle_seconds": NaN}', "NaN is not JSON"),
    "latin1": (b'{"description": "Gr\xf6\xdfe"}', "is not UTF-8 text"),
    "large": ("{" + " " * 2_000_000 + GOOD + "}", "larger than 1,048,576 bytes"),
    "list": ("[]", "expected an object"),
    "empty": ("", "not JSON"),
}


@pytest.mark.parametrize("case", [*BROKEN, "fifo", "directory", "socket", "loop", "dangling", "unreadable"])
def test_a_broken_file_fails_alone_and_at_once(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, case: str
) -> None:
    write(tmp_path, "good")
    path = active(tmp_path) / "bad.json"
    expected = {
        "fifo": "it is a FIFO, not a file", "directory": "it is a directory, not a file", "loop": "cannot be read",
        "dangling": "no such feed", "socket": "cannot be read", "unreadable": "cannot be read",
    }.get(case) or BROKEN[case][1]
    if case == "fifo":
        os.mkfifo(path)
    elif case == "directory":
        path.mkdir()
    elif case in ("loop", "dangling"):
        path.symlink_to(path if case == "loop" else tmp_path / "nowhere")
    elif case == "socket":
        import socket

        short = os.open(path.parent, os.O_RDONLY)
        socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{short}/bad.json")
        os.close(short)
    elif case == "unreadable":
        path.write_text("{}")
        path.chmod(0)
        if os.geteuid() == 0:
            pytest.skip("root reads everything")
    else:
        content = BROKEN[case][0]
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for main, argv in ((manage_feeds.main, ["check"]), (manage_feeds.main, ["list"]),
                       (export_to_data_lake.main, ["--all"]), (metadata_utils.main, ["--report"]),
                       (manage_feeds.main, ["show", "bad"])):
        capsys.readouterr()
        code, said = main(argv), capsys.readouterr().err
        assert code in (0, 1), (argv, said)
        if argv[0] not in ("--report", "show") and expected:
            assert code == 1 and expected in said and "bad.json" in said, (argv, said)
    assert len(ksql_lake.read("good", lake=tmp_path / "lake")) == 10


def test_a_feed_file_that_is_a_link_is_read_and_never_replaced(tmp_path: Path, capsys: Any) -> None:
    """As a ConfigMap or a checkout of the configuration puts them there."""
    outside = tmp_path / "config" / "s.json"
    outside.parent.mkdir()
    outside.write_text(json.dumps(feeds.new("s", "stream", "S", "2025-01-01T00:00:00Z")))
    (active(tmp_path) / "s.json").symlink_to(outside)
    before = outside.read_bytes()
    assert manage_feeds.main(["check"]) == 0
    assert manage_feeds.main(["disable", "s"]) == 1
    assert "is a link" in capsys.readouterr().err
    assert (active(tmp_path) / "s.json").is_symlink() and outside.read_bytes() == before
