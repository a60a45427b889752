"""`ksql_lake.read`: what the metadata own, under the full schema, now or as it was, whatever changes meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import export_to_data_lake
import ksql_lake.cli.context
import ksql_lake.ingest.export
import manage_feeds
from ksql_lake import read
from ksql_lake.base.errors import ConfigError, LakeError, StateError
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model.state import FeedState
from ksql_lake.store import metadata
from tests import typed_lake

JAN15 = 1_736_899_200_000
DAY = 86_400_000
BIG = 2**53 + 1  # the first integer a float cannot hold
COLUMNS = "`ID` STRING, `N` BIGINT, `DAY` STRING, `AMOUNT` DECIMAL(12, 2), `OK` BOOLEAN, `TS` TIMESTAMP"


class Nights:
    """A stream S and a table T, exported night after night at times of the test's choice."""

    def __init__(self, database: EmbeddedKsqlDB, lake: Path, patch: pytest.MonkeyPatch) -> None:
        self.database, self.lake, self.patch = database, lake, patch

    def at(self, moment: str) -> None:
        self.patch.setattr(ksql_lake.ingest.export, "now", lambda: moment)
        self.patch.setattr(ksql_lake.cli.context, "now", lambda: moment)

    def export(self, moment: str, *argv: str) -> None:
        self.at(moment)
        assert export_to_data_lake.main([*(argv or ("--all",)), "--quiet"]) == 0

    def events(self, first: int, last: int, *more: Any) -> None:
        """Even ones of 15 January, odd ones of the 16th; every third number is null, the others are large."""
        for i in range(first, last):
            moment = dt.datetime(2025, 1, 15) + dt.timedelta(milliseconds=i)
            number = None if i % 3 == 0 else BIG + i
            values = [f"e{i}", number, f"d{i}", Decimal(i) / 4, i % 2 == 0 or None, moment]
            self.database.append("S", i % 2, JAN15 + i % 2 * DAY + i, [*values, *more])

    def read(self, name: str = "s", **asked: Any) -> Any:
        return read(name, lake=self.lake, **asked)

    def ids(self, **asked: Any) -> list[str]:
        return sorted(self.read(columns=["ID"], **asked)["ID"])


def build(database: EmbeddedKsqlDB, lake: Path, patch: pytest.MonkeyPatch) -> Nights:
    """Two nights: 20 events without a column NOTE, 20 with it; versions v1 and v2 of the table."""
    for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("KSQLDB_TIMEOUT", "2"),
                        ("RETENTION", "off"), ("DATA_LAKE_DIR", str(lake))):
        patch.setenv(name, value)
    made = Nights(database, lake, patch)
    database.create_stream("S", COLUMNS, 2)
    database.create_table("T", "`K` STRING KEY, `V` INTEGER")
    made.events(0, 20)
    database.upsert("T", ["a", 1])
    for name, kind in (("s", "stream"), ("t", "table")):
        assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
    made.export("2025-02-01T02:00:00Z")
    database.drop("S")
    database.create_stream("S", COLUMNS + ", `NOTE` STRING", 2)
    made.events(0, 20, None)
    made.events(20, 40, "new")
    database.upsert("T", ["b", None])
    made.export("2025-02-02T02:00:00Z")
    return made


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nights]:
    with EmbeddedKsqlDB() as database:
        yield build(database, tmp_path / "lake", monkeypatch)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    """The same, of which nothing changes any more."""
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        made = build(database, tmp_path_factory.mktemp("still") / "lake", patch)
        patch.undo()
        yield made


def names(first: int, last: int) -> list[str]:
    return sorted(f"e{i}" for i in range(first, last))


def test_the_full_schema_over_files_of_different_ages(still: Nights) -> None:
    frame, table = still.read(), still.read(arrow=True)
    state = json.loads((still.lake / "streams" / "s" / "_metadata.json").read_text())
    files = [still.lake / "streams" / "s" / file["path"] for file in state["files"]]
    assert "NOTE" not in pd.read_parquet(files), "the first file decides: which is why the reader is there"
    assert table.schema.names == ["ROWTIME", "ROWPARTITION", "ROWOFFSET", "ID", "N", "DAY_", "AMOUNT", "OK", "TS",
                                  "NOTE", "year", "month", "day"] == list(frame.columns)
    assert sorted(frame["ID"]) == names(0, 40) and frame["NOTE"].notna().sum() == 20
    assert [table.schema.field(key).type for key in ("year", "month", "day")] == [pa.int32()] * 3
    assert Counter(frame["day"].tolist()) == {15: 20, 16: 20} and set(frame["month"]) == {1}


