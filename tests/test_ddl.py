"""ksqlDB's types in other systems' words."""

from __future__ import annotations

import pytest

from ksql_lake.ddl import hive_type
from ksql_lake.errors import SchemaError
from ksql_lake.types import parse_type

HIVE = {
    "BOOLEAN": "boolean",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "DOUBLE": "double",
    "DECIMAL(12, 2)": "decimal(12,2)",
    "STRING": "string",
    "BYTES": "binary",
    "DATE": "date",
    "TIME": "int",
    "TIMESTAMP": "timestamp",
    "ARRAY<DECIMAL(4, 4)>": "array<decimal(4,4)>",
    "MAP<STRING, ARRAY<BIGINT>>": "map<string,array<bigint>>",
    "STRUCT<`CITY` STRING, `date` DATE, `b c` STRUCT<`x,y` INTEGER>>":
        "struct<CITY:string,`date`:date,`b c`:struct<`x,y`:int>>",
    "STRUCT<`A` INTEGER, `a` BIGINT>": "struct<A:int,a_:bigint>",
    "STRUCT<`_x` INTEGER, `1` BIGINT>": "struct<`_x`:int,`1`:bigint>",
}


@pytest.mark.parametrize("text", HIVE)
def test_types_in_the_words_of_hive(text: str) -> None:
    assert hive_type(parse_type(text)) == HIVE[text]
    assert hive_type(parse_type(text), quoted=False) == HIVE[text].replace("`", "")


def test_what_no_file_can_hold_has_no_type() -> None:
    with pytest.raises(SchemaError, match="cannot be stored"):
        hive_type(parse_type("ARRAY<STRUCT< >>"))
