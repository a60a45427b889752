"""`data_lake_config.py --check`: finds out whether an export would work here, before the first night."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_lake_config import Config
from ksql_lake.base import figures
from ksql_lake.base.errors import ExitCode, LakeError
from ksql_lake.cli.hints import here
from ksql_lake.store import layout
from ksql_lake.store.layout import storage_of

ROOM = 1 << 30  # bytes that should be free
SHARE = 0.05  # of the disk that should be free
SKEW = 60  # seconds that two clocks may differ
SECRETS = ("KSQLDB_PASSWORD", "PING_URL")


@dataclass(frozen=True)
class Answer:
    """The result of one check; `wrong` says whether an export would suffer from it."""

    what: str
    text: str
    wrong: bool = False

    def __str__(self) -> str:
        return f"{'WRONG' if self.wrong else 'ok':<6} {self.what:<9} {self.text}"


def check(config: Config) -> int:
    """Print a line for each check; exit code 1 when one found something wrong."""
    answers = [*_settings(config), *_lake(config), *_server(config), *_reader()]
    for answer in answers:
        print(here(str(answer)))
    wrong = sum(answer.wrong for answer in answers)
    print("everything is as it should be" if not wrong else f"{wrong} of {len(answers)} checks failed")
    return ExitCode.FINDINGS if wrong else ExitCode.OK


def _settings(config: Config) -> Iterator[Answer]:
    files = sorted({origin for origin in config.origins.values() if origin.startswith("/")})
    for file in files:
        named = sorted(name for name, origin in config.origins.items() if origin == file)
        secret = [name for name in named if name in SECRETS]
        if secret and stat.S_IMODE(os.stat(file).st_mode) & 0o077:
            yield Answer("settings", f"{file} holds {secret[0]} and others may read it; run: chmod 600 {file}", True)
        else:
            yield Answer("settings", f"{file} sets {', '.join(named)}")
    if not files:
        yield Answer(
            "settings", "there is no settings file; settings come from the environment and data_lake_config.py"
        )


def _lake(config: Config) -> Iterator[Answer]:
    lake = config.lake_dir
    if not lake.is_dir():
        yield Answer("lake", f"{lake} is not there; create it with: python data_lake_config.py", True)
        return
    refused = [path for path in (lake, *(lake / name for name in ("streams", "tables", "logs"))) if not _writable(path)]
    if refused:
        yield Answer("rights", f"{refused[0]} may not be written by uid {os.geteuid()}", True)
    else:
        yield Answer("rights", f"{lake} can be written")
    room = shutil.disk_usage(lake)
    little = room.free < ROOM or room.free < SHARE * room.total
    text = f"{figures.size(room.free)} of {figures.size(room.total)} are free for {lake}"
    yield Answer("disk", f"{text}; free some, or set DATA_LAKE_DIR to a larger disk" if little else text, little)
    others = [name for name in ("streams", "tables") if _device(lake / name) not in (None, _device(lake))]
    if others:
        yield Answer("disk", f"{lake / others[0]} is on another disk than {lake}: files cannot be moved there in one "
                             "step",
                     True)


def _writable(directory: Path) -> bool:
    if not directory.is_dir():
        return True  # it is created when it is needed
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _device(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None


def _server(config: Config) -> Iterator[Answer]:
    from ksql_lake.cli.server import server_of
    from ksql_lake.sources.ksqldb.client import Client

    try:
        with Client(server_of(config, 10.0)) as client:
            started = time.time()
            info = client.server_info()
            now = (started + time.time()) / 2
            counts = {kind: sum(found == kind for _, found, _ in client.sources()) for kind in ("stream", "table")}
            clock = client.clock
    except LakeError as error:
        yield Answer("server", str(error), True)
        return
    cluster = info.kafka_cluster_id or "unknown"
    has = f"{figures.counted(counts['stream'], 'stream')} and {figures.counted(counts['table'], 'table')}"
    yield Answer("server", f"{client.url} is ksqlDB {info.version} on Kafka cluster {cluster} with {has}")
    if clock is None:
        yield from _clock(config, now)
        return
    off = now - clock.timestamp()
    text = f"this machine and the server differ by {abs(off):.0f} s"
    late = "ahead of" if off > 0 else "behind"
    wrong = abs(off) > SKEW
    yield Answer("clock", f"{text}: this machine is {late} it; set the clock (NTP)" if wrong else text, wrong)


def _clock(config: Config, now: float) -> Iterator[Answer]:
    """Where the server does not say what time it is: compare with the time at which the lake was last written to."""
    there = storage_of(config.lake_dir).stat(layout.runs(config.lake_dir))
    ahead = there.modified - now if there else 0.0
    if ahead > SKEW:
        yield Answer("clock", f"the last export ended {ahead:.0f} s from now; set the clock (NTP)", True)
    else:
        yield Answer("clock", "no sign that it is wrong; ksqlDB itself does not send the time, a gateway may")


def _reader() -> Iterator[Answer]:
    from ksql_lake.base import native

    if native.library():
        yield Answer("reader", "the native reader is in use")
    else:
        yield Answer("reader", "the native reader is not built, so exports take several times the CPU time; build it "
                               "with: python -m ksql_lake.base.native")
