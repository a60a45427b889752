"""A table is exported completely, or a line says why not; what is in the way is left alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.embedded import EmbeddedKsqlDB, Fault

JAN15 = 1_736_899_200_000


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        database.create_table("T", "`ID` STRING KEY, `N` INTEGER")
        yield database


def lake() -> Path:
    return Path(os.environ["DATA_LAKE_DIR"])


def add(name: str, kind: str = "table") -> None:
    assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name.upper()]) == 0


def fill(database: EmbeddedKsqlDB, rows: int) -> None:
    for i in range(rows):
        database.upsert("T", [f"k{i}", i])


def versions() -> list[str]:
    return sorted(path.name for path in (lake() / "tables" / "t").glob("version=*"))


def test_the_next_free_version_number_is_taken(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    """A directory that is there already, restored from a backup, neither stops the table nor is it touched."""
    fill(ksqldb, 3)
    add("t")
    assert export_to_data_lake.main(["--all"]) == 0
    for number in (2, 3):
        shutil.copytree(lake() / "tables" / "t" / "version=v1", lake() / "tables" / "t" / f"version=v{number}")
    before = {path: path.read_bytes() for path in (lake() / "tables" / "t" / "version=v3").iterdir()}
    fill(ksqldb, 5)
    assert export_to_data_lake.main(["--all"]) == 1  # files that no metadata knows are a finding
    assert versions() == ["version=v1", "version=v2", "version=v3", "version=v4"]
    assert len(ksql_lake.read("t", lake=lake())) == 5
    assert all(path.read_bytes() == data for path, data in before.items())
    assert len(ksql_lake.read("t", lake=lake(), version=1)) == 3
    for number in (2, 3):
        shutil.rmtree(lake() / "tables" / "t" / f"version=v{number}")
    assert export_to_data_lake.main(["--all"]) == 0
    assert versions()[-1] == "version=v5" and metadata_utils.main(["--verify"]) == 0


@pytest.mark.parametrize(("status", "message"), [
    (400, "Pull queries are disabled. Please set ksql.pull.queries.enable=true to enable this feature."),
    (400, "Query requires table scan to be enabled. Table scans can be enabled by setting "
          "ksql.query.pull.table.scan.enabled=true"),
    (400, "Can't pull from `T` as it's not a materialized table."),
    (403, "You are forbidden from using this cluster's pull queries"),
    (400, "Statement type is not allowed here"),
])
def test_whatever_words_refuse_the_pull_its_changelog_is_read(
    ksqldb: EmbeddedKsqlDB, status: int, message: str, capsys: Any
) -> None:
    fill(ksqldb, 4)
    add("t")
    body = json.dumps({"@type": "statement_error", "error_code": 40001, "message": message}).encode()
    ksqldb.faults.add(Fault(status=status, body=body))
    assert export_to_data_lake.main(["--all"]) == 0
    assert len(ksql_lake.read("t", lake=lake())) == 4
    assert ksqldb.statements[-1][0].endswith("EMIT CHANGES;")
    log = "".join(path.read_text() for path in (lake() / "logs").glob("*.log"))
    assert "read from its changelog, because the pull query was refused" in log and message[:30] in log


@pytest.mark.parametrize(("status", "message", "words"), [
    (400, "Exception while preparing statement: T does not exist.", "T does not exist"),
    (401, "Unauthorized", "check KSQLDB_USER and KSQLDB_PASSWORD"),
])
def test_a_missing_source_and_a_wrong_login_are_told(
    ksqldb: EmbeddedKsqlDB, status: int, message: str, words: str, capsys: Any
) -> None:
    fill(ksqldb, 4)
    add("t")
    body = json.dumps({"@type": "statement_error", "error_code": 40001, "message": message}).encode()
    ksqldb.faults.add(Fault(status=status, body=body))
    assert export_to_data_lake.main(["--all"]) == 1
    assert words in capsys.readouterr().err and not versions()


def test_when_neither_can_be_read_both_reasons_are_told(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    fill(ksqldb, 4)
    add("t")
    ksqldb.faults.add(*(Fault(status=403, body=b'{"message":"%b"}' % word) for word in (b"no pull", b"no push")))
    assert export_to_data_lake.main(["--all"]) == 1
    told = capsys.readouterr().err
    assert "no pull" in told and "its changelog cannot be read either" in told and "no push" in told


WIDE = {
    "wide": ("STREAM", "`ID` STRING, `REWARD` DECIMAL(100, 0)", ["a", Decimal(1)], "column REWARD: DECIMAL(100, 0)"),
    "nested": ("STREAM", "`ID` STRING, `S` STRUCT<`X` DECIMAL(40, 2)>", ["a", {"X": Decimal("1.5")}],
               "column S: DECIMAL(40, 2)"),
    "listed": ("STREAM", "`ID` STRING, `A` ARRAY<MAP<STRING, DECIMAL(39, 39)>>", ["a", []],
               "column A: DECIMAL(39, 39)"),
    "odd": ("STREAM", "`ID` STRING, `D` DECIMAL(4, 6)", ["a", None], "column D: DECIMAL(4, 6)"),
    "money": ("TABLE", "`ID` STRING KEY, `X` DECIMAL(50, 2)", ["a", Decimal("1.5")], "column X: DECIMAL(50, 2)"),
}


def test_a_decimal_that_no_reader_holds_is_refused_by_name_and_the_other_feeds_go_on(
    ksqldb: EmbeddedKsqlDB, capsys: Any
) -> None:
    """A13, in an export and in `check --online`."""
    for name, (kind, columns, row, _) in WIDE.items():
        if kind == "STREAM":
            ksqldb.create_stream(name.upper(), columns, 1)
            ksqldb.append(name.upper(), 0, JAN15, row)
        else:
            ksqldb.create_table(name.upper(), columns)
            ksqldb.upsert(name.upper(), row)
        assert manage_feeds.main(["add", "--name", name, "--type", kind.lower(), "--source", name.upper()]) == 0
    fill(ksqldb, 2)
    ksqldb.create_table("Z", "`ID` STRING KEY, `D` DECIMAL(38, 38)")
    ksqldb.upsert("Z", ["a", Decimal("0." + "9" * 38)])
    add("t")
    add("z")
    capsys.readouterr()
    for main, argv in ((manage_feeds.main, ["check", "--online"]), (export_to_data_lake.main, ["--all"])):
        assert main(argv) == 1
        told = capsys.readouterr()
        lines = [line for line in told.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == len(WIDE) and "a bug" not in told.err and "Traceback" not in told.err, told.err
        for name, (_, _, _, words) in WIDE.items():
            assert any(name in line and words in line and "1 to 38 digits" in line for line in lines), (name, lines)
    assert len(ksql_lake.read("t", lake=lake())) == 2
    assert ksql_lake.read("z", lake=lake())["D"][0] == Decimal("0." + "9" * 38)


@pytest.mark.parametrize("queryable", [True, False])
def test_an_empty_table_is_a_note_until_it_has_rows(ksqldb: EmbeddedKsqlDB, queryable: bool, capsys: Any) -> None:
    """A14."""
    ksqldb.drop("T")
    ksqldb.create_table("T", "`ID` STRING KEY, `N` INTEGER", queryable=queryable)
    add("t")
    for _ in range(2):
        assert export_to_data_lake.main(["--all"]) == 0
        assert not versions() and len(ksql_lake.read("t", lake=lake())) == 0
    log = "".join(path.read_text() for path in (lake() / "logs").glob("*.log"))
    assert "the table is empty, and so is the lake's copy; no version was made" in log
    assert metadata_utils.main(["--report"]) == 0 and metadata_utils.main(["--verify", "--deep"]) == 0
    fill(ksqldb, 3)
    assert export_to_data_lake.main(["--all"]) == 0
    assert versions() == ["version=v1"] and len(ksql_lake.read("t", lake=lake())) == 3
    for i in range(3):
        ksqldb.delete("T", [f"k{i}"])
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == 1
    assert "run again with --allow-shrink" in capsys.readouterr().err and versions() == ["version=v1"]
    assert export_to_data_lake.main(["--all", "--allow-shrink"]) == 0
    assert versions() == ["version=v1", "version=v2"] and len(ksql_lake.read("t", lake=lake())) == 0
    assert export_to_data_lake.main(["--all"]) == 0  # empty as it was
    assert versions() == ["version=v1", "version=v2"]