def test_no_number_is_rounded_and_no_type_depends_on_nulls(still: Nights) -> None:
    frame = still.read().set_index("ID")
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert [kinds[c] for c in ("N", "OK", "ROWPARTITION", "ROWOFFSET", "year", "day")] == [
        "Int64", "boolean", "int32", "int64", "int32", "int32"]
    assert kinds["TS"] == kinds["ROWTIME"] == "datetime64[ms, UTC]"
    assert frame["N"]["e1"] == BIG + 1 and frame["N"]["e3"] is pd.NA
    assert frame["AMOUNT"]["e5"] == Decimal("1.25") and isinstance(frame["AMOUNT"]["e5"], Decimal)
    assert frame["OK"]["e2"] is True or frame["OK"]["e2"] == True  # noqa: E712
    assert frame["OK"]["e1"] is pd.NA and frame["TS"]["e7"] == pd.Timestamp("2025-01-15T00:00:00.007Z")
    assert str(still.read(filters=[("N", ">", BIG)]).dtypes["N"]) == "Int64", "also where no null is left"


@pytest.mark.parametrize(("filters", "wanted"), [
    ([("year", "=", 2025), ("month", "==", 1)], range(40)),
    ([("day", "=", 15)], range(0, 40, 2)),
    ([("day", "in", [14, "16"])], range(1, 40, 2)),
    ([("day", "not in", [16])], range(0, 40, 2)),
    ([[("day", "=", 15), ("amount", "<", 1)], [("ID", "=", "e7")]], [0, 2, 7]),
    ([("AMOUNT", ">=", 9.75)], [39]),
    ([("AMOUNT", "=", "2.5")], [10]),
    ([("AMOUNT", "<", Decimal("0.251"))], [0, 1]),
    ([("N", "=", BIG + 1)], [1]),
    ([("TS", "<=", "2025-01-15T00:00:00.002")], [0, 1, 2]),
    ([("ROWTIME", ">=", dt.datetime(2025, 1, 16, 0, 0, 0, 35_000))], [35, 37, 39]),
    ([("ROWTIME", ">=", "2025-01-16T01:00:00.035+01:00")], [35, 37, 39]),
    ([("ROWTIME", "<", dt.date(2025, 1, 16)), ("NOTE", "!=", "old")], range(20, 40, 2)),
    ([("DAY", "=", "d4")], [4]),
    (pc.field("NOTE").is_null() & (pc.field("day") == 16), range(1, 20, 2)),
    ([], range(40)),
    ([[]], range(40)),
    ([[("ID", "=", "e7")], []], range(40)),
    ([[("ID", "=", "e7")], [("ID", "=", "e8")]], [7, 8]),
])
def test_filters(still: Nights, filters: Any, wanted: Any) -> None:
    assert still.ids(filters=filters) == sorted(f"e{i}" for i in wanted)


def test_true_as_text(still: Nights) -> None:
    for word in ("true", "TRUE", "True"):
        assert still.ids(filters=[("OK", "=", word)]) == still.ids(filters=[("OK", "=", True)]) != []
    with pytest.raises(ConfigError, match="OK = 'yes': does not fit OK, which is bool .true or false."):
        still.ids(filters=[("OK", "=", "yes")])


def test_files_that_cannot_match_are_not_opened(nights: Nights) -> None:
    for path in (nights.lake / "streams" / "s").rglob("*.parquet"):
        if "day=16" in str(path):
            path.write_bytes(b"no Parquet")
    assert nights.ids(filters=[("day", "=", 15)]) == sorted(f"e{i}" for i in range(0, 40, 2))
    assert len(nights.ids(filters=[("ROWTIME", "<", "2025-01-15T12:00")])) == 20
    with pytest.raises(pa.ArrowInvalid):
        nights.read()


