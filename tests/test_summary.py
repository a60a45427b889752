"""What the summary says of feeds that a real export made, and of states written down by hand."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import manage_feeds
from ksql_lake.model import feeds
from ksql_lake.model.findings import KINDS, LEVELS, Finding
from ksql_lake.model.state import FeedState, SchemaVersion
from ksql_lake.reporting.findings import findings_of_runs, findings_of_state, missed
from ksql_lake.reporting.summary import FeedSummary, as_json, summarise
from ksql_lake.store.history import Run
from tests.lakes import a_run

NOW = dt.datetime(2025, 1, 18, 2, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("summary") / "lake"
    start = ["--demo", "--start", "2025-01-15"]
    assert export_to_data_lake.main([*start, "--quiet", "--lake", str(lake), "--events", "300"]) == 0
    return lake


def one(lake: Path, name: str, now: dt.datetime = NOW) -> FeedSummary:
    (summary,) = summarise(lake, now, name)
    return summary


def state_of(lake: Path, name: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((lake / "streams" / name / "_metadata.json").read_text())
    return state


def kinds(findings: Any) -> list[str]:
    return [finding.kind for finding in findings]


def test_a_stream_and_a_table_after_a_good_night(lake: Path) -> None:
    stream = one(lake, "transaction_stream")
    assert (stream.type, stream.state, stream.rows, stream.partitions, stream.files) == ("stream", "active", 300, 3, 3)
    newest = max(file["rowtime_max"] for file in state_of(lake, "transaction_stream")["files"]) / 1000
    assert stream.newest == "2025-01-17" and stream.freshness_seconds == pytest.approx(NOW.timestamp() - newest)
    assert stream.newest_event is not None and stream.newest_event.startswith("2025-01-17T23:") and not stream.findings
    assert stream.bytes == sum(path.stat().st_size for path in (lake / "streams/transaction_stream").rglob("*.parquet"))
    table = one(lake, "payment_method_totals")
    assert (table.type, table.newest, table.newest_event) == ("table", "v1", table.last_export)
    assert table.freshness_seconds == 0  # taken after NOW
    assert table.last_run is not None and table.last_run.result == "ok"
    assert table.last_success == table.last_run.ended


def test_a_limit_of_its_own_makes_a_feed_stale(lake: Path) -> None:
    name = "transaction_flattened"
    path = lake / "feeds" / "active" / f"{name}.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "freshness_hours": 2.5}))
    try:
        assert one(lake, name).freshness_limit == 9000 and not one(lake, name).findings
        late = one(lake, name, NOW + dt.timedelta(hours=1))
        assert kinds(late.findings) == ["stale"] and "2.5 are allowed" in late.findings[0].message
    finally:
        path.write_text(before)


@pytest.mark.parametrize(("text", "status", "kind"), [
    ('{"feed_name": "nobody"}', "broken", ["feed file"]),
    ('{"feed_name": "nobody", "feed_type": "stream", "ksqldb_source": "N", "enabled": false}', "disabled", []),
    ('{"feed_name": "nobody", "feed_type": "stream", "ksqldb_source": "N", "freshness_hours": 3}', "active", ["stale"]),
])
def test_feeds_that_were_never_exported(lake: Path, text: str, status: str, kind: list[str]) -> None:
    path = lake / "feeds" / "active" / "nobody.json"
    path.write_text(text)
    try:
        summary = one(lake, "nobody")
        assert (summary.state, summary.rows, summary.newest, summary.freshness_seconds) == (status, 0, "-", None)
        assert kinds(summary.findings) == kind
    finally:
        path.unlink()


def test_an_archived_feed_keeps_its_data_and_asks_for_nothing(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_LAKE_DIR", str(lake))
    assert manage_feeds.main(["archive", "transaction_stream_blacklisted"]) == 0
    try:
        summary = one(lake, "transaction_stream_blacklisted", NOW + dt.timedelta(days=4000))
        assert summary.state == "archived" and summary.rows > 0 and not summary.findings
        with (lake / "logs" / "runs.jsonl").open("a") as file:
            file.write(json.dumps({"feed": "transaction_stream_blacklisted", "ended": "2025-01-18T02:00:00Z",
                                   "result": "failed", "findings": ["x"]}) + "\n")
        assert not one(lake, "transaction_stream_blacklisted").findings
    finally:
        assert manage_feeds.main(["restore", "transaction_stream_blacklisted"]) == 0


def test_spoiled_metadata_are_a_finding_and_the_others_are_told(lake: Path) -> None:
    path = lake / "streams" / "transaction_stream" / "_metadata.json"
    before = path.read_text()
    path.write_text("{torn")
    try:
        spoiled = {summary.feed: summary for summary in summarise(lake, NOW)}
        assert len(spoiled) == 8 and kinds(spoiled["transaction_stream"].findings) == ["metadata"]
    finally:
        path.write_text(before)


def test_retention_that_is_due_and_retention_that_is_refused(lake: Path) -> None:
    feed = replace(feeds.load(lake / "feeds" / "active" / "transaction_stream.json"), retention_days=365)
    state = FeedState.from_json({**state_of(lake, "transaction_stream"), "last_export": "2026-01-15T02:00:00Z"})
    (due,) = findings_of_state("s", state, feed, dt.datetime(2026, 1, 16, 2, tzinfo=dt.UTC), 0.3)
    assert due == Finding("retention", "1 day, 100 rows, due to be removed: python manage_feeds.py retention "
                                       "s", feed="s")
    (refused,) = findings_of_state("s", state, feed, dt.datetime(2026, 1, 18, 2, tzinfo=dt.UTC), 0.3)
    assert (refused.kind, refused.level) == ("retention", "warning") and "would go" in refused.message


def test_what_runs_say_becomes_kinds() -> None:
    said = [
        Finding("gap", "at most 7 rows of partition 1 expired before they were exported", feed="s", partition=1),
        Finding("drift", "the topic was recreated (x); generation 2 starts, older data stays", feed="s"),
        Finding("drift", "2025-01-16  source        120  lake        100  20 not in the lake", feed="s"),
        Finding("files", "/lake/x.parquet: no metadata knows this file, readers will see its rows", feed="s"),
        Finding("incomplete", "stopped at the time limit; the rest is read next time", feed="s"),
        Finding("run", "one at a row", "note", "s", 3, 17),
    ]
    told_from_the_state = Finding("retention", "refused", "warning", "s")
    run = a_run(result="findings", findings=[f.as_json() for f in [*said, told_from_the_state]])
    assert findings_of_runs("s", [a_run(result="failed"), run], None) == said
    failed = a_run(result="failed", findings=["no such stream"])
    assert findings_of_runs("s", [run, failed], None) == [Finding("failed", "no such stream", feed="s")]


@pytest.mark.parametrize(("result", "kind"), [("findings", "run"), ("failed", "failed"), ("busy", "busy")])
def test_plain_messages_of_older_versions_still_show(result: str, kind: str) -> None:
    """Whatever their words: nothing reads the English."""
    said = ["S: at most 7 rows of partition 1 expired before they were exported", "no metadata knows this file",
            "one\ntwo", "retention: told from the state instead"]
    found = findings_of_runs("s", [a_run(result=result, findings=said)], None)
    assert [f.message for f in found] == [said[0][3:], said[1], "one", "two"]
    assert {f.kind for f in found} == {kind} and found[0].line == f"s: {said[0][3:]}"
    kept = FeedState.from_json({
        "source": "S", "type": "stream", "sequence": 1,
        "findings": [{"at": "2025-01-15T02:00:00Z", "message": said[0]}],
    })
    assert [f.kind for f in findings_of_runs("s", [], kept)] == ["run"]


@pytest.mark.parametrize("odd", [
    7, "text", {"a": 1}, [7, None, [], {}, {"message": 7}],
    [{"kind": [], "level": 3, "message": "x", "partition": "p"}],
    [{"kind": "of a later version", "level": "urgent", "message": "x", "offset": True}],
])
def test_findings_of_an_unexpected_shape_are_passed_over(odd: Any) -> None:
    found = findings_of_runs("s", [a_run(result="findings", findings=odd)], None)
    assert all((f.kind, f.level, f.line) == ("run", "warning", "s: x") and f.offset is None for f in found)


def nights(*days: float, **more: Any) -> list[Run]:
    """Runs that began so many days after the first of January, at two in the morning."""
    first = dt.datetime(2025, 1, 1, 2, tzinfo=dt.UTC)
    return [a_run(started=(first + dt.timedelta(days=day)).isoformat(), **more) for day in days]


@pytest.mark.parametrize(("days", "hours", "found"), [
    ((0, 1, 2, 3), 26, False), ((0, 1, 2, 3), 28, True), ((0, 1, 2), 99, False), ((0, 0.1, 2, 3.3), 99, False),
    ((0, 1, 2, 4, 5, 6), 28, True), ((0, 1, 2.01, 2.99, 4), 28, True), ((0, 7, 14, 21), 7 * 24 + 17, False),
    ((0, 7, 14, 21), 7 * 24 + 19, True), ((0, 0.001, 0.002, 0.003), 99, False), ((0, 0, 0, 0), 99, False),
    ((), 99, False),
])
def test_a_night_that_did_not_happen(days: tuple[float, ...], hours: float, found: bool) -> None:
    """Only where runs came regularly; not where somebody runs it by hand, now and then."""
    runs = nights(*days)
    last = max((run.started for run in runs), default="2025-01-01T02:00:00Z")
    now = dt.datetime.fromisoformat(last) + dt.timedelta(hours=hours)
    told = list(missed("s", runs, now))
    assert [(f.kind, f.level) for f in told] == [("missed", "error")] * found
    assert not list(missed("s", nights(*days, days=["2025-01-15"]), now)), "runs of some days say nothing"
    if found:
        assert f"no run since {last}" in told[0].line


def test_a_line_begins_with_the_feed_and_names_the_row() -> None:
    assert Finding("failed", "text: broke", feed="tex").line == "tex: text: broke"
    assert Finding("failed", "TEXT: broke", feed="text").line == "text: broke"
    assert Finding("failed", "does not fit", feed="s", partition=1, offset=20).line == (
        "s: partition 1, offset 20: does not fit")
    named = Finding("failed", "offset 20 of partition 1 does not fit", feed="s", partition=1, offset=20)
    assert named.line == "s: offset 20 of partition 1 does not fit"


def test_checks_of_the_data_are_told_once_and_only_when_rows_fail() -> None:
    checks = [
        {"check": "not_null", "column": "ID", "level": "fail", "failed": 3, "rows": 9, "message": "3 of 9 are null"},
        {"check": "unique", "column": "ID", "level": "quarantine", "failed": 1, "rows": 9, "message": "1 comes twice"},
        {"check": "row_count", "column": "", "level": "warn", "failed": 1, "rows": 9, "message": "9 rows are few"},
        {"check": "range", "column": "N", "level": "fail", "failed": 0, "rows": 9, "message": "all in range"},
    ]
    said = "s: not_null ID: 3 of 9 are null; nothing was published\ns: unique ID: 1 comes twice; would be quarantined"
    run = a_run(result="failed", findings=[said], checks=checks)
    assert [(f.kind, f.level, f.message) for f in findings_of_runs("s", [run], None)] == [
        ("quality", "error", "not_null ID: 3 of 9 are null"), ("quality", "warning", "unique ID: 1 comes twice"),
        ("quality", "warning", "row_count: 9 rows are few"), ("failed", "error", "the last run failed"),
    ]
    kept = FeedState("S", "stream", "", checks=tuple(checks))
    assert [f.kind for f in findings_of_runs("s", [], kept)] == ["quality"] * 3


def test_missing_days_small_files_and_new_columns(lake: Path) -> None:
    state = FeedState.from_json(state_of(lake, "transaction_stream"))
    file = next(iter(state.files))
    later = "year=2025/month=01/day=22"
    state.files.add([replace(file, path=f"{later}/f.parquet", partition=later)])
    state.files.add(replace(file, path=f"{file.path}{i}") for i in range(19))
    state.schema_history += (SchemaVersion("1.1", "2025-01-17T02:00:00Z", ("NOTE STRING",)),)
    state.last_export = "2025-01-18T01:00:00Z"
    found = {f.kind: f for f in findings_of_state("s", state, None, NOW, 0.3)}
    assert set(found) == {"gap", "schema"}, "a few small files are what every night leaves"
    state.files.add([replace(file, path=file.path + "x")])
    state.quarantine = (replace(file, rows=3), replace(file, rows=4))
    found = {f.kind: f for f in findings_of_state("s", state, None, NOW, 0.3)}
    assert set(found) == {"gap", "small files", "schema", "quarantine"}
    assert found["quarantine"].line == "s: 7 rows in quarantine; python manage_feeds.py quarantine s"
    assert "no rows on 4 days: 2025-01-18 to 2025-01-21" in found["gap"].message and found["gap"].level == "warning"
    assert "21 small files on 1 day;" in found["small files"].message and "NOTE STRING" in found["schema"].message
    state.removed = {f"year=2025/month=01/day={day}": {"erasure": 1} for day in (18, 19, 20, 21)}
    much_later = NOW + dt.timedelta(days=30)
    assert [f.kind for f in findings_of_state("s", state, None, much_later, 0.3)] == ["small files", "quarantine"]


def test_an_event_of_the_year_9999_is_no_crash_and_no_silence(lake: Path) -> None:
    path = lake / "streams" / "transaction_stream" / "_metadata.json"
    before = path.read_text()
    state = json.loads(before)
    state["files"][0]["rowtime_max"] = 1 << 62
    path.write_text(json.dumps(state))
    try:
        summary = one(lake, "transaction_stream")
        assert summary.freshness_seconds == 0 and kinds(summary.findings) == ["clock"]
    finally:
        path.write_text(before)


def test_the_form_for_machines_and_the_order_of_findings(lake: Path) -> None:
    finding = Finding("retention", "1 day due to go", feed="s", partition=1)
    shown = json.loads(json.dumps(as_json(replace(one(lake, "transaction_stream"), findings=(finding,)))))
    assert shown["findings"] == [{"kind": "retention", "level": "note", "message": "s: partition 1: 1 day due to go",
                                  "feed": "s", "partition": 1, "offset": None}]
    found = [Finding(kind, "x") for kind in reversed(KINDS)]
    assert [f.kind for f in sorted(found, key=lambda f: f.rank)] == list(KINDS) and set(KINDS.values()) == set(LEVELS)
