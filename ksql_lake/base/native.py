"""The native library: built once where there is a C compiler, loaded where its file exists, always optional.

    python -m ksql_lake.base.native             builds it
    python -m ksql_lake.base.native --try       the same, and fine when it cannot be built

`python data_lake_config.py`, `make demo` and `pip install .` build it automatically, with $CC or else with cc or the
compiler of the `ziglang` package (requirements-native.txt). Its source is native.c; `native_rows` and `body` use it.
The file's name contains a hash of the source, so that a library of another version is never loaded; without one,
everything works the same in Python.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import hashlib
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("native.c")
WITHOUT = (
    "exports work without it, only slower: reading rows takes about 50 times the CPU; install a C compiler (or: pip "
    "install -r requirements-native.txt) and run: python -m ksql_lake.base.native"
)
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared")


class Type(ctypes.Structure):
    """`Type` of native.c."""

    _fields_ = [(name, ctypes.c_int32) for name in
                ("kind", "precision", "scale", "first", "next", "name", "name_size", "flags")]


class Event(ctypes.Structure):
    """`Event` of native.c."""

    _fields_ = [
        ("error", ctypes.c_int32), ("partition", ctypes.c_int32), ("offset", ctypes.c_int64),
        ("text", ctypes.c_char * 240),
    ]


class Room(ctypes.Structure):
    """`Room` of native.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("values", "keys")),
        *((name, ctypes.c_int64) for name in ("room", "key_room", "size", "key_size")),
        *((name, ctypes.c_void_p) for name in ("ends", "key_ends", "offsets", "times", "partitions", "absent")),
        *((name, ctypes.c_int64) for name in ("most", "count")),
        *((name, ctypes.c_void_p) for name in ("goals", "positions")),
        ("partition_count", ctypes.c_int64), ("events", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("event_room", "event_count", "heard", "needed", "key_needed")),
    ]


def path() -> Path:
    """The path of the library for this source, machine and Python, whether it exists or not."""
    about = f"{sysconfig.get_platform()} {sys.maxsize}".encode()
    digest = hashlib.sha256(SOURCE.read_bytes() + about).hexdigest()[:16]
    return SOURCE.with_name(f"_native_{digest}.so")


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, or None: not built, or not for this machine. Its calls let other Python threads run."""
    try:
        loaded = ctypes.CDLL(str(path()))
    except OSError:
        return None
    return declared(loaded)


def declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """The library with its functions' types."""
    pointer, size, sizes = ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64)
    for name, result, arguments in (
        ("ksql_new", pointer, [ctypes.POINTER(Type), ctypes.c_int32, ctypes.c_char_p, size]),
        ("ksql_free", None, [pointer]),
        ("ksql_read", size, [pointer, ctypes.c_char_p, size, size, sizes]),
        ("ksql_values", None, [pointer, pointer, pointer, size, pointer]),
        ("ksql_take", ctypes.c_int32, [pointer, pointer]),
        ("ksql_dechunk", size, [ctypes.c_char_p, size, pointer, sizes, sizes]),
        ("ksql_fetch_new", pointer, [pointer, pointer, pointer, pointer]),
        ("ksql_fetch_free", None, [pointer]),
        ("ksql_fetch_clear", None, [pointer]),
        ("ksql_fetch", None, [pointer, ctypes.c_int32, ctypes.POINTER(Room)]),
    ):
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


class Dechunker:
    """Takes HTTP chunks apart as `Body` does, as far as it is certain: not the last one, nothing odd."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        self._library = loaded
        self._out = ctypes.create_string_buffer(1)
        self._made, self._pending = ctypes.c_int64(), ctypes.c_int64()

    def take(self, wire: bytes, pending: int) -> tuple[bytes, int, int]:
        """Body bytes, how many wire bytes are used up, and what is still to come of the present chunk."""
        if len(self._out) < len(wire):
            self._out = ctypes.create_string_buffer(len(wire))
        self._pending.value = pending
        used = self._library.ksql_dechunk(wire, len(wire), self._out, self._made, self._pending)
        return ctypes.string_at(self._out, self._made.value), used, self._pending.value


def compilers() -> list[str]:
    """Commands that may compile C here: $CC if that is set, else cc and the compiler of the package ziglang."""
    if named := os.environ.get("CC"):
        return [named]
    wheel = importlib.util.find_spec("ziglang") is not None
    return ["cc", *([f"{shlex.quote(sys.executable)} -m ziglang cc"] if wheel else [])]


def ensure(*, again: bool = False) -> str | None:
    """Build the library if it is not there yet, or in any case.

    Returns:
        Why there is none, in one line; None when it is there.
    """
    if not again and library() is not None:
        return None
    why = ""
    for compiler in compilers():
        try:
            made = build(compiler)
        except OSError as error:
            why = why or f"{error.filename or compiler}: {error.strerror}"
        except subprocess.CalledProcessError as error:
            why = f"{compiler} failed: {(str(error.stderr).strip().splitlines() or ['no reason'])[0]}"
        else:
            library.cache_clear()
            if library() is not None:
                return None
            why = f"{made} cannot be loaded; is {compiler} for another machine?"
    return f"{why}; {WITHOUT}"


def build(compiler: str, flags: Sequence[str] = FLAGS) -> Path:
    """Compile the library; readers see the whole file or none.

    Raises:
        OSError: no such compiler, or no right to write here.
        subprocess.CalledProcessError: it failed; `stderr` has its words.
    """
    made = path()
    temporary = made.with_name(f".{made.name}.{os.getpid()}.inprogress")
    try:
        command = [*shlex.split(compiler), *flags, "-o", str(temporary), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        os.replace(temporary, made)
    finally:
        temporary.unlink(missing_ok=True)
    for old in made.parent.glob("_native_*.so"):
        if old != made:
            old.unlink(missing_ok=True)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", action="store_true", dest="optional", help="no error when it cannot be built")
    optional = parser.parse_args().optional
    if optional and library() is not None:
        return 0
    why = ensure(again=not optional)
    if why is None:
        print(f"built {path()}")
        return 0
    print(f"{'note' if optional else 'error'}: no native reader: {why}", file=sys.stderr)
    return 0 if optional else 1


if __name__ == "__main__":
    raise SystemExit(main())
