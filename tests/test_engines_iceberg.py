"""Spark, Trino and DuckDB on Iceberg tables that REGISTER keeps in a REST catalog: each value as `read` has it.

What they need is in tests/engines.py. pyiceberg and Polars with an SQL catalog: tests/test_iceberg.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
import metadata_utils
from ksql_lake import read
from ksql_lake.embedded import EmbeddedKsqlDB
from tests import engines, typed_lake
from tests.test_engines_delta import ordered, run
from tests.typed_lake import DAY, JAN15

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
pytest.importorskip("pyiceberg", reason="pip install -r requirements-iceberg.txt")
FEEDS = {"all_types": "all_types", "events": "events", "history": "history", "t_totals": "t.totals"}
LATER = "TIMESTAMP '2025-01-16 00:00:00{zone}'"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engines.iceberg_rest(tmp_path_factory.mktemp("rest") / "rest") as there:
        yield there


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, uri: str) -> Path:
    """The typed lake in microseconds and without TIME; `history` was compacted and had a person erased after it was
    registered; `t.totals` was rolled back and forth."""
    made = tmp_path_factory.mktemp("iceberg") / "lake"
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        values = list(typed_lake.VALUES)
        values[8] = values[9]
        patch.setattr(typed_lake, "COLUMNS", typed_lake.COLUMNS.replace("`TM` TIME,", "`TM` TIMESTAMP,"))
        patch.setattr(typed_lake, "VALUES", values)
        patch.setenv("REGISTER", f"iceberg:{uri}/lake")
        patch.setenv("DATA_LAKE_DIR", str(made))
        database.create_stream("HISTORY", "`ID` STRING, `V` DECIMAL(12, 2)", 1)
        given = ["add", "--name", "history", "--type", "stream", "--source", "history", "timestamps=us"]
        assert manage_feeds.main(given) == 0
        typed_lake.build(made, database, patch, "timestamps=us")
        for night in range(3):
            for i in range(4):
                database.append("HISTORY", 0, JAN15 + i % 2 * DAY, [f"h{night}{i}", Decimal(i)])
            assert export_to_data_lake.main(["--stream", "history", "--quiet"]) == 0
        assert manage_feeds.main(["compact", "history"]) == 0
        assert manage_feeds.main(["erase", "--where", "ID=h11", "--later", "keep"]) == 0
        assert manage_feeds.main(["rollback", "t.totals", "v1"]) == 0
        assert manage_feeds.main(["rollback", "t.totals", "v2"]) == 0
        argv = ["--register", "iceberg", "--uri", uri, "--database", "lake"]
        assert metadata_utils.main(argv) == 0
    return made


def expected(lake: Path, name: str) -> list[Any]:
    """What `read` says, but for the partition keys, which no Iceberg table has."""
    rows = read(name, lake=lake, arrow=True).to_pylist()
    keys = ("year", "month", "day", "version")
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


def loaded(uri: str, name: str) -> Any:
    from pyiceberg.catalog import load_catalog

    return load_catalog("ksql_lake", type="rest", uri=uri).load_table(("lake", name))


def test_a_rest_catalog_is_sent_only_what_changed(lake: Path, uri: str, capsys: Any) -> None:
    for forgotten in (False, True):
        if forgotten:
            (lake / ".state" / "iceberg.json").unlink()
        capsys.readouterr()
        argv = ["--register", "iceberg", "--uri", uri, "--database", "lake", "--lake", str(lake)]
        assert metadata_utils.main(argv) == 0
        assert capsys.readouterr().out == "5 tables, 0 changed, 0 failed\n"
    history = loaded(uri, "history")
    operations = [one.summary["operation"].value for one in history.snapshots()]
    assert operations[-3:] == ["overwrite"] * 3, "two days compacted, an erasure"
    assert len(operations) >= 6 and set(operations[:-3]) == {"append"}
    sequences = [int(one.summary["ksql_lake.sequence"]) for one in history.snapshots()]
    assert sequences == sorted(set(sequences))
    state = json.loads((lake / "streams" / "history" / "_metadata.json").read_text())
    assert sequences[-1] == state["sequence"]


def test_pyiceberg(lake: Path, uri: str) -> None:
    for table, name in FEEDS.items():
        found = loaded(uri, table).scan().to_arrow().to_pylist()
        assert ordered(found) == ordered(expected(lake, name)), name


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory, uri: str) -> Iterator[Any]:
    jar = engines.artifact("org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.10.1")
    session = engines.spark(
        tmp_path_factory.mktemp("spark"), [jar],
        spark__sql__extensions="org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        spark__sql__catalog__ice="org.apache.iceberg.spark.SparkCatalog", spark__sql__catalog__ice__type="rest",
        spark__sql__catalog__ice__uri=uri, **{"spark__sql__catalog__ice__cache-enabled": "false"},
    )
    yield session
    session.stop()


def test_spark(lake: Path, uri: str, spark: Any) -> None:
    for table, name in FEEDS.items():
        rows = [row.asDict(True) for row in spark.table(f"ice.lake.{table}").collect()]
        assert ordered(rows) == ordered(expected(lake, name)), name
    count = "select count(*) from ice.lake.{} where {}"
    for table, condition, rows in (
        ("events", "ROWTIME >= " + LATER.format(zone=""), 13), ("events", "ROWTIME < " + LATER.format(zone=""), 7),
        ("all_types", "TS = TIMESTAMP '2023-11-14 22:13:20.123'", 3), ("all_types", "S.`b c` = 1.25", 3),
        ("all_types", "ROWTIME = " + LATER.format(zone=""), 2),
    ):
        assert spark.sql(count.format(table, condition)).collect()[0][0] == rows, condition
    snapshots = loaded(uri, "t_totals").snapshots()
    (then,) = spark.sql(f"select count(*) from ice.lake.t_totals version as of {snapshots[0].snapshot_id}").collect()
    assert then[0] == 1, "the first version"


@pytest.fixture(scope="module")
def trino(tmp_path_factory: pytest.TempPathFactory, uri: str) -> Iterator[Any]:
    properties = f"connector.name=iceberg\niceberg.catalog.type=rest\niceberg.rest-catalog.uri={uri}\n"
    with engines.trino(tmp_path_factory.mktemp("trino") / "trino", "trino483",
                       hive=properties + "fs.hadoop.enabled=true\n") as cursor:
        yield cursor


def test_trino(lake: Path, uri: str, trino: Any) -> None:
    for table, name in FEEDS.items():
        wanted = expected(lake, name)
        found = run(trino, f"select * from hive.lake.{table}")
        columns = [column[0] for column in trino.description]
        exact = {column.lower(): column for column in (wanted[0] if wanted else {})}
        rows = [{exact[column]: value for column, value in zip(columns, row, strict=True)} for row in found]
        assert ordered(rows) == ordered(wanted), name
    count = "select count(*) from hive.lake.{} where {}"
    for table, condition, rows in (
        ("events", "ROWTIME >= " + LATER.format(zone=" UTC"), 13),
        ("events", "ROWTIME < " + LATER.format(zone=" UTC"), 7),
        ("all_types", "TS = TIMESTAMP '2023-11-14 22:13:20.123 UTC'", 3), ("all_types", 'S."b c" = 1.25', 3),
    ):
        assert run(trino, count.format(table, condition)) == [[rows]], condition


def test_duckdb(lake: Path, uri: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    reader = duckdb.connect(config={"allow_unsigned_extensions": True})
    for name in ("avro", "iceberg"):
        package = pytest.importorskip(f"duckdb_extension_{name}", reason="pip install -r requirements-engines.txt")
        (extension,) = Path(str(package.__file__)).parent.rglob("*.duckdb_extension")
        reader.execute(f"LOAD '{extension}'")
    reader.execute("set timezone = 'UTC'")
    for table, name in FEEDS.items():
        source = f"iceberg_scan('{loaded(uri, table).metadata_location}')"
        found = reader.sql(f"from {source}")
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
        assert ordered(rows) == ordered(expected(lake, name)), name
    source = f"iceberg_scan('{loaded(uri, 'events').metadata_location}')"
    later = LATER.format(zone="").replace("TIMESTAMP", "TIMESTAMPTZ")
    assert reader.sql(f"select count(*) from {source} where ROWTIME >= {later}").fetchall() == [(13,)]


def test_nobody_deletes_the_lakes_files(lake: Path, uri: str, spark: Any, trino: Any) -> None:
    """`gc.enabled` is false: neither a purge, an expiry nor a drop takes a file; foreign writes are noticed."""
    before = sorted(str(path) for path in lake.rglob("*.parquet"))
    expire = "call ice.system.expire_snapshots(table => 'lake.history', older_than => TIMESTAMP '2099-01-01 00:00:00')"
    for statement in (expire, "drop table ice.lake.events purge"):
        with pytest.raises(Exception, match="GC is disabled"):
            spark.sql(statement).collect()
    spark.sql("delete from ice.lake.events where ID = 'e1'")
    argv = ["--register", "iceberg", "--uri", uri, "--database", "lake", "--lake", str(lake)]
    assert metadata_utils.main([*argv, "--feed", "events"]) == 1
    spark.sql("drop table ice.lake.events")
    run(trino, "drop table hive.lake.history")
    assert sorted(str(path) for path in lake.rglob("*.parquet")) == before
    assert metadata_utils.main(argv) == 0
    for name in ("events", "history"):
        rows = [row.asDict(True) for row in spark.table(f"ice.lake.{name}").collect()]
        assert ordered(rows) == ordered(expected(lake, name))
