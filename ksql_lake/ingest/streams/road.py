"""How a stream is read: through ksqlDB's REST API, or directly from the topic where that is known to give the same."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from ksql_lake.base.errors import BrokerError, ConfigError, SourceError
from ksql_lake.ingest.streams.job import StreamJob
from ksql_lake.model.anchor import TopicMark
from ksql_lake.model.feeds import Feed
from ksql_lake.model.findings import Finding
from ksql_lake.sources.kafka import proof
from ksql_lake.sources.kafka.asked import Asker
from ksql_lake.sources.kafka.connection import Connection
from ksql_lake.sources.kafka.formats import Plan, Refusal, plan_of
from ksql_lake.sources.kafka.topic import Broker, TopicState
from ksql_lake.sources.kafka.topic_rows import TopicRows
from ksql_lake.sources.ksqldb.client import Client, Source
from ksql_lake.sources.ksqldb.push_rows import PushSource
from ksql_lake.sources.row_source import RowSource

NOT_SET = "KAFKA_BOOTSTRAP_SERVERS and KAFKA_CONFIG_FILE are not set"


@dataclass(frozen=True)
class Road:
    """The rows' source and why it is this one.

    Attributes:
        name: kafka or rest.
        proof: a hash of what was compared with real rows; None over REST.
        finding: set where the comparison found a difference.
        other: the road to take when this one turns out not to be passable; None when the feed asks for this one.
        asker: asks ksqlDB for single records.
    """

    rows: RowSource
    name: str
    why: str = ""
    proof: str | None = None
    finding: Finding | None = None
    other: RowSource | None = None
    asker: Asker | None = None


@dataclass(frozen=True)
class Checked:
    """A topic that may be read instead of asking ksqlDB: its plan, its connection, its state, and the proof."""

    plan: Plan
    broker: Broker
    state: TopicState
    proof: str | None
    rows: int


class NotLarge(Exception):
    """There is too little to read for workers on other machines to share."""


class NotThisRoad(SourceError):
    """A stream that cannot be read from its topic.

    Attributes:
        differs: rows were compared, and one was different.
    """

    def __init__(self, message: str, *, differs: bool = False) -> None:
        super().__init__(message)
        self.differs = differs


def choose(
    client: Client, source: Source, job: StreamJob, mark: TopicMark, started_ms: int, held: ExitStack, least: int = 0
) -> Road:
    """How this run reads the stream.

    Args:
        mark: the state of the topic after an earlier run.
        held: closes what must stay open during the run.
        least: for a topic with fewer records it does not matter how it is read.

    Raises:
        LakeError: the feed asks for Kafka, which cannot be had.
        NotLarge: there are fewer records than `least`.
    """
    query = PushSource(client, source, job.limits, job.batch_size, job.on_bad_value != "fail", started_ms)
    rest: RowSource = job.push.over(query) if job.push else query
    must = job.read_from == "kafka" or job.exact_values
    if job.read_from == "rest" and not job.exact_values:
        return Road(rest, "rest", "read_from is rest")
    try:
        if job.kafka is None:
            raise ConfigError(f"{job.dataset.feed}: {NOT_SET}; set one of them, or read the feed over REST")
        checked = check(client, job.kafka, source, mark, job.limits.idle, held, least, must=must)
    except (BrokerError, ConfigError, NotThisRoad) as error:
        if must:
            raise
        why = NOT_SET if job.kafka is None else str(error)
        differs = isinstance(error, NotThisRoad) and error.differs
        message = f"{error}; the stream is read over REST instead"
        finding = Finding("drift", message, feed=job.dataset.feed) if differs else None
        return Road(rest, "rest", why, finding=finding)
    lenient = job.on_bad_value != "fail"
    asker = None if job.exact_values else Asker(client, source.name, job.limits, lenient=lenient)
    rows = TopicRows(
        checked.broker, checked.plan, checked.state, mark, rest, job.dataset.feed, job.batch_size,
        lenient=lenient, exact=job.exact_values, asker=asker,
    )
    compared = f", {checked.rows} rows compared with ksqlDB's" if checked.rows else ""
    other = None if must else rest
    return Road(rows, "kafka", f"topic {checked.plan.topic}{compared}", checked.proof, other=other, asker=asker)


def check(
    client: Client, kafka: Connection, source: Source, mark: TopicMark, patience: float, held: ExitStack,
    least: int = 0, *, must: bool = False,
) -> Checked:
    """Whether a stream can be read from its topic.

    Args:
        must: nothing else will do, so that a topic without any record need not be compared before it is read. (Where
            REST will do, it is asked: an empty topic may belong to another cluster.)

    Raises:
        NotLarge: it has fewer records than `least`.
        NotThisRoad: it cannot, according to DESCRIBE or to a comparison of rows.
        BrokerError, ConfigError: Kafka cannot be read.
    """
    settings = client.settings()
    plan = plan_of(client.description(source.name), settings)
    if isinstance(plan, Refusal):
        raise NotThisRoad(f"{plan.source}: {plan.reason}")
    broker = held.enter_context(Broker(kafka))
    info = client.server_info()
    shown = proof.fingerprint(plan, settings, info.version)
    state = broker.describe(plan.topic)
    if other := another_cluster(info.kafka_cluster_id, state.cluster, kafka.servers):
        raise NotThisRoad(f"{plan.source}: {other}")
    following = mark.next if mark.id is None or mark.id == state.id else {}
    if sum(max(0, b.end - max(b.start, following.get(p, 0))) for p, b in state.bounds.items()) < least:
        raise NotLarge
    if mark.proof == shown:
        return Checked(plan, broker, state, shown, 0)
    if must and not state.leaderless and all(bounds.start >= bounds.end for bounds in state.bounds.values()):
        return Checked(plan, broker, state, None, 0)
    found = proof.prove(client, broker, plan, state, patience)
    if found.reason is not None:
        raise NotThisRoad(f"{plan.source}: {found.reason}", differs=found.differs)
    return Checked(plan, broker, state, shown, found.rows)


def another_cluster(of_ksqldb: str | None, of_broker: str | None, servers: str) -> str | None:
    """What is wrong when ksqlDB reads from another Kafka cluster than this one; None where both or nobody can tell."""
    if not of_ksqldb or not of_broker or of_ksqldb == of_broker:
        return None
    return (
        f"{servers} is Kafka cluster {of_broker}, but ksqlDB reads from cluster {of_ksqldb}; set "
        "KAFKA_BOOTSTRAP_SERVERS (or bootstrap.servers in KAFKA_CONFIG_FILE) to the brokers that ksqlDB reads from"
    )


def foretold(client: Client, source: Source, feed: Feed, kafka: Connection | None, patience: float) -> str:
    """How an export would read the stream now, and why; rows are compared as at a first export.

    Raises:
        LakeError: the feed asks for Kafka, which cannot be had.
    """
    if feed.read_from == "rest" and not feed.exact_values:
        return "by REST (read_from is rest)"
    must = feed.read_from == "kafka" or feed.exact_values
    try:
        if kafka is None:
            raise ConfigError(f"{feed.name}: {NOT_SET}")
        with ExitStack() as held:
            checked = check(client, kafka, source, TopicMark(1), patience, held, must=must)
    except (BrokerError, ConfigError, NotThisRoad) as error:
        if must:
            raise
        return f"by REST ({NOT_SET if kafka is None else error})"
    return f"by Kafka (topic {checked.plan.topic}, {checked.rows} rows compared with ksqlDB's)"


def refuse_moved_values(job: StreamJob, mark: TopicMark, exported: bool) -> None:
    """Refuse to mix values as REST shows them and values as the topic has them in one feed.

    Raises:
        SourceError: exact_values was different at the first export.
    """
    if exported and mark.exact != job.exact_values:
        was, wanted = str(mark.exact).lower(), str(job.exact_values).lower()
        raise SourceError(
            f"{job.dataset.feed}: exact_values was {was} at the first export and is now {wanted}; change the feed back "
            "or archive it and add a new one"
        )


