"""Feed files, the config and their scripts, as people use and break them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import data_lake_config
import manage_feeds
from ksql_lake.base.errors import ConfigError, FeedError
from ksql_lake.model import feeds
from tests.conftest import ROOT

EXAMPLE = """{
  "feed_name": "payment_stream",
  "feed_type": "stream",
  "ksqldb_source": "payment_stream",
  "description": "Stream des paiements",
  "partitioning": {
    "type": "date",
    "columns": ["year", "month", "day"]
  },
  "storage_mode": "append",
  "format": "parquet",
  "retention_days": 365,
  "enabled": true,
  "created_at": "2025-01-15T10:00:00Z"
}
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "payment_stream.json"
    path.write_text(text)
    return path


def test_the_users_own_example_works(tmp_path: Path) -> None:
    feed = feeds.load(write(tmp_path, EXAMPLE))
    assert (feed.name, feed.type, feed.source) == ("payment_stream", "stream", "payment_stream")
    assert feed.retention_days == 365 and feed.enabled and feed.timezone == "UTC" and feed.access == "restricted"


@pytest.mark.parametrize(("old", "new", "message"), [
    (
        '"retention_days": 365', '"retension_days": 365',
        ':12:3: unknown key "retension_days": did you mean "retention_days"?',
    ),
    ('"retention_days": 365', '"retention_days": "365"', ':12:3: "retention_days" is "365"; expected a whole number'),
    ('"retention_days": 365', '"retention_days": 0', '"retention_days" is 0; expected 1 or more'),
    ('"enabled": true', '"enabled": "yes"', ':13:3: "enabled" is "yes"; expected true or false'),
    ('00Z"\n}', '00Z",\n}', "trailing comma"),
    ('"feed_type": "stream"', '"feed_type": "topic"', ':3:3: "feed_type" is "topic"; expected stream or table'),
    ('"feed_name": "payment_stream"', '"feed_name": "other"', "but the file is payment_stream.json"),
    ('  "feed_type": "stream",\n', "", 'key "feed_type" is missing'),
    ('"enabled": true', '"enabled": true, "enabled": false', 'key "enabled" appears twice'),
    ('"format": "parquet"', '"format": "parquet", "timezone": "Paris"', "expected an IANA name"),
])
def test_each_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(FeedError) as wrong:
        feeds.load(write(tmp_path, EXAMPLE.replace(old, new)))
    assert message in str(wrong.value) and "payment_stream.json" in str(wrong.value)


def test_all_mistakes_of_a_file_come_at_once(tmp_path: Path) -> None:
    text = EXAMPLE.replace("retention_days", "retension_days").replace("true", "1")
    with pytest.raises(FeedError) as wrong:
        feeds.load(write(tmp_path, text))
    lines = str(wrong.value).splitlines()
    assert [line.split(" ", 1)[0].rpartition("payment_stream.json")[2] for line in lines] == [":12:3:", ":13:3:"]
    assert "retension_days" in lines[0] and "enabled" in lines[1]


@pytest.mark.parametrize(("more", "message"), [
    ('"keep_versions": 3, "retention_versions": 3', 'another name of "retention_versions"'),
    ('"forbidden_columns": "user_id"', "expected a list of column names"),
    ('"bloom_filter_columns": [1]', "expected a list of column names"),
    ('"compression": "rar"', "expected snappy or zstd or lz4 or gzip or none"),
    ('"compression_level": 3', 'needs "compression": "zstd" or "gzip"'),
    ('"source_retention_days": 0', "expected 1 or more"),
])
def test_the_other_keys(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(FeedError) as wrong:
        feeds.load(write(tmp_path, EXAMPLE.replace('"format": "parquet"', f'"format": "parquet", {more}')))
    assert message in str(wrong.value)


def test_the_json_schema_says_what_the_loader_says(tmp_path: Path) -> None:
    """One table makes both; editors complete and check by it."""
    schema = json.loads((ROOT / "data_lake" / "feeds" / "feed.schema.json").read_text())
    assert schema == feeds.json_schema(), "write it again: python manage_feeds.py sync"
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for path in (ROOT / "data_lake" / "feeds" / "active").glob("*.json"):
        raw = json.loads(path.read_text())
        validator.validate(raw)
        assert (path.parent / raw["$schema"]).resolve() == ROOT / "data_lake" / "feeds" / "feed.schema.json"
    good = json.loads(EXAMPLE)
    validator.validate(good)
    for key, value in (("retension_days", 1), ("enabled", "yes"), ("retention_days", 0), ("access", "all")):
        bad = {**good, key: value}
        assert list(validator.iter_errors(bad)), key
        assert feeds.problems_of(tmp_path / "payment_stream.json", bad), key


def test_sync_writes_eight_feeds_and_keeps_hand_edits(tmp_path: Path, capsys: Any) -> None:
    active = tmp_path / "lake" / "feeds" / "active"
    assert manage_feeds.main(["sync", "--dry-run"]) == 0 and not active.exists()
    assert manage_feeds.main(["sync"]) == 0
    assert len(feeds.load_all(active)) == 8
    edited = active / "transaction_stream.json"
    edited.write_text(edited.read_text().replace("365", "30"))
    before = {path: path.stat().st_mtime_ns for path in active.iterdir()}
    assert manage_feeds.main(["sync"]) == 0
    assert {path: path.stat().st_mtime_ns for path in active.iterdir()} == before
    assert feeds.load(edited).retention_days == 30


def test_the_life_of_a_feed(tmp_path: Path, capsys: Any) -> None:
    add = ["add", "--name", "payment_stream", "--type", "stream", "--source", "payment_stream", "--description", "é"]
    assert manage_feeds.main(add) == 0
    assert manage_feeds.main(add) == 1
    assert "already exists" in capsys.readouterr().err
    assert manage_feeds.main(["disable", "payment_stream"]) == 0
    capsys.readouterr()
    assert manage_feeds.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "disabled"
    assert manage_feeds.main(["archive", "payment_stream"]) == 0
    assert manage_feeds.main(["enable", "payment_stream"]) == 1
    assert manage_feeds.main(["restore", "payment_stream"]) == 0
    assert manage_feeds.main(["check"]) == 0


def test_settings_name_the_variable_that_is_wrong() -> None:
    with pytest.raises(ConfigError, match="KSQLDB_PORT is 'x'; expected a number from 1 to 65535"):
        data_lake_config.load({"KSQLDB_PORT": "x"})
    with pytest.raises(ConfigError, match="PARQUET_COMPRESSION is 'rar'; expected one of snappy"):
        data_lake_config.load({"PARQUET_COMPRESSION": "rar"})


def test_the_config_script_creates_the_lake_twice_and_hides_the_password(tmp_path: Path, capsys: Any,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary-7\n")
    monkeypatch.setenv("KSQLDB_PASSWORD_FILE", str(secret))
    assert data_lake_config.main([]) == 0
    assert data_lake_config.main([]) == 0
    out = capsys.readouterr().out
    assert "canary-7" not in out and "********" in out and "is complete" in out
    assert (tmp_path / "lake" / "feeds" / "archived").is_dir()


@pytest.mark.parametrize("script", ["data_lake_config", "export_to_data_lake", "manage_feeds", "metadata_utils"])
def test_every_script_has_help(script: str) -> None:
    done = subprocess.run([sys.executable, f"{script}.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout


def test_the_repositorys_own_feeds_are_right() -> None:
    loaded = feeds.load_all(ROOT / "data_lake" / "feeds" / "active")
    assert len(loaded) == 8 and all(isinstance(feed, feeds.Feed) for feed in loaded)
