"""The outermost layer of every command that is run as a process: signals, missing modules, pipes and exit codes.

Imports nothing heavy, so that Ctrl-C is quiet from the first instant.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

from ksql_lake.base.errors import ExitCode, LakeError

INSTALL = {  # module -> what to install; all others are in requirements.txt
    "boto3": "requirements-glue.txt", "botocore": "requirements-glue.txt", "distributed": "requirements-cluster.txt",
    "dask": "requirements-cluster.txt",
}


def launch(module: str) -> NoReturn:
    """Run `main()` of a module of this package as this process, and end the process with its exit code."""
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    out, err = Outlet("stdout", sys.stdout), Outlet("stderr", sys.stderr)
    sys.stdout, sys.stderr = out.text(), err.text()
    code = guard(lambda: _main(module))
    signal.signal(signal.SIGINT, _leave)  # the work is over; only the exit code is left to report
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if out.problem:
        print(f"error: standard output: {out.problem}", file=sys.stderr)
        code = code or ExitCode.FINDINGS
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    # skips Python's clean-up, a fifth of the run time of a short command; after Ctrl-C threads may still be reading
    os._exit(code)


def _main(module: str) -> int:
    main: Callable[[], int] = importlib.import_module(module).main
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # like Ctrl-C, so that a stopped container or service still sends its notifications
    signal.signal(signal.SIGTERM, _stop)
    return main()


def guard(body: Callable[[], int]) -> int:
    """The exit code of a command; whatever stops it, unless a bug, becomes one line on standard error."""
    try:
        return int(body())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except SystemExit as stop:  # of argparse
        return stop.code if isinstance(stop.code, int) else ExitCode.OK if stop.code is None else ExitCode.USAGE
    except ModuleNotFoundError as error:
        print(f"error: {missing(error)}", file=sys.stderr)
        return ExitCode.USAGE
    except Exception:
        import traceback

        traceback.print_exc()
        return ExitCode.FINDINGS


def refused(error: LakeError | OSError) -> int:
    """Say what an operator can fix, a line for each part of it; the exit code."""
    from ksql_lake.cli.hints import here

    if isinstance(error, LakeError):
        print("\n".join(f"error: {here(line)}" for line in str(error).splitlines()), file=sys.stderr)
        return error.exit_code
    where = f"{error.filename}: " if error.filename else ""
    print(f"error: {where}{error.strerror or error}", file=sys.stderr)
    return ExitCode.FINDINGS


def missing(error: ModuleNotFoundError) -> str:
    """What to install for a module that is not there."""
    name = (error.name or str(error)).partition(".")[0]
    file = INSTALL.get(name, "requirements.txt")
    return (
        f"the Python module {name} is missing for {sys.executable}; install it with: "
        f"{sys.executable} -m pip install -r {file}"
    )


class Outlet(io.RawIOBase):
    """Standard output or error that never stops the work: a pipe whose reader has gone is ignored silently, any other
    failure is kept in `problem` and reported at the end."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.problem = ""
        self._broken = False
        self._stream = stream
        try:
            self._handle = stream.fileno()
        except (OSError, ValueError, AttributeError):  # closed, as after `>&-`
            self._handle, self._broken = -1, True
        self._name = name

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return not self._broken and os.isatty(self._handle)

    def fileno(self) -> int:
        return self._handle

    def write(self, data: object, /) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        try:
            return len(view) if self._broken else os.write(self._handle, view)
        except BrokenPipeError:
            self._broken = True
        except OSError as error:
            self._broken, self.problem = True, error.strerror or str(error)
        return len(view)

    def text(self) -> TextIO:
        """The same as a text stream for `print`; what the encoding cannot represent is escaped."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        lines = self._name == "stderr" or self.isatty()
        return io.TextIOWrapper(io.BufferedWriter(self), encoding, "backslashreplace", line_buffering=lines)


def _leave(*_: object) -> None:
    os._exit(ExitCode.INTERRUPTED)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt
