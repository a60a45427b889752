"""Makes the pictures of README and docs/monitoring.md: `make pictures`. Needs chromium for those of the page.

The demo's sources are exported twice. In between a partition loses rows before they were exported, a source goes away,
and rows fail a check, so that there is something to see.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.text import Text

from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo
from tests.chromium import Chromium

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND = "metadata_utils.py report"
COLUMNS = 100
WIDTH, HEIGHT = 1280, 1240  # of the page's pictures
NOT_NULL = [{"check": "not_null", "column": "user_id", "level": "quarantine"}]


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        lake = Path(place) / "data_lake"
        make_lake(lake)
        (HERE / "terminal.svg").write_text(svg(f"$ python {COMMAND}\n{on_a_terminal(COMMAND)}"))
        page = Path(place) / "lake.html"
        script("metadata_utils.py", "html", str(page))
        page.write_text(as_a_reader_has_it(page.read_text()))
        with Chromium(Path(place) / "profile") as browser:
            for scheme in ("light", "dark"):
                browser.open(page, WIDTH, HEIGHT, dark=scheme == "dark")
                browser.screenshot(HERE / f"page_{scheme}.png")
    print(*(f"{path.relative_to(ROOT)}  {path.stat().st_size:,} bytes" for path in sorted(HERE.glob("*.*g"))), sep="\n")


def make_lake(lake: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    first = (now - dt.timedelta(days=29)).date()
    with EmbeddedKsqlDB() as database:
        fill_demo(database, 20_000, 1, first, 30, now)
        os.environ |= {
            "KSQLDB_URL": database.url, "IDLE_SECONDS": "0.5", "DATA_LAKE_SETTINGS": "", "DATA_LAKE_DIR": str(lake),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        script("manage_feeds.py", "sync")
        script("manage_feeds.py", "update", "transaction_flattened", f"checks={json.dumps(NOT_NULL)}")
        script("export_to_data_lake.py", "--all", "--quiet")
        moment = int(now.timestamp() * 1000)
        stream, flat = (database.sources[name] for name in ("TRANSACTION_STREAM", "TRANSACTION_FLATTENED"))
        for record in list(stream.topic.log)[-40:]:
            database.append(stream.name, 3, moment, record.values)
        database.expire(stream.name, 3, stream.topic.next[3] - 8)
        user = [column.name for column in flat.columns].index("USER_ID")
        for number, record in enumerate(list(flat.topic.log)[-50:]):
            values = list(record.values or ())
            values[user] = None if number < 3 else values[user]
            database.append(flat.name, 1, moment, values)
        database.drop("USER_TRANSACTION_SUMMARY_EUR")
        script("export_to_data_lake.py", "--all", "--quiet", codes=(1,))


def script(name: str, *words: str, codes: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run([sys.executable, name, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in codes:
        raise SystemExit(f"{name} {' '.join(words)}: {done.stderr}")


def as_a_reader_has_it(text: str) -> str:
    """Without the addresses and directories of the moment."""
    text = text.replace(os.environ["KSQLDB_URL"], "http://localhost:8088")
    return text.replace(os.environ["DATA_LAKE_DIR"], "data_lake")


def on_a_terminal(command: str) -> str:
    """What a command shows on a terminal, with its colours."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *command.split()], cwd=ROOT, stdout=slave, stderr=slave,
        env={**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm"},
    )
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 65536):
            shown += data
    except OSError:  # the other end is closed
        pass
    process.wait(60)
    return as_a_reader_has_it(shown.decode().replace("\r\n", "\n"))


def svg(text: str) -> str:
    """The text as a picture that asks the network for nothing."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(text))
        made = console.export_svg(title="ksql-lake", unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\s*", "", made, flags=re.S)


if __name__ == "__main__":
    main()
