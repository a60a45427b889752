"""The one loop over the rows of an answer, with its clocks and limits; streams, tables and counts read through it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ksql_lake.base.errors import AnswerCut, KsqlUnavailable, RowNotSent
from ksql_lake.sources.ksqldb.client import Answer
from ksql_lake.sources.ksqldb.rows import ArrayEnd, Decoder, Element, ErrorRow, Final
from ksql_lake.sources.pace import POLL, Limits

NOT_SENT = "Failed to serialize"  # a TIME of 24:00 or more: the server can read it but not write it


class AnswerRows:
    """The rows of one answer as they come.

    Args:
        name: the source, for messages.
        batch_size, lenient: see `Decoder`.

    Attributes:
        started: when reading began, in `time.monotonic()`, like all times here.
        heard: when the last row came; the same as `started` before the first.
    """

    def __init__(self, answer: Answer, name: str, batch_size: int = 10_000, lenient: bool = False) -> None:
        self.answer, self.name = answer, name
        self.decoder = Decoder(answer.columns, batch_size, lenient=lenient)
        self.started = self.heard = time.monotonic()
        self._closed = False
        self._failed: KsqlUnavailable | None = None

    def poll(self) -> list[Element] | None:
        """What came: rows and tombstones; [] when nothing did for POLL seconds; None at the end of the body.

        Raises:
            KsqlUnavailable: the server broke off with an error, or the connection ended first; whatever came before
                was handed out. RowNotSent where it is a row that the server cannot send.
        """
        if self._failed is not None:
            raise self._failed
        lines = self.answer.read(POLL)
        if lines == b"":
            return None
        if lines is None:
            return []
        now = time.monotonic()
        found: list[Element] = []
        for element in self.decoder.decode(lines):
            if isinstance(element, ErrorRow):
                kind = RowNotSent if NOT_SENT in element.message else KsqlUnavailable
                self._failed = kind(f"{self.name}: the server broke off: {element.message}", code=element.code)
                break
            if isinstance(element, ArrayEnd):
                self._closed = True
            elif not isinstance(element, Final):
                found.append(element)
        if self._failed is not None and not found:
            raise self._failed
        if found:  # older servers send an empty line every second: that is silence
            self.heard = now
        return found

    def endless(self) -> Iterator[list[Element]]:
        """The rows of a push query as they come; an empty list is a moment of silence. The caller decides when to stop.

        Raises:
            AnswerCut: it ended, which such a query should never do.
        """
        while (found := self.poll()) is not None:
            yield found
        raise AnswerCut(f"{self.name}: the server ended a query that never ends")

    def whole(self, limits: Limits) -> Iterator[Element]:
        """The rows of a pull query, all of them.

        Raises:
            AnswerCut: silence for `limits.first_row` seconds, more than `limits.duration` in all, an end without the
                closing bracket, or a server that no longer answers on the same connection: the answer may be
                incomplete.
        """
        while (found := self.poll()) is not None:
            yield from found
            now = time.monotonic()
            if found:
                self.heard = now  # the server was not silent while these rows were handled
            elif now - self.heard > limits.first_row:
                raise AnswerCut(f"{self.name}: no more rows within {limits.first_row:.0f} s")
            if now - self.started > limits.duration:
                limit = f"{limits.duration:.0f} s (MAX_DURATION_SECONDS)"
                raise AnswerCut(f"{self.name}: its answer did not end within {limit}")
        if not self._closed:
            raise AnswerCut(f"{self.name}: the answer ended without its closing bracket")
        if not self.answer.same_connection_info():
            raise AnswerCut(f"{self.name}: the server went away right after its answer, which may be incomplete")
