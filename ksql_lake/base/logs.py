"""What is written into a log."""

from __future__ import annotations

import logging
from typing import Any

from ksql_lake.base.text import shown, shown_lines


class LogFormatter(logging.Formatter):
    """Log lines with control characters escaped; each message is one line, a traceback several."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = shown(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return shown_lines(super().formatException(ei))
