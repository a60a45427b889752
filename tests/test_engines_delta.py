"""Spark, DuckDB and Trino on the Delta logs of a lake with everything: each value as `read` has it.

What they need is in tests/engines.py.
"""

from __future__ import annotations

import datetime as dt
import shutil
import threading
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
from ksql_lake.model.recorded import UNITS
from tests import engines
from tests.test_types_property import plain
from tests.typed_lake import DAY, JAN15, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=UNITS)
def lake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In each unit: the typed lake; `history`, compacted and with a person erased; `t.totals`, rolled back."""
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        made = tmp_path_factory.mktemp("engines") / "lake"
        patch.setenv("DELTA", "on")
        database.create_stream("HISTORY", "`ID` STRING, `V` DECIMAL(12, 2)", 1)
        patch.setenv("DATA_LAKE_DIR", str(made))
        unit = f"timestamps={request.param}"
        assert manage_feeds.main(["add", "--name", "history", "--type", "stream", "--source", "history", unit]) == 0
        build(made, database, patch, unit)
        for night in range(3):
            for i in range(4):
                database.append("HISTORY", 0, JAN15 + i % 2 * DAY, [f"h{night}{i}", Decimal(i)])
            assert export_to_data_lake.main(["--stream", "history", "--quiet"]) == 0
        assert manage_feeds.main(["compact", "history"]) == 0
        assert manage_feeds.main(["erase", "--where", "ID=h11", "--later", "keep"]) == 0
        assert manage_feeds.main(["rollback", "t.totals", "v1"]) == 0
        assert manage_feeds.main(["rollback", "t.totals", "v2"]) == 0
        assert metadata_utils.main(["delta", "verify"]) == 0
        patch.undo()
        yield made


def expected(lake: Path, name: str) -> list[Any]:
    """What `read` says, but for columns of type TIME, times without their zone as Spark's Python has them."""
    rows = read(name, lake=lake, arrow=True).to_pylist()
    return [{key: value for key, value in row.items() if key not in ("TM", "version")} for row in rows]


def ordered(rows: Any) -> list[Any]:
    return sorted((plain(naive(row)) for row in rows), key=repr)


def naive(value: Any) -> Any:
    """One spelling of what engines return: UTC without a zone, a map by its keys, a row by its fields, bytes as bytes.

    Arrow has maps as lists of pairs; Trino has rows as tuples of a class of its own.
    """
    if isinstance(value, dt.datetime) and value.tzinfo:
        return value.astimezone(dt.UTC).replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: naive(item) for key, item in value.items() if key != "version"}
    if isinstance(value, list) and value and all(type(item) is tuple and len(item) == 2 for item in value):
        return naive(dict(value))
    if isinstance(value, tuple):
        return {place: naive(item) for place, item in enumerate(value)}
    if isinstance(value, list):
        return [naive(item) for item in value]
    return bytes(value) if isinstance(value, bytearray) else value


NAMES = {"all_types": "streams", "events": "streams", "history": "streams", "t.totals": "tables"}


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    jars = [engines.artifact(f"io.delta:{name}:4.0.1") for name in ("delta-spark_2.13", "delta-storage")]
    session = engines.spark(
        tmp_path_factory.mktemp("spark"), jars, spark__sql__extensions="io.delta.sql.DeltaSparkSessionExtension",
        spark__sql__catalog__spark_catalog="org.apache.spark.sql.delta.catalog.DeltaCatalog",
        spark__sql__catalogImplementation="in-memory",
    )
    yield session
    session.stop()


@pytest.mark.parametrize("name", NAMES)
def test_spark(name: str, lake: Path, spark: Any) -> None:
    found = spark.sql(f"select * from delta.`{lake}/{NAMES[name]}/{name}`").collect()
    rows = [row.asDict(recursive=True) for row in found]
    wanted = expected(lake, name)
    assert ordered(rows) == ordered(wanted)


def test_spark_filters_travels_and_follows(lake: Path, spark: Any, tmp_path: Path) -> None:
    events = f"delta.`{lake}/streams/events`"
    for where in ("ROWTIME >= '2025-01-16'", "day > 15", "month = 1 and day in (16, 17)"):
        assert spark.sql(f"select * from {events} where {where}").count() == 13, where
    totals = f"delta.`{lake}/tables/t.totals`"
    assert [spark.sql(f"select * from {totals} version as of {v}").count() for v in range(4)] == [1, 2, 1, 2]
    at = max(row.timestamp for row in spark.sql(f"describe history {totals}").collect() if row.version == 1)
    assert spark.sql(f"select * from {totals} timestamp as of '{at}'").count() == 2
    with pytest.raises(Exception, match="(?i)does not exist|not found|FAILED_READ_FILE"):
        spark.sql(f"select * from delta.`{lake}/streams/history` version as of 3").collect()
    stream = spark.readStream.format("delta").load(str(lake / "streams" / "events")).writeStream.format("memory")
    query = stream.queryName("followed").option("checkpointLocation", str(tmp_path)).trigger(availableNow=True).start()
    query.awaitTermination()
    assert spark.table("followed").count() == 20


