"""The lake in a Glue catalog: a real client, real HTTP, moto's Glue at the other end, which counts the requests."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

import manage_feeds
import metadata_utils
from ksql_lake.catalogs import glue, hive, tables, targets
from ksql_lake.catalogs.registration import register as register_all
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.store.local_disk import LocalDisk
from tests.states import made_state
from tests.test_export import DAY, JAN15, add_feed, export, make_stream, produce, state


class Glue:
    """moto's Glue behind a socket; `sent` counts the operations since it was last cleared."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.app: Callable[..., Any] = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self._counted, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _counted(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.sent[environ.get("HTTP_X_AMZ_TARGET", "").partition(".")[2]] += 1
        return self.app(environ, start_response)


@pytest.fixture(scope="module")
def server() -> Iterator[Glue]:
    glue = Glue()
    thread = threading.Thread(target=glue.server.serve_forever, daemon=True)
    thread.start()
    yield glue
    glue.server.shutdown()
    thread.join()


@pytest.fixture
def catalog(server: Glue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Glue]:
    for name, value in {
        "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "eu-west-1", "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield server
    with boto3_client() as client:
        for table in client.get_tables(DatabaseName="lake")["TableList"] if databases(client) else []:
            client.delete_table(DatabaseName="lake", Name=table["Name"])
        if databases(client):
            client.delete_database(Name="lake")


class boto3_client:
    def __enter__(self) -> Any:
        self.client = boto3.client("glue")
        return self.client

    def __exit__(self, *exc: object) -> None:
        self.client.close()


def databases(client: Any) -> list[str]:
    return [database["Name"] for database in client.get_databases()["DatabaseList"]]


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        monkeypatch.setenv("RETENTION", "off")
        make_stream(database)
        produce(database, 0, 60)  # 2025-01-15, 16, 17
        add_feed("payments")
        database.create_table("TOTALS", "`ID` STRING KEY, `V` INTEGER")
        database.upsert("TOTALS", ["k", 1])
        add_feed("totals", "table")
        assert export("--all") == 0
        yield database


def register(*more: str, code: int = 0) -> None:
    argv = ["--register", "glue", "--database", "lake", "--location", "s3://bucket/lake/", *more]
    assert metadata_utils.main(argv) == code


def table(name: str) -> dict[str, Any]:
    with boto3_client() as client:
        return dict(client.get_table(DatabaseName="lake", Name=name)["Table"])


def partitions(name: str) -> dict[str, dict[str, Any]]:
    with boto3_client() as client:
        found = client.get_partitions(DatabaseName="lake", TableName=name)["Partitions"]
    return {"/".join(one["Values"]): one for one in found}


def changes(catalog: Glue) -> dict[str, int]:
    """What was sent to change something since the last look."""
    sent = {name: count for name, count in catalog.sent.items() if not name.startswith("Get")}
    catalog.sent.clear()
    return sent


def test_feeds_become_tables_with_their_partitions(ksqldb: EmbeddedKsqlDB, catalog: Glue, capsys: Any) -> None:
    capsys.readouterr()
    register()
    assert capsys.readouterr().out.splitlines() == [
        "lake: create database: it is not in the catalog",
        "lake.payments: create table: it is not in the catalog",
        "lake.payments: add 3 partitions: 2025/01/15, 2025/01/16, 2025/01/17",
        "lake.totals_versions: create table: it is not in the catalog",
        "lake.totals_versions: add 1 partition: v1",
        "lake.totals: create table: it is not in the catalog",
        "3 tables, 3 changed, 0 failed",
    ]
    stream = table("payments")
    assert [(c["Name"], c["Type"]) for c in stream["StorageDescriptor"]["Columns"]] == [
        ("rowtime", "timestamp"), ("rowpartition", "int"), ("rowoffset", "bigint"), ("id", "string"),
        ("amount", "decimal(38,18)"),
    ]
    assert [(c["Name"], c["Type"]) for c in stream["PartitionKeys"]] == [*hive.KEYS["stream"]]
    assert stream["StorageDescriptor"]["SerdeInfo"]["SerializationLibrary"].endswith("ParquetHiveSerDe")
    assert stream["TableType"] == "EXTERNAL_TABLE" and stream["Parameters"]["classification"] == "parquet"
    assert stream["Parameters"]["ksql_lake.feed"] == "payments" and stream["Parameters"]["ksql_lake.sequence"] == "1"
    day = partitions("payments")["2025/01/16"]["StorageDescriptor"]
    assert day["Location"] == "s3://bucket/lake/streams/payments/year=2025/month=01/day=16/"
    assert day["Columns"] == stream["StorageDescriptor"]["Columns"]
    assert table("totals")["Parameters"]["current_version"] == "v1"
    with boto3_client() as client:
        found = client.get_partitions(DatabaseName="lake", TableName="payments", Expression="month = 1 and day = 16")
        assert [one["Values"] for one in found["Partitions"]] == [["2025", "01", "16"]]


def test_registering_again_looks_once_and_sends_nothing(ksqldb: EmbeddedKsqlDB, catalog: Glue, capsys: Any) -> None:
    register()
    catalog.sent.clear()
    capsys.readouterr()
    register()
    assert catalog.sent == {"GetTables": 1}
    assert capsys.readouterr().out == "3 tables, 0 changed, 0 failed\n"
    assert export("--all") == 0  # nothing new, but a new version of the table
    register("--feed", "payments")
    assert changes(catalog) == {}


def test_a_new_day_a_new_version_and_one_that_retention_took(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    register()
    changes(catalog)
    ksqldb.append("PAYMENTS", 0, JAN15 + 5 * DAY, ["late", Decimal(1)])
    assert export("--all") == 0
    capsys.readouterr()
    register("--dry-run")
    assert changes(catalog) == {} and "lake.payments: add 1 partition: 2025/01/20" in capsys.readouterr().out
    register()
    assert changes(catalog) == {"BatchCreatePartition": 2, "UpdateTable": 2}
    assert table("totals")["StorageDescriptor"]["Location"] == "s3://bucket/lake/tables/totals/version=v2/"
    assert "2025/01/20" in partitions("payments") and set(partitions("totals_versions")) == {"v1", "v2"}
    assert table("totals")["Parameters"]["current_version"] == "v2"
    assert manage_feeds.main(["rollback", "totals", "v1"]) == 0
    register()
    assert changes(catalog) == {"UpdateTable": 2} and table("totals")["Parameters"]["current_version"] == "v1"
    days = (dt.datetime.now(dt.UTC).date() - dt.date(2025, 1, 16)).days
    assert manage_feeds.main(["update", "payments", f"retention_days={days}"]) == 0
    monkeypatch.setenv("MAX_DELETE_PERCENT", "100")
    assert manage_feeds.main(["retention", "payments"]) == 0
    left = {path["path"][-6:] for path in state(tmp_path / "lake", "payments")["partitions"]}
    assert "day=15" not in left
    register()
    assert changes(catalog) == {"BatchDeletePartition": 1}
    assert {f"day={key[-2:]}" for key in partitions("payments")} == left


def test_a_column_that_was_added_reaches_table_and_partitions(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, capsys: Any
) -> None:
    register()
    changes(catalog)
    ksqldb.drop("PAYMENTS")
    columns = "`ID` STRING, `AMOUNT` DECIMAL(38, 18), `ADDRESS` STRUCT<`Street` STRING, `GEO` ARRAY<DOUBLE>>"
    ksqldb.create_stream("PAYMENTS", columns, 2)
    for i in range(60):
        ksqldb.append("PAYMENTS", i % 2, JAN15 + i * 3_600_000, [f"e{i}", Decimal(i) + Decimal("1e-18"), None])
    ksqldb.append("PAYMENTS", 0, JAN15 + 1, ["late", Decimal(1), {"Street": "s", "GEO": [1.5]}])
    assert export("--stream", "payments") == 0
    capsys.readouterr()
    register("--feed", "payments")
    assert "update table: column address struct<street:string,geo:array<double>> is new" in capsys.readouterr().out
    assert changes(catalog) == {"UpdateTable": 1, "BatchUpdatePartition": 1}
    for columns in [table("payments"), *partitions("payments").values()]:
        assert columns["StorageDescriptor"]["Columns"][-1]["Name"] == "address"


@pytest.mark.parametrize("remembered", [True, False])
def test_what_was_dropped_behind_our_back_comes_again(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, tmp_path: Path, remembered: bool
) -> None:
    register()
    with boto3_client() as client:
        client.delete_table(DatabaseName="lake", Name="payments")
        if not remembered:
            client.batch_delete_partition(
                DatabaseName="lake", TableName="totals_versions", PartitionsToDelete=[{"Values": ["v1"]}]
            )
            (tmp_path / "lake" / ".state" / "glue.json").unlink()
    changes(catalog)
    register()
    expected = {"CreateTable": 1, "BatchCreatePartition": 1 if remembered else 2}
    assert changes(catalog) == expected
    assert len(partitions("payments")) == 3 and len(partitions("totals_versions")) == 1
    register()
    assert changes(catalog) == {}


def test_a_table_made_again_by_somebody_else_is_looked_into(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, tmp_path: Path
) -> None:
    """As after a registration from another machine: what we remember is of the table before."""
    register()
    copy = tmp_path / "glue.json"
    shutil.copy(tmp_path / "lake" / ".state" / "glue.json", copy)
    with boto3_client() as client:
        client.delete_table(DatabaseName="lake", Name="payments")
    register()
    with boto3_client() as client:
        values = [{"Values": ["2025", "01", "16"]}]
        client.batch_delete_partition(DatabaseName="lake", TableName="payments", PartitionsToDelete=values)
    shutil.copy(copy, tmp_path / "lake" / ".state" / "glue.json")
    changes(catalog)
    register()
    assert changes(catalog) == {"BatchCreatePartition": 1} and len(partitions("payments")) == 3


def test_a_registration_that_broke_off_is_finished(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Table and partitions are in the catalog, the record knows nothing of them: all is found, nothing sent twice."""
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", "glue.json")

    with monkeypatch.context() as patch:
        patch.setattr(LocalDisk, "put", full)
        register(code=1)
    assert "No space left on device" in capsys.readouterr().err
    changes(catalog)
    register()
    assert changes(catalog) == {"CreateTable": 2, "BatchCreatePartition": 1}  # of the second feed
    register()
    assert changes(catalog) == {} and len(partitions("payments")) == 3


def test_many_partitions_go_by_the_hundred_and_out_by_twenty_five(catalog: Glue, tmp_path: Path) -> None:
    def made(days: int) -> list[tables.Table]:
        paths = [f"year=2025/month={1 + i // 28:02d}/day={1 + i % 28:02d}" for i in range(days)]
        return tables.wanted("many", made_state("stream", paths=paths), "s3://b", glue.STYLE)

    created = {"CreateDatabase": 1, "CreateTable": 1, "BatchCreatePartition": 3}
    changes(catalog)
    with boto3_client() as client:
        for days, sent in [(230, created), (170, {"BatchDeletePartition": 3})]:
            assert register_all(glue.Glue(client, tmp_path, "lake"), [made(days)], print).failures == ()
            assert changes(catalog) == sent
            pages = client.get_paginator("get_partitions").paginate(DatabaseName="lake", TableName="many")
            assert sum(len(page["Partitions"]) for page in pages) == days
            changes(catalog)


def test_another_location_moves_every_partition(ksqldb: EmbeddedKsqlDB, catalog: Glue) -> None:
    register()
    changes(catalog)
    register("--feed", "payments", "--location", "s3://other")
    assert changes(catalog) == {"UpdateTable": 1, "BatchUpdatePartition": 1}
    assert partitions("payments")["2025/01/15"]["StorageDescriptor"]["Location"].startswith("s3://other/streams/")


def test_a_catalog_of_an_earlier_version_is_put_right(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """Partition values without their zeros, beside which a repair would add each day once more; names as the feeds'."""
    assert manage_feeds.main(["add", "--name", "the-totals", "--type", "table", "--source", "TOTALS"]) == 0
    assert export("--table", "the-totals") == 0
    with monkeypatch.context() as before:
        before.setattr(tables, "table_name", str)
        before.setattr(tables, "partition_values", lambda path: [
            (key, value.lstrip("0")) for key, _, value in (part.partition("=") for part in path.split("/"))
        ])
        before.setattr(tables.Table, "where", lambda table, values: table.location + "/".join(
            f"{key}={value.zfill(2)}" for (key, _), value in zip(table.keys, values, strict=True)) + "/")
        before.setattr(glue.Glue.__init__, "__defaults__", (tables.Style(times=False, current=False),))
        register()
    assert "2025/1/16" in partitions("payments") and partitions("the-totals") and partitions("totals")
    changes(catalog)
    capsys.readouterr()
    register()
    told = capsys.readouterr().out
    assert "lake.the-totals: drop table: it is now called the_totals; the files stay" in told
    assert "lake.totals: drop table: from now on it is only the current version; the files stay" in told
    assert changes(catalog) == {
        "BatchDeletePartition": 1, "BatchCreatePartition": 3, "CreateTable": 4, "DeleteTable": 2}
    assert table("totals")["PartitionKeys"] == [] and not partitions("totals")
    assert set(partitions("payments")) == {"2025/01/15", "2025/01/16", "2025/01/17"}
    with boto3_client() as client:
        names = [table["Name"] for table in client.get_tables(DatabaseName="lake")["TableList"]]
    assert sorted(names) == ["payments", "the_totals", "the_totals_versions", "totals", "totals_versions"]
    known = json.loads((tmp_path / "lake" / ".state" / "glue.json").read_text())
    assert {key.rpartition(".")[2] for key in known} == set(names)
    register()
    assert changes(catalog) == {}


def test_columns_of_time_are_left_out_and_named(catalog: Glue, tmp_path: Path) -> None:
    """At any depth: Athena and Trino cannot read such a column, and `select *` of its table fails."""
    columns = {"At": "TIME", "S": "STRUCT<`x` ARRAY<TIME>>", "M": "MAP<STRING, TIME>", "D": "DATE"}
    (made,) = tables.wanted("f", made_state("table", columns), "s3://b", glue.STYLE)  # it has no version yet
    assert made.columns == (("d", "date"),) and made.parameters["ksql_lake.left_out"] == "At, S, M"


@pytest.mark.parametrize(("one", "other"), [
    ("file:///a/b", "file:/a/b/"), ("file:///a/b/", "file:////a/b"), ("s3://b/l", "s3://b/l/"),
    ("hdfs://nn/l", "hdfs://nn/l"),
])
def test_the_same_place_however_it_is_written(one: str, other: str) -> None:
    assert tables.place(one) == tables.place(other) and tables.fingerprint((), one) == tables.fingerprint((), other)
    assert tables.place("s3://a/x") != tables.place("s3a://a/x") != tables.place("s3a://a/X")


def test_somebody_elses_table_is_left_alone(ksqldb: EmbeddedKsqlDB, catalog: Glue, capsys: Any) -> None:
    with boto3_client() as client:
        client.create_database(DatabaseInput={"Name": "lake"})
        client.create_table(DatabaseName="lake", TableInput={"Name": "payments", "Parameters": {"crawler": "theirs"}})
    register(code=1)
    assert "lake.payments: table payments: was not made by --register for this feed" in capsys.readouterr().err
    assert table("payments")["Parameters"] == {"crawler": "theirs"} and len(partitions("totals_versions")) == 1
    with boto3_client() as client:
        ours = {"Name": "payments", "Parameters": {tables.OURS: "payments"}}
        client.update_table(DatabaseName="lake", TableInput=ours)
    register(code=1)
    assert "lake.payments: table payments: is not partitioned by year, month, day" in capsys.readouterr().err


def test_parameters_of_others_stay(ksqldb: EmbeddedKsqlDB, catalog: Glue) -> None:
    register()
    with boto3_client() as client:
        now = table("totals")
        parameters = {**now["Parameters"], "owner_team": "finance", "current_version": "v9"}
        kept = {key: now[key] for key in ("Name", "TableType", "PartitionKeys", "StorageDescriptor")}
        client.update_table(DatabaseName="lake", TableInput={**kept, "Parameters": parameters})
    register()
    assert table("totals")["Parameters"] == {**parameters, "current_version": "v1"}
    assert table("totals")["StorageDescriptor"]["Location"] == "s3://bucket/lake/tables/totals/version=v1/"
    assert table("totals_versions")["StorageDescriptor"]["Location"] == "s3://bucket/lake/tables/totals/"


def test_the_catalog_follows_by_itself(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """REGISTER: after an export and after a rollback; a catalog that was away gets what it missed with the next run."""
    monkeypatch.setenv("REGISTER", "glue:lake?location=s3://bucket/lake")
    assert export("--all") == 0
    assert set(partitions("totals_versions")) == {"v1", "v2"}
    assert table("totals")["Parameters"]["current_version"] == "v2"
    monkeypatch.delenv("REGISTER")
    changes(catalog)
    register()
    assert changes(catalog) == {}, "all that --register would send was sent"
    monkeypatch.setenv("REGISTER", "glue:lake?location=s3://bucket/lake")
    assert manage_feeds.main(["rollback", "totals", "v1"]) == 0
    assert table("totals")["Parameters"]["current_version"] == "v1"
    ksqldb.append("PAYMENTS", 0, JAN15 + 5 * DAY, ["late", Decimal(1)])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    capsys.readouterr()
    assert export("--stream", "payments") == 1
    assert "glue:lake: Glue: Could not connect" in capsys.readouterr().err
    monkeypatch.setenv("AWS_ENDPOINT_URL", catalog.url)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    assert export("--stream", "payments") == 0 and "2025/01/20" in partitions("payments")


@pytest.mark.parametrize(("text", "words"), [
    ("athena:lake", "expected hive:thrift://HOST:PORT/DATABASE or glue:DATABASE"),
    ("hive:localhost/lake", "expected hive:thrift://HOST:PORT/DATABASE"),
    ("glue:lake?place=s3://b", "has place; expected location or without-time"),
    ("glue:lake?location=bucket", "expected a URI such as s3://bucket/lake"),
])
def test_a_wrong_setting_stops_before_anything_is_exported(
    ksqldb: EmbeddedKsqlDB, text: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("REGISTER", text)
    assert export("--all") == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(("text", "target"), [
    ("hive:thrift://h:9083/Lake", targets.Target("hive", "lake", "thrift://h:9083")),
    ("hive:thrift://h/lake?without-time&location=s3a://b/l",
     targets.Target("hive", "lake", "thrift://h", "s3a://b/l", False)),
    ("glue:lake", targets.Target("glue", "lake", times=False)),
])
def test_catalogs_by_name(text: str, target: targets.Target) -> None:
    assert targets.parse(f" {text} ,") == (target,) and targets.parse(f"{text},{text}") == (target, target)


@pytest.mark.parametrize(("argv", "words"), [
    (["glue"], "--register needs --database NAME"),
    (["glue", "--database", "lake", "--location", "bucket/lake"], "expected a URI such as s3://bucket/lake"),
    (["glue", "--database", "lake", "--without-time"], "go with --register hive"),
    (["hive", "--database", "lake"], "--register hive needs --uri thrift://HOST:PORT"),
])
def test_bad_arguments(argv: list[str], words: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "lake").mkdir()
    assert metadata_utils.main(["--register", *argv]) == 2
    assert words in capsys.readouterr().err


def test_without_boto3_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "lake").mkdir()
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert metadata_utils.main(["--register", "glue", "--database", "lake"]) == 2
    assert capsys.readouterr().err == "error: --register glue needs boto3: pip install -r requirements-glue.txt\n"


def test_without_pymetastore_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "lake").mkdir()
    monkeypatch.setitem(sys.modules, "pymetastore", None)
    assert metadata_utils.main(["--register", "hive", "--uri", "thrift://127.0.0.1:1", "--database", "lake"]) == 2
    assert "error: --register hive needs pymetastore: pip install -r requirements-hive.txt" in capsys.readouterr().err


def test_what_boto3_says_is_one_line(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    register(code=1)
    assert capsys.readouterr().err == 'error: Glue: Could not connect to the endpoint URL: "http://127.0.0.1:1/"\n'
    with monkeypatch.context() as patch:
        patch.delenv("AWS_DEFAULT_REGION")
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        register(code=2)
    assert capsys.readouterr().err == "error: Glue: You must specify a region.\n"
    monkeypatch.setenv("AWS_ENDPOINT_URL", catalog.url)


def test_without_a_location_it_is_the_file_system(
    ksqldb: EmbeddedKsqlDB, catalog: Glue, tmp_path: Path, capsys: Any
) -> None:
    assert metadata_utils.main(["--register", "glue", "--database", "Lake"]) == 0
    assert "Athena needs --location s3://" in capsys.readouterr().err
    assert table("totals_versions")["StorageDescriptor"]["Location"] == f"file://{tmp_path}/lake/tables/totals/"


@pytest.mark.parametrize(("name", "type_"), [
    ("a, b", "INTEGER"), ("S", "STRUCT<`x y` INTEGER>"), ("M", "MAP<STRING, STRUCT<`x:y` DATE>>"),
])
def test_names_that_a_hive_catalog_cannot_say_are_left_out_and_named(name: str, type_: str) -> None:
    (made,) = tables.wanted("f", made_state("table", {name: type_, "B": "DATE"}), "s3://b", glue.STYLE)
    assert made.columns == (("b", "date"),) and made.parameters[tables.LEFT_OUT] == name
    assert f"leave out what the catalog cannot hold: {name}" in tables.plan(made, None).lines()


def test_the_record_says_what_was_registered_where(ksqldb: EmbeddedKsqlDB, catalog: Glue, tmp_path: Path) -> None:
    register()
    known = json.loads((tmp_path / "lake" / ".state" / "glue.json").read_text())
    names = ("payments", "totals", "totals_versions")
    assert sorted(known) == [f"{catalog.url} eu-west-1 lake.{name}" for name in names]
