"""How far the export of one feed is: what the reading reports for display."""

from __future__ import annotations


class Progress:
    """Receives the progress of one feed's export, from one thread. This one shows nothing.

    Calling it says that rows were read: how many, their size in memory in bytes (0 when not known), and the newest
    ROWTIME among them in epoch ms (None for a table).
    """

    def __call__(self, rows: int, size: int = 0, rowtime: int | None = None) -> None:
        pass

    def expects(self, rows: int) -> None:
        """Report about how many rows there are to read in all, where that is known."""

    def reached(self, share: float) -> None:
        """How much of what there was to read at the beginning has been read, from 0 to 1, where that is known."""

    def waits(self, why: str) -> None:
        """Report what the reading waits for while no row comes; "" when it continues."""


SILENT = Progress()
