"""What is written into a log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from ksql_lake.base.text import shown, shown_lines


class LogFormatter(logging.Formatter):
    """Log lines with control characters escaped; each message is one line, a traceback several."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = shown(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return shown_lines(super().formatException(ei))


class _Onward(logging.Handler):
    """Hands records to the root logger, as propagation would."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().handle(record)


@contextlib.contextmanager
def also_to(logger: logging.Logger, handler: logging.Handler, level: str) -> Iterator[None]:
    """Send a logger's records from a level on to one more handler; what the root logger gets of it stays the same."""
    before, onward = (logger.level, logger.propagate), _Onward(logger.getEffectiveLevel())
    handler.setLevel(level)
    added = [handler, onward] if logger.propagate else [handler]
    for one in added:
        logger.addHandler(one)
    logger.propagate = False
    logger.setLevel(min(logging.getLevelName(level), logger.getEffectiveLevel()))
    try:
        yield
    finally:
        for one in added:
            logger.removeHandler(one)
        logger.setLevel(before[0])
        logger.propagate = before[1]
