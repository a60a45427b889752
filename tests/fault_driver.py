"""Runs one script again and again, failing every Nth call that changes the file system. Started by tests as a process.

    python -m tests.fault_driver BASE WORK KIND STEP COUNT -- script argument ...

Each try works on its own copy of the lake in BASE, in a forked child, so that a kill is a kill: no `finally` runs.
KIND is `kill` or the name of an errno. Every call of the given functions whose number is N fails, N = 1, 1 + STEP, ...
until a child gets through without the fault. After each fault the same script runs once more without any.
Prints one JSON line per N: {"n", "fired", "call", "code", "error", "again", "lake"}.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CALLS = (
    "open", "write", "pwrite", "fsync", "rename", "replace", "unlink", "link", "rmdir", "mkdir", "chmod", "fchmod",
    "ftruncate",
)
PARALLEL = 4


def main(argv: Sequence[str]) -> int:
    base, work, kind, step, count = Path(argv[0]), Path(argv[1]), argv[2], int(argv[3]), int(argv[4])
    script, arguments = argv[6], list(argv[7:])
    for heavy in ("pandas", *(f"ksql_lake.maintain.{name}" for name in ("erase", "compact", "retention", "versions"))):
        importlib.import_module(heavy)  # once here, not in each child
    run = importlib.import_module(script).main
    number = 1
    while count > 0:
        batch = [number + i * step for i in range(min(PARALLEL, count))]
        results = _together([lambda n=n: _try(base, work, kind, n, run, arguments) for n in batch])
        for result in results:
            print(json.dumps(result), flush=True)
        if not results[-1]["fired"]:
            return 0
        number, count = batch[-1] + step, count - len(batch)
    return 0


def _together(tasks: list[Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each task in a forked child; their results in order."""
    children = []
    for task in tasks:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                out.write(json.dumps(task()))
            os._exit(0)
        os.close(writer)
        children.append((pid, reader))
    results = []
    for pid, reader in children:
        with os.fdopen(reader) as source:
            results.append(json.loads(source.read()))
        os.waitpid(pid, 0)
    return results


def _try(
    base: Path, work: Path, kind: str, n: int, run: Callable[[list[str]], int], arguments: list[str]
) -> dict[str, Any]:
    lake = work / f"{kind}{n}"
    shutil.copytree(base, lake)
    os.environ["DATA_LAKE_DIR"] = str(lake)
    report = work / f"{kind}{n}.call"
    pid = os.fork()
    if pid == 0:
        os._exit(_faulty(kind, n, report, run, arguments))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    fired = report.exists()
    call, error = (report.read_text().split("\n", 1) + [""])[:2] if fired else ("", "")
    again = _silent(run, arguments)[0] if fired else code
    return {"n": n, "fired": fired, "call": call, "code": code, "error": error, "again": again, "lake": str(lake)}


def _silent(run: Callable[[list[str]], int], arguments: list[str]) -> tuple[int, str]:
    words = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(words):
        code = run(arguments)
    return int(code), words.getvalue()


def _faulty(kind: str, n: int, report: Path, run: Callable[[list[str]], int], arguments: list[str]) -> int:
    real = {name: getattr(os, name) for name in CALLS}
    seen = 0

    def fault(name: str, path: object) -> None:
        nonlocal seen
        seen += 1
        if seen != n:
            return
        handle = real["open"](report, os.O_WRONLY | os.O_CREAT)
        real["write"](handle, f"{name} {path}".encode())
        if kind == "kill":
            os._exit(137)
        number = getattr(errno, kind)
        raise OSError(number, os.strerror(number), str(path))

    def wrap(name: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            fault(name, args[0])
            return real[name](*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, wrap(name))
    try:
        code, words = _silent(run, arguments)
    finally:
        for name in CALLS:
            setattr(os, name, real[name])
    if report.exists():
        with report.open("a") as file:
            file.write("\n" + words)
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
