"""A lake of which days are in a bucket only, read by engines as people do, and compared with `ksql_lake.read`.

DuckDB with its own extensions, Polars, pyarrow, pandas with fsspec, delta-rs, Spark and Trino; over versitygw, Azurite
and moto. In the environment of requirements-engines.txt; what is missing is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import ksql_lake
import metadata_utils
from tests import engines
from tests.remote_lakes import lake_in, metadata, remote
from tests.stores import ACCOUNT, ACCOUNT_KEY, KEY, SECRET, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SERVERS = ["versitygw", "azurite"]


@dataclass(frozen=True)
class Split:
    """A lake with days 15 and 16 of `s` and version 1 of `t` in its remote only."""

    lake: Path
    url: str
    server: Server

    @property
    def away(self) -> list[str]:
        return [f"{self.url}/streams/s/{file['path']}" for file in self._files() if file.get("local") is False]

    @property
    def here(self) -> list[str]:
        return [str(self.lake / "streams" / "s" / file["path"]) for file in self._files() if file.get("local", True)]

    def _files(self) -> list[dict[str, Any]]:
        return list(metadata(self.lake)["files"])

    @property
    def seen(self) -> tuple[int, int, Any]:
        """Rows, different ids and a sum, as our own reader has them."""
        frame = ksql_lake.read("s", lake=self.lake)
        return len(frame), frame["ID"].nunique(), frame["V"].sum()


def split(server: Server, directory: Path, patch: pytest.MonkeyPatch) -> Split:
    lake, url = lake_in(directory), server.url()
    for name, value in {**server.environment, "DATA_LAKE_DIR": str(lake), "REMOTE": url}.items():
        patch.setenv(name, value)
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    assert remote("drop", "t", "--versions", "v1") == 0
    made = Split(lake, url, server)
    assert made.seen[:2] == (24, 24) and len(made.away) == 4 and len(made.here) == 2
    return made


@pytest.fixture
def there(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    return split(server, tmp_path, monkeypatch)


def polars_options(server: Server) -> dict[str, Any]:
    place = f"http://127.0.0.1:{server.port}"
    if server.scheme == "az":
        return {"account_name": ACCOUNT, "account_key": ACCOUNT_KEY, "endpoint": f"{place}/{ACCOUNT}",
                "allow_http": "true", "max_retries": 0}
    return {"aws_endpoint_url": place, "aws_access_key_id": KEY, "aws_secret_access_key": SECRET,
            "aws_region": "us-east-1", "aws_allow_http": "true", "max_retries": 0}


def arrow_files(server: Server) -> Any:
    import pyarrow.fs

    host = f"127.0.0.1:{server.port}"
    if server.scheme == "az":
        return pyarrow.fs.AzureFileSystem(
            ACCOUNT, account_key=ACCOUNT_KEY, blob_storage_authority=host, blob_storage_scheme="http",
            dfs_storage_authority=host, dfs_storage_scheme="http")
    return pyarrow.fs.S3FileSystem(access_key=KEY, secret_key=SECRET, endpoint_override=host, scheme="http",
                                   region="us-east-1")


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_duckdb_with_its_own_extension(server: Server, there: Split, capsys: Any) -> None:
    """What `--sql duckdb` prints, with a secret as DuckDB's manual has it."""
    duckdb = pytest.importorskip("duckdb")
    kind = "azure" if server.scheme == "az" else "httpfs"
    extension = pytest.importorskip(f"duckdb_extension_{kind}", reason="pip install -r requirements-engines.txt")
    (path,) = Path(extension.__file__).parent.rglob(f"{kind}.duckdb_extension")
    secret = f"TYPE azure, CONNECTION_STRING '{server.environment.get('AZURE_STORAGE_CONNECTION_STRING')}'"
    if server.scheme == "s3":
        secret = (f"TYPE s3, KEY_ID '{KEY}', SECRET '{SECRET}', ENDPOINT '127.0.0.1:{server.port}', URL_STYLE 'path', "
                  "USE_SSL false, REGION 'us-east-1'")
    capsys.readouterr()
    assert metadata_utils.main(["--sql", "duckdb"]) == 0
    with duckdb.connect() as engine:
        engine.execute(f"LOAD '{path}'; CREATE SECRET ({secret})")
        engine.execute(capsys.readouterr().out)
        assert engine.execute("SELECT count(*), count(DISTINCT ID), sum(V) FROM s").fetchall() == [there.seen]
        assert engine.execute("SELECT count(*) FROM s WHERE day = 15").fetchall() == [(8,)]
        assert engine.execute("SELECT count(*), sum(N) FROM t").fetchall() == [(5, 60)]


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_duckdb_through_fsspec(server: Server, there: Split, capsys: Any) -> None:
    """Without the extension, which has to be of DuckDB's own version: a file system of fsspec stands in for it."""
    duckdb = pytest.importorskip("duckdb")
    name = "adlfs" if server.scheme == "az" else "s3fs"
    pytest.importorskip(name, reason=f"pip install {name}")
    import fsspec

    options: dict[str, Any] = {"connection_string": server.environment.get("AZURE_STORAGE_CONNECTION_STRING")}
    if server.scheme == "s3":
        options = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{server.port}"}}
    capsys.readouterr()
    assert metadata_utils.main(["--sql", "duckdb"]) == 0
    with duckdb.connect() as engine:
        engine.register_filesystem(fsspec.filesystem(server.scheme, **options))
        engine.execute(capsys.readouterr().out)
        assert engine.execute("SELECT count(*), count(DISTINCT ID), sum(V) FROM s").fetchall() == [there.seen]


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_polars(server: Server, there: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    pl = pytest.importorskip("polars")
    options = polars_options(server)

    def seen(frame: Any) -> tuple[int, int, Any]:
        return tuple(frame.select(pl.len(), pl.col("ID").n_unique(), pl.col("V").sum()).collect().row(0))

    away = pl.scan_parquet(there.away, storage_options=options, hive_partitioning=True)
    here = pl.scan_parquet(there.here, hive_partitioning=True)
    assert seen(pl.concat([here, away], how="diagonal_relaxed")) == there.seen
    whole = f"{there.url}/streams/s/**/*.parquet"  # everything was pushed
    assert seen(pl.scan_parquet(whole, storage_options=options, hive_partitioning=True)) == there.seen
    assert seen(pl.scan_parquet(str(there.lake / "streams/s/**/*.parquet"), hive_partitioning=True))[0] == 8, "silently"
    if server.scheme == "s3":  # the wrong way: the options of a list go by its first path, and the real AWS is asked
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        mixed = pl.scan_parquet([*there.here, *there.away], storage_options=options, hive_partitioning=True)
        with pytest.raises((OSError, pl.exceptions.PolarsError), match=r"s3\..*amazonaws\.com"):
            seen(mixed)


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_pyarrow(server: Server, there: Split) -> None:
    import pyarrow.dataset as ds

    def dataset(paths: list[str], top: str, files: Any = None) -> Any:
        return ds.dataset(paths, filesystem=files, format="parquet", partition_base_dir=top,
                          partitioning=ds.partitioning(flavor="hive"))

    files, base = arrow_files(server), there.url.partition("://")[2] + "/streams/s"
    away = dataset([path.partition("://")[2] for path in there.away], base, files)
    both = ds.dataset([away, dataset(there.here, str(there.lake / "streams" / "s"))])
    assert both.count_rows() == there.seen[0] and both.count_rows(filter=ds.field("day") == 15) == 8
    whole = ds.dataset(base, filesystem=files, format="parquet", partitioning="hive")
    assert whole.count_rows() == there.seen[0]


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_pandas(server: Server, there: Split) -> None:
    import pandas as pd

    name = "adlfs" if server.scheme == "az" else "s3fs"
    pytest.importorskip(name, reason=f"pip install {name}")
    options: dict[str, Any] = {"connection_string": server.environment.get("AZURE_STORAGE_CONNECTION_STRING")}
    if server.scheme == "s3":
        options = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{server.port}"}}
    here = pd.read_parquet(there.lake / "streams" / "s")
    away = [pd.read_parquet(path, storage_options=options) for path in there.away]
    frame = pd.concat([here, *away])
    assert (len(frame), frame["ID"].nunique(), frame["V"].sum()) == there.seen and len(here) == 8
    assert len(pd.read_parquet(f"{there.url}/streams/s", storage_options=options)) == there.seen[0]


@pytest.mark.parametrize("server", ["versitygw"], indirect=True)
def test_delta_readers_that_know_one_place_only(server: Server, there: Split) -> None:
    """The log names days that are away by their whole address: these readers fail, and never miss rows in silence."""
    deltalake = pytest.importorskip("deltalake")
    assert metadata_utils.main(["delta", "sync", "s"]) == 0
    table = str(there.lake / "streams" / "s")
    options = {name: str(value) for name, value in polars_options(server).items()}
    with pytest.raises(Exception, match="(?i)not found|no such file"):
        deltalake.DeltaTable(table, storage_options=options).to_pyarrow_table()
    assert remote("pull", "s") == 0
    assert len(deltalake.DeltaTable(table).to_pyarrow_table()) == there.seen[0], "and read it once it is here"


def hadoop(server: Server) -> dict[str, str]:
    """How Spark reaches the bucket."""
    return {f"spark.hadoop.fs.s3a.{name}": value for name, value in {
        "endpoint": f"http://127.0.0.1:{server.port}", "endpoint.region": "us-east-1", "access.key": KEY,
        "secret.key": SECRET, "path.style.access": "true", "connection.ssl.enabled": "false",
        "aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
    }.items()}


def hadoop_aws() -> list[Path]:
    return [Path(path) for path in engines.classpath("hadoop-aws").split(":")]


@pytest.mark.parametrize("server", ["versitygw"], indirect=True)
def test_spark_with_delta(server: Server, there: Split, tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="pip install -r requirements-engines.txt")
    assert metadata_utils.main(["delta", "sync", "s"]) == 0
    jars = [engines.artifact(f"io.delta:{name}:4.0.1") for name in ("delta-spark_2.13", "delta-storage")]
    session = engines.spark(
        tmp_path, [*jars, *hadoop_aws()], spark__sql__extensions="io.delta.sql.DeltaSparkSessionExtension",
        spark__sql__catalog__spark_catalog="org.apache.spark.sql.delta.catalog.DeltaCatalog",
        spark__sql__catalogImplementation="in-memory", **hadoop(server),
    )
    try:
        table = f"delta.`{there.lake / 'streams' / 's'}`"
        (found,) = session.sql(f"select count(*), count(distinct ID), sum(V) from {table}").collect()
        assert tuple(found) == there.seen
        assert remote("pull", "s", "--days", "2025-01-15") == 0
        (found,) = session.sql(f"select count(*), count(distinct ID), sum(V) from {table}").collect()
        assert tuple(found) == there.seen
    finally:
        session.stop()


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory, versitygw_server: Server) -> Iterator[Any]:
    pytest.importorskip("pyspark", reason="pip install -r requirements-engines.txt")
    home = tmp_path_factory.mktemp("spark")
    session = engines.spark(
        home, hadoop_aws(), spark__sql__catalogImplementation="hive",
        spark__hadoop__javax__jdo__option__ConnectionURL=f"jdbc:derby:;databaseName={home}/db;create=true",
        **hadoop(versitygw_server),
    )
    yield session
    session.stop()


