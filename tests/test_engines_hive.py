"""A Hive metastore 4.0.1 that `--register hive` and REGISTER fill, read by Spark and Trino; Trino over Glue and S3.

What they need is in tests/engines.py.
"""

from __future__ import annotations

import datetime as dt
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
from tests import engines, typed_lake
from tests.test_engines_delta import ordered, run
from tests.typed_lake import BIG, DAY, JAN15

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MIDDAY = (12 * 3600 + 34 * 60 + 56) * 1000  # what an INT of a TIME column holds


@pytest.fixture(scope="module")
def database() -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as made:
        yield made


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, database: EmbeddedKsqlDB) -> Path:
    """The typed lake; a Hive catalog cannot say the STRUCT field with a blank, so it has another name here."""
    made = tmp_path_factory.mktemp("hive") / "lake"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typed_lake, "COLUMNS", typed_lake.COLUMNS.replace("`b c`", "`B_C`"))
        values = list(typed_lake.VALUES)
        values[12] = {"B_C" if key == "b c" else key: value for key, value in values[12].items()}
        patch.setattr(typed_lake, "VALUES", values)
        typed_lake.build(made, database, patch)
    return made


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("pymetastore", reason="pip install -r requirements-hive.txt")
    with engines.metastore(tmp_path_factory.mktemp("hms") / "hms") as there:
        yield there


def register(uri: str, lake: Path, *more: str, code: int = 0) -> None:
    argv = ["--register", "hive", "--uri", uri, "--database", "lake", "--lake", str(lake), *more]
    assert metadata_utils.main(argv) == code


@pytest.fixture(scope="module")
def registered(uri: str, lake: Path) -> str:
    register(uri, lake)
    register(uri, lake, "--database", "for_trino", "--without-time")
    return uri


def test_only_what_changed_is_sent(registered: str, lake: Path, capsys: Any) -> None:
    """Nothing the second time, also when nothing is remembered; a partition that somebody dropped comes again."""
    capsys.readouterr()
    for forgotten in (False, True):
        if forgotten:
            (lake / ".state" / "hive.json").unlink()
        register(registered, lake)
        assert capsys.readouterr().out == "5 tables, 0 changed, 0 failed\n"
    from ksql_lake.catalogs.metastore import Metastore

    catalog = Metastore(registered, lake, "lake")
    catalog.client.drop_partition("lake", "events", ["2025", "01", "16"], False)
    catalog.client.drop_partition("lake", "t_totals_versions", ["v1"], False)
    catalog.close()
    register(registered, lake, "--dry-run")
    would = "lake.events: add 1 partition: 2025/01/16\nlake.t_totals_versions: add 1 partition: v1\n"
    assert capsys.readouterr().out == would + "5 tables, 2 would change, 0 failed\n"
    register(registered, lake)
    assert capsys.readouterr().out == would + "5 tables, 2 changed, 0 failed\n"
    assert len(list(lake.rglob("*.parquet"))) == 9, "no file was deleted"


