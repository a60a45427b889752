"""Engines that people query a lake with, started for the slow tests: Spark, a Hive metastore, Trino, DuckDB's Delta.

In an environment of their own: `pip install -r requirements-engines.txt`; Maven, Java 17 and for Trino Java 25
(JAVA25_HOME, or /usr/lib/jvm/temurin-25-*). What is not there is skipped. Everything listens on 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

SERVICES = Path(__file__).parent / "services"
CACHE = Path(os.environ.get("ENGINES_CACHE", "~/.cache/ksql_lake_engines")).expanduser()
HMS_OPENS = [f"--add-opens=java.base/{part}=ALL-UNNAMED" for part in ("java.net", "java.lang", "java.util")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def classpath(name: str, java_home: str | None = None) -> str:
    """The class path of a pom in tests/services, fetched from Maven Central the first time (minutes)."""
    if not shutil.which("mvn"):
        pytest.skip("needs Maven")
    directory = CACHE / name
    directory.mkdir(parents=True, exist_ok=True)
    pom, made = SERVICES / f"{name}-pom.xml", directory / "cp.txt"
    if not made.exists() or (directory / "pom.xml").read_bytes() != pom.read_bytes():
        shutil.copy(pom, directory / "pom.xml")
        environment = {**os.environ, **({"JAVA_HOME": java_home} if java_home else {})}
        goal = ["dependency:build-classpath", f"-Dmdep.outputFile={made}", "-Dmdep.includeScope=runtime"]
        done = subprocess.run(["mvn", "-q", "-B", *goal], cwd=directory, env=environment, check=False,
                              capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"Maven cannot fetch {name}: {done.stdout[-300:]}")
    return made.read_text()


def artifact(coordinates: str) -> Path:
    """One jar of Maven Central, as group:artifact:version."""
    group, name, version = coordinates.split(":")
    jar = Path("~/.m2/repository").expanduser() / group.replace(".", "/") / name / version / f"{name}-{version}.jar"
    if not jar.exists():
        if not shutil.which("mvn"):
            pytest.skip("needs Maven")
        subprocess.run(["mvn", "-q", "-B", "dependency:get", f"-Dartifact={coordinates}"], check=False)
    if not jar.exists():
        pytest.skip(f"Maven cannot fetch {coordinates}")
    return jar


def java25() -> str:
    """JAVA_HOME of a JDK 25."""
    found = os.environ.get("JAVA25_HOME") or next(map(str, Path("/usr/lib/jvm").glob("temurin-25-*")), None)
    if not found:
        pytest.skip("needs Java 25: set JAVA25_HOME")
    return found


@contextlib.contextmanager
def running(
    command: Sequence[str], directory: Path, ready: Callable[[str], bool], seconds: float = 180
) -> Iterator[Path]:
    """A process in its own directory until the block ends; its output goes to `log` there."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "log"
    with path.open("w") as out:
        process = subprocess.Popen(command, cwd=directory, stdout=out, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + seconds
            while not ready(path.read_text(errors="replace")):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{command[0]} did not start: {path.read_text(errors='replace')[-2000:]}")
                time.sleep(0.25)
            yield path
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def metastore(directory: Path, hadoop: Mapping[str, str] | None = None) -> Iterator[str]:
    """A Hive metastore 4.0.1 (Derby); its URI. With settings of Hadoop it can also look into buckets of S3."""
    if not shutil.which("java"):
        pytest.skip("needs Java 17")
    port, jars = free_port(), classpath("hms4")
    (directory / "conf").mkdir(parents=True)
    site = (SERVICES / "metastore-site.xml").read_text().replace("@DIR@", str(directory)).replace("@PORT@", str(port))
    (directory / "conf" / "metastore-site.xml").write_text(site)
    if hadoop is not None:
        jars += f":{classpath('hms-aws')}"
        pairs = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in hadoop.items())
        (directory / "conf" / "core-site.xml").write_text(f"<configuration>{pairs}</configuration>")
    command = ["java", "-Xmx512m", f"-Dderby.stream.error.file={directory}/derby.log", *HMS_OPENS,
               "-cp", f"{directory}/conf:{jars}", "org.apache.hadoop.hive.metastore.HiveMetaStore"]
    with running(command, directory, lambda log: answers(port)):
        yield f"thrift://127.0.0.1:{port}"


@contextlib.contextmanager
def iceberg_rest(directory: Path) -> Iterator[str]:
    """Apache Iceberg's own REST catalog of its tests, over SQLite; its URI. Tables lie in `directory`/warehouse."""
    if not shutil.which("javac"):
        pytest.skip("needs a JDK 17")
    port, jars = free_port(), classpath("iceberg-rest")
    directory.mkdir(parents=True)
    source = SERVICES / "IcebergRest.java"
    subprocess.run(["javac", "-cp", jars, "-d", str(directory), str(source)], check=True, capture_output=True)
    command = ["java", "-Xmx512m", "-cp", f"{directory}:{jars}", "IcebergRest", str(port), str(directory)]
    with running(command, directory, lambda log: "READY" in log):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def trino(directory: Path, pom: str, **catalogs: str) -> Iterator[Any]:
    """Trino with catalogs (name -> content of its properties); a cursor of the DB-API."""
    client = pytest.importorskip("trino", reason="pip install -r requirements-engines.txt")
    home, port = java25(), free_port()
    jars = classpath(pom, home)
    directory.mkdir(parents=True)
    plugins = {"trino483": ("Hive", "Iceberg"), "trino449": ("Delta",)}[pom]
    source = (SERVICES / "Trino.java").read_text().replace("@PORT@", str(port))
    for name in ("Hive", "Iceberg", "Delta"):
        source = source.replace(f"//{name} ", "" if name in plugins else f"//{name} ")
    (directory / "Trino.java").write_text(source)
    compiled = subprocess.run([f"{home}/bin/javac", "-cp", jars, "-d", ".", "Trino.java"], cwd=directory, check=False,
                              capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    given = []
    for name, text in catalogs.items():
        (directory / f"{name}.properties").write_text(text)
        given.append(f"{name}={directory}/{name}.properties")
    command = [f"{home}/bin/java", "-Xmx1500m", "--add-modules", "jdk.incubator.vector", "-cp", f".:{jars}", "Trino"]
    with running([*command, *given], directory, lambda log: "READY" in log, 300) as log:
        assert "FAIL" not in log.read_text(), log.read_text()[-2000:]
        yield client.dbapi.connect(host="127.0.0.1", port=port, user="test").cursor()


def spark(directory: Path, jars: Sequence[Path] = (), **more: str) -> Any:
    """A Spark session on one core; the caller stops it. Names in `more` have `__` for a dot."""
    pyspark = pytest.importorskip("pyspark.sql", reason="pip install -r requirements-engines.txt")
    new_jvm()
    settings = {
        "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": str(directory / "warehouse"), "spark.jars": ",".join(map(str, jars)),
        "spark.driver.extraJavaOptions": f"-Dderby.system.home={directory} -Duser.timezone=UTC",
        "spark.databricks.delta.snapshotPartitions": "2", "spark.sql.shuffle.partitions": "2",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    builder = pyspark.SparkSession.builder.master("local[1]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def new_jvm() -> None:
    """A session that was stopped leaves its JVM, which would not load the jars of the next one."""
    from pyspark import SparkContext

    if gateway := SparkContext._gateway:
        gateway.shutdown()
        gateway.proc.stdin.close()
        SparkContext._gateway = SparkContext._jvm = None