@pytest.mark.parametrize("server", ["versitygw"], indirect=True)
@pytest.mark.parametrize("dialect", ["spark", "hive"])
def test_spark(server: Server, spark: Any, there: Split, dialect: str, capsys: Any) -> None:
    """Each partition at its own place; days that come back, and a repair, which neither adds nor doubles anything."""
    spark.sql(f"CREATE DATABASE {dialect}_split")
    spark.sql(f"USE {dialect}_split")

    def follow() -> None:
        capsys.readouterr()
        assert metadata_utils.main(["--sql", dialect]) == 0
        text = re.sub(r"(?m)^--.*\n", "", capsys.readouterr().out)
        for statement in text.split(";\n"):
            if statement.strip():
                spark.sql(statement)

    def asked(query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in spark.sql(query).collect()]

    for _ in range(2):
        follow()
        assert asked("select count(*), count(distinct ID), sum(V) from s") == [there.seen]
        assert asked("select count(*) from s where day = '15'") == [(8,)] and asked("select sum(N) from t") == [(60,)]
        assert asked("select version, count(*) from t_versions group by 1 order by 1") == [("v1", 5), ("v2", 5)]
    spark.sql("msck repair table s")
    assert asked("select count(*), count(distinct ID), sum(V) from s") == [there.seen]
    with pytest.raises(Exception, match="(?i)wrong fs|exception"):
        spark.sql("msck repair table s sync partitions")
    assert remote("pull", "s", "--days", "2025-01-15") == 0 and remote("drop", "s", "--days", "2025-01-17") == 0
    with pytest.raises(Exception, match="FILE_NOT_EXIST"):  # until the statements are run again
        asked("select count(*), count(distinct ID), sum(V) from s")
    follow()
    spark.sql("refresh table s")
    assert asked("select count(*), count(distinct ID), sum(V) from s") == [there.seen]


