"""The metrics file, read by Prometheus' own parser after real exports."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB
from ksql_lake.model.findings import Finding
from ksql_lake.remote.standing import Standing
from ksql_lake.reporting.metrics import ExportRun, text
from ksql_lake.reporting.summary import FeedSummary
from tests.conftest import ROOT
from tests.lakes import a_run
from tests.test_alerts import UUID
from tests.test_export import JAN15, add_feed, export, make_stream, produce, state

RUN = ExportRun(0, dt.datetime(2025, 1, 20, 2, 0, tzinfo=dt.UTC), 1.5)


def read(content: str) -> dict[tuple[str, ...], float]:
    """(metric, label values but the type ...) -> value; one HELP, a TYPE of gauge and no series twice."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(content):
        assert family.type == "gauge" and family.documentation.endswith("."), family
        assert content.count(f"# HELP {family.name} ") == content.count(f"# TYPE {family.name} ") == 1
        for sample in family.samples:
            key = (sample.name, *(value for label, value in sample.labels.items() if label != "type"))
            assert key not in found, key
            found[key] = sample.value
    return found


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.2")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        monkeypatch.setenv("RETENTION", "off")
        make_stream(database)
        produce(database, 0, 60)
        add_feed("payments")
        database.create_table("TOTALS", "`ID` STRING KEY, `V` INTEGER")
        database.upsert("TOTALS", ["k", 1])
        add_feed("totals", "table")
        yield database