@pytest.mark.parametrize(("asked", "words"), [
    ({"columns": ["AMOUMT"]}, "no column AMOUMT; did you mean AMOUNT"),
    ({"columns": ["zzz"]}, "no column zzz; there are AMOUNT, DAY_, ID"),
    ({"filters": [("yaer", "=", 2025)]}, "no column yaer; did you mean year"),
    ({"filters": [("year", "~", 2025)]}, "'~' is not a comparison; expected one of =, =="),
    ({"filters": [("year", "=", "last")]}, "year = 'last': does not fit year, which is int32"),
    ({"filters": [("N", "=", None)]}, "a comparison with null holds for no row"),
    ({"filters": [("TS", ">", "yesterday")]}, "TS > 'yesterday': does not fit TS"),
    ({"filters": ["year=2025"]}, "'year=2025' is not a filter"),
    ({"filters": pc.field("NOPE") == 1}, "NOPE"),
    ({"version": 3}, "is a stream and has no versions"),
    ({"version": 3, "as_of": "2025-02-01"}, "give only one of them"),
    ({"as_of": "last monday"}, "as_of is 'last monday'; expected a time or a day"),
])
def test_what_cannot_be_asked(still: Nights, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        still.read(**asked)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_columns_by_their_name_on_disk_or_in_the_source(still: Nights) -> None:
    assert list(still.read(columns=["amount", "DAY", "day", "Id"]).columns) == ["AMOUNT", "DAY_", "day", "ID"]
    only = still.read(columns=["day_"], filters=[("ID", "=", "e4")], arrow=True)
    assert only.to_pylist() == [{"DAY_": "d4"}]


def test_a_column_that_is_asked_for_twice_comes_once(still: Nights) -> None:
    assert list(still.read(columns=["ID", "day", "id", "DAY", "day_"]).columns) == ["ID", "day", "DAY_"]


@pytest.mark.parametrize(("asked", "rows"), [
    ({}, 40), ({"filters": [("day", "=", 15)]}, 20), ({"filters": [("ID", "=", "none")]}, 0),
    ({"as_of": "2025-02-01"}, 20),
])
def test_no_columns_are_as_many_rows_as_match(still: Nights, asked: dict[str, Any], rows: int) -> None:
    table = still.read(columns=[], arrow=True, **asked)
    assert table.num_rows == rows and table.column_names == []
    assert still.read(columns=[], **asked).shape == (rows, 0)


def test_feeds_that_are_unknown_archived_or_without_a_file(nights: Nights, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="sx: no feed of this name .* did you mean s"):
        nights.read("sx")
    with pytest.raises(LakeError, match="orders: no feed .*exported feeds: s, t"):
        nights.read("orders")
    with pytest.raises(LakeError, match="no such directory"):
        read("s", lake=tmp_path / "nowhere")
    assert manage_feeds.main(["archive", "s"]) == 0 and len(nights.read()) == 40
    assert manage_feeds.main(["remove", "s", "--yes"]) == 0 and not list((nights.lake / "feeds").rglob("s.json"))
    assert len(nights.read()) == 40
    shutil.copytree(nights.lake / "streams" / "s", nights.lake / "streams" / "t")
    with pytest.raises(LakeError, match="write streams/t or tables/t"):
        nights.read("t")
    assert len(nights.read("streams/t")) == 40 and len(nights.read("tables/t")) == 2
    (nights.lake / "streams" / "s" / "_metadata.json").write_text("{")
    with pytest.raises(StateError, match="--rebuild --feed s"):
        nights.read()


def test_a_file_that_the_metadata_do_not_own_is_not_read(nights: Nights) -> None:
    path = sorted((nights.lake / "streams" / "s").rglob("*.parquet"))[0]
    shutil.copy(path, path.with_name("data_20250115_half_0001.parquet"))
    path.with_name("torn.parquet").write_bytes(b"PAR1")
    assert nights.ids() == names(0, 40)


def test_the_default_lake_is_below_the_current_directory(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.lake.rename(nights.lake.with_name("data_lake"))
    monkeypatch.chdir(nights.lake.parent)
    monkeypatch.setenv("DATA_LAKE_SETTINGS", "")
    monkeypatch.delenv("DATA_LAKE_DIR")
    assert len(read("t")) == 2
    monkeypatch.chdir("/")
    monkeypatch.setenv("DATA_LAKE_DIR", str(nights.lake.with_name("data_lake")))
    assert len(read("t")) == 2, "as the scripts find it"
    monkeypatch.setenv("DATA_LAKE_DIR", "/nowhere")
    with pytest.raises(ConfigError, match="/nowhere: no such directory"):
        read("t")


def test_versions_of_a_table(nights: Nights) -> None:
    assert nights.read("t", arrow=True).sort_by("K").to_pylist() == [
        {"K": "a", "V": 1, "version": 2}, {"K": "b", "V": None, "version": 2}]
    frame = nights.read("t", version="v1")
    assert frame.to_dict("records") == [{"K": "a", "V": 1, "version": 1}]
    assert str(frame["version"].dtype) == "int32" and str(frame["V"].dtype) == "Int32"
    assert len(nights.read("t", version=1)) == len(nights.read("t", version="1")) == 1
    assert len(nights.read("t", filters=[("version", "=", "v2")])) == 2
    assert manage_feeds.main(["rollback", "t", "v1"]) == 0
    assert set(nights.read("t")["version"]) == {1}
    for wrong in ("v7", 0, "one", -1):
        with pytest.raises(LakeError, match=f"has no version {wrong}; its versions: v1, v2"):
            nights.read("t", version=wrong)


def test_a_table_as_it_was(nights: Nights) -> None:
    """An export, a rollback, another export: the state log has each with its own time."""
    nights.at("2025-02-03T12:00:00Z")
    assert manage_feeds.main(["rollback", "t", "v1"]) == 0
    nights.database.upsert("T", ["c", 3])
    nights.export("2025-02-05T02:00:00Z")
    asked = {
        "2025-02-01T02:00:00Z": 1, "2025-02-01": 1, dt.date(2025, 2, 2): 2, "2025-02-02T01:59:59": 1,
        "2025-02-03": 1, "2025-02-03T12:00": 1, "2025-02-03T12:59:59+01:00": 2, dt.datetime(2025, 2, 4): 1,
        "2025-02-05": 3, dt.datetime(2030, 1, 1, tzinfo=dt.UTC): 3, pd.Timestamp("2025-02-02T02:00:00"): 2,
    }
    for as_of, version in asked.items():
        assert set(nights.read("t", as_of=as_of)["version"]) == {version}, as_of
    with pytest.raises(ConfigError, match="had no data at 2025-01-31T23:59:59Z; its first export was at 2025-02-01T"):
        nights.read("t", as_of="2025-01-31")
    assert manage_feeds.main(["update", "t", "retention_versions=1"]) == 0
    assert manage_feeds.main(["retention", "t", "--allow", "amount", "--allow", "stale", "--allow", "clock"]) == 0
    with pytest.raises(LakeError, match="no version v2, which was current at 2025-02-02; its versions: v3"):
        nights.read("t", as_of="2025-02-02")


def test_a_stream_as_it_was(nights: Nights) -> None:
    """Rows exported by then, exact also after a run for one day, a recreated topic and a compaction."""
    nights.events(40, 60, "later")
    nights.export("2025-02-03T02:00:00Z", "--stream", "s", "--date", "2025-01-16")
    nights.events(60, 70, "later")
    nights.export("2025-02-04T02:00:00Z", "--stream", "s")
    nights.database.recreate("S")
    nights.events(100, 130, "recreated")
    nights.at("2025-02-05T02:00:00Z")
    assert export_to_data_lake.main(["--stream", "s", "--quiet"]) == 1  # the recreated topic is a finding
    wanted = {
        "2025-02-01": names(0, 20),
        "2025-02-02": names(0, 40),
        "2025-02-03": sorted(f"e{i}" for i in [*range(40), *range(41, 60, 2)]),
        "2025-02-04": names(0, 70),
        "2025-02-05": sorted(names(0, 70) + names(100, 130)),
    }
    for day, held in wanted.items():
        assert nights.ids(as_of=day) == held, day
    before = len(list((nights.lake / "streams" / "s").rglob("*.parquet")))
    nights.at("2025-02-06T12:00:00Z")
    assert manage_feeds.main(["compact"]) == 0
    assert len(list((nights.lake / "streams" / "s").rglob("*.parquet"))) < before
    for day, held in wanted.items():
        assert nights.ids(as_of=day) == held, f"{day}, compacted"
    assert nights.ids(as_of="2025-02-03", filters=[("day", "=", 16), ("NOTE", "=", "later")]) == sorted(
        f"e{i}" for i in range(41, 60, 2))
    assert "NOTE" in nights.read(as_of="2025-02-01").columns, "the schema is today's"
    assert manage_feeds.main(["erase", "--where", "id=e3", "--later", "keep"]) == 0
    assert nights.ids(as_of="2025-02-01") == sorted({*names(0, 20)} - {"e3"}), "erased is erased, of the past too"


def test_a_stream_as_it_was_in_tens_of_thousands_of_ranges(nights: Nights) -> None:
    """A run for one day, of a stream whose rows are of two days in turn: every row is a range of its own."""
    nights.patch.setenv("IDLE_SECONDS", "3")
    nights.database.create_stream("W", "`N` INTEGER", 2)
    for i in range(24_000):
        for partition in range(2):
            nights.database.append("W", partition, JAN15 + i % 2 * DAY + i, [i])
    assert manage_feeds.main(["add", "--name", "w", "--type", "stream", "--source", "w"]) == 0
    nights.export("2025-02-03T02:00:00Z", "--stream", "w", "--date", "2025-01-16")
    nights.export("2025-02-04T02:00:00Z", "--stream", "w")
    log = nights.lake / ".state" / "w.jsonl"
    first, *later = log.read_text().splitlines()
    line = json.loads(first)
    for one in line["coverage"]["1"].values():  # as versions before this one wrote it
        assert one.pop("days") == {"2025-01-16": 23_999}
        one["beyond"] = [[n, n] for n in range(1, 24_000, 2)]
    log.write_text("".join(f"{text}\n" for text in (json.dumps(line), *later)))
    assert sum(len(one["beyond"]) for one in line["coverage"]["1"].values()) == 24_000
    held = nights.read("w", as_of="2025-02-03", columns=["N"], arrow=True)
    assert held.column_names == ["N"] and sorted(held["N"].to_pylist()) == sorted([*range(1, 24_000, 2)] * 2)
    assert len(nights.read("w", as_of="2025-02-03", filters=[("N", "<", 100), ("ROWPARTITION", "=", 1)])) == 50
    assert len(nights.read("w", as_of="2025-02-04")) == 48_000


def test_rows_that_were_set_aside_then(nights: Nights) -> None:
    """Coverage has them from the start, the lake from their import on; also after a compaction and an erasure."""
    nights.database.create_stream("Q", "`ID` STRING, `N` INTEGER", 1)
    assert manage_feeds.main(["add", "--name", "q", "--type", "stream", "--source", "q"]) == 0
    path = nights.lake / "feeds" / "active" / "q.json"
    check = {"check": "range", "column": "N", "min": 0, "level": "quarantine"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "checks": [check]}))
    for night, values in ((3, (1, -2, 3)), (4, (4, 5, -6))):
        for number in values:
            nights.database.append("Q", 0, JAN15 + abs(number), [f"q{abs(number)}", number])
        nights.at(f"2025-02-0{night}T02:00:00Z")
        assert export_to_data_lake.main(["--stream", "q", "--quiet"]) == 1
    nights.at("2025-02-05T12:00:00Z")
    assert manage_feeds.main(["quarantine", "q", "--import", "--force"]) == 0
    wanted = {
        "2025-02-03": ["q1", "q3"], "2025-02-04": ["q1", "q3", "q4", "q5"],
        "2025-02-05T11:59:59": ["q1", "q3", "q4", "q5"], "2025-02-05": ["q1", "q2", "q3", "q4", "q5", "q6"],
    }
    nights.database.append("Q", 0, JAN15 + 7, ["q7", 7])
    nights.export("2025-02-06T02:00:00Z", "--stream", "q")

    def look() -> dict[str, list[str]]:
        return {as_of: sorted(nights.read("q", columns=["ID"], as_of=as_of)["ID"]) for as_of in wanted}

    assert look() == wanted
    nights.at("2025-02-08T12:00:00Z")
    assert manage_feeds.main(["compact", "q"]) == 0
    assert len(list((nights.lake / "streams" / "q").rglob("*.parquet"))) == 1 + 2, "exported; imported"
    assert look() == wanted
    assert manage_feeds.main(["erase", "--where", "id=q5", "--later", "drop"]) == 0
    assert look() == {as_of: [one for one in held if one != "q5"] for as_of, held in wanted.items()}


