"""What pyproject.toml cannot express: where there is a compiler, the native reader is compiled with the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py


class BuildWithReader(build_py):
    """Copies the modules and compiles the library beside them; without a compiler the package is only slower."""

    def run(self) -> None:
        super().run()
        base = Path(self.build_lib) / "ksql_lake" / "base"
        if self.editable_mode or not base.is_dir():
            base = Path("ksql_lake") / "base"
        why = _native(base / "native.py").ensure(again=True)
        if why:
            print(f"the native reader is not built: {why}", file=sys.stderr)


def _native(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("native", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["native"] = module
    spec.loader.exec_module(module)
    return module


class Native(Distribution):
    """A package with a compiled library works on one kind of machine."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildWithReader}, distclass=Native)
