"""The remote home of a lake through the scripts: what moves, what is refused, what is told."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.errors import LakeError
from ksql_lake.cli.remote_turn import Progress
from ksql_lake.reporting import metrics
from ksql_lake.reporting.summary import summarise
from ksql_lake.store.remote.seam import Away
from tests.conftest import ROOT
from tests.memory_store import MemoryStore
from tests.remote_lakes import SETTINGS, database, files_of, fill, lake_in, metadata, remote, rows, use
from tests.stores import REAL, Server


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = lake_in(tmp_path)
    monkeypatch.setenv("DATA_LAKE_DIR", str(made))
    return made


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    store = MemoryStore(tmp_path / "objects")
    use(store, monkeypatch)
    return store


def test_push_drop_and_pull(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    before, here = rows(lake), files_of(lake)
    assert remote("push") == 0
    assert sorted(key for key in memory.objects if key.startswith("streams/s/year")) == [f"streams/s/{p}" for p in here]
    for path in here:
        assert memory.objects[f"streams/s/{path}"].data == (lake / "streams" / "s" / path).read_bytes()
    calls = len(memory.calls)
    assert remote("push") == 0
    assert not [verb for verb, _ in memory.calls[calls:] if verb in ("create", "swap")], "nothing new, nothing sent"
    assert remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    assert {path[:26] for path in files_of(lake)} == {"year=2025/month=01/day=17/"}
    away = {file["path"] for file in metadata(lake)["files"] if file.get("local") is False}
    assert away == set(here) - set(files_of(lake))
    assert rows(lake) == before
    assert remote("pull", "s", "--days", "2025-01-15") == 0
    assert {path[:26] for path in files_of(lake)} == {f"year=2025/month=01/day={day}/" for day in (15, 17)}
    assert remote("pull") == 0 and files_of(lake) == here and rows(lake) == before
    assert remote("verify") == 0 and remote("verify", "--deep") == 0
    capsys.readouterr()


def test_an_export_pushes_and_drops_what_is_due(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with database() as server:
        for night in range(2):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        before = rows(lake)
        assert manage_feeds.main(["update", "s", "local_days=30"]) == 0
        monkeypatch.setenv("REMOTE_AFTER_EXPORT", "off")
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0 and not memory.objects
        monkeypatch.delenv("REMOTE_AFTER_EXPORT")
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        assert files_of(lake) == [] and rows(lake) == before, "all days of 2025 have been over for 30 days"
        assert len(files_of(lake, "tables/t")) == 4, "versions of a feed without local_days stay"
        fill(server, 2)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        assert files_of(lake) == [] and len(rows(lake)) == 36, "late rows of dropped days go where their day lies"
        assert remote("verify") == 0


def test_a_broken_remote_is_a_finding_and_the_export_stands(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def away(moment: str, verb: str, key: str) -> None:
        raise Away("s3://memory/lake: the store does not answer")

    memory.hook = away
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 1
    told = capsys.readouterr().err
    assert told.count("does not answer") == 1 and "what was exported is committed" in told
    assert len(rows(lake)) == 36


def test_a_plan_says_what_it_would_do_and_does_nothing(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    before = files_of(lake)
    assert remote("push", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "s: 6 files," in told and "7 PUT, 1 GET; nothing was changed" in told and not memory.objects
    assert "s: 6 files of 3 days that are over are small; merge them before the first push with: " in told
    assert remote("push") == 0
    capsys.readouterr()
    assert remote("drop", "s", "--days", "2025-01-15", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "drop   year=2025/month=01/day=15  2 files" in told and "2 HEAD, 1 PUT" in told
    assert remote("drop", "--dry-run") == 0
    assert "stays  year=2025/month=01/day=16" in (told := capsys.readouterr().out) and "no local_days" in told
    assert remote("pull", "--dry-run") == 0 and files_of(lake) == before


def test_what_is_not_in_the_remote_is_never_dropped(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    before = files_of(lake)
    assert remote("drop", "s", "--days", "2025-01-15") == 1
    assert "2 of its files are not in the remote yet; push them first" in capsys.readouterr().err
    assert remote("push") == 0
    key = f"streams/s/{before[0]}"
    for damage, words in (
        (lambda: memory.objects.pop(key), "missing from the remote"),
        (lambda: memory.put(key, b"x" * (lake / "streams" / "s" / before[0]).stat().st_size, 7, ""), "is not what was"),
    ):
        damage()
        assert remote("drop", "s", "--days", "2025-01-15") == 1
        assert words in capsys.readouterr().err and files_of(lake) == before
    assert remote("push", "--repair") == 0 and remote("verify") == 0
    assert remote("drop", "s", "--days", "2025-01-15") == 0 and len(files_of(lake)) == 4


def test_the_current_version_of_a_table_stays_here(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert remote("push") == 0
    before = rows(lake, "t"), ksql_lake.read("t", lake=lake, version=1).to_dict("records")
    assert remote("drop", "t", "--versions", "v1", "2") == 1
    assert "the current version stays here" in capsys.readouterr().err
    assert [path.split("/")[0] for path in files_of(lake, "tables/t")] == ["version=v2"]
    assert (rows(lake, "t"), ksql_lake.read("t", lake=lake, version=1).to_dict("records")) == before


def test_verify_names_each_object_that_is_wrong(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert remote("push") == 0 and remote("verify") == 0
    assert "every object of s3://memory/lake is as recorded" in capsys.readouterr().out
    first, second, third, *_ = files_of(lake)
    del memory.objects[f"streams/s/{first}"]
    good = memory.objects[f"streams/s/{second}"]
    memory.objects[f"streams/s/{second}"] = replace(good, data=good.data + b"!")
    good = memory.objects[f"streams/s/{third}"]
    memory.objects[f"streams/s/{third}"] = replace(good, data=good.data[:-1] + b"!")  # the store has not noticed
    memory.put("streams/s/year=2025/stray.parquet", b"stray", None, "STANDARD")
    assert remote("verify", "s") == 1
    told = capsys.readouterr().out
    assert f"{first}: missing, but it is on this disk" in told and f"{second}: altered" in told
    assert "stray.parquet: unknown" in told and third not in told
    assert remote("verify", "s", "--deep") == 1
    assert f"{third}: altered, the checksum of its content differs" in capsys.readouterr().out
    assert remote("purge", "s", "--unknown") == 0
    assert "streams/s/year=2025/stray.parquet" not in memory.objects


def test_a_filter_on_days_that_are_here_sends_no_request(lake: Path, memory: MemoryStore) -> None:
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    shutil.rmtree(memory.directory)  # whoever opens a file there fails
    here = ksql_lake.read("s", lake=lake, filters=[("day", "=", 17)])
    assert len(here) == 8
    with pytest.raises(LakeError):
        ksql_lake.read("s", lake=lake)


def test_reading_by_time_and_version_wherever_it_lies(lake: Path, memory: MemoryStore) -> None:
    before = ksql_lake.read("s", lake=lake, as_of="2100-01-01", filters=[("USER_ID", "=", "user_3")], arrow=True)
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15..2025-01-17") == 0
    assert files_of(lake) == []
    after = ksql_lake.read("s", lake=lake, as_of="2100-01-01", filters=[("USER_ID", "=", "user_3")], arrow=True)
    assert after.equals(before) and len(after) == 4


def test_another_lake_is_refused_before_it_uploads(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push") == 0
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("DATA_LAKE_DIR", str(lake_in(tmp_path / "other")))
    number = len(memory.objects)
    assert remote("push") == 1
    assert "belongs to another lake" in capsys.readouterr().err and len(memory.objects) == number


def test_an_old_copy_of_the_lake_is_refused(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push") == 0
    shutil.copytree(lake, tmp_path / "old", symlinks=True)
    assert remote("drop", "s", "--days", "2025-01-15") == 0
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "old"))
    assert remote("push") == 1
    assert "is an old copy" in capsys.readouterr().err


def test_retention_reaches_the_remote_when_the_trash_lets_go(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    before = rows(lake)
    objects = [key for key in memory.objects if key.startswith("streams/s/year")]
    assert manage_feeds.main(["update", "s", "retention_days=1"]) == 0
    assert manage_feeds.main(["retention", "s", "--max-delete", "100"]) == 0
    assert rows(lake) == [] and remote("push") == 0
    assert [key for key in memory.objects if key.startswith("streams/s/year")] == objects, "as long as undo may want it"
    assert manage_feeds.main(["undo", "s"]) == 0
    assert rows(lake) == before and remote("verify") == 0 and remote("push") == 0
    assert manage_feeds.main(["retention", "s", "--max-delete", "100"]) == 0
    shutil.rmtree(lake / ".trash")
    _gone_long_ago(lake)
    assert remote("purge", "s", "--dry-run") == 0 and "would be deleted" in capsys.readouterr().out
    assert remote("purge", "s") == 0
    assert not [key for key in memory.objects if key.startswith("streams/s/year")]
    assert "remote_gone" not in metadata(lake)


def _gone_long_ago(lake: Path) -> None:
    path = lake / "streams" / "s" / "_metadata.json"
    path.write_text(re.sub(r'("path": "[^"]*",\s*"at": )"[^"]*"', r'\1"2025-01-01T00:00:00Z"', path.read_text()))


def test_older_days_change_their_tier_where_it_pays(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert manage_feeds.main(["update", "s", "tier_after_days=30", "remote_tier=GLACIER"]) == 0
    assert remote("push") == 0 and remote("tier", "s", "--dry-run") == 0
    assert "its files are small: GLACIER bills at least 128 kB" in capsys.readouterr().out
    monkeypatch.setattr("ksql_lake.remote.plans.LEAST_BYTES", 1)
    assert remote("tier", "s") == 0
    assert {there.tier for key, there in memory.objects.items() if key.startswith("streams/s/year")} == {"GLACIER"}
    assert remote("tier", "s") == 0 and memory.objects["streams/s/_metadata.json"].tier == "STANDARD"
    assert remote("verify") == 0, "what is archived is proved by a look"
    assert remote("drop", "s", "--days", "2025-01-15") == 0
    with pytest.raises(LakeError, match="archived in GLACIER; bring it back with: .*remote pull s"):
        ksql_lake.read("s", lake=lake)
    assert len(ksql_lake.read("s", lake=lake, filters=[("day", ">", 15)])) == 16
    assert remote("pull", "s") == 1
    assert "is archived and was asked for" in capsys.readouterr().err
    memory.finish_restores()
    assert remote("pull", "s") == 0 and len(rows(lake)) == 24


def test_a_tier_of_the_other_cloud_is_refused(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert manage_feeds.main(["update", "s", "tier_after_days=30", "remote_tier=Cool"]) == 0
    assert remote("push") == 0 and remote("tier", "s") == 1
    assert "remote_tier is Cool, which s3://memory/lake does not have" in capsys.readouterr().err
    assert manage_feeds.main(["update", "s", "remote_tier="]) != 0, "one of the two keys alone says nothing"


def test_a_new_machine(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    before = rows(lake), rows(lake, "t"), files_of(lake)
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    new = tmp_path / "new"
    monkeypatch.setenv("DATA_LAKE_DIR", str(new))
    calls = 0

    def cut(moment: str, verb: str, key: str) -> None:
        nonlocal calls
        calls += moment == "before" and verb == "get" and key.endswith(".parquet")
        if calls == 4:
            raise Away("s3://memory/lake: the store does not answer")

    memory.hook = cut
    assert remote("restore") == 1 and "does not answer" in capsys.readouterr().err
    assert rows(new) == before[0], "it can be read before it is whole"
    memory.hook = lambda moment, verb, key: None
    assert remote("restore") == 0
    assert (rows(new), rows(new, "t"), files_of(new)) == before and remote("verify") == 0
    assert sorted(path.name for path in (new / "feeds" / "active").iterdir()) == ["s.json", "t.json"]
    assert metadata_utils.main(["--verify", "--deep", "--lake", str(new)]) == 0
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert len(rows(new)) == 36 and remote("verify") == 0
    assert (new / ".state" / "s.jsonl").stat().st_mode & 0o777 == 0o640


def test_restore_wants_an_empty_directory(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert remote("restore") == 1 and "no lake was ever pushed there" in capsys.readouterr().err
    memory.swap("_lake.json", b'{"lake": "1", "at": "2025-01-01T00:00:00Z", "by": "ada"}', None)
    assert remote("restore") == 2 and "already holds a lake" in capsys.readouterr().err


def test_without_a_remote(lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert remote("push") == 2 and "this lake has no remote; set REMOTE to" in capsys.readouterr().err
    monkeypatch.setenv("REMOTE", "gs://bucket/lake")
    assert remote("push") == 2 and "Google Cloud Storage, which is not supported" in capsys.readouterr().err
    assert remote("status") == 0


def test_status_and_policy(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert remote("push", "s") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    capsys.readouterr()
    assert remote("status") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "remote: s3://memory/lake" and "not pushed 0 files" in told[1] and "not pushed 2 files" in told[2]
    assert manage_feeds.main(["update", "s", "tier_after_days=30", "remote_tier=GLACIER_IR"]) == 0
    capsys.readouterr()
    assert remote("policy") == 0
    shown = capsys.readouterr()
    rules = json.loads(shown.out)["Rules"]
    assert rules[1]["Filter"]["And"]["Prefix"] == "lake/streams/s/year=" and "put-bucket-lifecycle" in shown.err
    assert rules[1]["Transitions"] == [{"Days": 30, "StorageClass": "GLACIER_IR"}]


def test_progress_says_bytes_rate_and_time_left() -> None:
    shown = Progress("clicks", 3_000_000_000)
    shown.add(1_000_000_000)
    assert shown.line(10.0) == "clicks: 1.0 GB of 3.0 GB, 100.0 MB/s, 20 s left"


@pytest.mark.parametrize("server", REAL, indirect=True)
def test_a_whole_life_on_a_server(
    server: Server, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name, value in {**server.environment, "REMOTE": server.url()}.items():
        monkeypatch.setenv(name, value)
    before = rows(lake), rows(lake, "t"), files_of(lake)
    assert remote("check") == 0 and "conditional writes: work" in capsys.readouterr().out
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    assert rows(lake) == before[0] and remote("verify", "--deep") == 0
    assert len(ksql_lake.read("s", lake=lake, filters=[("day", "=", 15)])) == 8
    assert remote("pull") == 0 and files_of(lake) == before[2]
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "new"))
    assert remote("restore") == 0
    assert (rows(tmp_path / "new"), rows(tmp_path / "new", "t"), files_of(tmp_path / "new")) == before


ERASE = ("erase", "--where", "USER_ID=user_4", "--later", "drop")


def _holding(memory: MemoryStore, tmp_path: Path) -> list[str]:
    """Objects with a row of user_4, older versions included."""
    every = [(key, there.data) for key, there in memory.objects.items()]
    every += [(f"old {key}", there.data) for key, gone in memory.older.items() for there in gone]
    found = []
    for key, data in every:
        if "streams/s/year" in key and "user_4" in pq.read_table(pa.BufferReader(data))["USER_ID"].to_pylist():
            found.append(key)
    return found


def test_an_erasure_reaches_what_lies_only_in_the_remote(
    lake: Path, memory: MemoryStore, tmp_path: Path, capsys: Any
) -> None:
    memory.versioned = True
    assert remote("push", "s") == 0 and remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    holding = _holding(memory, tmp_path)
    assert len(holding) == 2 and len(rows(lake)) == 24
    capsys.readouterr()
    assert manage_feeds.main(["erase", "--where", "USER_ID=user_4", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "2 rows in s3://memory/lake/streams/s/year=2025/month=01/day=16" in told and "4 rows would be erased" in told
    assert manage_feeds.main([*ERASE]) == 0
    assert _holding(memory, tmp_path) == [] and len(rows(lake)) == 20
    assert {path[:26] for path in files_of(lake)} == {"year=2025/month=01/day=17/"}, "what was away is away again"
    assert remote("verify", "s", "--deep") == 0 and "remote_gone" not in metadata(lake)
    assert not {key for key in memory.older if key.endswith(".parquet")}


def test_an_erasure_reaches_the_trash_of_days_that_were_away(
    lake: Path, memory: MemoryStore, tmp_path: Path, capsys: Any
) -> None:
    assert remote("push", "s") == 0 and remote("drop", "s", "--days", "2025-01-15..2025-01-17") == 0
    assert manage_feeds.main(["update", "s", "retention_days=1"]) == 0
    assert manage_feeds.main(["retention", "s", "--max-delete", "100"]) == 0
    assert len(_holding(memory, tmp_path)) == 2
    assert manage_feeds.main([*ERASE]) == 0
    assert _holding(memory, tmp_path) == []
    assert manage_feeds.main(["undo", "s"]) == 0
    assert len(rows(lake)) == 20 and "user_4" not in str(rows(lake))


def test_what_the_trash_forgot_but_the_remote_did_not_goes_with_an_erasure(
    lake: Path, memory: MemoryStore, tmp_path: Path
) -> None:
    assert remote("push", "s") == 0
    assert manage_feeds.main(["update", "s", "retention_days=1"]) == 0
    assert manage_feeds.main(["retention", "s", "--max-delete", "100"]) == 0
    shutil.rmtree(lake / ".trash")
    assert len(_holding(memory, tmp_path)) == 2
    assert manage_feeds.main([*ERASE]) == 0 and _holding(memory, tmp_path) == []


def test_an_erasure_of_archived_files_stays_open_until_they_can_be_read(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("ksql_lake.remote.plans.LEAST_BYTES", 1)
    assert manage_feeds.main(["update", "s", "tier_after_days=30", "remote_tier=GLACIER"]) == 0
    assert remote("push", "s") == 0 and remote("tier", "s") == 0
    assert remote("drop", "s", "--days", "2025-01-16") == 0
    capsys.readouterr()
    assert manage_feeds.main([*ERASE]) == 1
    told = capsys.readouterr()
    assert "it is archived in GLACIER and was asked for" in told.err and "not complete" in told.err
    receipt = json.loads(next((lake / "logs" / "erasures").glob("*.json")).read_text())
    assert receipt["ended"] is None and len(receipt["remote"]) == 2
    memory.finish_restores()
    assert manage_feeds.main([*ERASE]) == 0
    receipt = json.loads(next((lake / "logs" / "erasures").glob("*.json")).read_text())
    assert receipt["ended"] and "remote" not in receipt and _holding(memory, tmp_path) == []


def test_versions_that_are_locked_keep_the_receipt_open(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    memory.versioned = True
    assert remote("push", "s") == 0
    memory.locked = {key for key in memory.objects if "day=16" in key}
    assert manage_feeds.main([*ERASE]) == 1
    assert "version" in (told := capsys.readouterr().err) and "stays: locked" in told
    memory.locked = set()
    assert manage_feeds.main([*ERASE]) == 0 and not {key for key in memory.older if key.endswith(".parquet")}


def test_an_erasure_while_the_remote_is_away(lake: Path, memory: MemoryStore, tmp_path: Path, capsys: Any) -> None:
    assert remote("push", "s") == 0

    def away(moment: str, verb: str, key: str) -> None:
        raise Away("s3://memory/lake: the store does not answer")

    memory.hook = away
    assert manage_feeds.main([*ERASE]) == 1
    assert "the remote still has old files" in capsys.readouterr().err and len(rows(lake)) == 20
    memory.hook = lambda moment, verb, key: None
    assert manage_feeds.main([*ERASE]) == 0 and _holding(memory, tmp_path) == []


def test_reports_and_metrics_say_where_the_bytes_lie(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert metadata_utils.main(["--json"]) == 0 and "remote" not in json.loads(capsys.readouterr().out)[0]
    assert remote("push", "s") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    text = (lake / "tables" / "t" / "_metadata.json").read_text()
    (lake / "tables" / "t" / "_metadata.json").write_text(re.sub(r'"exported_at": "2\d*', '"exported_at": "2025', text))
    capsys.readouterr()
    assert metadata_utils.main(["--json"]) == 0
    s, t = json.loads(capsys.readouterr().out)
    away = sum(file["bytes"] for file in metadata(lake)["files"] if file.get("local") is False)
    assert s["remote"]["remote_bytes"] - s["remote"]["local_bytes"] == away > 0
    assert t["remote"]["unpushed_files"] == 2 and [f["kind"] for f in t["findings"]] == ["remote"]
    assert "2 files are not in the remote yet, the oldest of 2025" in t["findings"][0]["message"]
    assert metadata_utils.main(["--report"]) == 0 and "in the remote" in capsys.readouterr().out
    assert metadata_utils.main(["--html", str(tmp_path / "page.html")]) == 0
    assert "in the remote)" in (tmp_path / "page.html").read_text()
    summaries = summarise(lake, dt.datetime.now(dt.UTC))
    told = metrics.text(summaries, metrics.ExportRun(0, dt.datetime.now(dt.UTC), 1.0), "0")
    assert 'ksql_lake_unpushed_files{feed="t",type="table"} 2' in told and "ksql_lake_remote_bytes{" in told


def test_a_late_file_of_a_day_that_is_away_is_a_finding(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push", "s") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        assert export_to_data_lake.main(["--stream", "s", "--quiet"]) == 0
    assert metadata_utils.main(["--report"]) == 0
    assert "1 late file of days that are only in the remote" in " ".join(capsys.readouterr().out.split())
    assert remote("push", "s") == 0 and metadata_utils.main(["--report"]) == 0
    assert "late file" not in capsys.readouterr().out and len(rows(lake)) == 36


def test_verify_of_metadata_utils_looks_at_the_remote_when_asked(
    lake: Path, memory: MemoryStore, capsys: Any
) -> None:
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    assert metadata_utils.main(["--verify"]) == 0, "what is not here is not missing"
    assert metadata_utils.main(["--verify", "--remote", "--deep"]) == 0
    memory.objects.pop(next(key for key in memory.objects if "day=15" in key))
    assert metadata_utils.main(["--verify", "--remote"]) == 1
    assert "missing, and it is nowhere else" in capsys.readouterr().out
    assert metadata_utils.main(["--verify"]) == 0


def test_versions_and_columns_are_looked_at_wherever_they_lie(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert metadata_utils.main(["--compare", "t", "v1", "v2"]) == 0
    assert metadata_utils.main(["--stats", "--deep", "--feed", "s"]) == 0
    before = capsys.readouterr().out
    assert remote("push") == 0 and remote("drop", "t", "--versions", "v1") == 0
    assert remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    capsys.readouterr()
    assert metadata_utils.main(["--compare", "t", "v1", "v2"]) == 0
    assert metadata_utils.main(["--stats", "--deep", "--feed", "s"]) == 0
    assert re.sub(r"Z (remote|both)$", "Z", capsys.readouterr().out, flags=re.M) == before


def test_compaction_leaves_days_that_are_away_alone(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    before = rows(lake)
    capsys.readouterr()
    assert manage_feeds.main(["compact", "s"]) == 0
    assert "4 files became 2" in capsys.readouterr().out and rows(lake) == before
    assert remote("push") == 0 and remote("verify") == 0


def test_the_directory_says_what_is_missing_from_it(lake: Path, memory: MemoryStore) -> None:
    notice = lake / "streams" / "s" / "_REMOTE.txt"
    assert remote("push") == 0 and not notice.exists()
    assert remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    told = notice.read_text()
    assert "2025-01-15, 2025-01-16" in told and "s3://memory/lake/streams/s" in told
    assert len(pd.read_parquet(lake / "streams" / "s")) == 8, "a plain reader sees what is here, and no more"
    assert remote("pull", "s") == 0 and not notice.exists()


@pytest.mark.parametrize("log", ["kept", "lost"])
def test_lost_metadata_of_a_lake_in_two_places(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any, log: str
) -> None:
    before = rows(lake), rows(lake, "t")
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 0
    assert remote("drop", "t", "--versions", "v1") == 0
    known = [metadata(lake, name) for name in ("streams/s", "tables/t")]
    for kind, name in (("streams", "s"), ("tables", "t")):
        (lake / kind / name / "_metadata.json").unlink()
        if log == "lost":
            (lake / ".state" / f"{name}.jsonl").unlink()
    capsys.readouterr()
    assert metadata_utils.main(["--rebuild"]) == 0
    assert "4 files only in the remote" in capsys.readouterr().out
    assert (rows(lake), rows(lake, "t")) == before
    for old, name in zip(known, ("streams/s", "tables/t"), strict=True):
        new = metadata(lake, name)
        assert [{**f, "remote": 0} for f in sorted(new["files"], key=str)] == [
            {**f, "remote": 0} for f in sorted(old["files"], key=str)], name
        assert {key: new.get(key) for key in ("resume", "coverage", "sequence", "current", "last_version")} == {
            key: old.get(key) for key in ("resume", "coverage", "sequence", "current", "last_version")}
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    assert len(rows(lake)) == 36 and remote("verify") == 0


def test_a_rebuild_needs_the_remote(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert remote("push") == 0 and remote("drop", "s", "--days", "2025-01-15") == 0
    (lake / "streams" / "s" / "_metadata.json").unlink()

    def away(moment: str, verb: str, key: str) -> None:
        raise Away("s3://memory/lake: the store does not answer")

    memory.hook = away
    assert metadata_utils.main(["--rebuild", "--feed", "s"]) == 1
    assert "some of its days may be only in the remote" in capsys.readouterr().err
    assert not (lake / "streams" / "s" / "_metadata.json").exists(), "nothing was touched"


def test_what_a_night_costs_in_requests(
    lake: Path, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert remote("push") == 0

    def asked(*command: str) -> dict[str, int]:
        before = len(memory.calls)
        assert remote(*command) == 0
        small = ("logs/", "feeds/", ".state/", "_lake")
        verbs = [verb for verb, key in memory.calls[before:] if not key.startswith(small)]
        return {verb: verbs.count(verb) for verb in dict.fromkeys(verbs)}

    assert asked("push") == {"get": 2, "abort_stale": 1}, "nothing new: one GET for each feed"
    assert asked("drop", "s", "--days", "2025-01-15") == {"stat": 2, "get": 1, "swap": 1}
    with database() as server:
        for night in range(3):
            fill(server, night)
        for name, value in {**SETTINGS, "KSQLDB_URL": server.url, "REMOTE_AFTER_EXPORT": "off"}.items():
            monkeypatch.setenv(name, value)
        assert export_to_data_lake.main(["--stream", "s", "--quiet"]) == 0
    assert asked("push", "s") == {"create": 3, "get": 1, "swap": 1, "abort_stale": 1}, "n + 1 PUT"
    assert asked("verify", "s") == {"list": 1, "stat": 9}


def test_parts_of_interrupted_uploads_go_with_the_next_push(lake: Path, memory: MemoryStore) -> None:
    now = dt.datetime.now(dt.UTC)
    memory.uploads = {"old": now - dt.timedelta(days=2), "at work": now - dt.timedelta(minutes=5)}
    assert remote("push") == 0 and list(memory.uploads) == ["at work"]


def test_two_copies_of_one_lake_are_told_from_each_other(
    lake: Path, memory: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A lake was restored elsewhere, and the old one goes on: it must not overwrite what the new one recorded."""
    assert remote("push") == 0
    shutil.copytree(lake, tmp_path / "copy", symlinks=True)
    assert remote("drop", "s", "--days", "2025-01-15") == 0
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "copy"))
    before = memory.objects["streams/s/_metadata.json"]
    assert remote("drop", "s", "--days", "2025-01-16") == 1
    assert "a second copy is in use" in capsys.readouterr().err
    assert manage_feeds.main(["compact", "s"]) == 0 and remote("push", "s") == 1
    assert memory.objects["streams/s/_metadata.json"] == before