def test_a_state_log_that_does_not_reach_back(nights: Nights) -> None:
    log = nights.lake / ".state" / "s.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text('{"torn\n' + lines[-1])
    assert nights.ids(as_of="2025-02-02") == names(0, 40)
    with pytest.raises(StateError, match="begins at 2025-02-02T02:00:00Z; what s held at 2025-02-01T23:59:59Z"):
        nights.ids(as_of="2025-02-01")
    log.unlink()
    assert nights.ids(as_of="2025-02-03") == names(0, 40), "the metadata themselves know this"
    with pytest.raises(StateError, match="s.jsonl: missing or empty"):
        nights.ids(as_of="2025-02-01")


def test_a_feed_without_a_row(nights: Nights) -> None:
    nights.database.create_stream("E", "`ID` STRING", 1)
    assert manage_feeds.main(["add", "--name", "e", "--type", "stream", "--source", "e"]) == 0
    nights.export("2025-02-03T02:00:00Z", "--stream", "e")
    frame = nights.read("e", filters=[("day", "=", 1)])
    assert len(frame) == 0 and {"ROWTIME", "year", "month", "day"} <= set(frame.columns)


def test_reads_during_compactions_and_exports_are_never_wrong(nights: Nights) -> None:
    """Every read holds each row up to some export, once; those beyond it, not at all."""
    wrong: list[Any] = []
    reads, done = 0, threading.Event()
    sizes = {40 + 8 * night for night in range(6)}

    def look() -> None:
        nonlocal reads
        while not done.is_set():
            try:
                found = nights.ids()
            except Exception as error:
                wrong.append(error)  # else it would end this thread, and nothing more
                return
            reads += 1
            if len(found) not in sizes or found != names(0, len(found)):
                wrong.append(found)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for night in range(1, 6):
            nights.events(40 + 8 * (night - 1), 40 + 8 * night, "x")
            nights.export(f"2025-02-0{2 + night}T02:00:00Z", "--stream", "s")
            assert manage_feeds.main(["compact"]) == 0
    finally:
        done.set()
        reader.join()
    assert wrong == [] and reads > 20
    assert nights.ids() == names(0, 80)


