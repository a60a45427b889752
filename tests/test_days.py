"""The day of an event: late ones, early ones, clocks that are wrong, and days of 23 and 25 hours."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
import zoneinfo
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB

HOUR = 3_600_000
PARIS = zoneinfo.ZoneInfo("Europe/Paris")


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        database.create_stream("S", "`N` INTEGER", 2)
        yield database


def add(zone: str = "UTC") -> None:
    assert manage_feeds.main(["add", "--name", "s", "--type", "stream", "--source", "s", "--timezone", zone]) == 0


def produce(database: EmbeddedKsqlDB, rowtimes: Sequence[int], first: int = 0) -> None:
    for i, rowtime in enumerate(rowtimes, first):
        database.append("S", i % 2, rowtime, [i])


def days(lake: Path) -> dict[str, list[int]]:
    """The numbers in each day's directory."""
    found: dict[str, list[int]] = {}
    for path in (lake / "streams" / "s").rglob("*.parquet"):
        found.setdefault(path.parent.relative_to(lake / "streams" / "s").as_posix(), []).extend(
            pq.ParquetFile(path).read(["N"])["N"].to_pylist()
        )
    return {day: sorted(numbers) for day, numbers in found.items()}


def epoch(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(dt.datetime(year, month, day, hour, tzinfo=dt.UTC).timestamp() * 1000)


@pytest.mark.parametrize(("first", "hours", "day", "length"), [
    (epoch(2025, 3, 29, 0), 72, dt.date(2025, 3, 30), 23),
    (epoch(2025, 10, 25, 0), 72, dt.date(2025, 10, 26), 25),
])
def test_days_of_23_and_25_hours(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, first: int, hours: int, day: dt.date, length: int
) -> None:
    """An event an hour over three days: the short day has 23 of them, the long one 25, and --date brings just those."""
    add("Europe/Paris")
    produce(ksqldb, [first + i * HOUR for i in range(hours)])
    assert export_to_data_lake.main(["--stream", "s", "--date", str(day)]) == 0
    path = f"year={day:%Y}/month={day:%m}/day={day:%d}"
    assert {key: len(rows) for key, rows in days(tmp_path / "lake").items()} == {path: length}
    assert export_to_data_lake.main(["--all"]) == 0
    expected: dict[str, list[int]] = {}
    for i in range(hours):
        local = dt.datetime.fromtimestamp((first + i * HOUR) / 1000, PARIS)
        expected.setdefault(f"{local:year=%Y/month=%m/day=%d}", []).append(i)
    assert days(tmp_path / "lake") == expected


@pytest.mark.parametrize("order", list(itertools.permutations(["30", "31", "all", "29"])))
def test_dates_in_any_order_around_a_change_of_the_clock(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, order: Sequence[str]
) -> None:
    add("Europe/Paris")
    produce(ksqldb, [epoch(2025, 3, 28, 23) + i * HOUR for i in range(71)])
    for step in (*order, "all"):
        day = ["--date", f"2025-03-{step}"] if step != "all" else []
        assert export_to_data_lake.main(["--stream", "s", *day]) == 0
    found = days(tmp_path / "lake")
    assert sorted(number for numbers in found.values() for number in numbers) == list(range(71))
    assert [len(found[f"year=2025/month=03/day={day}"]) for day in (29, 30, 31)] == [24, 23, 24]


def test_a_clock_an_hour_ahead_does_not_hide_later_events(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """A producer's clock runs ahead: its event ends no catching up, and events after it are still read."""
    add()
    now = int(time.time() * 1000)
    produce(ksqldb, [now + HOUR, now + HOUR])
    produce(ksqldb, [now - 10_000] * 6, first=2)
    assert export_to_data_lake.main(["--all"]) == 0
    produce(ksqldb, [now - 5_000] * 6, first=8)
    assert export_to_data_lake.main(["--all"]) == 0
    assert sorted(n for numbers in days(tmp_path / "lake").values() for n in numbers) == list(range(14))


def test_events_days_late_land_in_their_own_day_once(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    add()
    produce(ksqldb, [epoch(2025, 1, 20, hour) for hour in range(10)])
    assert export_to_data_lake.main(["--all"]) == 0
    produce(ksqldb, [epoch(2025, 1, 12, hour) for hour in range(4)], first=10)
    for _ in range(2):
        assert export_to_data_lake.main(["--all"]) == 0
    assert days(tmp_path / "lake") == {
        "year=2025/month=01/day=20": list(range(10)), "year=2025/month=01/day=12": [10, 11, 12, 13]
    }


def test_absurd_times_stop_nothing(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """A timestamp in microseconds by mistake, one before 1970, one at the end of 64 bits."""
    add()
    times = [epoch(2025, 1, 20) * 1000, -5_000, 2**62, epoch(2025, 1, 20)]
    produce(ksqldb, times)
    assert export_to_data_lake.main(["--all"]) == 0
    assert export_to_data_lake.main(["--all"]) == 0
    found = days(tmp_path / "lake")
    assert sorted(n for numbers in found.values() for n in numbers) == [0, 1, 2, 3]
    assert found["year=1969/month=12/day=31"] == [1] and found["year=2025/month=01/day=20"] == [3]
    rows = [
        value for path in (tmp_path / "lake").rglob("*.parquet")
        for value in pq.ParquetFile(path).read(["ROWTIME"])["ROWTIME"].cast(pa.int64()).to_pylist()
    ]
    assert sorted(rows) == sorted(times)
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(tmp_path / "lake")]) == 0


@pytest.mark.parametrize("order", [("15", "16", "all"), ("16", "all", "15"), ("15", "16", "15", "17", "all")])
def test_interleaved_days_leave_small_metadata(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, order: Sequence[str]
) -> None:
    """Rows of three days take turns: what --date exported is told by day, not by each run of offsets."""
    add()
    times = [epoch(2025, 1, 15 + i // 2 % 3) + i for i in range(1200)]  # both partitions hold all three days
    produce(ksqldb, times)
    metadata = tmp_path / "lake" / "streams" / "s" / "_metadata.json"
    seen: set[int] = set()
    for number, step in enumerate(order):
        day = ["--date", f"2025-01-{step}"] if step != "all" else []
        assert export_to_data_lake.main(["--stream", "s", *day]) == 0
        produce(ksqldb, [epoch(2025, 1, 15 + i % 3) + i for i in range(6)], first=1200 + 6 * number)
        seen |= {n for numbers in days(tmp_path / "lake").values() for n in numbers}
        assert metadata.stat().st_size < 12_000
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    found = sorted(number for numbers in days(tmp_path / "lake").values() for number in numbers)
    assert found == list(range(1200 + 6 * len(order)))
    assert '"days"' not in metadata.read_text(), "a full run covers them all"
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(tmp_path / "lake")]) == 0


def test_a_lake_that_knows_ranges_of_an_older_version_goes_on(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """It wrote a range for each run of rows of a day; they still count, beside the days of now."""
    add()
    produce(ksqldb, [epoch(2025, 1, 15 + i // 2 % 2) + i for i in range(40)])
    assert export_to_data_lake.main(["--stream", "s", "--date", "2025-01-15"]) == 0
    metadata = tmp_path / "lake" / "streams" / "s" / "_metadata.json"
    state = json.loads(metadata.read_text())
    for one in state["coverage"]["1"].values():
        assert one.pop("days") == {"2025-01-15": 18}
        one["beyond"] = [[n, n] for n in range(0, 20, 2)]
    metadata.write_text(json.dumps(state))
    assert export_to_data_lake.main(["--stream", "s", "--date", "2025-01-15"]) == 0
    assert [len(numbers) for numbers in days(tmp_path / "lake").values()] == [20]
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    assert sorted(n for numbers in days(tmp_path / "lake").values() for n in numbers) == list(range(40))


def test_a_stream_as_it_was_between_two_runs_of_some_days(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    add()
    produce(ksqldb, [epoch(2025, 1, 15 + i // 2 % 2) + i for i in range(40)])
    moments = []
    for day in ("15", "16"):
        assert export_to_data_lake.main(["--stream", "s", "--date", f"2025-01-{day}"]) == 0
        moments.append(dt.datetime.now(dt.UTC))
        time.sleep(1.1)
    produce(ksqldb, [epoch(2025, 1, 15) + i for i in range(4)], first=40)
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    lake = tmp_path / "lake"
    assert [len(ksql_lake.read("s", lake=lake, as_of=moment, arrow=True)) for moment in moments] == [20, 40]
    assert len(ksql_lake.read("s", lake=lake, arrow=True)) == 44
