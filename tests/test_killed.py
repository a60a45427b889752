"""A real process killed by SIGKILL at many moments; then one good run, and every event is there once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pandas as pd

import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB
from tests.conftest import ROOT

JAN15 = 1_736_899_200_000


def test_sigkill_at_many_moments(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    with EmbeddedKsqlDB() as database:
        database.create_stream("PAYMENTS", "`ID` STRING, `AMOUNT` DECIMAL(12, 2)", 2)
        for i in range(200):
            database.append("PAYMENTS", i % 2, JAN15 + i * 3_600_000, [f"e{i}", Decimal(i)])
        assert manage_feeds.main(["add", "--name", "payments", "--type", "stream", "--source", "payments"]) == 0
        environment = {**os.environ, "KSQLDB_URL": database.url, "IDLE_SECONDS": "0.3", "DATA_LAKE_DIR": str(lake)}
        command = [sys.executable, "export_to_data_lake.py", "--all", "--wait"]
        # the commit comes about 1.0 to 1.4 s after the start: most kills are aimed there
        for delay in (0.3, 0.7, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5):
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL).returncode == 0
    frame = pd.read_parquet(lake / "streams" / "payments")
    assert sorted(frame["ID"]) == sorted(f"e{i}" for i in range(200))
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    assert not any((lake / ".staging" / "payments").iterdir())