def test_the_catalog_follows_by_itself(
    registered: str, lake: Path, database: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    """REGISTER: after an export, a rollback; what a metastore that was away missed comes with the feed's next run."""
    import shutil

    copy = shutil.copytree(lake, tmp_path / "lake")
    for name, value in {
        "DATA_LAKE_DIR": str(copy), "KSQLDB_URL": database.url, "IDLE_SECONDS": "0.1", "KSQLDB_TIMEOUT": "2",
        "RETENTION": "off", "REGISTER": f"hive:{registered}/followed",
    }.items():
        monkeypatch.setenv(name, value)
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    monkeypatch.delenv("REGISTER")
    argv = ["--register", "hive", "--uri", registered, "--database", "followed"]
    capsys.readouterr()
    assert metadata_utils.main(argv) == 0 and "5 tables, 0 changed, 0 failed" in capsys.readouterr().out
    monkeypatch.setenv("REGISTER", f"hive:{registered}/followed")
    assert manage_feeds.main(["rollback", "t.totals", "v1"]) == 0
    capsys.readouterr()
    assert metadata_utils.main(argv) == 0 and "0 changed" in capsys.readouterr().out
    database.append("EVENTS", 0, JAN15 + 9 * DAY, ["new", Decimal(1), 1])
    monkeypatch.setenv("REGISTER", f"hive:thrift://127.0.0.1:{engines.free_port()}/followed")
    assert export_to_data_lake.main(["--stream", "events", "--quiet"]) == 1
    assert "no metastore answers there" in capsys.readouterr().err and len(read("events", lake=copy)) == 21
    monkeypatch.setenv("REGISTER", f"hive:{registered}/followed")
    assert export_to_data_lake.main(["--stream", "events", "--quiet"]) == 0
    capsys.readouterr()
    assert metadata_utils.main(argv) == 0 and "0 changed" in capsys.readouterr().out


@pytest.fixture(scope="module")
def spark(registered: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    session = engines.spark(
        tmp_path_factory.mktemp("spark"), spark__sql__catalogImplementation="hive",
        spark__hadoop__hive__metastore__uris=registered, spark__sql__hive__metastore__version="4.0.1",
        spark__sql__hive__metastore__jars="maven",
    )
    session.sql("use lake")
    yield session
    session.stop()


def test_spark(spark: Any, lake: Path) -> None:
    """Every type; TIME as a number; filters; the current version; and a repair changes nothing."""
    rows = {row["id"]: row.asDict(recursive=True) for row in spark.sql("select * from all_types").collect()}
    for wanted in read("all_types", lake=lake, arrow=True).to_pylist():
        wanted["TM"] = MIDDAY if wanted["TM"] else None
        wanted["M"] = None if wanted["M"] is None else dict(wanted["M"])
        wanted |= {name: wanted[name] and wanted[name].replace(tzinfo=None) for name in ("ROWTIME", "TS")}
        wanted |= {name: f"{wanted[name]:02}" for name in ("year", "month", "day")}  # text, as in the paths
        found = rows[wanted["ID"]]
        assert ordered([found]) == ordered([wanted]) and found["l"] in (BIG, None)
    for condition in ("month = 1 and day in (15, 16)", "month = '01' and day in ('15', '16')", "day < 17", "day < '17'",
                      "month between 1 and 1 and day <> 17", "month in (1, 2) and day != '17'"):
        assert spark.sql(f"select * from events where {condition}").count() == 14, condition
    assert spark.sql("select * from events where rowtime >= '2025-01-16'").count() == 13
    totals = [tuple(row) for row in spark.sql("select * from t_totals order by k").collect()]
    assert totals == [("a", Decimal("1.50")), ("b", Decimal("2.25"))]
    assert [tuple(r) for r in spark.sql("select k from t_totals_versions where version = 'v1'").collect()] == [("a",)]
    for table, count in (("events", 20), ("all_types", 4), ("t_totals_versions", 3)):
        before = spark.sql(f"show partitions {table}").collect()
        spark.sql(f"msck repair table {table}")
        spark.sql(f"refresh table {table}")
        assert spark.sql(f"show partitions {table}").collect() == before and spark.table(table).count() == count


@pytest.fixture(scope="module")
def cloud(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """moto's Glue and S3 with the lake in a bucket, registered; its port."""
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    from werkzeug.serving import make_server

    moto = make_server("127.0.0.1", 0, server.DomainDispatcherApplication(server.create_backend_app), threaded=True)
    threading.Thread(target=moto.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{moto.server_port}", "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        for path in (path for path in lake.rglob("*.parquet")):
            client.upload_file(str(path), "bucket", f"lake/{path.relative_to(lake).as_posix()}")
        argv = ["--register", "glue", "--database", "lake", "--location", "s3://bucket/lake", "--lake", str(lake)]
        assert metadata_utils.main(argv) == 0
    yield moto.server_port
    moto.shutdown()


@pytest.fixture(scope="module")
def trino(registered: str, cloud: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    hive = (engines.SERVICES / "trino-hms.properties").read_text().replace("thrift://127.0.0.1:19083", registered)
    glue = (engines.SERVICES / "trino-glue.properties").read_text().replace("@PORT@", str(cloud))
    with engines.trino(tmp_path_factory.mktemp("trino") / "t", "trino483", hive=hive, glue=glue) as cursor:
        yield cursor


@pytest.mark.parametrize("where", ["hive.for_trino", "glue.lake"])
def test_trino(where: str, trino: Any, lake: Path) -> None:
    """Every value but those of TIME columns; filters; versions; and a repair changes nothing."""
    rows = run(trino, f"select * from {where}.all_types")
    names = [column[0] for column in trino.description]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    expected = [
        {key.lower(): value for key, value in row.items() if key != "TM"}
        for row in read("all_types", lake=lake, arrow=True).to_pylist()
    ]
    if where.startswith("hive"):
        expected = [{**row, **{name: f"{row[name]:02}" for name in ("year", "month", "day")}} for row in expected]
        with pytest.raises(Exception, match="(?i)type_mismatch|cannot apply operator"):
            run(trino, f"select * from {where}.events where month = 1")
    assert set(names) == set(expected[0])
    assert ordered(found) == ordered(expected)
    deep = run(trino, f"select a, m['k'], s.x, s.b_c, s.date, s.n.\"in\" from {where}.all_types where id = 'e0'")
    assert deep == [[[BIG, None], 1, 2**53 - 1, Decimal("1.25"), dt.date(2025, 1, 1), ["a", None]]]
    days = ["day > '15'", "month = '01' and day in ('16', '17')"]
    if where.startswith("glue"):
        days = ["day > 15", "month = 1 and day in (16, 17)"]
    for condition in ("rowtime >= timestamp '2025-01-16 00:00:00'", *days):
        assert run(trino, f"select count(*) from {where}.events where {condition}") == [[13]], condition
    versions = "t_totals_versions"
    assert run(trino, f"select k from {where}.{versions} where version = 'v1'") == [["a"]]
    assert run(trino, f"select k from {where}.t_totals order by k") == [["a"], ["b"]]
    catalog, schema = where.split(".")
    for table, count in (("events", 20), ("all_types", 4), (versions, 3)):
        run(trino, f"call {catalog}.system.sync_partition_metadata('{schema}', '{table}', 'FULL')")
        assert run(trino, f"select count(*) from {where}.{table}") == [[count]], table


@pytest.fixture(scope="module")
def micro(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The typed lake in microseconds, registered in a database of its own."""
    made = tmp_path_factory.mktemp("micro") / "lake"
    with EmbeddedKsqlDB() as database, pytest.MonkeyPatch.context() as patch:
        typed_lake.build(made, database, patch, "timestamps=us")
    register(uri, made, "--database", "micro", "--without-time")
    return made


def in_the_catalog(lake: Path) -> list[Any]:
    """The rows of all_types as a table without TIME has them, and without the STRUCT, of which one name has a blank."""
    rows = read("all_types", lake=lake, arrow=True).to_pylist()
    texts = {"year": 4, "month": 2, "day": 2}
    return [{key.lower(): f"{value:0{texts[key]}}" if key in texts else value for key, value in row.items()
             if key not in ("TM", "S")} for row in rows]


def test_spark_in_microseconds(spark: Any, micro: Path) -> None:
    rows = [row.asDict(recursive=True) for row in spark.sql("select * from micro.all_types").collect()]
    assert ordered(rows) == ordered(in_the_catalog(micro))
    assert spark.sql("select * from micro.events where rowtime >= '2025-01-16'").count() == 13
    assert spark.sql("select * from micro.all_types where ts = timestamp '2023-11-14 22:13:20.123'").count() == 3


def test_trino_in_microseconds(trino: Any, micro: Path) -> None:
    found = run(trino, "select * from hive.micro.all_types")
    names = [column[0] for column in trino.description]
    assert ordered(dict(zip(names, row, strict=True)) for row in found) == ordered(in_the_catalog(micro))
    for table, condition, count in (("events", "rowtime >= timestamp '2025-01-16 00:00:00'", 13),
                                    ("all_types", "ts = timestamp '2023-11-14 22:13:20.123'", 3)):
        assert run(trino, f"select count(*) from hive.micro.{table} where {condition}") == [[count]]


def test_trino_and_a_time(trino: Any) -> None:
    """What --without-time is for."""
    with pytest.raises(Exception, match="Unsupported Trino column type"):
        run(trino, "select * from hive.lake.all_types")
