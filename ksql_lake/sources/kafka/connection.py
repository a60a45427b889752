"""How to reach Kafka: librdkafka's own settings, passed on unchanged, and its failures as one clear line each."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ksql_lake.base.errors import BrokerError, BrokerUnavailable, ConfigError

FORCED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "check.crcs": True,
    "fetch.queue.backoff.ms": 10,  # its default of a second stalls the reading
}
SHOWN = ("bootstrap.servers", "security.protocol", "sasl.mechanism", "sasl.mechanisms", "client.id", "group.id")
_WHERE = re.compile(r"^(?:[a-z_]+://)?(?P<address>[^/ ]+)/(?P<broker>\S+): (?P<what>.*)$", re.DOTALL)
_COORDINATOR = re.compile(r"^GroupCoordinator: (\S+): ")
_STATE = re.compile(r" \(after \d+ms in state [A-Z0-9_]+(?:, \d+ identical error\(s\) suppressed)?\)$")
_PROPERTY = re.compile(r"property:? \"?'?([A-Za-z0-9._]+)")
_LOST = re.compile(r"^FAIL \[[^]]*\] \[[^]]*\]: (\S+: Disconnected\b.*)$", re.DOTALL)
_CERTIFICATE = re.compile(r"alert (?:bad certificate|certificate|unsupported certificate|unknown ca|handshake failure)")
_CONNECT = re.compile(r"^Connect to ipv[46]#\S+ failed: ")


@dataclass(frozen=True)
class Connection:
    """Settings for librdkafka; `origin` names where they come from, `timeout` is in seconds."""

    settings: Mapping[str, str] = field(repr=False)
    origin: str = "KAFKA_CONFIG_FILE"
    timeout: float = 30.0

    @property
    def servers(self) -> str:
        return self.settings.get("bootstrap.servers", "")

    @property
    def addresses(self) -> Sequence[str]:
        return [address.rpartition("/")[2] for address in self.servers.replace(" ", "").split(",")]

    def hide(self, text: str) -> str:
        """The text without the values of settings that may be secret."""
        for name, value in self.settings.items():
            if name not in SHOWN and len(value) > 3:
                text = text.replace(value, "********")
        return text


def connection(servers: str | None, file: Path | None, timeout: float = 30.0) -> Connection | None:
    """The connection that KAFKA_BOOTSTRAP_SERVERS and KAFKA_CONFIG_FILE describe; None when neither is set.

    Raises:
        ConfigError: the file cannot be read, or names no broker.
    """
    if file is None:
        return Connection({"bootstrap.servers": servers}, "KAFKA_BOOTSTRAP_SERVERS", timeout) if servers else None
    settings = read_properties(file)
    if servers:
        settings["bootstrap.servers"] = servers
    if not settings.get("bootstrap.servers"):
        raise ConfigError(f"KAFKA_CONFIG_FILE: {file} has no bootstrap.servers; add a line with it")
    return Connection(settings, f"KAFKA_CONFIG_FILE {file}", timeout)


def read_properties(file: Path) -> dict[str, str]:
    """`name=value` on each line; # begins a comment line.

    Raises:
        ConfigError: names the file and the line, never its content.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"KAFKA_CONFIG_FILE: {file} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"KAFKA_CONFIG_FILE: {file} is not UTF-8 text; save it as UTF-8") from None
    settings: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(("#", "!")):
            continue
        name, mark, value = line.partition("=")
        if not mark or not name.strip():
            raise ConfigError(f"KAFKA_CONFIG_FILE: {file}, line {number}: expected name=value")
        settings[name.strip()] = value.strip()
    return settings


def library() -> Any:
    """The module confluent_kafka.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError as error:
        raise ConfigError(
            f"reading from Kafka needs confluent-kafka ({error}): pip install -r requirements-kafka.txt"
        ) from None
    return confluent_kafka


def refused_settings(connection: Connection, error: Exception) -> ConfigError:
    """librdkafka's complaint about a setting, without its value."""
    said = error.args[0].str() if error.args and hasattr(error.args[0], "str") else str(error)
    named = _PROPERTY.search(said)
    if named and "No such" in said:
        return ConfigError(
            f"{connection.origin}: {named[1]} is not a setting of librdkafka; see its CONFIGURATION.md (the names of "
            "Java clients differ)"
        )
    if named:
        return ConfigError(f"{connection.origin}: {named[1]} has a value that librdkafka does not accept")
    if "JAAS" in said:
        return ConfigError(
            f"{connection.origin}: sasl.jaas.config is for Java clients; set sasl.mechanism, sasl.username and "
            "sasl.password"
        )
    return ConfigError(f"{connection.origin}: {connection.hide(said)}")


@dataclass(frozen=True)
class Trouble:
    """An error that librdkafka reported in the background: its name (such as _TRANSPORT) and its text."""

    name: str
    text: str