def test_a_change_between_the_metadata_and_the_files(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very moment: metadata are read, then a compaction swaps every file, then the files are opened."""
    load, loads = metadata.load, []

    def and_then_compact(dataset: metadata.Dataset) -> FeedState | None:
        state = load(dataset)
        loads.append(state)
        if len(loads) == 1:
            monkeypatch.setattr(metadata, "load", load)
            assert manage_feeds.main(["compact"]) == 0
            monkeypatch.setattr(metadata, "load", and_then_compact)
        return state

    monkeypatch.setattr(metadata, "load", and_then_compact)
    assert nights.ids() == names(0, 40)
    assert len(loads) == 2 and list(loads[0].files) != list(loads[1].files)


def test_a_file_that_stays_away_is_told(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ksql_lake.query.reader.PAUSES", (0.01, 0.01))
    sorted((nights.lake / "streams" / "s").rglob("*.parquet"))[0].unlink()
    with pytest.raises(StateError, match="a file that the metadata list is gone .*--verify --feed s"):
        nights.read()


def test_state_of_the_past_needs_no_file_list(nights: Nights) -> None:
    """The log has no files: what as_of finds is filtered by coverage, from the files of today."""
    line = json.loads((nights.lake / ".state" / "s.jsonl").read_text().splitlines()[0])
    assert "files" not in line and line["coverage"]["1"]["0"]["upto"] == 9
    assert len(nights.read(as_of="2025-02-01", columns=["ROWOFFSET"], filters=[("ROWPARTITION", "=", 0)])) == 10


def test_own_columns_with_the_name_of_another_kinds_partition_key(nights: Nights) -> None:
    """A table is not cut by day, nor a stream by version: there such names are the source's own."""
    nights.database.create_table("Y", "`K` STRING KEY, `year` INTEGER, `day` DOUBLE, `ROWOFFSET` BIGINT")
    nights.database.create_stream("V", "`version` STRING", 1)
    nights.database.upsert("Y", ["a", None, 1.5, None])
    nights.database.upsert("Y", ["b", 2024, None, 7])
    for text in ("v1", "v2", None):
        nights.database.append("V", 0, JAN15, [text])
    for name, kind in (("y", "table"), ("v", "stream")):
        assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
    nights.export("2025-02-03T02:00:00Z")
    frame = nights.read("y").set_index("K").sort_index()
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "year": "Int32", "day": "float64", "ROWOFFSET": "Int64", "version": "int32"}
    assert frame["year"].tolist() == [pd.NA, 2024] and frame["day"]["a"] == 1.5
    assert frame["ROWOFFSET"].tolist() == [pd.NA, 7]
    assert nights.read("y", filters=[("day", "=", 1.5), ("version", "=", "v1")])["K"].tolist() == ["a"]
    assert nights.read("v", filters=[("version", "=", "v2")])["version"].tolist() == ["v2"]
    assert nights.read("v", filters=[("version", "in", ["v1", "2"])])["version"].tolist() == ["v1"]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    """Rows 0 to 4 of a value each, on either side of what filters name; row 5 is all null."""
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        made = Nights(database, tmp_path_factory.mktemp("numbered") / "lake", patch)
        for name, value in (("KSQLDB_URL", database.url), ("IDLE_SECONDS", "0.1"), ("DATA_LAKE_DIR", str(made.lake))):
            patch.setenv(name, value)
        database.create_stream("F", "`I` INTEGER, `L` BIGINT, `W` DECIMAL(38, 2), `A` DECIMAL(4, 2), `X` DOUBLE, "
                                    "`DT` DATE, `TM` TIME, `TS` TIMESTAMP", 1)
        for i in range(-2, 3):
            moment = dt.datetime(2025, 1, 15) + dt.timedelta(milliseconds=i)
            database.append("F", 0, JAN15 + i, [
                i, BIG + i, Decimal(i) / 100, Decimal(i), i / 2, dt.date(2025, 1, 15) + dt.timedelta(days=i),
                dt.time(12, 0, i + 2), moment])
        database.append("F", 0, JAN15 + 3, [None] * 8)
        assert manage_feeds.main(["add", "--name", "f", "--type", "stream", "--source", "f"]) == 0
        made.export("2025-02-01T02:00:00Z")
        patch.undo()
        yield made


