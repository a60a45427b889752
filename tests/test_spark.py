"""Spark on a lake: the directory as it is, and the tables that `metadata_utils.py --sql` makes.

Needs `pip install -r requirements-spark.txt` and Java 17.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import metadata_utils
from ksql_lake import read
from ksql_lake.embedded import EmbeddedKsqlDB
from tests import engines
from tests.conftest import ROOT
from tests.typed_lake import VALUES, build

pyspark = pytest.importorskip("pyspark", reason="pip install -r requirements-spark.txt")
from pyspark.errors import AnalysisException  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

MIDDAY = (12 * 3600 + 34 * 60 + 56) * 1000  # what an INT of a TIME column holds
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        made = tmp_path_factory.mktemp("spark") / "a lake"
        build(made, database, patch)
        patch.undo()
        yield made


@pytest.fixture(scope="module", params=["in-memory", "hive"])
def spark(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session with Spark's own catalog, and one with a Hive metastore (Derby)."""
    home = tmp_path_factory.mktemp("warehouse")
    engines.new_jvm()
    builder = (
        SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC").config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.warehouse.dir", str(home / "warehouse"))
        .config("spark.sql.catalogImplementation", request.param)
        .config("spark.driver.extraJavaOptions", f"-Dderby.system.home={home} -Duser.timezone=UTC")
        .config("spark.hadoop.javax.jdo.option.ConnectionURL", f"jdbc:derby:;databaseName={home}/db;create=true")
    )
    session = builder.getOrCreate()
    assert session.conf.get("spark.sql.catalogImplementation") == request.param
    yield session
    session.stop()


def tables(session: SparkSession, lake: Path, dialect: str, capsys: Any) -> None:
    """Run the script of a dialect twice, as after a second export, in a database of its own."""
    session.sql(f"CREATE DATABASE IF NOT EXISTS {dialect}_lake")
    session.sql(f"USE {dialect}_lake")
    for _ in range(2):
        capsys.readouterr()
        assert metadata_utils.main(["--sql", dialect, "--lake", str(lake)]) == 0
        for statement in capsys.readouterr().out.split(";\n"):
            if statement.strip():
                session.sql(statement)


def test_the_directory_as_it_is(spark: SparkSession, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of docs/reading.md, for a stream; count and sums as pandas has them."""
    (line,) = re.findall(r"\| Spark \| `(.*?)`", (ROOT / "docs" / "reading.md").read_text(encoding="utf-8"))
    directory = "file://" + str(lake / "streams" / "events")
    frame = eval(line.replace("data_lake/streams/transaction_stream", directory), {"spark": spark})
    found = frame.where("year = 2025 and month = 1").selectExpr("count(*)", "sum(AMOUNT)", "sum(day)").collect()[0]
    expected = read("events", lake=lake)
    assert tuple(found) == (20, sum(expected["AMOUNT"]), expected["day"].sum()) == (20, Decimal("47.50"), 319)


def test_a_time_of_day_needs_the_ddl(spark: SparkSession, lake: Path) -> None:
    """Spark has no type for TIME in milliseconds and refuses to guess the schema of such a directory."""
    reader = spark.read.option("pathGlobFilter", "*.parquet")
    with pytest.raises(AnalysisException, match="TIME"):
        reader.parquet("file://" + str(lake / "streams" / "all_types"))


@pytest.mark.parametrize("dialect", ["spark", "hive"])
def test_tables_of_every_type(dialect: str, spark: SparkSession, lake: Path, capsys: Any) -> None:
    if dialect == "hive" and spark.conf.get("spark.sql.catalogImplementation") != "hive":
        with pytest.raises(AnalysisException, match="(?i)hive"):
            tables(spark, lake, dialect, capsys)
        return
    tables(spark, lake, dialect, capsys)
    rows = {row["ID"]: row.asDict(recursive=True) for row in spark.sql("select * from all_types").collect()}
    expected = read("all_types", lake=lake, arrow=True).to_pylist()
    assert len(rows) == len(expected) == 4
    for wanted in expected:
        wanted["TM"] = MIDDAY if wanted["TM"] else None
        wanted["M"] = None if wanted["M"] is None else dict(wanted["M"])
        wanted |= {name: wanted[name] and wanted[name].replace(tzinfo=None) for name in ("ROWTIME", "TS")}
        wanted |= {name: f"{wanted[name]:02}" for name in ("year", "month", "day")}  # text, as in the paths
        assert rows[wanted["ID"]] == wanted
    assert rows["e0"]["DEC"] == VALUES[5] and rows["e0"]["A"] == VALUES[10] and rows["e0"]["LATE"] is None
    found = spark.sql("select count(*), sum(AMOUNT), min(N) from events where day = 16").collect()[0]
    frame = read("events", lake=lake, filters=[("day", "=", 16)])
    assert tuple(found) == (len(frame), sum(frame["AMOUNT"]), frame["N"].min()) and found[0] == 7
    totals = [tuple(row) for row in spark.sql("select K, TOTAL, version from t_totals order by K").collect()]
    assert totals == [("a", Decimal("1.50"), "v2"), ("b", Decimal("2.25"), "v2")]
    assert [tuple(r) for r in spark.sql("select K from t_totals_versions where version = 'v1'").collect()] == [("a",)]
    assert sorted(row.tableName for row in spark.sql("show tables").collect()) == [
        "all_types", "events", "t_totals", "t_totals_versions"]


def test_a_repair_changes_nothing(spark: SparkSession, lake: Path, capsys: Any) -> None:
    """MSCK reads partition values from the paths: those that it finds are those that are there."""
    tables(spark, lake, "spark", capsys)
    for table, rows in (("events", 20), ("all_types", 4), ("t_totals_versions", 3)):
        before = spark.sql(f"show partitions {table}").collect()
        spark.sql(f"msck repair table {table}")
        spark.sql(f"refresh table {table}")
        assert spark.sql(f"show partitions {table}").collect() == before
        assert spark.table(table).count() == rows
    assert spark.sql("select * from events where month = 1 and day in (15, 16)").count() == 14
