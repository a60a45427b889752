"""The arrows between the rooms of ksql_lake, kept by directory: what each room's docstring says it may import."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
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


# What touches a file, on whatever it is called. Only the store may, so that a lake can lie elsewhere than on this disk.
TOUCHES = {
    "exists", "glob", "is_dir", "is_file", "is_symlink", "iterdir", "joinpath", "lstat", "mkdir", "read_bytes",
    "read_text", "rename", "rglob", "rmdir", "rmtree", "scandir", "symlink_to", "touch", "unlink", "write_bytes",
    "write_text",
}
CALLS = {
    "open", *(f"os.{name}" for name in ("open", "stat", "listdir", "walk", "replace", "remove", "link", "chmod")),
    "os.path.join", "pq.ParquetFile", "pq.ParquetWriter", "pq.read_table", "pq.read_metadata", "pq.read_schema",
    "pq.write_table", "shutil.copy", "shutil.move", "tempfile.TemporaryFile",
}
# Modules that open files themselves, and which: none of them is a file of a feed or of what the lake knows.
NOT_OF_THE_LAKE = {
    "ksql_lake.cli.api": "looks whether the current directory has a lake",
    "ksql_lake.cli.check": "tries out the disk itself: rights, room, where directories are mounted",
    "ksql_lake.cli.demo": "makes a lake of its own and removes it",
    "ksql_lake.reporting.observers": "the metrics file, which a setting names",
    "ksql_lake.remote.audit": "a temporary file for an object that is checked",
    "ksql_lake.sources.kafka.connection": "a properties file, which a setting names",
    "ksql_lake.sources.ksqldb.client": "a certificate, which a setting names",
}


def paths_in(tree: ast.AST) -> set[str]:
    """Names that are said to be paths somewhere in the package: arguments, fields, and functions that return one."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None and _is_path(node.annotation):
            found.add(node.arg if isinstance(node, ast.arg) else ast.unparse(node.target).rpartition(".")[2])
        elif isinstance(node, ast.FunctionDef) and node.returns is not None and _is_path(node.returns):
            found.add(node.name)
    return found


def _is_path(annotation: ast.expr) -> bool:
    return bool(re.fullmatch(r"(Pure)?Path( \| None)?", ast.unparse(annotation)))


def last_name(node: ast.expr) -> str:
    """`lake` of `lake`, `task.lake`, `lake_of(args)`; of a join, the last name of its left side."""
    while isinstance(node, ast.Call | ast.BinOp):
        node = node.func if isinstance(node, ast.Call) else node.left
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def touching(path: Path, known: set[str]) -> Iterator[str]:
    """Every place in a module that joins a path, or opens, changes or looks for a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            text = isinstance(node.right, ast.JoinedStr) or isinstance(getattr(node.right, "value", None), str)
            if text or last_name(node.left) in known:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            opens = called.endswith(".open") and any(isinstance(argument, ast.Constant) for argument in node.args)
            if opens or called in CALLS or called.rpartition(".")[2] in TOUCHES and "." in called:
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {called}"
        elif isinstance(node, ast.ImportFrom) and node.module == "ksql_lake.base.files":
            yield f"{path.relative_to(ROOT)}:{node.lineno}: imports base.files"


def test_only_the_store_joins_paths_of_the_lake_and_opens_its_files() -> None:
    """Others get a file's place from a Dataset or the layout and hand it to a Storage."""
    known = set[str]().union(*(paths_in(ast.parse(path.read_text())) for path in MODULES.values()))
    known.add("lake_dir")  # of the Config, which is outside the package
    assert {"lake", "directory", "staging"} <= known
    below = ("base", "model", "store", "embedded")
    above = {name: list(touching(path, known)) for name, path in MODULES.items() if room_of(name) not in below}
    found = {name: lines for name, lines in above.items() if lines}
    assert not {name: lines for name, lines in found.items() if name not in NOT_OF_THE_LAKE}
    assert not set(NOT_OF_THE_LAKE) - set(found), "no longer needed"


@pytest.mark.parametrize("code", [
    "def f(lake: Path): return lake / name", "directory / f'{feed}.json'", "dataset.staging / run", "x / 'a.parquet'",
    "open(path)", "path.open('rb')", "os.replace(a, b)", "place.unlink()", "list(top.iterdir())", "pq.read_table(path)",
    "lake.joinpath('a')", "os.path.join(lake, 'a')", "(lake_of(args) / name).exists()",
    "from ksql_lake.base.files import atomic_write",
])
def test_the_test_sees(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    module = tmp_path / "module.py"
    module.write_text(code)
    assert list(touching(module, {"lake", "directory", "staging", "lake_of"}))


@pytest.mark.parametrize("code", ["rows / 2", "done / seconds", "catalog.open(names)", "text.replace('a', 'b')"])
def test_the_test_sees_nothing_where_nothing_is(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    module = tmp_path / "module.py"
    module.write_text(code)
    assert not list(touching(module, {"lake", "directory", "staging"}))


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
