"""The commands of manage_feeds.py that ask the server or look at the lake; versions compared; modes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model import feeds

JAN15 = 1_736_899_200_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        database.create_stream("S", "`ID` STRING, `day` STRING, `CUSTOMER` STRUCT<`IP` STRING>", 1)
        database.append("S", 0, JAN15, ["e1", "x", {"IP": "1"}])
        database.create_table("T", "`ID` STRING KEY, `V` DECIMAL(8, 2), `TAGS` ARRAY<STRING>")
        database.create_table("PLAIN", "`ID` STRING KEY, `V` INTEGER", queryable=False)
        yield database


def add(name: str, *more: str) -> int:
    return manage_feeds.main(["add", "--name", name, "--source", name, *more])


def test_add_asks_the_server(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert add("s") == 0 and add("t") == 0
    active = tmp_path / "lake" / "feeds" / "active"
    assert [feeds.load(active / f"{name}.json").type for name in "st"] == ["stream", "table"]
    assert add("plain", "--type", "stream") == 1
    assert "plain is a table on" in capsys.readouterr().err
    assert add("nowhere") == 1 and "say --type" in capsys.readouterr().err
    assert add("later", "--type", "stream") == 0 and "is not on" in capsys.readouterr().err
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    assert add("blind") == 2 and "cannot be asked" in capsys.readouterr().err
    assert add("blind", "--type", "table") == 0


def test_discover_shows_and_adds(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert add("s") == 0
    capsys.readouterr()
    assert manage_feeds.main(["discover"]) == 0
    assert sorted(capsys.readouterr().out.split()) == ["PLAIN", "T", "table", "table"]
    assert manage_feeds.main(["discover", "--add", "t"]) == 0
    assert manage_feeds.main(["discover", "--add", "nothing"]) == 1
    assert manage_feeds.main(["discover", "--add"]) == 0
    capsys.readouterr()
    assert manage_feeds.main(["discover"]) == 0 and capsys.readouterr().out == "every source has a feed\n"
    assert manage_feeds.main(["check", "--online"]) == 0
    assert export_to_data_lake.main(["--stream", "s"]) == 0


def test_check_online_says_what_does_not_fit(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert add("s") == 0 and add("plain") == 0 and add("gone", "--type", "stream") == 0
    capsys.readouterr()
    assert manage_feeds.main(["check", "--online"]) == 1
    shown = capsys.readouterr()
    assert "gone: no such stream" in shown.err and "2 of 3 feeds match" in shown.out
    assert "s: 3 columns; stored day as day_" in shown.out and "plain: 2 columns; read as a changelog" in shown.out
    assert manage_feeds.main(["update", "s", 'forbidden_columns=["ip"]']) == 0
    assert manage_feeds.main(["check", "--online", "s"]) == 1
    assert "carries ip" in capsys.readouterr().err


def test_update_keeps_the_order_and_what_it_does_not_know_it_refuses(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    assert add("s", "--retention-days", "10") == 0
    path = tmp_path / "lake" / "feeds" / "active" / "s.json"
    keys = list(json.loads(path.read_text()))
    assert manage_feeds.main(["update", "s", "retention_days=20", "description=Größe", "timezone=Europe/Paris"]) == 0
    raw = json.loads(path.read_text())
    assert list(raw) == [*keys, "timezone"] and raw["retention_days"] == 20 and raw["description"] == "Größe"
    before = path.stat().st_mtime_ns
    assert manage_feeds.main(["update", "s", "retention_days=20"]) == 0 and path.stat().st_mtime_ns == before
    for wrong in ("retension_days=1", "retention_days=x", "feed_type=table", "nonsense"):
        assert manage_feeds.main(["update", "s", wrong]) in (1, 2)
    assert path.stat().st_mtime_ns == before and 'did you mean "retention_days"' in capsys.readouterr().err
    assert manage_feeds.main(["update", "s", "timezone="]) == 0
    assert list(json.loads(path.read_text())) == keys


def test_keys_of_a_newer_version_survive_changes(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """`check` calls an unknown key wrong, but changing another one must not need it taken out."""
    assert add("s", "--retention-days", "10") == 0
    path = tmp_path / "lake" / "feeds" / "active" / "s.json"
    raw = {**json.loads(path.read_text()), "sampling": {"rate": 0.5}}
    path.write_text(json.dumps(raw, indent=2) + "\n")
    assert manage_feeds.main(["check", "s"]) == 1
    assert manage_feeds.main(["disable", "s"]) == 0
    assert 'note: s.json: unknown key "sampling"' in capsys.readouterr().err
    assert json.loads(path.read_text()) == {**raw, "enabled": False}
    assert manage_feeds.main(["update", "s", "retention_days=0"]) == 1
    assert manage_feeds.main(["update", "s", "retention_days=20", "sampling="]) == 0
    assert manage_feeds.main(["check", "s"]) == 0


def test_add_takes_any_key(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert add("s", "compression=zstd", 'forbidden_columns=["ip"]') == 0 and capsys.readouterr().err == ""
    raw = json.loads((tmp_path / "lake" / "feeds" / "active" / "s.json").read_text())
    assert raw["compression"] == "zstd" and raw["forbidden_columns"] == ["ip"]
    assert add("plain", "compresion=zstd") == 1 and 'did you mean "compression"' in capsys.readouterr().err
    assert add("plain", "--keep-versions", "3") == 0
    assert json.loads((tmp_path / "lake" / "feeds" / "active" / "plain.json").read_text())["retention_versions"] == 3


def test_sync_shows_what_differs_and_keeps_it(tmp_path: Path, capsys: Any) -> None:
    assert manage_feeds.main(["sync", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("write ") == 8 and not (tmp_path / "lake").exists()
    assert manage_feeds.main(["sync"]) == 0
    assert manage_feeds.main(["update", "transaction_stream", "retention_days=90", "access="]) == 0
    path = tmp_path / "lake" / "feeds" / "active" / "transaction_stream.json"
    before = path.read_bytes()
    capsys.readouterr()
    assert manage_feeds.main(["sync"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "(" in line]
    assert line == (
        "keep    transaction_stream (retention_days is 90, but 365 in the config; access is not set, but restricted "
        "in the config)"
    )
    assert path.read_bytes() == before


def test_remove_asks(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert add("s") == 0 and export_to_data_lake.main(["--all"]) == 0
    assert manage_feeds.main(["remove", "s"]) == 2 and "--yes" in capsys.readouterr().err
    assert manage_feeds.main(["remove", "s", "--yes"]) == 0
    assert list((tmp_path / "lake" / "streams" / "s").rglob("*.parquet"))
    assert manage_feeds.main(["remove", "s", "--yes"]) == 1


def test_archive_says_what_becomes_of_retention(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    assert add("s") == 0
    assert manage_feeds.main(["archive", "s"]) == 0
    assert "retention leaves it alone" in capsys.readouterr().out


def test_show_tells_the_history_of_the_schema(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    assert add("t") == 0
    ksqldb.upsert("T", ["a", Decimal(1), []])
    assert export_to_data_lake.main(["--all"]) == 0
    ksqldb.create_table("T2", "`ID` STRING KEY, `V` DECIMAL(8, 2), `TAGS` ARRAY<STRING>, `NEW` BIGINT")
    ksqldb.upsert("T2", ["a", Decimal(1), [], 5])
    assert manage_feeds.main(["update", "t", "ksqldb_source=T2"]) == 0
    assert export_to_data_lake.main(["--all"]) == 0
    capsys.readouterr()
    assert manage_feeds.main(["show", "t"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# schema")]
    assert len(lines) == 2 and "V DECIMAL(8, 2)" in lines[0]
    assert lines[1].startswith("# schema 1.1 since ") and lines[1].endswith("NEW BIGINT")


def test_completion_completes(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert add("s") == 0
    capsys.readouterr()
    assert manage_feeds.main(["completion"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out + """