def register_in_glue(made: Split) -> None:
    argv = ["--register", "glue", "--database", "lake", "--location", "s3://copy/lake", "--lake", str(made.lake)]
    assert metadata_utils.main(argv) == 0


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    """moto's S3 and Glue: the directory is copied to one bucket, as people do for Athena, and the remote is another."""
    import threading

    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    from werkzeug.serving import make_server

    from tests.stores import s3_environment

    moto = make_server("127.0.0.1", 0, server.DomainDispatcherApplication(server.create_backend_app), threaded=True)
    threading.Thread(target=moto.serve_forever, daemon=True).start()
    environment = s3_environment(f"http://127.0.0.1:{moto.server_port}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        made = split(Server("moto", "s3", environment, moto.server_port), tmp_path_factory.mktemp("cloud"), patch)
        client = made.server.s3()
        client.create_bucket(Bucket="copy")
        for path in made.lake.rglob("*.parquet"):
            client.upload_file(str(path), "copy", f"lake/{path.relative_to(made.lake).as_posix()}")
        register_in_glue(made)
        yield made
    moto.shutdown()


@pytest.mark.parametrize("server", ["versitygw"], indirect=True)
def test_a_hive_metastore_read_by_trino(server: Server, there: Split, tmp_path: Path, capsys: Any) -> None:
    """Partitions of the bucket and of the directory side by side; the metastore needs hadoop-aws for it."""
    pytest.importorskip("pymetastore", reason="pip install -r requirements-hive.txt")
    settings = {name.removeprefix("spark.hadoop."): value for name, value in hadoop(server).items()}
    with engines.metastore(tmp_path / "hms", settings) as uri:
        argv = ["--register", "hive", "--uri", uri, "--database", "lake", "--lake", str(there.lake)]
        for changed in (3, 0):
            capsys.readouterr()
            assert metadata_utils.main(argv) == 0
            assert f"3 tables, {changed} changed, 0 failed" in capsys.readouterr().out
        text = (engines.SERVICES / "trino-hms.properties").read_text().replace("thrift://127.0.0.1:19083", uri)
        text += (f"fs.s3.enabled=true\ns3.endpoint=http://127.0.0.1:{server.port}\ns3.region=us-east-1\n"
                 f"s3.path-style-access=true\ns3.aws-access-key={KEY}\ns3.aws-secret-key={SECRET}\n")
        with engines.trino(tmp_path / "t", "trino483", hive=text) as cursor:
            table = "hive.lake.s"
            assert run(cursor, f"select count(*), count(distinct id), sum(v) from {table}") == [list(there.seen)]
            assert run(cursor, f"select count(*) from {table} where day = '15'") == [[8]]
            assert run(cursor, "select version, count(*) from hive.lake.t_versions group by 1 order by 1") == [
                ["v1", 5], ["v2", 5]]


def run(cursor: Any, query: str) -> list[list[Any]]:
    cursor.execute(query)
    return [list(row) for row in cursor.fetchall()]


def test_trino_over_glue(cloud: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cloud.server.environment.items():
        monkeypatch.setenv(name, value)
    text = (engines.SERVICES / "trino-glue.properties").read_text().replace("@PORT@", str(cloud.server.port))
    text += "hive.table-statistics-enabled=false\n"  # which moto cannot answer
    with engines.trino(tmp_path / "t", "trino483", glue=text) as cursor:
        table = "glue.lake.s"
        assert run(cursor, f"select count(*), count(distinct id), sum(v) from {table}") == [list(cloud.seen)]
        assert run(cursor, f"select count(*) from {table} where day = 15") == [[8]]
        assert run(cursor, "select version, count(*) from glue.lake.t group by 1 order by 1") == [["v1", 5], ["v2", 5]]
        run(cursor, "call glue.system.sync_partition_metadata('lake', 's', 'ADD')")
        assert run(cursor, f"select count(*) from {table}") == [[24]], "to add is harmless"
        run(cursor, "call glue.system.sync_partition_metadata('lake', 's', 'FULL')")
        assert run(cursor, f"select count(*) from {table}") == [[8]], "FULL takes out what is not below the table"
        (cloud.lake / ".state" / "glue.json").unlink(missing_ok=True)
        register_in_glue(cloud)
        run(cursor, "call glue.system.flush_metadata_cache()")
        assert run(cursor, f"select count(*) from {table}") == [[24]], "and to register again repairs it"

