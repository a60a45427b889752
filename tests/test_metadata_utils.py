"""Report, CSV and verification of a lake that a real export made, then spoiled on purpose."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import metadata_utils


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("demo") / "lake"
    start = ["--demo", "--start", "2025-01-15"]
    assert export_to_data_lake.main([*start, "--quiet", "--lake", str(lake), "--events", "200"]) == 0
    return lake


@pytest.fixture
def lake(demo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo, tmp_path / "lake"))


def first_file(lake: Path) -> Path:
    return min((lake / "streams" / "transaction_flattened").rglob("*.parquet"))


def verify(lake: Path, *more: str) -> int:
    return metadata_utils.main(["--verify", "--lake", str(lake), *more])


def test_a_good_lake_has_no_finding(lake: Path, capsys: Any) -> None:
    assert verify(lake, "--deep") == 0
    assert "8 feeds" in capsys.readouterr().out


def test_a_missing_and_an_extra_file_are_named(lake: Path, capsys: Any) -> None:
    file = first_file(lake)
    file.rename(file.with_name("data_20250115_extra.parquet"))
    assert verify(lake) == 1
    out = capsys.readouterr().out
    assert f"{file}: missing" in out and "data_20250115_extra.parquet: extra" in out


def test_a_torn_and_an_altered_file_are_named(lake: Path, capsys: Any) -> None:
    file = first_file(lake)
    content = bytearray(file.read_bytes())
    content[100] ^= 0xFF
    file.write_bytes(content)
    assert verify(lake, "--deep") == 1
    assert f"{file}: altered, its checksum" in capsys.readouterr().out
    file.write_bytes(content[:-20])
    assert verify(lake) == 1
    assert f"{file}: altered" in capsys.readouterr().out


def test_offsets_that_stand_twice_are_found(lake: Path, capsys: Any) -> None:
    directory = lake / "streams" / "transaction_flattened"
    path = directory / "_metadata.json"
    state = json.loads(path.read_text())
    entry = state["files"][0]
    copy = entry["path"].replace(".parquet", "x.parquet")
    shutil.copy(directory / entry["path"], directory / copy)
    state["files"].append({**entry, "path": copy})
    path.write_text(json.dumps(state))
    assert verify(lake) == 0
    assert verify(lake, "--deep") == 1
    assert " there twice; " in capsys.readouterr().out


def test_csv_has_a_row_for_each_partition(lake: Path, tmp_path: Path) -> None:
    target = tmp_path / "data_lake_report.csv"
    assert metadata_utils.main(["--csv", str(target), "--lake", str(lake)]) == 0
    rows = list(csv.DictReader(target.open()))
    assert tuple(rows[0]) == metadata_utils.CSV_COLUMNS
    order = [(row["type"], row["feed"], row["path"]) for row in rows]
    assert order == sorted(order) and {row["type"] for row in rows} == {"stream", "table"}
    assert sum(int(row["records"]) for row in rows if row["feed"] == "transaction_stream") == 200
    assert {row["current"] for row in rows if row["type"] == "table"} == {"yes"}


def test_report_and_stats_fit_a_terminal(lake: Path, capsys: Any) -> None:
    assert metadata_utils.main(["--report", "--lake", str(lake)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert metadata_utils.main(["--stats", "--feed", "payment_method_totals", "--lake", str(lake)]) == 0
    assert "version=v1" in capsys.readouterr().out


def test_corrupt_metadata_is_one_line_and_the_other_feeds_are_shown(lake: Path, capsys: Any) -> None:
    (lake / "streams" / "transaction_stream" / "_metadata.json").write_text("{torn")
    assert metadata_utils.main(["--report", "--lake", str(lake)]) == 1
    shown = capsys.readouterr()
    assert "_metadata.json:notreadable" in "".join((shown.out + shown.err).split())
    assert "payment_method_totals" in shown.out


@pytest.mark.parametrize(("argv", "words"), [
    (["--rebuild", "--dry-run"], "--dry-run goes with --register"),
    (["--report", "--deep"], "--deep goes with --verify or --stats"),
    (["--verify", "--since", "2025-01-01"], "--since goes with --stats or --csv or --history"),
])
def test_an_option_that_would_do_nothing_is_refused(argv: list[str], words: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        metadata_utils.main(argv)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_a_lake_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    for look in ("--verify", "--report", "--stats"):
        assert metadata_utils.main([look, "--lake", str(tmp_path / "typo")]) == 2
        assert "typo: no such directory; set --lake" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named_as_it_was_asked_for(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "lake").mkdir()
    for option in ("--csv", "--html"):
        target = tmp_path / "nowhere" / "x"
        assert metadata_utils.main([option, str(target)]) == 1
        assert capsys.readouterr().err == f"error: {target}: No such file or directory\n"
