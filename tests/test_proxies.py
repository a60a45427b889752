"""Streams and tables can be read through proxies, or a line says what is in the way; no login is sent unasked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import export_to_data_lake
import ksql_lake
import manage_feeds
from ksql_lake.embedded import EmbeddedKsqlDB, Fault
from tests.proxies import ForwardProxy, ReverseProxy

JAN15 = 1_736_899_200_000
TLS = Path(__file__).parent / "tls"


def fill(database: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("KSQLDB_URL", database.url)
    monkeypatch.setenv("IDLE_SECONDS", "0.3")
    monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
    database.create_stream("S", "`ID` STRING", 2)
    database.create_table("T", "`ID` STRING KEY, `N` BIGINT")
    database.create_table("P", "`ID` STRING KEY, `N` BIGINT", queryable=False)
    for i in range(20):
        database.append("S", i % 2, JAN15 + i, [f"e{i}"])
        database.upsert("T", [f"k{i}", i])
        database.upsert("P", [f"k{i}", i])
    for kind, name in (("stream", "s"), ("table", "t"), ("table", "p")):
        assert manage_feeds.main(["add", "--name", name, "--type", kind, "--source", name]) == 0


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        fill(database, monkeypatch)
        yield database


def all_there(lake: Path) -> bool:
    return all(len(ksql_lake.read(name, lake=lake)) == 20 for name in ("s", "t", "p"))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_forward_proxy(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert export_to_data_lake.main(["--all"]) == 0
        assert all_there(tmp_path / "lake")
        assert export_to_data_lake.main(["--stream", "s"]) == 0 and all_there(tmp_path / "lake")
        assert proxy.seen and all(target.startswith(ksqldb.url) for _, target, _ in proxy.seen)


def test_a_forward_proxy_with_a_login(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    with ForwardProxy("Basic " + base64.b64encode(b"me:canary@1").decode()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert export_to_data_lake.main(["--all"]) == 1
        assert "HTTP 407" in (told := capsys.readouterr().err) and "the proxy needs a login" in told
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//me:canary%401@"))
        assert export_to_data_lake.main(["--all"]) == 0
        assert all_there(tmp_path / "lake")
    assert export_to_data_lake.main(["--all"]) == 1
    told = capsys.readouterr().err
    assert f"through the proxy 127.0.0.1:{proxy.port} (HTTP_PROXY)" in told and "canary" not in told


def test_no_proxy_is_followed(ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.1")
        assert export_to_data_lake.main(["--all"]) == 0 and all_there(tmp_path / "lake") and not proxy.seen


def test_tls_through_a_forward_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = (str(TLS / "server.pem"), str(TLS / "server.key"))
    with EmbeddedKsqlDB(tls=tls, host="localhost") as database, ForwardProxy() as proxy:
        monkeypatch.setenv("KSQLDB_CA_CERT", str(TLS / "ca.pem"))
        fill(database, monkeypatch)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert export_to_data_lake.main(["--all"]) == 0 and all_there(tmp_path / "lake")
        assert {method for method, _, _ in proxy.seen} == {"CONNECT"}


@pytest.mark.parametrize("kind", ["socks5://127.0.0.1:1080", "https://127.0.0.1:3128"])
def test_proxies_that_are_not_supported_are_named(
    ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, kind: str, capsys: Any
) -> None:
    monkeypatch.setenv("HTTP_PROXY", kind)
    capsys.readouterr()
    assert export_to_data_lake.main(["--all"]) == 2
    assert "HTTP_PROXY: only http:// proxies are supported; name 127.0.0.1 in NO_PROXY" in capsys.readouterr().err


@pytest.mark.parametrize("habit", ["close", "http10"])
def test_a_reverse_proxy_that_closes_each_connection(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, habit: str
) -> None:
    with ReverseProxy(ksqldb.port, habit) as proxy:
        monkeypatch.setenv("KSQLDB_URL", proxy.url)
        assert export_to_data_lake.main(["--all"]) == 0 and all_there(tmp_path / "lake")
        assert export_to_data_lake.main(["--stream", "s", "--reconcile"]) == 0


def test_one_that_compresses_is_named(ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with ReverseProxy(ksqldb.port, "gzip") as proxy:
        monkeypatch.setenv("KSQLDB_URL", proxy.url)
        capsys.readouterr()
        assert export_to_data_lake.main(["--all"]) == 1
    told = capsys.readouterr().err
    assert "the answer comes compressed (gzip), which nobody asked for: a proxy in between does that" in told


def test_a_server_that_goes_away_behind_a_closing_proxy_is_not_believed(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """It ends its answer whole after 7 of 20 rows, as a server that shuts down does, and is gone."""
    monkeypatch.setenv("RETRY_SECONDS", "1")
    with ReverseProxy(ksqldb.port, "close") as proxy:
        monkeypatch.setenv("KSQLDB_URL", proxy.url)
        ksqldb.faults.add(Fault(complete_after=7))
        original = ksqldb.faults.take

        def then_gone(path: str) -> Fault | None:
            fault = original(path)
            if fault is None and path == "/info" and not len(ksqldb.faults) and ksqldb.statements:
                return Fault(status=503, body=b"shutting down", path="")
            return fault

        monkeypatch.setattr(ksqldb.faults, "take", then_gone)
        assert export_to_data_lake.main(["--table", "t"]) == 1
    assert "may be incomplete" in capsys.readouterr().err and not list((tmp_path / "lake").rglob("*.parquet"))


def test_a_login_of_netrc_is_never_sent(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password canary\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text("default login me password canary\n")
    with ForwardProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert export_to_data_lake.main(["--all"]) == 0
        assert proxy.seen and not any("authorization" in headers for _, _, headers in proxy.seen)
