"""README's first lines, the lines and recipes of docs/reading.md: run as they stand, compared with what is shown."""

from __future__ import annotations

import contextlib
import datetime as dt
import glob
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest

import export_to_data_lake
import ksql_lake
import ksql_lake.ingest.export
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
READING = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def section(title: str, text: str = README) -> str:
    """The text under a heading, up to the next one."""
    (found,) = re.findall(rf"^#+ {title}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    return str(found)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's sources, exported on Monday 20 January 2025 and again on Thursday, after more of three users."""
    lake = tmp_path_factory.mktemp("recipes") / "data_lake"
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.3"), ("RETENTION", "off"),
                            ("DATA_LAKE_DIR", str(lake))):
            patch.setenv(name, value)
        fill_demo(database, 10_000, 1, export_to_data_lake.DEMO_START, 3)
        assert manage_feeds.main(["sync"]) == 0
        for day in (20, 23):
            patch.setattr(ksql_lake.ingest.export, "now", lambda day=day: f"2025-01-{day}T02:00:00Z")
            assert export_to_data_lake.main(["--all", "--quiet"]) == 0
            for i in range(3):
                database.upsert("USER_TRANSACTION_SUMMARY", [f"user_{i}", 40 + i, Decimal("20000.50") + i])
        assert "    python metadata_utils.py --sql duckdb > lake.sql " in section("Views in SQL", READING)
        with (lake.parent / "lake.sql").open("w") as views, contextlib.redirect_stdout(views):
            assert metadata_utils.main(["--sql", "duckdb"]) == 0
    yield lake


def go_to(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `data_lake` below the current directory is the lake, as the page takes it."""
    monkeypatch.chdir(lake.parent)
    monkeypatch.delenv("DATA_LAKE_DIR")


def test_recipes(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one session, as somebody who reads on would type them."""
    go_to(lake, monkeypatch)
    names: dict[str, object] = {}
    blocks = BLOCK.findall(section("Recipes", READING))
    assert [kind for kind, _ in blocks] == ["python", "text"] * 5
    for (_, code), (_, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert lines(printed.getvalue()) == lines(shown), code


def test_the_first_lines(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page says to type first returns the three days' 10,000 events."""
    go_to(lake, monkeypatch)
    (_, code), *_ = BLOCK.findall(section("In Python", READING))
    start, call = code.strip().splitlines()
    frame = eval(call, {start.split()[1]: ksql_lake})
    assert list(frame.columns) == ["USER_ID", "AMOUNT"] and len(frame) == 10_000


def test_an_arrow_table_goes_on_in_polars_and_duckdb(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_to(lake, monkeypatch)
    _, (_, code), *_ = BLOCK.findall(section("In Python", READING))
    names: dict[str, Any] = {}
    *first, last = code.strip().splitlines()
    exec("\n".join(first), names)
    assert eval(last, names).fetchall() == [(1, 10_000)]
    assert names["pl"].from_arrow(names["orders"]).height == 10_000


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A stream with rows in January, February and November, and a column that came in February."""
    lake = tmp_path_factory.mktemp("grown") / "data_lake"
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.3"), ("RETENTION", "off"),
                            ("DATA_LAKE_DIR", str(lake))):
            patch.setenv(name, value)
        database.create_stream("TRANSACTION_STREAM", "ID STRING, N BIGINT", 1)
        assert manage_feeds.main(["add", "--name", "transaction_stream", "--type", "stream", "--source",
                                  "TRANSACTION_STREAM"]) == 0
        for month in (1, 2, 11):
            when = int(dt.datetime(2025, month, 5, 12, tzinfo=dt.UTC).timestamp() * 1000)
            if month == 2:
                database.drop("TRANSACTION_STREAM")  # and made again over the same topic, with one column more
                database.create_stream("TRANSACTION_STREAM", "ID STRING, N BIGINT, LATER STRING", 1)
                database.append("TRANSACTION_STREAM", 0, when - 31 * 86_400_000, ["k1", 1, None])
            database.append("TRANSACTION_STREAM", 0, when, [f"k{month}", month, *(["x"] if month > 1 else [])])
            assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    yield lake


def test_the_lines_of_other_readers_keep_later_columns_and_whole_months(
    grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_to(grown, monkeypatch)
    table = dict(re.findall(r"^\| (\w+) \| `(.*?)`", section("Other readers", READING), re.M))
    source = table["DuckDB"].partition(" where")[0]
    rows = duckdb.sql(f"select month, N, LATER {source} where day = 5 order by month").fetchall()
    assert rows == [(1, 1, None), (2, 2, "x"), (11, 11, "x")]
    frame = eval(table["Polars"], {"pl": pl, "glob": glob}).collect()
    assert frame.select("month", "N", "LATER").rows() == rows and frame["month"].dtype.is_integer()
    assert ksql_lake.read("transaction_stream")["LATER"].tolist()[1:] == ["x", "x"]
    assert ksql_lake.read("transaction_stream")["month"].tolist() == [1, 2, 11]


def test_pandas_as_the_docs_have_it(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_to(grown, monkeypatch)
    (line,) = re.findall(r"^\| pandas \| `(.*?)`", section("Other readers", READING), re.M)
    assert eval(line, {"pd": pd})["ID"].tolist() == ["k1"]


def test_where_a_table_s_current_version_lies(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_to(lake, monkeypatch)
    (command,) = re.findall(r"^    (python -c .*)$", section("Other readers", READING), re.M)
    argv = shlex.split(command)
    done = subprocess.run([sys.executable, *argv[1:]], capture_output=True, text=True, check=True)
    assert done.stdout == "version=v2\n"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory where the demo ran, and what it printed; its events begin on a day of their own, not now."""
    directory = tmp_path_factory.mktemp("demo")
    command = [sys.executable, str(ROOT / "export_to_data_lake.py"), "--demo", "--start", "2025-01-15"]
    run = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    return directory, run.stdout


def test_the_demo_prints_what_readme_shows(demo: tuple[Path, str]) -> None:
    """But for times, sizes and the order in which feeds end."""
    (console,) = [text for kind, text in BLOCK.findall(section("Try it")) if kind == "console"]
    command, *shown = lines(steady(console))
    assert command == "$ .venv/bin/python export_to_data_lake.py --demo"
    assert set(shown) <= set(lines(steady(demo[1]))) and len(shown) == 8


def test_the_first_lines_of_readme(demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo[0])
    (_, code), (_, shown), *_ = BLOCK.findall(section("Read the lake"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert lines(printed.getvalue()) == lines(shown)


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def steady(text: str) -> str:
    """Without what differs from run to run and from machine to machine."""
    text = re.sub(r"\d+\.\d+ s$", "N s", text, flags=re.M)
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:]+Z", "TIME", text)
    text = re.sub(r" +\d+(\.\d)? [kM]?B\b", " N B", text)
    text = re.sub(r" +\d+(\.\d)?[smhd](?= |$)", " AGE", text, flags=re.M)
    return re.sub(r" +", " ", text)


def test_the_monday_of_the_recipe_is_one() -> None:
    assert "dt.date(2025, 1, 24)" in section("Recipes", READING) and dt.date(2025, 1, 20).weekday() == 0
