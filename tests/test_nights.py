"""Many nights of random events and random faults, and a checker that knows what was produced.

A failing seed is printed; replay it with `NIGHTS_SEED=<seed> python -m pytest tests/test_nights.py`.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake.base import retry
from ksql_lake.embedded import EmbeddedKsqlDB, Fault

JAN15 = 1_736_899_200_000
HOUR = 3_600_000
WORDS = ("plain", "naïve café", "日本語テキスト", "emoji 🎉🎊", 'quote " and \\ back', "line\nbreak", "", "a,b;c|d")
ERROR = b'{"@type":"generic_error","error_code":%d,"message":"refused"}'
BODIES = (b"", b"plain words", b"<html>no</html>")
SEEDS = [int(os.environ["NIGHTS_SEED"])] if "NIGHTS_SEED" in os.environ else [11, 12, 13, 14, 15]

FAULTS: dict[str, Callable[[random.Random], Fault]] = {
    "reset": lambda r: Fault(reset=True),
    "cut": lambda r: Fault(cut_after=r.randrange(30), cut_where=r.choice(("between", "row", "char"))),
    "error": lambda r: Fault(error_after=r.randrange(30), error_closed=r.random() < 0.5),
    "completed early": lambda r: Fault(complete_after=r.randrange(30), complete_final=r.random() < 0.7),
    "html with 200": lambda r: Fault(status=200, body=b"<html>sign in</html>", content_type="text/html"),
    "refused": lambda r: Fault(
        status=(status := r.choice((401, 403, 404, 429, 500, 503))), body=r.choice((ERROR % (status * 100), *BODIES))
    ),
    "refused listing": lambda r: Fault(status=r.choice((429, 503)), body=r.choice(BODIES), path="/ksql"),
    "silence": lambda r: Fault(silent_after=r.randrange(30), silent_seconds=r.choice((0.1, 0.4, 1.2))),
    "delay": lambda r: Fault(delay=r.choice((0.1, 0.3, 0.9))),
    "slow": lambda r: Fault(slow=0.002, slow_bytes=r.randrange(5, 60)),
    "repeated": lambda r: Fault(repeat_after=r.randrange(1, 30), repeat_rows=r.randrange(1, 12)),
    "older framing": lambda r: Fault(legacy=True, error_after=r.choice((None, 5, 20))),
}


class History:
    """What was produced, and what the lake must therefore hold."""

    def __init__(self, database: EmbeddedKsqlDB, rng: random.Random, zone: str) -> None:
        self.database, self.rng, self.zone = database, rng, zoneinfo.ZoneInfo(zone)
        self.events: dict[tuple[int, int], tuple[int, str, int]] = {}
        self.table: dict[str, int] = {}
        self.partitions = 2
        database.create_stream("S", "`W` STRING, `N` BIGINT", self.partitions)
        database.create_table("T", "`K` STRING KEY, `N` BIGINT")

    def day(self, night: int) -> None:
        """A day's events: most of today, some late, a few ahead; holes in the offsets, now and then a new partition."""
        rng = self.rng
        if rng.random() < 0.15:
            self.partitions += 1
            self.database.add_partition("S")
        for i in range(rng.randrange(0, 60)):
            hours = 24 * night + rng.randrange(24) - rng.choice((0, 0, 0, 0, 50)) + rng.choice((0, 0, 0, 0, 0, 1))
            partition, rowtime = rng.randrange(self.partitions), JAN15 + hours * HOUR + rng.randrange(HOUR)
            word, number = rng.choice(WORDS), night * 1000 + i
            if rng.random() < 0.03:
                self.database.skip("S", partition, rng.randrange(1, 4))
            offset = self.database.append("S", partition, rowtime, [word, number])
            self.events[partition, offset] = (rowtime, word, number)
        for _ in range(rng.randrange(1, 8)):
            key = f"k{rng.randrange(40)}"
            self.table[key] = rng.randrange(1000)
            self.database.upsert("T", [key, self.table[key]])

    def check(self, lake: Path, *, complete: bool) -> None:
        seen: dict[tuple[int, int], tuple[int, str, int]] = {}
        for path in sorted((lake / "streams" / "s").rglob("*.parquet")):
            rows = pq.ParquetFile(path).read()
            times = rows["ROWTIME"].cast(pa.int64()).to_pylist()
            for time, *rest in zip(times, *(rows[c].to_pylist() for c in rows.schema.names[1:]), strict=True):
                partition, offset, word, number = rest
                assert (partition, offset) not in seen, f"doubled: {partition, offset}"
                seen[partition, offset] = (time, word, number)
                day = dt.datetime.fromtimestamp(time / 1000, self.zone).date()
                assert path.parent.as_posix().endswith(f"{day:year=%Y/month=%m/day=%d}"), f"wrong day: {path} {time}"
        for identity, event in seen.items():
            assert self.events.get(identity) == event, f"changed or never produced: {identity} {event}"
        if complete:
            assert set(self.events) == set(seen), f"lost: {sorted(set(self.events) - set(seen))[:10]}"

    def check_table(self, lake: Path) -> None:
        newest = max((lake / "tables" / "t").glob("version=v*"), key=lambda path: int(path.name[9:]))
        rows = [row for path in newest.glob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()]
        assert {row["K"]: row["N"] for row in rows} == self.table and len(rows) == len(self.table)


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    monkeypatch.setattr(retry, "FIRST", 0.02)
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.25")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "0.6")
        yield database


def nights(database: EmbeddedKsqlDB, lake: Path, seed: int, count: int, capsys: Any) -> None:
    rng = random.Random(seed)
    zone = rng.choice(("UTC", "Europe/Paris", "America/St_Johns"))
    history = History(database, rng, zone)
    for kind, more in (("stream", ["--timezone", zone]), ("table", [])):
        name = kind[0]
        assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name, *more]) == 0
    told = []
    try:
        for night in range(count):
            history.day(night)
            names = rng.choices(sorted(FAULTS), k=rng.choice((0, 1, 1, 2, 4)))
            database.faults.add(*(FAULTS[name](rng) for name in names))
            day = JAN15 // 86_400_000 + rng.randrange(night + 1)
            only = ["--stream", "s", "--date", str(dt.date(1970, 1, 1) + dt.timedelta(days=day))]
            argv = only if rng.random() < 0.25 else ["--all", "--jobs", rng.choice("12")]
            capsys.readouterr()
            code = export_to_data_lake.main(argv)
            told.append((night, names, argv, code, capsys.readouterr().err))
            assert code in (0, 1) and "bug" not in told[-1][-1]
            database.faults.clear()
            history.check(lake, complete=False)
            assert metadata_utils.main(["--verify", "--deep", "--lake", str(lake)]) == 0
        assert export_to_data_lake.main(["--all", "--allow-shrink"]) == 0
        history.check(lake, complete=True)
        history.check_table(lake)
        files = sorted(lake.rglob("data_*.parquet"))
        assert export_to_data_lake.main(["--all"]) == 0
        assert sorted(lake.rglob("data_*.parquet")) == files
        assert not list((lake / ".staging").glob("*/*"))
    except BaseException:
        print(f"replay with NIGHTS_SEED={seed}", *told, sep="\n")
        raise


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_changed(
    seed: int, ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights(ksqldb, tmp_path / "lake", seed, 6, capsys)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(1000, 1040))
def test_many_more_nights(
    seed: int, ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nights(ksqldb, tmp_path / "lake", seed, 20, capsys)