HALF = dt.datetime(2025, 1, 15, 0, 0, 0, 500)  # half a millisecond after row 2
NOON = dt.datetime(2025, 1, 15, 12)


@pytest.mark.parametrize(("column", "value", "below", "equal"), [
    ("TS", HALF, [0, 1, 2], []),
    ("TS", "2025-01-15T00:00:00.0005", [0, 1, 2], []),
    ("TS", HALF.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))) + dt.timedelta(hours=1), [0, 1, 2], []),
    ("TS", pd.Timestamp("2025-01-15T00:00:00.000000001"), [0, 1, 2], []),
    ("TS", np.datetime64("2025-01-14T23:59:59.999999999"), [0, 1], []),
    ("TS", np.datetime64("2025-01-15"), [0, 1], [2]),
    ("TS", JAN15, [0, 1], [2]),
    ("TS", "2025-01-15T00:00:00.000000000Z", [0, 1], [2]),
    ("DT", NOON, [0, 1, 2], []),
    ("DT", "2025-01-15T12:00", [0, 1, 2], []),
    ("DT", dt.datetime(2025, 1, 15), [0, 1], [2]),
    ("DT", dt.date(2025, 1, 15), [0, 1], [2]),
    ("DT", "2025-01-15", [0, 1], [2]),
    ("TM", dt.time(12, 0, 2, 500), [0, 1, 2], []),
    ("TM", "12:00:02.0005", [0, 1, 2], []),
    ("TM", "12:00:02", [0, 1], [2]),
    ("I", 0.5, [0, 1, 2], []),
    ("I", -0.5, [0, 1], []),
    ("I", 0.0, [0, 1], [2]),
    ("I", Decimal("1.5"), [0, 1, 2, 3], []),
    ("I", 2**40, [0, 1, 2, 3, 4], []),
    ("I", -(2**70), [], []),
    ("I", float("inf"), [0, 1, 2, 3, 4], []),
    ("L", float(2**53), [0], [1]),
    ("L", np.int64(BIG), [0, 1], [2]),
    ("L", np.float32(0.5), [], []),
    ("L", Decimal(BIG) + Decimal("0.1"), [0, 1, 2], []),
    ("W", "0.005", [0, 1, 2], []),
    ("W", -0.005, [0, 1], []),
    ("W", Decimal("0.01"), [0, 1, 2], [3]),
    ("W", "1e40", [0, 1, 2, 3, 4], []),
    ("A", "99.995", [0, 1, 2, 3, 4], []),
    ("A", -100, [], []),
    ("X", 0.25, [0, 1, 2], []),
    ("X", 1, [0, 1, 2, 3], [4]),
    ("year", 2**40, [0, 1, 2, 3, 4, 5], []),
    ("year", 2025, [], [0, 1, 2, 3, 4, 5]),
])
def test_values_between_those_that_a_column_can_hold(
    numbered: Nights, column: str, value: Any, below: list[int], equal: list[int]
) -> None:
    """Compared as they are: nothing is cut off; a null is on neither side."""
    every = range(6) if column == "year" else range(5)
    above = [i for i in every if i not in (*below, *equal)]
    wanted = {
        "<": below, "<=": below + equal, "=": equal, "==": equal, "in": equal, "!=": sorted(below + above),
        "not in": sorted(below + above), ">=": equal + above, ">": above,
    }
    found = {}
    for how in wanted:
        asked = [(column, how, [value] if "in" in how else value)]
        found[how] = numbered.read("f", filters=asked, arrow=True)["ROWOFFSET"].to_pylist()
    assert found == wanted


