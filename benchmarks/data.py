"""The rows that all ways read: deterministic, flat or nested, as ksqlDB sends them and as named NDJSON."""

from __future__ import annotations

import random
from collections.abc import Iterator

START = 1_736_899_200_000  # 2025-01-15T00:00:00Z
SPACING = 129  # ms: two million rows span three days
CITIES = ("Paris", "Lyon", "München", "São Paulo", "Genève", "Kraków")
FLAT = (
    "`ROWTIME` BIGINT, `ROWPARTITION` INTEGER, `ROWOFFSET` BIGINT, `TRANSACTION_ID` STRING, `USER_ID` STRING, "
    "`PRODUCT_ID` STRING, `AMOUNT` DECIMAL(12, 2), `CURRENCY` STRING, `PAYMENT_METHOD` STRING, `COUNTRY` STRING, "
    "`CITY` STRING, `IP_ADDRESS` STRING, `QUANTITY` INTEGER, `FRAUD` BOOLEAN, `EVENT_TS` BIGINT"
)
NESTED = (
    "`ROWTIME` BIGINT, `ROWPARTITION` INTEGER, `ROWOFFSET` BIGINT, `TRANSACTION_ID` STRING, "
    "`CUSTOMER` STRUCT<`USER_ID` STRING, `ADDRESS` STRUCT<`CITY` STRING, `COUNTRY` STRING>, `IP_ADDRESS` STRING>, "
    "`ITEMS` ARRAY<STRUCT<`PRODUCT_ID` STRING, `QUANTITY` INTEGER, `PRICE` DOUBLE>>, `TAGS` ARRAY<STRING>, "
    "`ATTRIBUTES` MAP<STRING, INTEGER>, `AMOUNT` DECIMAL(12, 2), `CREATED` TIMESTAMP"
)
NESTED_NAMES = ("ROWTIME", "ROWPARTITION", "ROWOFFSET", "TRANSACTION_ID", "CUSTOMER", "ITEMS", "TAGS", "ATTRIBUTES",
                "AMOUNT", "CREATED")
FLAT_NAMES = ("ROWTIME", "ROWPARTITION", "ROWOFFSET", "TRANSACTION_ID", "USER_ID", "PRODUCT_ID", "AMOUNT", "CURRENCY",
              "PAYMENT_METHOD", "COUNTRY", "CITY", "IP_ADDRESS", "QUANTITY", "FRAUD", "EVENT_TS")
SCHEMAS = {"flat": (FLAT, FLAT_NAMES), "nested": (NESTED, NESTED_NAMES)}


def rows(kind: str, count: int) -> Iterator[tuple[str, ...]]:
    """The columns of each row as JSON text; about one string in two hundred has escapes, and a few values are null."""
    random_ = random.Random(7)
    make = _flat if kind == "flat" else _nested
    for i in range(count):
        yield make(i, random_)


def _head(i: int) -> tuple[str, str, str]:
    return str(START + i * SPACING), str(i % 4), str(i // 4)


def _city(random_: random.Random) -> str:
    return '"Orléans \\"centre\\"\\n"' if random_.random() < 0.005 else f'"{random_.choice(CITIES)}"'


def _flat(i: int, r: random.Random) -> tuple[str, ...]:
    return (
        *_head(i), f'"tx_{i:012d}"', f'"user_{r.randrange(5000)}"', f'"prod_{r.randrange(500)}"',
        f"{r.randrange(1, 999)}.{r.randrange(100):02d}", f'"{r.choice(("EUR", "USD", "GBP"))}"',
        f'"{r.choice(("card", "paypal", "sepa", "applepay"))}"', f'"{r.choice(("FR", "DE", "BR", "US"))}"',
        "null" if r.random() < 0.02 else _city(r), f'"10.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(256)}"',
        str(r.randrange(1, 9)), r.choice(("true", "false", "false", "null")),
        str(START + i * SPACING - r.randrange(5000)),
    )


def _nested(i: int, r: random.Random) -> tuple[str, ...]:
    items = ",".join(
        f'{{"PRODUCT_ID":"prod_{r.randrange(500)}","QUANTITY":{r.randrange(1, 9)},"PRICE":{r.randrange(1, 999)}.5}}'
        for _ in range(r.randrange(1, 4))
    )
    customer = (
        f'{{"USER_ID":"user_{r.randrange(5000)}","ADDRESS":{{"CITY":{_city(r)},"COUNTRY":"FR"}},'
        f'"IP_ADDRESS":"10.{r.randrange(256)}.{r.randrange(256)}.{r.randrange(256)}"}}'
    )
    return (
        *_head(i), f'"tx_{i:012d}"', customer, f"[{items}]", f'["web","{r.choice(CITIES)}"]',
        f'{{"k{r.randrange(9)}":{r.randrange(99)},"z":1}}', f"{r.randrange(1, 999)}.{r.randrange(100):02d}",
        f'"2025-01-15T10:{i % 60:02d}:{i // 60 % 60:02d}.{i % 1000:03d}"',
    )


def header(kind: str) -> bytes:
    schema = SCHEMAS[kind][0].replace('"', '\\"')
    return f'[{{"header":{{"queryId":"bench","schema":"{schema}"}}}},\n'.encode()


def wire_rows(kind: str, count: int) -> Iterator[bytes]:
    """Each row as a line of `/query`, the last without its comma."""
    for i, columns in enumerate(rows(kind, count)):
        yield f'{{"row":{{"columns":[{",".join(columns)}]}}}}{"," if i < count - 1 else "]"}\n'.encode()


def named(kind: str, count: int) -> Iterator[bytes]:
    """Each row as a line of NDJSON with names: the easier input DuckDB and Polars get."""
    names = SCHEMAS[kind][1]
    for columns in rows(kind, count):
        yield ("{" + ",".join(f'"{n}":{v}' for n, v in zip(names, columns, strict=True)) + "}\n").encode()
