"""Demo data: the eight transaction sources, computed from one reproducible series of events."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal

from .engine import Engine

PARTITIONS = 4
_DAY = 86_400_000
_EVENT = ("`TRANSACTION_ID` STRING, `USER_ID` STRING, `PRODUCT_ID` STRING, `AMOUNT` DECIMAL(12, 2), "
          "`CURRENCY` STRING, `PAYMENT_METHOD` STRING, ")
_CUSTOMER = ("`CUSTOMER` STRUCT<`COUNTRY` STRING, `CITY` STRING, `IP_ADDRESS` STRING>, "
             "`ITEMS` ARRAY<STRUCT<`SKU` STRING, `QTY` INTEGER, `PRICE` DECIMAL(10, 2)>>, `TAGS` MAP<STRING, STRING>, ")
_END = "`IS_REFUND` BOOLEAN, `EVENT_TS` BIGINT"
_STREAMS = {
    "TRANSACTION_STREAM": _EVENT + _CUSTOMER + _END,
    "TRANSACTION_FLATTENED": _EVENT + "`COUNTRY` STRING, `CITY` STRING, `IP_ADDRESS` STRING, " + _END,
    "TRANSACTION_STREAM_ANONYMIZED": _EVENT + "`COUNTRY` STRING, `IP_ADDRESS` STRING, " + _END,
    "TRANSACTION_STREAM_BLACKLISTED": _EVENT + _CUSTOMER + _END,
}
_TABLES = {
    "USER_TRANSACTION_SUMMARY": "`USER_ID` STRING KEY, `N` BIGINT, `TOTAL` DECIMAL(12, 2)",
    "USER_TRANSACTION_SUMMARY_EUR": "`USER_ID` STRING KEY, `N` BIGINT, `TOTAL` DECIMAL(12, 2)",
    "PAYMENT_METHOD_TOTALS": "`PAYMENT_METHOD` STRING KEY, `N` BIGINT, `TOTAL` DECIMAL(12, 2)",
    "PRODUCT_PURCHASE_COUNTS": "`PRODUCT_ID` STRING KEY, `N` BIGINT",
}
_CITIES = ("Berlin", 'Orléans "centre"\n', "London", "Kraków", "New York", "東京")
_COUNTRIES = ("DE", "FR", "GB", "US", "XX")
_CURRENCIES = ("EUR", "USD", "GBP")
_METHODS = ("card", "paypal", "sepa", "applepay")


def mask(text: str) -> str:
    """ksqlDB's MASK: X for capitals, x for small letters, n for digits, - for the rest."""
    return "".join("X" if "A" <= c <= "Z" else "x" if "a" <= c <= "z" else "n" if "0" <= c <= "9" else "-"
                   for c in text)


def _event(rng: random.Random, number: int, rowtime: int) -> list[object]:
    draw = rng.random  # several times quicker than randrange and choice

    def below(count: int) -> int:
        return int(draw() * count)

    customer = {"COUNTRY": _COUNTRIES[below(5)], "CITY": _CITIES[below(6)],
                "IP_ADDRESS": f"10.0.{below(256)}.{below(256)}"}
    items = [{"SKU": f"s{below(100)}", "QTY": 1 + below(4), "PRICE": Decimal(100 + below(9900)).scaleb(-2)}
             for _ in range(1 + below(3))]
    return [f"tx_{number:09d}", f"user_{below(3000)}", f"prod_{below(300)}", Decimal(100 + below(90_000)).scaleb(-2),
            _CURRENCIES[below(3)], _METHODS[below(4)], customer, items,
            {"channel": "web" if draw() < 0.5 else "app"}, draw() < 0.05, rowtime]


def fill_demo(
    db: Engine, events: int, seed: int = 1, start: date = date(2025, 1, 15), days: int = 3, end: datetime | None = None
) -> None:
    """Create the eight sources and fill them with `events` events, evenly over `days` UTC days from `start`, or from
    the start of that day until `end`.

    The same arguments give the same data. The tables hold their final rows only: one changelog record per row.
    """
    rng = random.Random(seed)
    for name, columns in _STREAMS.items():
        db.create_stream(name, columns, PARTITIONS)
    for name, columns in _TABLES.items():
        db.create_table(name, columns, window="TUMBLING" if name == "PRODUCT_PURCHASE_COUNTS" else None,
                        partitions=PARTITIONS)
    first = int(datetime.combine(start, time(), UTC).timestamp() * 1000)
    span = days * _DAY if end is None else max(int(end.timestamp() * 1000) - first, 0)
    totals: dict[str, dict[tuple[object, ...], list[object]]] = {name: defaultdict(lambda: [0, Decimal(0), 0])
                                                                for name in _TABLES}
    with db.changed:
        for number in range(events):
            rowtime = first + number * span // max(events, 1)
            event = _event(rng, number, rowtime)
            _publish(db, rng.randrange(PARTITIONS), rowtime, event)
            _count(totals, rowtime, event)
        for name, groups in totals.items():
            for place, (key, (count, total, rowtime_)) in enumerate(sorted(groups.items(), key=lambda g: repr(g[0]))):
                values = [*key, count] + ([] if name == "PRODUCT_PURCHASE_COUNTS" else [total])
                assert isinstance(rowtime_, int)
                db.upsert(name, values, rowtime_, place % PARTITIONS)


def live_demo(
    db: Engine, stop: threading.Event, published: Callable[[str], None], first: int, rate: float = 20
) -> None:
    """Append events of the present to the four streams until `stop` is set, about `rate` a second.

    Args:
        published: called with a stream's name after something was appended to it.
        first: the number of the first event.
    """
    rng = random.Random(first)
    while not stop.wait(5 / rate):
        for _ in range(5):
            rowtime = int(datetime.now(UTC).timestamp() * 1000)
            _publish(db, rng.randrange(PARTITIONS), rowtime, _event(rng, first, rowtime))
            first += 1
        for name in _STREAMS:
            published(name)


def _publish(db: Engine, partition: int, rowtime: int, event: list[object]) -> None:
    customer = event[6]
    assert isinstance(customer, dict)
    db.append("TRANSACTION_STREAM", partition, rowtime, event)
    where = [customer["COUNTRY"], customer["CITY"], customer["IP_ADDRESS"]]
    db.append("TRANSACTION_FLATTENED", partition, rowtime, [*event[:6], *where, *event[9:]])
    hidden = [event[0], mask(str(event[1])), *event[2:6], where[0], mask(str(where[2])), *event[9:]]
    db.append("TRANSACTION_STREAM_ANONYMIZED", partition, rowtime, hidden)
    if where[0] == "XX":
        db.append("TRANSACTION_STREAM_BLACKLISTED", partition, rowtime, event)


def _count(totals: dict[str, dict[tuple[object, ...], list[object]]], rowtime: int, event: list[object]) -> None:
    window = rowtime - rowtime % _DAY
    groups: list[tuple[str, tuple[object, ...]]] = [
        ("USER_TRANSACTION_SUMMARY", (event[1],)), ("PAYMENT_METHOD_TOTALS", (event[5],)),
        ("PRODUCT_PURCHASE_COUNTS", (event[2], window, window + _DAY))]
    if event[4] == "EUR":
        groups.append(("USER_TRANSACTION_SUMMARY_EUR", (event[1],)))
    for name, key in groups:
        group = totals[name][key]
        count, total, _ = group
        assert isinstance(count, int) and isinstance(total, Decimal) and isinstance(event[3], Decimal)
        group[:] = [count + 1, total + event[3], rowtime]
