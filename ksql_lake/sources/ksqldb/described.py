"""What ksqlDB says about itself and its sources, as typed values; anything that ksqlDB would not send is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ksql_lake.base import limits


class Unexpected(Exception):
    """An answer that does not have ksqlDB's form; the message says what was expected."""


@dataclass(frozen=True)
class ServerInfo:
    """The content of /info; a part that this version of the server does not send is None."""

    version: str
    kafka_cluster_id: str | None
    service_id: str | None
    status: str | None


@dataclass(frozen=True)
class Source:
    """A stream or table as DESCRIBE shows it; `window` is TUMBLING, HOPPING, SESSION or None."""

    name: str
    kind: str
    topic: str
    partitions: int
    window: str | None
    keys: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    queryable: bool
    compacted: bool = False


def server_info(answer: Any) -> ServerInfo:
    """The answer of /info."""
    info = _object(answer, "an object").get("KsqlServerInfo")
    info = _object(info, "KsqlServerInfo")
    names = ("kafkaClusterId", "ksqlServiceId", "serverStatus")
    cluster, service, status = (_text(info, name) if info.get(name) is not None else None for name in names)
    return ServerInfo(_text(info, "version"), cluster, service, status)


def listed(answer: Any, kind: str) -> list[tuple[str, str, bool]]:
    """(name, kind, windowed) of the sources in an answer to LIST STREAMS or LIST TABLES."""
    found: list[tuple[str, str, bool]] = []
    for entity in _list(answer, "a list"):
        for item in _list(_object(entity, "an object").get(f"{kind}s", []), f"a list of {kind}s"):
            found.append((_text(_object(item, f"a {kind}"), "name"), kind, bool(item.get("isWindowed"))))
            if len(found) > limits.SOURCES:
                raise Unexpected(f"more than {limits.SOURCES:,} {kind}s")
    return found


def source(answer: Any) -> Source:
    """The source in an answer to DESCRIBE."""
    entities = _list(answer, "a list")
    described = _object(entities[0] if entities else None, "sourceDescription").get("sourceDescription")
    description = _object(described, "sourceDescription")
    fields = [_object(one, "a field") for one in _list(description.get("fields"), "fields")]
    kind = _text(description, "type").lower()
    if kind not in ("stream", "table"):
        raise Unexpected("expected type STREAM or TABLE")
    partitions, window = description.get("partitions") or 0, description.get("windowType")
    if type(partitions) is not int or not 0 <= partitions <= limits.PARTITIONS:
        raise Unexpected(f"expected partitions from 0 to {limits.PARTITIONS:,}")
    if window is not None and not isinstance(window, str):
        raise Unexpected("expected windowType to be text")
    statement = description.get("statement")
    source_table = isinstance(statement, str) and statement.upper().lstrip().startswith("CREATE SOURCE TABLE")
    topic = description.get("topic")
    return Source(
        name=_text(description, "name"),
        kind=kind,
        topic=topic if isinstance(topic, str) else "",
        partitions=partitions,
        window=window,
        keys=tuple(_text(f, "name") for f in fields if f.get("type") == "KEY"),
        fields=tuple((_text(f, "name"), _text(_object(f.get("schema"), "schema"), "type")) for f in fields),
        queryable=bool(description.get("writeQueries")) or source_table,
        compacted=isinstance(statement, str) and "CLEANUP_POLICY='compact" in statement,
    )


def description(answer: Any) -> dict[str, Any]:
    """The `sourceDescription` of an answer to DESCRIBE ... EXTENDED, once it is known to describe a source."""
    source(answer)
    return dict(answer[0]["sourceDescription"])


def settings(answer: Any) -> dict[str, str]:
    """Name to value of an answer to LIST PROPERTIES."""
    entities = _list(answer, "a list")
    listed_ = _list(_object(entities[0] if entities else None, "properties").get("properties"), "properties")
    each = [_object(one, "a property") for one in listed_]
    return {_text(one, "name"): str(one.get("value")) for one in each}


def queries(answer: Any) -> frozenset[str]:
    """The ids in an answer to SHOW QUERIES: persistent queries, and push queries that a client listens to."""
    entities = _list(answer, "a list")
    listed_ = _list(_object(entities[0] if entities else None, "queries").get("queries"), "queries")
    return frozenset(_text(_object(one, "a query"), "id") for one in listed_)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unexpected(f"expected {what}")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Unexpected(f"expected {what}")
    return value


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise Unexpected(f"expected {name} to be text")
    return found