@pytest.mark.parametrize(("column", "value", "words"), [
    ("TS", "2025-01-15T00:00:00.0000001", "finer than a microsecond"),
    ("TS", pd.NaT, "does not fit TS"),
    ("TS", np.datetime64("NaT"), "does not fit TS"),
    ("TS", 1.5, "does not fit TS"),
    ("DT", dt.time(12), "does not fit DT"),
    ("TM", NOON, "does not fit TM"),
    ("TM", dt.time(12, tzinfo=dt.UTC), "does not fit TM"),
    ("I", "5", "does not fit I"),
    ("I", float("nan"), "does not fit I"),
    ("W", "much", "does not fit W"),
    ("W", float("nan"), "does not fit W"),
    ("X", BIG, "does not fit X"),
    ("X", Decimal("0.1"), "does not fit X"),
])
def test_values_that_do_not_compare(numbered: Nights, column: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        numbered.read("f", filters=[(column, "<", value)])
    assert words in str(refused.value) and f"{column} <" in str(refused.value) and "\n" not in str(refused.value)


def test_every_type_in_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested integers beside a null stay integers as well; times, dates and bytes are Python's own."""
    with EmbeddedKsqlDB() as database:
        typed_lake.build(tmp_path / "lake", database, monkeypatch)
    frame = read("all_types", lake=tmp_path / "lake").set_index("ID").sort_index()
    row = frame.loc["e0"]
    plain = ["B", "I", "L", "D", "DEC", "BYT", "DT", "TM", "DAY_"]
    values = dict(zip(["ID", "B", "I", "L", "D", "DEC", "BYT", "DT", "TM", "TS", "A", "M", "S", "DAY_"],
                      typed_lake.VALUES, strict=True))
    assert [row[name] for name in plain] == [values[name] for name in plain]
    assert row["TS"] == pd.Timestamp(values["TS"], tz="UTC")
    assert list(row["A"]) == [typed_lake.BIG, None] and dict(row["M"]) == {"k": 1, "n": None}
    assert row["S"]["X"] == 2**53 - 1 and list(row["S"]["N"]["IN"]) == ["a", None]
    assert frame.loc["e1"].drop(["ROWTIME", "ROWPARTITION", "ROWOFFSET", "year", "month", "day"]).isna().all()
    assert frame["LATE"].tolist() == [pd.NA, pd.NA, 7, 7] and str(frame["LATE"].dtype) == "Int32"
