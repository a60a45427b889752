"""What README claims: its commands are run, its readers read, its lists agree with the code."""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest

import data_lake_config
import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.errors import ExitCode
from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = {"data_lake_config": data_lake_config, "export_to_data_lake": export_to_data_lake,
           "manage_feeds": manage_feeds, "metadata_utils": metadata_utils}


def commands() -> list[str]:
    """The `python <script>.py ...` lines of README's indented blocks, in order, without comments and redirections."""
    lines = [line.strip() for line in README.splitlines() if line.startswith("    python ")]
    return [line.partition(" # ")[0].partition(" > ")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, int]]]:
    """A lake on which every command of README was run in its order, and the exit code of each.

    The server has the eight demo sources and README's payment_stream.
    """
    lake = tmp_path_factory.mktemp("readme") / "data_lake"
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        fill_demo(database, 300, 1, export_to_data_lake.DEMO_START, 3)
        database.create_stream("PAYMENT_STREAM", "`ID` STRING", 1)
        database.append("PAYMENT_STREAM", 0, 1_736_899_200_000, ["p1"])
        patch.setenv("KSQLDB_URL", database.url)
        patch.setenv("DATA_LAKE_DIR", str(lake))
        patch.setenv("IDLE_SECONDS", "0.3")
        patch.setenv("RETENTION", "off")  # the demo's days are of 2025, too old to stay
        patch.setenv("MAX_DELETE_PERCENT", "100")
        patch.chdir(lake.parent)
        codes = {}
        for command in commands():
            script, *argv = shlex.split(command)[1:]
            codes[command] = SCRIPTS[script.removesuffix(".py")].main(argv)
    yield lake, codes


def test_every_command_of_readme_in_its_order(demo: tuple[Path, dict[str, int]]) -> None:
    lake, codes = demo
    assert len(codes) >= 12 and {command: code for command, code in codes.items() if code} == {}
    assert len(list((lake / "streams").iterdir())) >= 4 and len(list((lake / "tables").iterdir())) == 4


def test_readers_of_readme(demo: tuple[Path, dict[str, int]]) -> None:
    """Each reader's line is taken from README as it stands there, and all see the same rows."""
    lake, _ = demo
    directory = lake / "streams" / "transaction_stream"
    (pandas_line,) = re.findall(r"^pd\.read_parquet\(.*\)$", README, re.M)
    (duck_line,) = re.findall(r"\| DuckDB \| `(.*?)` \|", README)
    (polars_line,) = re.findall(r"\| Polars \| `(.*?)` \|", README)
    names: dict[str, Any] = {"pd": pd, "pl": pl, "glob": glob}
    cwd = os.getcwd()
    os.chdir(lake.parent)
    try:
        frame = eval(pandas_line, names)
        ducks = duckdb.sql(duck_line).to_df()
        lazy = eval(polars_line, names)
    finally:
        os.chdir(cwd)
    assert len(frame) == len(pd.read_parquet(directory)) == 300
    assert list(frame["year"].astype(int).unique()) == [2025]
    assert len(ducks) == len(pd.read_parquet(directory, filters=[("day", "=", 15)])) > 0
    assert sorted(lazy_rows(lazy, lake)) == sorted(zip(frame["ROWPARTITION"], frame["ROWOFFSET"], strict=True))


def lazy_rows(lazy: pl.LazyFrame, lake: Path) -> list[tuple[int, int]]:
    cwd = os.getcwd()
    os.chdir(lake.parent)
    try:
        return lazy.select("ROWPARTITION", "ROWOFFSET").collect().rows()
    finally:
        os.chdir(cwd)


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_is_complete_and_says_the_exit_codes(script: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        SCRIPTS[script].main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert (SCRIPTS[script].__doc__ or "").splitlines()[0] in text
    assert script == "data_lake_config" or "exit codes:" in text


def test_exit_codes_of_readme_are_those_of_the_code() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.M)}
    assert table == {int(code) for code in ExitCode}


def test_every_setting_is_in_readme() -> None:
    for name in data_lake_config.load({}).origins:
        assert f"`{name}`" in README, name


def test_every_option_is_in_readme() -> None:
    for script in ("export_to_data_lake", "metadata_utils"):
        shown = subprocess.run(
            [sys.executable, f"{script}.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for option in set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}:
            assert option in README, f"{script} {option}"


def test_every_command_of_manage_feeds_is_in_readme() -> None:
    shown = subprocess.run(
        [sys.executable, "manage_feeds.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    commands = re.findall(r"^    ([a-z]+) ", shown, re.M)
    assert len(commands) > 15
    for command in commands:
        assert re.search(rf"(manage_feeds\.py|`){command}\b|`[^`]*\b{command}\b[^`]*`", README), command


def test_design_names_tests_that_exist() -> None:
    design = (ROOT / "DESIGN_DOCUMENT.md").read_text(encoding="utf-8")
    named = re.findall(r"`tests/(test_\w+\.py)(?:::(\w+))?`", design)
    assert len(named) >= 8
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text() if test else (ROOT / "tests" / file).exists(), test


@pytest.mark.parametrize("name", ["README.md", "DESIGN_DOCUMENT.md", "CHANGELOG.md", "data_lake/README.md"])
def test_documents_name_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or ((ROOT / name).parent / target).exists(), target
    for module in re.findall(r"`((?:ksql_lake|tests|benchmarks)/[\w/]+\.py)`", text):
        assert (ROOT / module).exists(), module


def test_make_demo_prints_a_query_that_runs(tmp_path: Path) -> None:
    """The command under `make demo`, from a copy of the project, and then the query it prints."""
    project = tmp_path / "project"
    skip = shutil.ignore_patterns(".git", ".venv", "__pycache__", "demo_lake", ".mypy_cache", ".ruff_cache")
    shutil.copytree(ROOT, project, ignore=skip)
    run = subprocess.run(
        [sys.executable, "export_to_data_lake.py", "--demo", "--events", "300"], cwd=project, capture_output=True,
        text=True, check=True,
    )
    printed = [line.strip() for line in run.stdout.splitlines() if line.strip().startswith("python ")]
    assert len(printed) == 2, run.stdout
    for command in printed:
        argv = [sys.executable, *shlex.split(command)[1:]]
        shown = subprocess.run(argv, cwd=project, capture_output=True, text=True, check=True).stdout
        assert "transaction" in shown.lower() or "ROWTIME" in shown
