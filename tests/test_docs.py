"""What README and the pages under docs/ claim: their commands are run, their lists agree with the code."""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import data_lake_config
import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.errors import ExitCode
from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo
from ksql_lake.model.findings import KINDS
from ksql_lake.reporting import terminal
from tests.conftest import ROOT
from tests.test_report import NOW, summary

PAGES = ("README.md", "docs/feeds.md", "docs/exporting.md", "docs/quality.md", "docs/retention.md",
         "docs/reference.md")
ELSEWHERE = {  # pages whose commands are run by the tests of their subject
    "docs/reading.md": "test_recipes", "docs/kafka.md": "test_kafka_export", "docs/catalogs.md": "test_delta",
    "docs/cluster.md": "test_cluster", "docs/object_stores.md": "test_remote", "docs/erasure.md": "test_erase",
    "docs/monitoring.md": "test_report", "docs/performance.md": "test_native", "docs/python.md": "test_recipes",
    "docs/connecting.md": "test_proxies", "docs/streams.md": "test_lost_rows", "docs/recovery.md": "test_rebuild",
}
README = (ROOT / "README.md").read_text(encoding="utf-8")
EVERYTHING = README + "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
SCRIPTS = {"data_lake_config": data_lake_config, "export_to_data_lake": export_to_data_lake,
           "manage_feeds": manage_feeds, "metadata_utils": metadata_utils}
DEMO_START = dt.date(2025, 1, 15)  # the day that the pages name
FINDINGS = {"manage_feeds.py quarantine transaction_flattened --import"}  # commands that may end with 1
SKIPPED = ("undo NAME", "remote ", "delta ")


def commands(page: str) -> list[str]:
    """The `python <script>.py ...` lines of a page's indented blocks, in order, without comments and redirections."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    python ")]
    return [line.partition(" # ")[0].partition(" > ")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedKsqlDB]:
    """The eight demo sources with events of 2025-01-15 to 17, and PAYMENT_STREAM."""
    with EmbeddedKsqlDB() as database:
        fill_demo(database, 300, 1, DEMO_START, 3)
        database.create_stream("PAYMENT_STREAM", "`ID` STRING", 1)
        database.append("PAYMENT_STREAM", 0, 1_736_899_200_000, ["p1"])
        yield database


@pytest.fixture
def lake(server: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which a page's commands are typed; its lake and its demo_lake are the same, not made yet."""
    for name, value in (
        ("KSQLDB_URL", server.url), ("DATA_LAKE_DIR", str(tmp_path / "data_lake")), ("IDLE_SECONDS", "0.3"),
        ("RETENTION", "off"), ("MAX_DELETE_PERCENT", "100"), ("DATA_LAKE_SETTINGS", ""),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo_lake").symlink_to(tmp_path / "data_lake")
    return tmp_path / "data_lake"


def run(command: str) -> int:
    script, *argv = shlex.split(command)[1:]
    try:
        return int(SCRIPTS[script.removesuffix(".py")].main(argv) or 0)
    except SystemExit as stop:
        return int(stop.code or 0) if not isinstance(stop.code, str) else 1


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_in_its_order(page: str, lake: Path) -> None:
    if page == "README.md":
        assert run("python data_lake_config.py") == 0 and run("python manage_feeds.py sync") == 0
        assert run("python export_to_data_lake.py --all --quiet") == 0
        assert run("python manage_feeds.py add --name payment_stream --type stream --source payment_stream") == 0
    elif page != "docs/feeds.md":
        assert run("python manage_feeds.py sync") == 0 and run("python export_to_data_lake.py --all --quiet") == 0
    codes = {one: run(one) for one in commands(page) if not any(word in one for word in SKIPPED)}
    assert len(codes) >= 3
    wrong = {one: code for one, code in codes.items() if code and not any(word in one for word in FINDINGS)}
    assert wrong == {}


def test_every_page_is_run_somewhere() -> None:
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages == {page for page in PAGES if page.startswith("docs/")} | set(ELSEWHERE)
    for page in pages:
        assert f"({page})" in README, f"README does not name {page}"
    for test in ELSEWHERE.values():
        assert (ROOT / "tests" / f"{test}.py").exists(), test


def test_readme_is_short_and_begins_with_what_to_type() -> None:
    lines = README.splitlines()
    assert len(lines) <= 250
    headings = [line[3:] for line in lines if line.startswith("## ")]
    assert headings == ["Requirements", "Try it", "Read the lake", "Your server", "Every night",
                        "When something is wrong", "Everything else"]
    assert all(f"](#{heading.lower().replace(' ', '-')})" in README for heading in headings)


def test_the_reading_example_of_readme(lake: Path, capsys: Any) -> None:
    assert run("python manage_feeds.py sync") == 0 and run("python export_to_data_lake.py --all --quiet") == 0
    (code,) = re.findall(r"```python\n(import ksql_lake\n\nsales.*?)```", README, re.S)
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "CURRENCY" in shown and "EUR" in shown
    frame = ksql_lake.read("transaction_flattened", lake=lake)
    assert len(frame) == len(pd.read_parquet(lake / "streams" / "transaction_flattened")) == 300


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_help_is_complete_and_says_the_exit_codes(script: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        SCRIPTS[script].main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert (SCRIPTS[script].__doc__ or "").splitlines()[0] in text
    assert "exit codes:" in text


def test_exit_codes_of_readme_are_those_of_the_code() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.M)}
    assert table == {int(code) for code in ExitCode}


