"""Text that others wrote (a server, a file, a path), made harmless for a terminal, a log or a spreadsheet.

A terminal obeys what it is sent: ESC and C1 characters move the cursor, set its title or hide text, and bidi controls
show it in another order. `shown` is the one place that says what is escaped; `guarded` puts it in front of stdout and
stderr, so that no message can forget it.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

# C0 and C1 control characters, DEL, bidi controls, line and paragraph separators, halves of surrogate pairs
UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE = re.compile(f"[{UNSAFE}]")
_UNSAFE_IN_LINES = re.compile(rf"(?![\n\t])[{UNSAFE}]")
_COLOUR = re.compile(r"\033\[(?:0|1|2|3[0-7])m")  # what our own reports use; nothing that moves, hides or asks
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def shown(text: str) -> str:
    """A text for one line: control characters, line breaks and tabs included, become \\u001b and the like."""
    return _UNSAFE.sub(_escaped, text)


def shown_lines(text: str) -> str:
    """As `shown`, but for a text of several lines: line feeds and tabs stay."""
    return _UNSAFE_IN_LINES.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


def cell(value: Any) -> Any:
    """A value for a CSV file: a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if not isinstance(value, str):
        return value
    if value[:1] in ("=", "+", "-", "@", "\t", "\r") and not _NUMBER.fullmatch(value):
        value = f"'{value}"
    return shown_lines(value)


def markup(text: str) -> str:
    """A text for HTML, also inside an attribute."""
    from html import escape  # what a command does not need at its start is loaded later

    return escape(shown(text))


class Guarded:
    """A stream that escapes what is written to it; colours pass on a terminal.

    Attributes:
        unguarded: the stream itself, for a progress line that moves the cursor and holds nothing of others.
    """

    def __init__(self, stream: TextIO, edit: Callable[[str], str] = str) -> None:
        self.unguarded = stream
        self._edit = edit
        self._colours = stream.isatty()

    def write(self, text: str) -> int:
        self.unguarded.write(self._harmless(self._edit(text)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def _harmless(self, text: str) -> str:
        if not self._colours:
            return shown_lines(text)
        parts, end = [], 0
        for colour in _COLOUR.finditer(text):
            parts += [shown_lines(text[end : colour.start()]), colour.group()]
            end = colour.end()
        return "".join((*parts, shown_lines(text[end:])))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def unguarded(stream: TextIO) -> TextIO:
    """The stream behind a guarded one."""
    return stream.unguarded if isinstance(stream, Guarded) else stream


def _guard(stream: TextIO, edit: Callable[[str], str] = str) -> TextIO:
    no_need = stream is None or isinstance(stream, Guarded)  # None in a process without a console
    return stream if no_need else cast(TextIO, Guarded(stream, edit))


@contextlib.contextmanager
def guarded(messages: Callable[[str], str] = str) -> Iterator[None]:
    """Let stdout and stderr escape what is printed until the block ends.

    Args:
        messages: what is done to a message before it goes to stderr.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _guard(sys.stdout), _guard(sys.stderr, messages)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