def test_every_feed_of_the_lake_after_every_run(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    file = tmp_path / "ksql_lake.prom"
    add_feed("missing")
    begun = time.time()
    assert export("--all", "--metrics-file", str(file)) == 1
    first = read(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o644 and list(tmp_path.glob(".*")) == []
    metadata = state(tmp_path / "lake", "payments")
    assert first["ksql_lake_rows", "payments"] == first["ksql_lake_last_run_rows", "payments"] == 60
    assert first["ksql_lake_bytes", "payments"] == sum(one["bytes"] for one in metadata["files"]) > 0
    assert (first["ksql_lake_files", "payments"], first["ksql_lake_partitions", "payments"]) == (3, 3)
    assert first["ksql_lake_freshness_seconds", "payments"] == pytest.approx(begun - JAN15 / 1000 - 59 * 3600, abs=60)
    assert first["ksql_lake_last_success_timestamp_seconds", "totals"] == pytest.approx(begun, abs=30)
    assert 0 < first["ksql_lake_last_run_duration_seconds", "payments"] < 30
    assert first["ksql_lake_last_run_result", "missing", "failed"] == 1
    assert first["ksql_lake_last_run_result", "missing", "ok"] == 0
    assert first["ksql_lake_last_success_timestamp_seconds", "missing"] == 0
    assert first["ksql_lake_findings", "missing", "error"] == 1 and first["ksql_lake_findings", "totals", "error"] == 0
    assert first["ksql_lake_export_exit_code",] == 1
    ksqldb.upsert("TOTALS", ["l", 1])
    assert export("--table", "totals", "--metrics-file", str(file)) == 0
    second = read(file.read_text())
    assert second["ksql_lake_export_exit_code",] == 0 and second["ksql_lake_rows", "totals"] == 3
    assert {key: first[key] for key in first if key[1:2] == ("payments",) and "freshness" not in key[0]}.items() <= (
        second.items()
    )


def test_a_run_that_fails_before_any_feed_is_told_too(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ksql_lake.prom"
    monkeypatch.setenv("METRICS_FILE", str(file))
    assert export("--all") == 0
    before = read(file.read_text())
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "0.1")
    monkeypatch.setenv("PING_URL", f"http://127.0.0.1:1/{UUID}")
    monkeypatch.setattr("ksql_lake.reporting.alerts.PAUSES", ())
    assert export("--all") == 1
    after = read(file.read_text())
    assert after["ksql_lake_export_exit_code",] == 1 and UUID not in file.read_text()
    key = ("ksql_lake_last_success_timestamp_seconds", "payments")
    assert after[key] == before[key] and after["ksql_lake_rows", "payments"] == 60


def test_a_feed_that_is_not_to_be_exported_has_no_age(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    file = tmp_path / "ksql_lake.prom"
    assert export("--all") == 0
    assert manage_feeds.main(["disable", "payments"]) == 0
    assert export("--all", "--metrics-file", str(file)) == 0
    found = read(file.read_text())
    assert found["ksql_lake_active", "payments"] == 0 and found["ksql_lake_active", "totals"] == 1
    assert found["ksql_lake_rows", "payments"] == 60
    ages = ("ksql_lake_freshness_seconds", "ksql_lake_last_success_timestamp_seconds")
    aged = {key[1] for key in found if key[0] in ages}
    assert aged == {"totals"}


@pytest.mark.parametrize("place", ["nowhere/ksql_lake.prom", "."])
def test_a_file_that_cannot_be_written_is_a_warning(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, place: str, capsys: Any
) -> None:
    assert export("--stream", "payments", "--metrics-file", str(tmp_path / place)) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert line.endswith("; the metrics there are old, the export is not affected")


def summary(**more: Any) -> FeedSummary:
    return FeedSummary(**{
        "feed": "f", "type": "stream", "state": "active", "rows": 0, "bytes": 0, "files": 0, "partitions": 0,
        "newest": "-", "newest_event": None, "freshness_seconds": None, "freshness_limit": None, "last_export": None,
        "last_success": None, "last_run": None, **more,
    })


def test_checks_and_rows_set_aside() -> None:
    check = {"check": "range", "column": "AMOUNT", "level": "warn", "failed": 3, "rows": 10, "message": "m"}
    run = a_run(
        ended="2025-01-20T02:00:00Z", result="findings", quarantined=7, seconds=0.25,
        checks=[check, {**check, "failed": 2}, {**check, "check": "row_count", "column": "", "failed": 0}],
    )
    found = read(text([summary(last_run=run)], RUN, "1.0"))
    assert found["ksql_lake_check_failed_rows", "f", "range", "AMOUNT", "warn"] == 5
    assert found["ksql_lake_check_failed_rows", "f", "row_count", "", "warn"] == 0
    assert found["ksql_lake_quarantined_rows", "f"] == 7
    assert found["ksql_lake_last_run_duration_seconds", "f"] == 0.25
    assert found["ksql_lake_last_run_timestamp_seconds", "f"] == 1737338400


def test_values_and_labels_of_any_kind() -> None:
    odd = 'a "quoted"\\path\nof two lines é'
    findings = (Finding("stale", "m"), Finding("schema", "m"), Finding("schema", "n"))
    large = summary(feed=odd, rows=2**53 + 1, freshness_seconds=0.125, freshness_limit=90000.0, findings=findings)
    content = text([large], RUN, "1.0")
    found = read(content)
    assert f" {2**53 + 1}\n" in content and found["ksql_lake_rows", odd] == 2**53 + 1
    assert found["ksql_lake_freshness_seconds", odd] == 0.125
    assert found["ksql_lake_freshness_limit_seconds", odd] == 90000
    assert [found["ksql_lake_findings", odd, level] for level in ("error", "warning", "note")] == [1, 0, 2]
    assert found["ksql_lake_export_timestamp_seconds",] == RUN.ended.timestamp()


def test_readme_names_metrics_that_exist() -> None:
    """And the other way round: each metric stands in README."""
    run = a_run(ended="2025-01-20T02:00:00Z", result="ok", seconds=1.0, rows=1, bytes=1, retries=0,
                quarantined=0, road="kafka", checks=[{"check": "c", "column": "", "level": "warn", "failed": 0}])
    stands = Standing(1, 1, 1, "2025-01-20T02:00:00Z", 0, 0, 0)
    whole = summary(last_run=run, freshness_seconds=1.0, freshness_limit=1.0, remote=stands)
    there = {key[0] for key in read(text([whole], RUN, "1.0"))}
    readme = "".join(path.read_text("utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")))
    named = set(re.findall(r"\bksql_lake_\w+", readme))
    follow = {name for name in named if name.startswith("ksql_lake_follow_")}  # on --listen; see test_kafka_follow
    assert named - follow == there


def test_a_lake_without_feeds_has_its_export() -> None:
    assert set(read(text([], RUN, "1.0"))) == {
        ("ksql_lake_info", "1.0"), ("ksql_lake_export_exit_code",), ("ksql_lake_export_timestamp_seconds",),
        ("ksql_lake_export_duration_seconds",),
    }
