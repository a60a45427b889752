"""The import rule of ksql_lake/__init__.py."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "ksql_lake"
SCRIPTS = ("data_lake_config", "export_to_data_lake", "manage_feeds", "metadata_utils", "commands")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


MODULES = {f"ksql_lake.{path.stem}": path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def test_the_package_imports_no_script() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not imports(path) & set(SCRIPTS), path


def test_imports_inside_the_package_have_no_cycle() -> None:
    graph = {name: {other for other in imports(path) if other in MODULES} for name, path in MODULES.items()}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_requests_only_in_the_client() -> None:
    users = {name for name, path in MODULES.items() if {"requests", "urllib3"} & imports(path)}
    assert users <= {"ksql_lake.ksqldb", "ksql_lake.body"}


def test_scripts_do_not_read_the_config_package_wide() -> None:
    inside = {name for name in imports(ROOT / "data_lake_config.py") if name.startswith("ksql_lake")}
    allowed = ("ksql_lake", "ksql_lake.native")  # which loads nothing but ctypes
    assert all(name.startswith("ksql_lake.errors") or name in allowed for name in inside), inside


def test_the_native_library_is_built_and_loaded_in_one_place() -> None:
    users = {name for name, path in MODULES.items() if "ctypes" in imports(path)}
    assert users == {"ksql_lake.native", "ksql_lake.native_rows", "ksql_lake.body"}, users
    assert not {name for name in imports(MODULES["ksql_lake.native"]) if name.startswith("ksql_lake")}


@pytest.mark.parametrize("heavy", ["pyarrow", "requests", "pandas"])
def test_listing_feeds_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, manage_feeds; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
