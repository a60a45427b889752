"""A real Kafka broker (KRaft, one node) from Maven Central, for the marked tests; needs Java 17 and mvn."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
POM = """<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>x</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>3.5.1</version>
</dependency></dependencies></project>"""
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{CONTROLLER}
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOST:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,\
  SASL_SSL:SASL_SSL,SSL:SSL
controller.listener.names=CONTROLLER
log.dirs={logs}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
log.retention.check.interval.ms=1000
log.retention.ms=-1
log.cleaner.backoff.ms=200
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
  user_reader="{password}" user_stranger="{password}";
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=\
  org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={certificates}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={certificates}/ca.pem
listener.name.ssl.ssl.client.auth=required
"""
PASSWORD = "open-sesame-4711"
LISTENERS = ("PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL", "SSL", "LOST")


def available() -> bool:
    return all(shutil.which(program) is not None for program in ("java", "mvn", "openssl"))


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


def certificates(directory: Path) -> Path:
    """An authority (ca.pem), and what it signed: broker.pem, and reader.pem with reader.key for the user CN=reader.

    other.pem and other.key belong to the same name, but are signed by themselves.
    """
    directory.mkdir()

    def make(name: str, subject: str, *more: str) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={subject}",
                   "-keyout", f"{name}.key", "-out", f"{name}.pem", *more]
        subprocess.run(command, cwd=directory, capture_output=True, check=True)

    signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
    make("ca", "authority")
    make("broker", "broker", *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    make("reader", "reader", *signed)
    make("other", "reader")
    chain = [(directory / name).read_text() for name in ("broker.key", "broker.pem", "ca.pem")]
    (directory / "broker.pem").write_text("".join(chain))
    return directory


@contextlib.contextmanager
def running(directory: Path) -> Iterator[RealBroker]:
    """A broker in a directory of its own; skips the test where Java, Maven or the jars are missing."""
    if not available():
        pytest.skip("no Java, no Maven or no openssl")
    jars = class_path(directory)
    if jars is None:
        pytest.skip("Kafka cannot be fetched from Maven Central")
    with RealBroker(directory, jars) as broker:
        yield broker


class RealBroker:
    """A broker that can be stopped and started again with what it has.

    It has a listener for each kind of security, each on a port of its own. Users of PLAINTEXT may do everything;
    `reader` and `stranger` (PASSWORD) only what `allow` gave them. LOST is advertised at an address where nobody is.

    Attributes:
        bootstrap: host:port of PLAINTEXT.
        ports: of each listener.
        certificates: the directory with those for TLS.
    """

    def __init__(self, directory: Path, jars: str) -> None:
        self._directory, self._jars = directory, jars
        self._log = (directory / "broker.txt").open("wb")
        self.certificates = certificates(directory / "certificates")
        self.ports = {name: _free() for name in (*LISTENERS, "CONTROLLER")}
        self.bootstrap = self.address("PLAINTEXT")
        listeners = {name: f"{name}://127.0.0.1:{port}" for name, port in self.ports.items()}
        advertised = {name: listeners[name] for name in LISTENERS} | {"LOST": "LOST://127.0.0.1:9"}
        self._properties = directory / "server.properties"
        text = PROPERTIES.format(
            CONTROLLER=self.ports["CONTROLLER"], listeners=",".join(listeners.values()), logs=directory / "logs",
            advertised=",".join(advertised.values()), password=PASSWORD, certificates=self.certificates,
        )
        self._properties.write_text(text)
        made = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(self._properties))
        assert made.wait() == 0
        self.start()
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["java", "-Xmx512m", "-cp", self._jars, *arguments]
        return subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=self._directory)

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
        self._log.close()

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

    def forget(self, topic: str, partition: int, before: int) -> None:
        """Delete the records of a partition before an offset."""
        wanted = TopicPartition(topic, partition, before)
        self.admin.delete_records([wanted])[wanted].result(30)

    def user(self, name: str) -> None:
        """A user of SCRAM-SHA-512 with PASSWORD."""
        kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = UserScramCredentialUpsertion(name, kind, PASSWORD.encode())
        self.admin.alter_user_scram_credentials([wanted])[name].result(30)

    def allow(self, user: str, topic: str, operation: AclOperation) -> None:
        """Give a user a right on a topic."""
        kind = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", "*")
        wanted = AclBinding(*kind, operation, AclPermissionType.ALLOW)
        self.admin.create_acls([wanted])[wanted].result(30)

    def grow(self, topic: str, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(30)
        time.sleep(2)
