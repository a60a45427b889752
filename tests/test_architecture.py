"""The arrows between the rooms of ksql_lake, kept by directory: what each room's docstring says it may import."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "ksql_lake"
SCRIPTS = ("data_lake_config", "export_to_data_lake", "manage_feeds", "metadata_utils")
# From the ground up. A room may import the rooms of the rows above it in this list, never its neighbours in a row.
ROWS = (
    ("base",),
    ("model",),
    ("sources", "store"),
    ("quality", "remote"),
    ("maintain", "query", "catalogs"),
    ("ingest",),
    ("reporting",),
    ("cli",),
)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_every_directory_says_what_it_is() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_every_room_has_its_place() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == {room for row in ROWS for room in row} | {"embedded"}


def test_imports_point_down() -> None:
    height = {room: number for number, row in enumerate(ROWS) for room in row}
    wrong = []
    for name, path in MODULES.items():
        here = room_of(name)
        if here == "embedded":
            continue
        for other in imports(path) & set(MODULES):
            there = room_of(other)
            if there != here and (there == "embedded" or height[there] >= height[here]) and here != "cli":
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_the_package_imports_no_script() -> None:
    for name, path in MODULES.items():
        allowed = {"data_lake_config"} if room_of(name) == "cli" else set()
        assert not imports(path) & set(SCRIPTS) - allowed, path


def test_imports_inside_the_package_have_no_cycle() -> None:
    graph = {name: {other for other in imports(path) if other in MODULES} for name, path in MODULES.items()}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_sockets_only_in_the_client_and_no_http_library() -> None:
    users = {name for name, path in MODULES.items() if {"requests", "urllib3"} & imports(path)}
    assert not users, users
    users = {name for name, path in MODULES.items() if "socket" in imports(path) and room_of(name) != "embedded"}
    users -= {"ksql_lake.cli.follow"}  # systemd's socket, which is told that the service is ready
    assert all(name.startswith("ksql_lake.sources.ksqldb.") for name in users), users


def test_scripts_do_not_read_the_config_package_wide() -> None:
    own = {"ksql_lake.cli", "ksql_lake.cli.start", "ksql_lake.cli.start.launch", "ksql_lake.cli.settings"}
    inside = {name for name in imports(ROOT / "data_lake_config.py") if name.startswith("ksql_lake")} - own
    assert all(name.startswith("ksql_lake.base") or name == "ksql_lake" for name in inside), inside


def test_the_native_library_is_built_and_loaded_in_one_place() -> None:
    users = {name for name, path in MODULES.items() if "ctypes" in imports(path)}
    rooms = ("ksqldb.native_rows", "ksqldb.body", "kafka.native_values", "kafka.librdkafka")
    reading = {f"ksql_lake.sources.{name}" for name in rooms}
    assert users == {"ksql_lake.base.native"} | reading, users
    starters = {name for name, path in MODULES.items() if "subprocess" in imports(path)}
    expected = {"ksql_lake.base.native", "ksql_lake.reporting.alerts"}
    assert starters == expected, "an export starts nothing but what a user names"
    assert not {name for name in imports(MODULES["ksql_lake.base.native"]) if name.startswith("ksql_lake")}


@pytest.mark.parametrize("heavy", ["pyarrow", "requests", "pandas"])
def test_listing_feeds_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, manage_feeds; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_only_the_store_knows_where_files_lie() -> None:
    """Others ask a Dataset for a file's place and `open_parquet` for its rows, so that files can lie elsewhere."""
    wrong = []
    for name, path in MODULES.items():
        if room_of(name) not in ("store", "embedded"):
            text = path.read_text()
            wrong += [name for pattern in ("ParquetFile(", ".directory / entry.path", ".directory / file.path")
                      if pattern.replace(".directory", "dataset.directory") in text]
    assert not wrong


@pytest.mark.parametrize("script", ["feeds", "metadata"])
def test_each_command_is_one_module_of_its_name(script: str) -> None:
    """So that a newcomer finds a command by its name."""
    package = importlib.import_module(f"ksql_lake.cli.{script}")
    modules = {path.stem for path in Path(str(package.__file__)).parent.glob("*.py")} - {"__init__", "flags"}
    assert modules == set(package.COMMANDS)


def test_commands_printed_on_stdout_are_made_complete() -> None:
    """What goes to stderr is made complete in one place; on stdout each message says so, for it may be data."""
    script = re.compile(r"\bpython (?:export_to_data_lake|manage_feeds|metadata_utils|data_lake_config)\.py")
    for path in (PACKAGE / "cli").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or ast.unparse(call.func) != "print":
                continue
            said = ast.unparse(call)
            complete = "file=sys.stderr" in said or "here(" in said
            assert complete or not script.search(said), f"{path}:{call.lineno}"


def test_nothing_refers_to_a_document_that_is_not_here() -> None:
    """Numbers of faults and issues, names of plans: a reader has only this repository."""
    other = re.compile(r"\b(Faults? [A-F]?\d|[Ii]ssue #?\d|first[_ ]plan|kafka_direct|house\.md|user_design_doc)")
    places = ("*.py", "*.md", "ksql_lake/**/*.py", "ksql_lake/**/*.c", "tests/*.py", "docs/*.md", "benchmarks/*.py")
    files = [path for place in places for path in ROOT.glob(place) if path != Path(__file__)]
    found = [f"{path}: {one.group()}" for path in files for one in other.finditer(path.read_text(encoding="utf-8"))]
    assert len(files) > 200 and not found