@pytest.mark.parametrize("statement", [
    "optimize {}", "delete from {} where ID = 'e0'", "insert into {} select * from {}", "vacuum {} retain 0 hours",
])
def test_spark_may_not_write(statement: str, lake: Path, spark: Any, tmp_path: Path, capsys: Any) -> None:
    """Each is refused and the log is as it was. Spark writes its files before it asks: strays, which we then report."""
    copy = shutil.copytree(lake, tmp_path / "lake")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    table = f"delta.`{copy}/streams/all_types`"
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    with pytest.raises(Exception, match="DELTA_UNSUPPORTED_FEATURES_FOR_WRITE"):
        spark.sql(statement.format(table, table)).collect()
    assert all(path.read_bytes() == content for path, content in before.items())
    strays = set(copy.rglob("*.parquet")) - before.keys()
    assert spark.sql(f"select * from {table}").count() == 4
    capsys.readouterr()
    assert metadata_utils.main(["--verify", "--feed", "all_types", "--lake", str(copy)]) == bool(strays)
    assert all(path.name in capsys.readouterr().out for path in sorted(strays)[:1])


@pytest.fixture(scope="module")
def duck() -> Iterator[Any]:
    duckdb = pytest.importorskip("duckdb")
    extension = pytest.importorskip("duckdb_extension_delta", reason="pip install -r requirements-engines.txt")
    (path,) = Path(extension.__file__).parent.rglob("delta.duckdb_extension")
    database = duckdb.connect()
    database.execute(f"load '{path}'")
    database.execute("set timezone = 'UTC'")
    yield database
    database.close()


@pytest.mark.parametrize("name", NAMES)
def test_duckdb(name: str, lake: Path, duck: Any) -> None:
    found = duck.sql(f"from delta_scan('{lake}/{NAMES[name]}/{name}')").to_arrow_table().to_pylist()
    assert ordered(found) == ordered(expected(lake, name))


def test_duckdb_filters_and_travels(lake: Path, duck: Any) -> None:
    events, totals = f"delta_scan('{lake}/streams/events')", f"{lake}/tables/t.totals"
    for where in ("ROWTIME >= '2025-01-16'", "day > 15", "month = 1 and day in (16, 17)"):
        assert duck.sql(f"select count(*) from {events} where {where}").fetchall() == [(13,)], where
    counts = [duck.sql(f"from delta_scan('{totals}', version => {v})").to_arrow_table().num_rows for v in range(4)]
    assert counts == [1, 2, 1, 2]


@pytest.fixture(scope="module")
def trino(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Trino 449 over moto's S3, to which the lake is copied, the logs last."""
    engines.java25()
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    from werkzeug.serving import make_server

    app = server.DomainDispatcherApplication(server.create_backend_app)
    moto = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=moto.serve_forever, daemon=True)
    thread.start()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto.server_port}", region_name="us-east-1",
                          aws_access_key_id="x", aws_secret_access_key="x")
    bucket = f"delta-{lake.parent.name}"  # moto keeps what other modules of this process put there
    client.create_bucket(Bucket=bucket)
    for path in sorted((p for p in lake.rglob("*") if p.is_file()), key=lambda p: "_delta_log" in p.parts):
        client.upload_file(str(path), bucket, f"lake/{path.relative_to(lake).as_posix()}")
    text = (engines.SERVICES / "trino-delta.properties").read_text().replace("@PORT@", str(moto.server_port))
    text = text.replace("s3://bucket/", f"s3://{bucket}/")
    with engines.trino(tmp_path_factory.mktemp("trino") / "t", "trino449", delta=text) as cursor:
        run(cursor, f"create schema delta.lake with (location = 's3://{bucket}/schema')")
        for name, kind in NAMES.items():
            where = f"s3://{bucket}/lake/{kind}/{name}"
            run(cursor, f"call delta.system.register_table('lake', '{name.replace('.', '_')}', '{where}')")
        yield cursor
    moto.shutdown()


def run(cursor: Any, statement: str) -> list[Any]:
    cursor.execute(statement)
    return list(cursor.fetchall())


@pytest.mark.parametrize("name", ["events", "history", "t.totals", "all_types"])
def test_trino(name: str, trino: Any, lake: Path) -> None:
    """Names in lower case; every value, nested ones too."""
    table = f"delta.lake.{name.replace('.', '_')}"
    wanted = expected(lake, name)
    rows = run(trino, f"select * from {table}")
    names = [column[0] for column in trino.description]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    assert len(found) == len(wanted)
    lower = [{key.lower(): value for key, value in row.items()} for row in wanted]
    assert ordered(found) == ordered(lower)


def test_trino_filters(trino: Any) -> None:
    for where in ("rowtime >= timestamp '2025-01-16 00:00:00 UTC'", "day > 15", "month = 1 and day in (16, 17)"):
        assert run(trino, f"select count(*) from delta.lake.events where {where}") == [[13]], where