def test_every_setting_is_documented() -> None:
    for name in data_lake_config.load({"DATA_LAKE_SETTINGS": ""}).origins:
        assert f"`{name}`" in EVERYTHING, name


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_every_option_is_documented(script: str) -> None:
    shown = subprocess.run(
        [sys.executable, f"{script}.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for option in set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}:
        assert option in EVERYTHING, f"{script} {option}"


@pytest.mark.parametrize("script", ["manage_feeds", "metadata_utils"])
def test_every_command_is_documented(script: str) -> None:
    shown = subprocess.run(
        [sys.executable, f"{script}.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    listed = re.findall(r"^ {2,4}([a-z]+)(?: |$)", shown, re.M)
    assert len(listed) > 8
    for command in listed:
        assert re.search(rf"({script}\.py|`){command}\b|`[^`]*\b{command}\b[^`]*`", EVERYTHING), command


def test_design_names_tests_that_exist() -> None:
    design = (ROOT / "DESIGN_DOCUMENT.md").read_text(encoding="utf-8")
    named = re.findall(r"`tests/(test_\w+\.py)(?:::(\w+))?`", design)
    assert len(named) >= 8
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text() if test else (ROOT / "tests" / file).exists(), test


def test_the_pictures_show_what_there_is() -> None:
    """`make pictures` makes them anew; here, that what they show has not changed its form since."""
    drawn = ET.parse(ROOT / "docs" / "pictures" / "terminal.svg").getroot()
    found = [node for node in drawn.iter() if node.tag.endswith("}text") and "clip-path" in node.attrib]
    rows: dict[float, str] = {}
    for node in found:
        rows[float(node.attrib["y"])] = rows.get(float(node.attrib["y"]), "") + "".join(node.itertext())
    lines = [rows[y].replace("\xa0", " ").strip() for y in sorted(rows)]
    assert lines[0].startswith("$ python metadata_utils.py ")
    assert run(f"{lines[0].removeprefix('$ ')} --help") == 0
    shown = terminal.report(Path("lake"), [summary("transaction_stream_blacklisted")], NOW, width=100).splitlines()
    heading = next(line for line in shown if line.startswith("feed "))
    assert heading.split() in [line.split() for line in lines]
    kinds = {line[2:14].strip() for line in lines if line[:2] in ("! ", "* ", "- ")}
    assert len(kinds) >= 3 and kinds <= set(KINDS)
    feeds = {*data_lake_config.STREAMS, *data_lake_config.TABLES}
    assert {line.split()[0] for line in lines if "/26h" in line} == feeds
    assert "http" not in re.sub(r'xmlns="[^"]*"|http://localhost:8088|<!--.*?-->', "", drawn_text("terminal.svg"))
    for name in ("page_light.png", "page_dark.png"):
        data = (ROOT / "docs" / "pictures" / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) < 250_000
        assert int.from_bytes(data[16:20]) == 1280
    used = set(re.findall(r"\]\((?:docs/)?pictures/([^)]+)\)", EVERYTHING))
    assert used == {path.name for path in (ROOT / "docs" / "pictures").iterdir() if path.suffix in (".svg", ".png")}


def drawn_text(name: str) -> str:
    return (ROOT / "docs" / "pictures" / name).read_text(encoding="utf-8")


DOCUMENTS = ["README.md", "DESIGN_DOCUMENT.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "data_lake/README.md",
             *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or ((ROOT / name).parent / target).exists(), target
    for module in re.findall(r"`((?:ksql_lake|tests|benchmarks)/[\w/]+\.py)[`:]", text):
        assert (ROOT / module).exists(), module


def test_make_demo_prints_commands_that_run(tmp_path: Path) -> None:
    """The command under `make demo`, from a copy of the project, and then the commands it prints."""
    project = tmp_path / "project"
    skip = shutil.ignore_patterns(".git", ".venv", "__pycache__", "demo_lake", ".mypy_cache", ".ruff_cache")
    shutil.copytree(ROOT, project, ignore=skip)
    environment = {name: value for name, value in os.environ.items() if name != "DATA_LAKE_DIR"}
    done = subprocess.run(
        [sys.executable, "export_to_data_lake.py", "--demo", "--events", "300"], cwd=project, capture_output=True,
        text=True, check=True, env=environment,
    )
    printed = [line.strip() for line in done.stdout.splitlines() if re.match(r"\s+\S*python", line)]
    assert len(printed) >= 2, done.stdout
    for command in printed:
        shown = subprocess.run(
            command, shell=True, cwd=project, capture_output=True, text=True, check=False, env=environment
        )
        assert shown.returncode == 0, (command, shown.stderr)
        assert "transaction" in shown.stdout.lower() or "ROWTIME" in shown.stdout or "--html" in command
