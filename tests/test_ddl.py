"""The lake in other systems' SQL: run in DuckDB, compared with golden files where no engine is at hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake import read
from ksql_lake.base.errors import SchemaError
from ksql_lake.catalogs.ddl import script
from ksql_lake.catalogs.hive import hive_type
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model.types import parse_type
from tests.conftest import ROOT
from tests.states import made_state
from tests.test_types_property import plain
from tests.typed_lake import BIG, VALUES, build

HIVE = {
    "BOOLEAN": "boolean",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "DOUBLE": "double",
    "DECIMAL(12, 2)": "decimal(12,2)",
    "STRING": "string",
    "BYTES": "binary",
    "DATE": "date",
    "TIME": "int",
    "TIMESTAMP": "timestamp",
    "ARRAY<DECIMAL(4, 4)>": "array<decimal(4,4)>",
    "MAP<STRING, ARRAY<BIGINT>>": "map<string,array<bigint>>",
    "STRUCT<`CITY` STRING, `date` DATE, `b c` STRUCT<`x,y` INTEGER>>":
        "struct<CITY:string,`date`:date,`b c`:struct<`x,y`:int>>",
    "STRUCT<`A` INTEGER, `a` BIGINT>": "struct<A:int,a_:bigint>",
    "STRUCT<`_x` INTEGER, `1` BIGINT>": "struct<`_x`:int,`1`:bigint>",
}


@pytest.mark.parametrize("text", HIVE)
def test_types_in_the_words_of_hive(text: str) -> None:
    assert hive_type(parse_type(text)) == HIVE[text]
    assert hive_type(parse_type(text), quoted=False) == HIVE[text].replace("`", "")


def test_what_no_file_can_hold_has_no_type() -> None:
    with pytest.raises(SchemaError, match="cannot be stored"):
        hive_type(parse_type("ARRAY<STRUCT< >>"))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In a directory whose name holds what globs and quotes trip over."""
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        made = tmp_path_factory.mktemp("ddl") / "the [lake]'s * home"
        build(made, database, patch)
        patch.undo()
        yield made


def sql(capsys: Any, lake: Path, *argv: str) -> str:
    capsys.readouterr()
    assert metadata_utils.main(["--lake", str(lake), "--sql", *argv]) == 0
    return str(capsys.readouterr().out)


def test_duckdb_views_of_every_type(lake: Path, tmp_path: Path, capsys: Any) -> None:
    """Each value, at any depth, as the reader returns it; a column that came later; keys as integers."""
    database = duckdb.connect(str(tmp_path / "lake.db"))
    database.execute(sql(capsys, lake, "duckdb"))
    found = database.sql("from all_types order by ROWOFFSET").to_arrow_table()
    expected = read("all_types", lake=lake, arrow=True).sort_by("ROWOFFSET")
    assert found.schema.names == expected.schema.names
    assert [plain(row) for row in found.to_pylist()] == [plain(row) for row in expected.to_pylist()]
    row = found.to_pylist()[2]
    assert (row["L"], row["DEC"], row["A"], row["LATE"], row["DAY_"]) == (BIG, VALUES[5], [BIG, None], 7, "Monday")
    assert row["S"]["N"]["IN"] == ["a", None] and row["TM"] == VALUES[8]
    kinds = {name: kind for name, kind, *_ in database.sql("describe all_types").fetchall()}
    assert {kinds[key] for key in ("year", "month", "day")} == {"INTEGER"}
    assert database.sql("select count(*), sum(AMOUNT) from events where day = 16").fetchall() == [(7, Decimal("17.50"))]
    views = [name for (name,) in database.sql("select view_name from duckdb_views() where not internal").fetchall()]
    assert sorted(views) == ["all_types", "events", "t.totals"], "empty has no file yet"


