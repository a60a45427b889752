"""The last line of a log, without reading the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksql_lake.base.files import append_line
from ksql_lake.store.state_log import last_line


@pytest.mark.parametrize("size", [1, 10, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("before", [0, 1, 70_000])
def test_last_line(size: int, before: int, tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert last_line(path) == b""
    if before:
        append_line(path, b"a" * before)
    append_line(path, b"b" * size)
    assert last_line(path) == b"b" * size
    path.write_bytes(path.read_bytes()[:-1])
    assert last_line(path) == b"b" * size, "a line that is torn is the last one all the same"