complete_words() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _python_manage_feeds; echo "${COMPREPLY[@]}"
}
complete_words python manage_feeds.py ret
complete_words python manage_feeds.py show ''
""")
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["retention", "s"], done.stderr


def test_versions_compared_by_key(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    assert add("t") == 0
    for row in (["a", Decimal(1), ["x"]], ["b", Decimal(2), None], ["c", Decimal(3), ["y"]]):
        ksqldb.upsert("T", row)
    assert export_to_data_lake.main(["--all"]) == 0
    ksqldb.upsert("T", ["a", Decimal(9), ["x", "z"]])
    ksqldb.delete("T", ["b"])
    ksqldb.upsert("T", ["d", Decimal(4), None])
    assert export_to_data_lake.main(["--all"]) == 0
    capsys.readouterr()
    assert metadata_utils.main(["--compare", "t", "v1", "v2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "changed  ID=a  V: 1.00 -> 9.00, TAGS: ['x'] -> ['x', 'z']", "removed  ID=b", "added    ID=d",
        "t v1 to v2: 1 added, 1 removed, 1 changed",
    ]
    assert metadata_utils.main(["--compare", "t", "v1", "v2", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["changed"]["V"] == ["1.00", "9.00"]
    assert metadata_utils.main(["--compare", "t", "v1", "v2", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "changed,ID=a,V,1.00,9.00"
    assert metadata_utils.main(["--compare", "t", "v1", "v1"]) == 0
    assert metadata_utils.main(["--compare", "t", "v1", "v9"]) == 1
    assert metadata_utils.main(["--compare", "s", "v1", "v2"]) == 1


def test_the_order_of_a_map_is_no_change(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    ksqldb.create_table("M", "`ID` STRING KEY, `V` MAP<STRING, INTEGER>")
    assert add("m") == 0
    for value in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"b": 2, "a": 3}):
        ksqldb.upsert("M", ["x", value])
        assert export_to_data_lake.main(["--table", "m"]) == 0
    capsys.readouterr()
    assert metadata_utils.main(["--compare", "m", "v1", "v2"]) == 0
    assert capsys.readouterr().out == "m v1 to v2: 0 added, 0 removed, 0 changed\n"
    assert metadata_utils.main(["--compare", "m", "v2", "v3"]) == 0 and "1 changed" in capsys.readouterr().out


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_modes_whatever_the_umask(ksqldb: EmbeddedKsqlDB, tmp_path: Path, umask: int, capsys: Any) -> None:
    old = os.umask(umask)
    try:
        assert add("s") == 0 and add("t") == 0
        ksqldb.upsert("T", ["a", Decimal(1), []])
        assert export_to_data_lake.main(["--all"]) == 0
    finally:
        os.umask(old)
    lake = tmp_path / "lake"
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (lake / "streams" / "s").rglob("*")}
    assert modes == {(True, 0o750), (False, 0o640)}
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (lake / "tables" / "t").rglob("*")}
    assert modes == {(True, 0o755), (False, 0o644)}
    assert metadata_utils.main(["--verify"]) == 0
    (file,) = (lake / "streams").rglob("*.parquet")
    file.chmod(0o666)
    file.parent.chmod(0o777)
    capsys.readouterr()
    assert metadata_utils.main(["--verify"]) == 1
    assert f"{file}: mode 666, expected 640" in capsys.readouterr().out
    assert manage_feeds.main(["permissions"]) == 1
    assert manage_feeds.main(["permissions", "--apply"]) == 0
    assert metadata_utils.main(["--verify"]) == 0 and stat.S_IMODE(file.stat().st_mode) == 0o640
    assert manage_feeds.main(["update", "s", "access=open"]) == 0
    assert metadata_utils.main(["--verify"]) == 1 and manage_feeds.main(["permissions", "--apply"]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o644 and stat.S_IMODE(file.parent.stat().st_mode) == 0o755