def test_duckdb_views_follow_the_lake(lake: Path, tmp_path: Path, capsys: Any) -> None:
    """A view made before sees a rollback, and opens the files of one version only."""
    copy = shutil.copytree(lake, tmp_path / "copy")
    database = duckdb.connect()
    database.execute(sql(capsys, copy, "duckdb", "--feed", "t.totals"))
    view = 'select K, TOTAL, version from "t.totals" order by K'
    assert database.sql(view).fetchall() == [("a", Decimal("1.50"), 2), ("b", Decimal("2.25"), 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_LAKE_DIR", str(copy))
        assert manage_feeds.main(["rollback", "t.totals", "v1"]) == 0
    assert database.sql(view).fetchall() == [("a", Decimal("1.50"), 1)]
    assert "Total Files Read: 1" in database.sql(f"explain analyze {view}").fetchall()[0][1]


@pytest.mark.parametrize(("dialect", "location"), [
    ("duckdb", "s3://bucket/lake"), ("hive", "hdfs://nn/lake's"), ("athena", "s3://bucket/lake/"),
    ("spark", "s3a://bucket/lake"), ("bigquery", "gs://bucket/lake"),
])
def test_text_of_each_dialect(dialect: str, location: str, lake: Path, capsys: Any) -> None:
    """DuckDB's and Spark's text is run (here and in test_spark.py); Athena's and BigQuery's can only be compared."""
    text = sql(capsys, lake, dialect, "--location", location)
    golden = ROOT / "tests" / "golden" / f"lake_{dialect}.sql"
    assert text == golden.read_text(encoding="utf-8")


def test_locations_that_cannot_be_read_and_names_that_clash(lake: Path, tmp_path: Path, capsys: Any) -> None:
    assert "LOCATION 'file:///" in sql(capsys, lake, "hive") and "LOCATION 'file:///" in sql(capsys, lake, "spark")
    for dialect, scheme in (("athena", "s3://"), ("bigquery", "gs://")):
        assert metadata_utils.main(["--lake", str(lake), "--sql", dialect, "--location", "/mnt/lake"]) == 2
        assert f"say where the lake is: --location {scheme}bucket/lake" in capsys.readouterr().err
    copy = shutil.copytree(lake, tmp_path / "copy")
    (copy / "tables" / "t.totals").rename(copy / "tables" / "ALL-TYPES")
    assert metadata_utils.main(["--lake", str(copy), "--sql", "spark"]) == 2
    assert "would both be ALL_TYPES; take one at a time with --feed" in capsys.readouterr().err
    assert 'VIEW "ALL-TYPES"' in sql(capsys, copy, "duckdb")


def test_many_partitions_are_added_a_hundred_at_a_time() -> None:
    paths = [f"year=2024/month={m:02}/day={d:02}" for m in range(1, 11) for d in range(1, 25)]
    state = made_state("stream", paths=paths)
    text = script("athena", {"s": state}, Path("/lake"), "s3://b/l")
    assert text.count("ALTER TABLE `s` ADD IF NOT EXISTS\n") == 3 and text.count("  PARTITION (year = '2024'") == 240


def test_a_file_of_sql_follows_the_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """REGISTER=sql:... writes it again after exports and other changes; DuckDB runs it as it stands."""
    lake, file = tmp_path / "lake", tmp_path / "lake.sql"
    monkeypatch.setenv("REGISTER", f"sql:duckdb:{file}")
    monkeypatch.setenv("RETENTION", "off")

    def counts() -> dict[str, int]:
        connection = duckdb.connect()
        connection.execute(file.read_text())
        return {name: int(connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]) for name in ("s", "t")}

    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        database.stream("S", "`A` STRING", 1, [(0, 1_736_899_200_000, ["x"])])
        database.create_table("T", "`K` INTEGER PRIMARY KEY, `V` STRING")
        database.upsert("T", [1, "one"])
        for name, kind in (("s", "stream"), ("t", "table")):
            manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name.upper(), "--lake", str(lake)])
        export = ["--all", "--quiet", "--lake", str(lake)]
        assert export_to_data_lake.main(export) == 0 and counts() == {"s": 1, "t": 1}
        database.append("S", 0, 1_736_899_200_000, ["y"])
        database.upsert("T", [2, "two"])
        assert export_to_data_lake.main(export) == 0 and counts() == {"s": 2, "t": 2}
        assert manage_feeds.main(["rollback", "t", "1", "--lake", str(lake)]) == 0 and counts() == {"s": 2, "t": 1}
        assert file.read_text() == sql(capsys, lake, "duckdb")
        monkeypatch.setenv("REGISTER", f"sql:mysql:{file}")
        assert export_to_data_lake.main(export) == 2 and "expected duckdb, hive" in capsys.readouterr().err
        monkeypatch.setenv("REGISTER", f"sql:athena:{file}")
        assert export_to_data_lake.main(export) == 1 and "reads only from s3://" in capsys.readouterr().err
