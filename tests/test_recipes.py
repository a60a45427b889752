"""README's tour and recipes: the text is taken as it stands there, run, and what it prints is what README shows."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

import export_to_data_lake
import ksql_lake.ingest.export
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    (found,) = re.findall(rf"^#+ {title}\n(.*?)(?=^#|\Z)", README, re.M | re.S)
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
        assert "    python metadata_utils.py --sql duckdb > lake.sql " in section("Read the lake")
        with (lake.parent / "lake.sql").open("w") as views, contextlib.redirect_stdout(views):
            assert metadata_utils.main(["--sql", "duckdb"]) == 0
    yield lake


def test_recipes(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one session, as somebody who reads on would type them."""
    monkeypatch.chdir(lake.parent)
    names: dict[str, object] = {}
    blocks = BLOCK.findall(section("Recipes"))
    assert [kind for kind, _ in blocks] == ["python", "text"] * 5
    for (_, code), (_, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert lines(printed.getvalue()) == lines(shown), code


def test_the_first_lines(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What README says to type first returns the three days' 10,000 events."""
    monkeypatch.chdir(lake.parent)
    (_, code), *_ = BLOCK.findall(section("Read the lake"))
    start, call = code.strip().splitlines()
    frame = eval(call, {start.split()[1]: ksql_lake})
    assert list(frame.columns) == ["USER_ID", "AMOUNT"] and len(frame) == 10_000


def test_the_tour(tmp_path: Path) -> None:
    """Each command of the console, in an empty directory; but for times and sizes it prints what README shows."""
    (console,) = [text for kind, text in BLOCK.findall(section("A tour")) if kind == "console"]
    steps = re.split(r"^\$ ", console, flags=re.M)[1:]
    assert len(steps) == 3
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for step in steps:
        command, _, shown = step.partition("\n")
        argv = shlex.split(command)
        if argv[1].endswith(".py"):
            argv[1] = str(ROOT / argv[1])
        run = subprocess.run([sys.executable, *argv[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True,
                             check=True)
        printed = run.stdout.partition("\n\nThe lake is in")[0]
        assert lines(steady(printed)) == lines(steady(shown)), command


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
    assert "dt.date(2025, 1, 24)" in section("Recipes") and dt.date(2025, 1, 20).weekday() == 0
