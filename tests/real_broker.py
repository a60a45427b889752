"""A real Kafka broker (KRaft, one node) from Maven Central, for the marked tests; needs Java 17 and mvn."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
POM = """<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>3.5.1</version>
</dependency></dependencies></project>"""
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={logs}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
log.retention.check.interval.ms=1000
"""


def available() -> bool:
    return shutil.which("java") is not None and shutil.which("mvn") is not None


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def class_path(directory: Path) -> str | None:
    """The jars of Kafka, fetched once into the local Maven repository; None when they cannot be had."""
    (directory / "pom.xml").write_text(POM)
    out = directory / "class_path.txt"
    command = ["mvn", "-q", "dependency:build-classpath", f"-Dmdep.outputFile={out}"]
    done = subprocess.run(command, cwd=directory, capture_output=True, check=False, timeout=600)
    return out.read_text() if done.returncode == 0 and out.exists() else None


class RealBroker:
    """A broker that can be stopped and started again with what it has."""

    def __init__(self, directory: Path, jars: str) -> None:
        self._directory, self._jars = directory, jars
        self._port, controller = _free(), _free()
        self.bootstrap = f"127.0.0.1:{self._port}"
        self._properties = directory / "server.properties"
        text = PROPERTIES.format(port=self._port, controller=controller, logs=directory / "logs")
        self._properties.write_text(text)
        made = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(self._properties))
        assert made.wait() == 0
        self.start()
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["java", "-Xmx512m", "-cp", self._jars, *arguments]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._directory)

    def start(self) -> None:
        self._process = self._java("kafka.Kafka", str(self._properties))
        probe = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                if probe.list_topics(timeout=2).brokers:
                    return
            except Exception:
                time.sleep(0.5)
        raise TimeoutError("the broker did not start")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def __enter__(self) -> RealBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def create(self, topic: str, partitions: int, **config: str) -> None:
        named = {name.replace("_", "."): value for name, value in config.items()}
        made = self.admin.create_topics([NewTopic(topic, partitions, 1, config=named)])
        made[topic].result(30)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            about = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
            if len(about) == partitions and all(one.leader >= 0 for one in about.values()):
                return
            time.sleep(0.2)

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(30)
        time.sleep(1)

    def grow(self, topic: str, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)
        time.sleep(2)
