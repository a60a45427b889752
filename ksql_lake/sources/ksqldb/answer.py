"""The answer to one query: its columns, then complete lines of rows; every line is limited in size and time."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

from ksql_lake.base import limits
from ksql_lake.base.errors import AnswerCut, KsqlError, KsqlUnavailable, SchemaError
from ksql_lake.model.types import Column, SqlType, parse_schema
from ksql_lake.sources.ksqldb.body import Body, Cut
from ksql_lake.sources.ksqldb.http import Connection, excerpt, shown

BLOCK = 1 << 20
LOOK = 0.25  # seconds between checks of the clock while a line arrives


class Answer:
    """Reads one answer; close it, or use it as a context manager.

    Args:
        timeout: seconds without a byte after which the server counts as gone, wherever it must send something.
        still_there: whether the server answers, on the given connection or on a new one for None.

    Attributes:
        columns: those of the header.
    """

    def __init__(
        self, connection: Connection, body: Body, url: str, sql: str, timeout: float,
        still_there: Callable[[Connection | None], bool],
    ) -> None:
        self._connection, self._body, self._url, self._sql = connection, body, url, sql
        self._timeout, self._still_there = timeout, still_there
        self._rest: list[bytes] = []  # joined once for each block: appending to bytes copies them all each time
        self._held, self._whole = 0, False  # bytes in it; whether a line ends in it
        self._begun = self._heard = time.monotonic()  # when the present line began, when its last byte came
        self._broken: str | None = None
        try:
            self.query_id, self.columns = self._header()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, which ends the query on the server."""
        self._connection.close()

    def _header(self) -> tuple[str, tuple[Column, ...]]:
        deadline = time.monotonic() + self._timeout
        while not self._whole and not self._body.ended:
            if time.monotonic() > deadline:
                raise KsqlUnavailable(f"{self._url}: no header within {self._timeout:g} s", statement=self._sql)
            self._receive(LOOK)
            if self._broken:
                raise AnswerCut(f"{self._url}: {self._broken}", statement=self._sql)
            if self._rest and self._rest[0].lstrip()[:1] not in (b"[", b""):
                break
        line, _, rest = b"".join(self._rest).partition(b"\n")
        try:
            text = line.strip().removeprefix(b"[").removesuffix(b",")
            header = json.loads(text.removesuffix(b"]") if not rest else text)["header"]
            columns = parse_schema(header["schema"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._no_header(line) from None
        if sum(map(_size, (column.type for column in columns))) > limits.COLUMNS:
            raise SchemaError(f"the source has more than {limits.COLUMNS:,} columns, fields of STRUCTs counted")
        closed = b"]" if not rest and line.rstrip().endswith(b"]") else b""
        self._rest, self._held, self._whole = [closed + rest], len(closed + rest), b"\n" in rest
        self._begun = self._heard = time.monotonic()
        return str(header.get("queryId"))[: limits.SHOWN], columns

    def _no_header(self, line: bytes) -> KsqlError:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            error = json.loads(line.strip().strip(b"[],"))
            error = error.get("errorMessage", error)
            return KsqlUnavailable(f"{self._url}: {excerpt(str(error['message']), limits.WORDS)}", statement=self._sql)
        return KsqlError(
            f"{self._url}: the answer does not begin as ksqlDB's does: {shown(line)}; is a proxy or another "
            "service in between?",
            statement=self._sql,
        )

    def _receive(self, timeout: float) -> bool:
        try:
            data = self._body.read(timeout)
        except Cut as error:
            self._broken = str(error)
            return False
        if data:
            self._heard = time.monotonic()
            self._begun = self._begun if self._held else self._heard
            self._rest.append(data)
            self._held += len(data)
            self._whole = self._whole or b"\n" in data
            if not self._whole and self._held > limits.LINE:
                raise KsqlError(
                    f"{self._url}: the answer is not what ksqlDB sends: a line of more than {limits.LINE:,} bytes",
                    statement=self._sql,
                )
        return bool(data)

    def read(self, timeout: float) -> bytes | None:
        """Complete lines, about 1 MiB of them; b"" when the body has ended properly; None: nothing within `timeout` s.

        Once a part of a line has come it waits for the rest, so None always means that the answer is between two
        lines.

        Raises:
            AnswerCut: the connection ended first, or the answer stopped inside a line; whole lines received before
                were handed out.
            KsqlError: a line is longer than any row.
        """
        deadline = time.monotonic() + timeout
        while (self._held < BLOCK or not self._whole) and not self._body.ended and self._broken is None:
            # Once there is a line, only what has arrived already; before, a line may come in many pieces.
            inside = self._held and not self._whole
            wait = 0.0 if self._whole else self._line_left() if inside else deadline - time.monotonic()
            if inside and wait <= 0:
                self._broken = "it stopped inside a line, and no more came in time"
            elif not self._receive(min(wait, LOOK) if inside else wait) and not inside and (self._whole or wait <= 0):
                break
        lines = self._take_lines()
        if lines:
            return lines
        if self._broken is not None:
            raise AnswerCut(f"{self._url}: the answer was cut: {self._broken}", statement=self._sql)
        return b"" if self._body.ended else None

    def _line_left(self) -> float:
        """How many seconds the rest of the current line may still take."""
        end = min(self._heard + self._timeout, self._begun + limits.PATIENCE * self._timeout)
        return end - time.monotonic()

    def _take_lines(self) -> bytes:
        """All whole lines received; at the end of the body, what is there."""
        if not self._whole and not self._body.ended:
            return b""
        later: list[bytes] = []
        while self._rest:
            piece = self._rest.pop()
            cut = len(piece) if self._body.ended else piece.rfind(b"\n") + 1
            later.append(piece[cut:])
            if cut:
                self._rest.append(piece[:cut])
                break
        lines = b"".join(self._rest)
        self._rest, self._held, self._whole = later[::-1], self._held - len(lines), False
        self._begun = self._heard
        return lines

    def same_connection_info(self) -> bool:
        """Whether the server is still there: one that shuts down ends its answers as if they were complete.

        The request uses this same connection, which a server that went away has closed. Where the connection was not
        kept open after the answer (a proxy, HTTP/1.0), it uses a new one: now, and again after a second.
        """
        if self._body.reusable and self._connection.address.proxy is None:
            return self._still_there(self._connection)
        if not self._still_there(None):
            return False
        time.sleep(1.0)
        return self._still_there(None)


def _size(kind: SqlType) -> int:
    """How many types a type consists of."""
    inner = [kind.element, kind.key, *(field for _, field in kind.fields)]
    return 1 + sum(_size(one) for one in inner if one is not None)
