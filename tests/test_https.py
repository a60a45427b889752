"""HTTPS and basic authentication through the scripts, and what is said when either is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import data_lake_config
import export_to_data_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB, Fault

TLS = Path(__file__).parent / "tls"
SECRET = "canary-pä:ss"


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[EmbeddedKsqlDB]:
    tls = (str(TLS / "server.pem"), str(TLS / "server.key"))
    with EmbeddedKsqlDB(login=("exporter", SECRET), tls=tls, host="localhost") as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.3")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "1")
        monkeypatch.setenv("KSQLDB_USER", "exporter")
        monkeypatch.setenv("KSQLDB_CA_CERT", str(TLS / "ca.pem"))
        (tmp_path / "password").write_text(f"{SECRET}\n", encoding="utf-8")
        monkeypatch.setenv("KSQLDB_PASSWORD_FILE", str(tmp_path / "password"))
        database.create_stream("S", "`ID` STRING", 2)
        for i in range(30):
            database.append("S", i % 2, 1_736_899_200_000 + i, [f"e{i}"])
        database.create_table("T", "`ID` STRING KEY, `V` INTEGER")
        database.create_table("P", "`ID` STRING KEY, `V` INTEGER", queryable=False)
        for i in range(9):
            database.upsert("T", [f"k{i}", i])
            database.upsert("P", [f"k{i}", i])
        for kind, name in (("stream", "s"), ("table", "t"), ("table", "p")):
            assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0
        yield database


def rows(lake: Path, what: str) -> int:
    return sum(pq.ParquetFile(path).metadata.num_rows for path in (lake / what).rglob("*.parquet"))


def test_stream_pulled_table_and_changelog(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    assert ksqldb.url.startswith("https://")
    assert export_to_data_lake.main(["--all"]) == 0
    assert [rows(tmp_path / "lake", what) for what in ("streams/s", "tables/t", "tables/p")] == [30, 9, 9]
    assert export_to_data_lake.main(["--stream", "s"]) == 0
    assert rows(tmp_path / "lake", "streams/s") == 30


def test_the_ca_of_the_config_wins_over_the_environment_of_libraries(
    ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / "other.pem"))
    assert export_to_data_lake.main(["--all"]) == 0


@pytest.mark.parametrize("fault", [Fault(cut_after=7, cut_where="row"), Fault(complete_after=7), Fault(reset=True)])
def test_cuts_over_tls_lose_nothing(ksqldb: EmbeddedKsqlDB, tmp_path: Path, fault: Fault) -> None:
    ksqldb.faults.add(fault, fault)
    assert export_to_data_lake.main(["--all"]) == 0
    assert [rows(tmp_path / "lake", what) for what in ("streams/s", "tables/t", "tables/p")] == [30, 9, 9]


@pytest.mark.parametrize(("change", "words"), [
    ({"KSQLDB_PASSWORD": "wrong"}, "HTTP 401: Unauthorized; check KSQLDB_USER and KSQLDB_PASSWORD"),
    ({"KSQLDB_USER": ""}, "HTTP 401: Unauthorized; check KSQLDB_USER and KSQLDB_PASSWORD"),
    ({"KSQLDB_CA_CERT": str(TLS / "other.pem")}, "TLS failed"),
    ({"KSQLDB_CA_CERT": ""}, "TLS failed"),
    ({"KSQLDB_CA_CERT": "/no/such/ca.pem"}, "KSQLDB_CA_CERT: /no/such/ca.pem"),
    ({"KSQLDB_PASSWORD_FILE": "/no/such/password"}, "KSQLDB_PASSWORD_FILE: /no/such/password cannot be read"),
])
def test_what_is_said_when_it_is_wrong(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], words: str,
    capsys: Any,
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) in (1, 2)
    shown = capsys.readouterr()
    assert words in shown.err and shown.err.count("\n") == 1, shown.err
    assert not list((tmp_path / "lake").rglob("*.parquet"))


def test_plain_http_to_an_https_port_says_so(
    ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("KSQLDB_URL", ksqldb.url.replace("https", "http"))
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == 1
    assert "https://" in capsys.readouterr().err.splitlines()[-1]


def test_the_password_is_nowhere(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    assert data_lake_config.main([]) == 0
    ksqldb.faults.add(Fault(status=403, body=b'{"message":"no"}'))
    export_to_data_lake.main(["--all"])
    shown = capsys.readouterr()
    assert "canary" not in shown.out + shown.err and "********" in shown.out
    for path in (tmp_path / "lake").rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes(), path