class Troubles:
    """The errors reported so far, each once; a client reports the same one many times a second."""

    def __init__(self) -> None:
        self._seen: dict[Trouble, None] = {}

    def __call__(self, error: Any) -> None:
        text = _STATE.sub("", error.str())
        name = "_SSL" if "SSL handshake failed" in text or "SSL routines" in text else error.name()
        self._seen[Trouble(name, text)] = None

    def logger(self) -> logging.Logger:
        """For a client's log, which is shown nowhere: only there is it said that a broker hangs up each time."""
        made = logging.Logger("librdkafka")
        made.addHandler(_Listening(self._logged))
        return made

    def _logged(self, line: str) -> None:
        if found := _LOST.match(line):
            self._seen[Trouble(DISCONNECTED, _STATE.sub("", found[1]))] = None

    def clear(self) -> None:
        self._seen.clear()

    @property
    def final(self) -> bool:
        """Whether waiting longer cannot help: refused credentials, TLS, an unknown host name."""
        return any(trouble.name in ("_AUTHENTICATION", "_SSL", "_BAD_MSG") for trouble in self._seen)

    @property
    def refused(self) -> bool:
        """Whether nothing listens where a broker should or it hangs up, or its name is not known."""
        return any(t.name in ("_RESOLVE", DISCONNECTED) or "refused" in t.text for t in self._seen)

    def explain(self, connection: Connection, waited: float, advertised: Sequence[str] = ()) -> BrokerError:
        """The most telling one of the errors, as a line for a person.

        Args:
            waited: seconds.
            advertised: what the brokers call themselves (host:port), where one of them has told it.
        """
        ranked = sorted(self._seen, key=lambda trouble: _RANK.get(trouble.name, 9))
        other = [address for address in advertised if address not in connection.addresses]
        if other and (not ranked or ranked[0].name == "_ALL_BROKERS_DOWN"):
            return _not_reached(connection, ", ".join(other), f"no answer within {waited:.0f} s")
        if not ranked or ranked[0].name == "_ALL_BROKERS_DOWN":
            return BrokerUnavailable(
                f"{connection.origin}: {connection.servers} does not answer within {waited:.0f} s; is Kafka running "
                "there, and is there a firewall in between?"
            )
        return _explained(connection, ranked[0])


class _Listening(logging.Handler):
    """Passes on what is logged."""

    def __init__(self, heard: Callable[[str], None]) -> None:
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard(record.getMessage())


DISCONNECTED = "disconnected"  # the name of a trouble that librdkafka only logs
_RANK = {
    "_AUTHENTICATION": 0, "_SSL": 1, "_BAD_MSG": 2, "_RESOLVE": 3, "_TRANSPORT": 4, DISCONNECTED: 5,
    "_ALL_BROKERS_DOWN": 8,
}


def _explained(connection: Connection, trouble: Trouble) -> BrokerError:
    found = _WHERE.match(_COORDINATOR.sub(r"\1/coordinator: ", trouble.text))
    address = found["address"] if found else connection.servers
    what = connection.hide(found["what"] if found else trouble.text)
    start = f"{connection.origin}: {address}"
    if trouble.name == "_AUTHENTICATION":
        return BrokerError(f"{start}: the broker refuses these credentials ({what}); check sasl.mechanism, "
                           "sasl.username, "
                           "sasl.password and security.protocol")
    if trouble.name == "_SSL" and _CERTIFICATE.search(what):
        return BrokerError(f"{start}: does not accept this client's certificate ({what}); check "
                           "ssl.certificate.location and ssl.key.location")
    if trouble.name == "_SSL":
        return BrokerError(f"{start}: TLS failed ({what}); check security.protocol, ssl.ca.location and ssl.*")
    if trouble.name == "_BAD_MSG":
        return BrokerError(f"{start}: something answers there that is not Kafka; check host and port")
    what = _CONNECT.sub("", what)
    if found and found["broker"] != "bootstrap" and address not in connection.addresses:
        return _not_reached(connection, address, what)
    if trouble.name == "_RESOLVE":
        return BrokerUnavailable(f"{start}: no such host ({what}); check its name")
    if "Disconnected" in what:
        return BrokerUnavailable(f"{start}: hangs up ({what}); does it expect TLS or SASL (security.protocol), or is "
                                 "Kafka just being started there?")
    return BrokerUnavailable(f"{start}: cannot be reached ({what}); is Kafka running there?")


def _not_reached(connection: Connection, address: str, what: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"{connection.origin}: {connection.servers} answers, but a broker there calls itself {address}, which "
        f"cannot be reached from here ({what}); use a listener whose advertised.listeners name can be reached"
    )


def topic_refusal(connection: Connection, topic: str, error: Any) -> BrokerError:
    """The error for a topic that the broker does not let this user read."""
    name = error.name()
    if name == "TOPIC_AUTHORIZATION_FAILED":
        return BrokerError(
            f"{topic}: this user may not read the topic; it needs the ACLs Describe and Read ({connection.origin})"
        )
    if name in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"):
        return BrokerError(
            f"{topic}: no such topic on {connection.servers}; is this the Kafka that ksqlDB reads from, and may this "
            "user describe the topic?"
        )
    return BrokerUnavailable(f"{topic}: {connection.hide(error.str())} ({name}, {connection.servers})")