def test_the_commands_of_the_page_run(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    page = (ROOT / "docs" / "object_stores.md").read_text()
    lines = [line.split("#")[0].strip() for line in page.splitlines() if line.startswith("    python ")]
    commands = [line.replace("clicks", "s").replace("user_totals", "t") for line in lines]
    assert len(commands) >= 15
    assert remote("push") == 0
    for command in commands:
        script, *argv = command.removeprefix("python ").split()
        main = manage_feeds.main if script == "manage_feeds.py" else metadata_utils.main
        assert main(argv) == 0, (command, capsys.readouterr().err)
    assert len(rows(lake)) == 24


def test_each_day_says_where_it_lies(lake: Path, memory: MemoryStore, tmp_path: Path, capsys: Any) -> None:
    def places() -> list[str]:
        assert metadata_utils.main(["--csv", str(tmp_path / "lake.csv")]) == 0
        with (tmp_path / "lake.csv").open() as file:
            return [row.get("place", "-") for row in csv.DictReader(file)]

    assert places() == ["-"] * 5
    assert remote("push", "s", "--days", "2025-01-15..2025-01-16") == 0
    assert remote("drop", "s", "--days", "2025-01-15") == 0
    assert places() == ["remote", "both", "here", "here", "here"]
    capsys.readouterr()
    assert metadata_utils.main(["--stats"]) == 0
    told = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if "year=" in line]
    assert told == ["remote", "both", "here"]


def test_what_stayed_is_not_counted(lake: Path, memory: MemoryStore, capsys: Any) -> None:
    assert remote("push", "s") == 0
    del memory.objects[next(key for key in memory.objects if "day=15" in key)]
    capsys.readouterr()
    assert remote("drop", "s", "--days", "2025-01-15..2025-01-16") == 1
    assert "s: 2 files," in capsys.readouterr().out, "of two days one stays"
