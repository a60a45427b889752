"""The commands as processes: signals, pipes, full disks, missing modules, hints, settings, each by both its names."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import data_lake_config
import export_to_data_lake
import ksql_lake
import manage_feeds
import metadata_utils
from ksql_lake.base.errors import ConfigError
from ksql_lake.cli import hints
from ksql_lake.embedded import EmbeddedKsqlDB
from tests.conftest import ROOT
from tests.proxies import ReverseProxy

JAN15 = 1_736_899_200_000
SCRIPTS = ("data_lake_config.py", "export_to_data_lake.py", "manage_feeds.py", "metadata_utils.py")
HOOKS = ROOT / "tests" / "hooks"


@pytest.fixture
def ksqldb(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        monkeypatch.setenv("KSQLDB_URL", database.url)
        monkeypatch.setenv("IDLE_SECONDS", "0.1")
        monkeypatch.setenv("KSQLDB_TIMEOUT", "2")
        monkeypatch.setenv("RETENTION", "off")
        for name in ("S", "R"):
            database.create_stream(name, "`ID` STRING, `USER_ID` STRING", 1)
            for i in range(10):
                database.append(name, 0, JAN15 + i, [f"e{i}", f"u{i % 2}"])
            feed = ["add", "--name", name.lower(), "--type", "stream", "--source", name]
            assert manage_feeds.main(feed) == 0
        yield database


def start(*argv: str, cwd: Path = ROOT, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *argv], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(HOOKS), **env},
    )


def run(*argv: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    process = start(*argv, cwd=cwd, **env)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


@pytest.mark.parametrize(("at", "command"), [
    ("ksql_lake.cli.export", "export_to_data_lake.py --all"), ("pyarrow", "export_to_data_lake.py --all"),
    ("ksql_lake.cli.feeds", "manage_feeds.py list"), ("ksql_lake.cli.settings", "data_lake_config.py"),
    ("ksql_lake.cli.metadata", "metadata_utils.py --report"),
    ("ksql_lake.maintain.verify", "metadata_utils.py --verify --deep"),
    ("ksql_lake.query.column_stats", "metadata_utils.py --stats --deep"),
    ("ksql_lake.maintain.erase", "manage_feeds.py erase --where ID=e1 --later keep"),
    ("ksql_lake.sources.ksqldb.client", "manage_feeds.py check --online"),
    ("ksql_lake.reporting.html.page", "metadata_utils.py --html -"),
])
def test_an_interrupt_at_any_instant_is_quiet(
    ksqldb: EmbeddedKsqlDB, at: str, command: str
) -> None:
    """The process stands still in the import of a module: of the first ones, and of those loaded when needed."""
    if at not in ("ksql_lake.cli.export", "pyarrow"):
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    process = start(*shlex.split(command), TEST_PAUSE_AT=at)
    assert process.stderr is not None and process.stderr.readline() == "paused\n"
    process.send_signal(signal.SIGTERM if at == "pyarrow" else signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and len(err.splitlines()) <= 1, err


def test_a_reader_that_goes_away_is_no_error_and_stops_nothing(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    for command in ("export_to_data_lake.py --all", "metadata_utils.py --stats", "manage_feeds.py list"):
        line = f"{shlex.quote(sys.executable)} {command} 2>{tmp_path}/err | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
        assert (tmp_path / "err").read_text() == "" and done.stdout == "0\n", command
    assert len(ksql_lake.read("s", lake=tmp_path / "lake")) == len(ksql_lake.read("r", lake=tmp_path / "lake")) == 10


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [
    "export_to_data_lake.py --all", "export_to_data_lake.py --all --json", "metadata_utils.py --report",
    "metadata_utils.py --stats", "manage_feeds.py list", "data_lake_config.py", "metadata_utils.py --csv -",
])
def test_standard_output_that_is_full(ksqldb: EmbeddedKsqlDB, tmp_path: Path, command: str) -> None:
    if "metadata" in command:
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT, stdout=full, stderr=subprocess.PIPE,
                              text=True, env=dict(os.environ))
    assert done.returncode == 1 and done.stderr == "error: standard output: No space left on device\n"
    if "export" in command:
        assert len(ksql_lake.read("r", lake=tmp_path / "lake")) == 10, "what was asked for is done all the same"


def test_a_closed_standard_output_is_survived(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    line = f"{shlex.quote(sys.executable)} export_to_data_lake.py --all >&-"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "") and len(ksql_lake.read("s", lake=tmp_path / "lake")) == 10


def test_words_that_the_terminal_cannot_show_are_escaped(ksqldb: EmbeddedKsqlDB) -> None:
    assert manage_feeds.main(["update", "s", "description=東京"]) == 0
    done = run("manage_feeds.py", "show", "s", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "\\u6771" in done.stdout


@pytest.mark.parametrize(("module", "command", "file"), [
    ("pyarrow", "export_to_data_lake.py --all", "requirements.txt"),
    ("pandas", "metadata_utils.py --report", None),
    ("pyarrow", "metadata_utils.py --verify", "requirements.txt"),
])
def test_a_missing_module_is_one_line(ksqldb: EmbeddedKsqlDB, module: str, command: str, file: str | None) -> None:
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    done = run(*shlex.split(command), TEST_MISSING=module)
    if file is None:
        assert done.returncode == 0, "what needs nothing of it goes without"
        return
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: the Python module {module} is missing") and file in done.stderr


def older() -> list[str]:
    return sorted(str(path) for path in Path.home().glob(".pyenv/versions/3.[789].*/bin/python"))


@pytest.mark.parametrize("python", older() or [pytest.param("", marks=pytest.mark.skip(reason="no older Python here"))])
@pytest.mark.parametrize("script", SCRIPTS)
def test_an_older_python_is_told_so(python: str, script: str) -> None:
    done = subprocess.run([python, script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: Python 3.11 or newer is needed; this is 3.")


@pytest.mark.parametrize("command", [*SCRIPTS, "manage_feeds.py list"])
def test_what_needs_no_arrow_does_not_load_it(command: str) -> None:
    """Start-up stays quick: help, settings and feed files go without the heavy libraries."""
    script, *argv = command.split()
    code = f"""
import sys, importlib
try:
    importlib.import_module({script.removesuffix(".py")!r}).main({argv or ["--help"]!r})
finally:
    print("LOADED", sorted({{"pyarrow", "pandas", "numpy", "rich", "requests", "tomllib", "ssl"}} & set(sys.modules)))
"""
    done = run("-c", code, PYTHONPATH=str(ROOT))
    assert "LOADED []" in done.stdout, done.stdout[-300:] + done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_its_version(script: str) -> None:
    assert run(script, "--version").stdout == f"ksql-lake {ksql_lake.__version__}\n"


# what is exported, and what is said of it


def test_a_slip_in_one_name_leaves_the_others_alone(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert export_to_data_lake.main(["--stream", "s", "--stream", "typo", "--json"]) == 1
    shown = capsys.readouterr()
    assert [(one["feed"], one["result"]) for one in json.loads(shown.out)] == [("s", "ok"), ("typo", "failed")]
    assert "typo.json: no such feed" in shown.err and len(ksql_lake.read("s", lake=tmp_path / "lake")) == 10
    assert metadata_utils.main(["--history", "--json"]) == 0
    assert {one["feed"] for one in json.loads(capsys.readouterr().out)} == {"s"}, "no feed has that name"


@pytest.mark.parametrize(("argv", "env", "code"), [
    (["--all"], {"KSQLDB_URL": "http://127.0.0.1:1", "KSQLDB_TIMEOUT": "0.1"}, 1), (["--stream", "typo"], {}, 1),
    (["--all"], {"IDLE_SECONDS": "soon"}, 2), ([], {}, 2), (["--all", "--to", "2025-01-01"], {}, 2),
    (["--all"], {"PING_URL": "nowhere"}, 2), (["--all"], {"DATA_LAKE_DIR": "s3://x/y"}, 2), (["--table", "s"], {}, 2),
])
def test_json_is_always_printed(
    ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, capsys: Any, argv: list[str], env: dict[str, str],
    code: int,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    assert export_to_data_lake.main([*argv, "--json"]) == code
    shown = capsys.readouterr()
    results = json.loads(shown.out)
    assert results and all(one["result"] == "failed" and one["messages"] for one in results), shown.out
    assert max(one["exit_code"] for one in results) == code and "error: " in shown.err


def test_a_dry_run_writes_nothing(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER")
    ksqldb.upsert("T", ["a", 1])
    assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "T"]) == 0
    assert export_to_data_lake.main(["--stream", "s", "--quiet"]) == 0
    ksqldb.append("S", 0, JAN15 + 50, ["e10", "u1"])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    assert export_to_data_lake.main(["--all", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "r: stream R (1 partition), from its first row, by days of UTC",
        "s: stream S (1 partition), after offsets {0: 9}, by days of UTC", "t: table T, whole, as version v1",
        "3 feeds; nothing was written",
    ]
    assert export_to_data_lake.main(["--stream", "s", "--from", "2025-01-14", "--to", "2025-01-15", "--dry-run"]) == 0
    assert "only 2025-01-14 to 2025-01-15" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_from_without_to_goes_until_today(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    ksqldb.append("S", 0, JAN15 + 86_400_000, ["later", "u1"])
    assert export_to_data_lake.main(["--stream", "s", "--from", "2025-01-16"]) == 0
    assert list(ksql_lake.read("s", lake=tmp_path / "lake")["ID"]) == ["later"]
    assert export_to_data_lake.main(["--stream", "s", "--from", "2999-01-01"]) == 2
    assert "--from 2999-01-01 is after today" in capsys.readouterr().err


def test_since_passes_over_the_beginning_of_a_topic_once(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any
) -> None:
    """Also in a partition that has nothing since: its old rows do not come with the next export."""
    day = 86_400_000
    ksqldb.create_stream("LONG", "`ID` STRING", 2)
    for i in range(20):
        ksqldb.append("LONG", 0, JAN15 + i * day // 4, [f"a{i}"])
        ksqldb.append("LONG", 1, JAN15 + i, [f"b{i}"])
    assert manage_feeds.main(["add", "--name", "long", "--type", "stream", "--source", "LONG"]) == 0
    assert export_to_data_lake.main(["--stream", "long", "--since", "2025-01-18", "--dry-run"]) == 0
    assert "from its first row, events since 2025-01-18 only" in capsys.readouterr().out
    assert export_to_data_lake.main(["--stream", "long", "--since", "2025-01-18"]) == 0
    lake = tmp_path / "lake"
    assert sorted(ksql_lake.read("long", lake=lake)["ID"]) == sorted(f"a{i}" for i in range(12, 20))
    assert export_to_data_lake.main(["--all", "--since", "2025-01-01"]) == 0, "of another it is the first export"
    assert len(ksql_lake.read("long", lake=lake)) == 8 and len(ksql_lake.read("s", lake=lake)) == 10
    ksqldb.append("LONG", 1, JAN15 + 20, ["b20"])
    assert export_to_data_lake.main(["--stream", "long", "--since", "2025-01-18"]) == 0
    assert "b20" in set(ksql_lake.read("long", lake=lake)["ID"]), "what comes later is new, whatever its day"
    assert metadata_utils.main(["--verify", "--deep"]) == 0
    assert export_to_data_lake.main(["--all", "--since", "2025-01-18", "--date", "2025-01-19"]) == 2


def test_plain_progress_is_a_line_a_feed_now_and_then(
    ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from ksql_lake.cli import progress

    monkeypatch.setattr(progress, "MINUTE", 0.05)
    monkeypatch.setenv("IDLE_SECONDS", "1.5")
    capsys.readouterr()
    assert export_to_data_lake.main(["--stream", "s", "--progress", "plain"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines and all(line.startswith("s: ") for line in lines)
    waits = "no row for 1 s of 1.5, after which the stream counts as read"
    assert any(waits in line and "10 rows" in line for line in lines)
    assert export_to_data_lake.main(["--stream", "s"]) == 0 and capsys.readouterr().err == "", "no terminal, nothing"


def test_progress_knows_how_far_it_is() -> None:
    from ksql_lake.cli.progress import Counted

    table = Counted("t")
    table.expects(200)
    table(50, 1000)
    assert table.share(0) == 0.25 and "25%" in table.line(table.started + 10, 0)
    assert table.left(table.started + 10, 0) == pytest.approx(30)
    stream = Counted("s")
    assert stream.share(10_000) is None and stream.left(stream.started + 10, 10_000) is None
    stream(1, 10, 1000)
    stream(1, 10, 4000)
    assert stream.share(10_000) == pytest.approx(1 / 3)
    assert "s: 2 rows, " in stream.line(stream.started + 1, 10_000)
    assert stream.share(4100) is None, "all rows happened only just: nothing is known of what is to come"
    stream.waits("no row for 3 s")
    assert stream.share(10_000) is None and "%" not in stream.line(stream.started + 9, 10_000)
    kafka = Counted("k")
    kafka(100, 10, 1000)
    kafka.reached(0.25)
    assert kafka.share(10_000) == 0.25 and "25%, about 30s left" in kafka.line(kafka.started + 10, 10_000)


def test_several_feeds_below_each_other() -> None:
    from ksql_lake.cli.progress import Board

    board = Board(["s", "a_long_name", "t"])
    board.of("t")(1)
    board.done("t")
    board.of("s")(10)
    board.of("a_long_name").waits("no row for 2 s of 10, after which the stream counts as read")
    short, long, done = board.lines()
    assert short.startswith("s:           10 rows, ") and long.startswith("a_long_name: 0 rows, ")
    assert done == "1 of 3 feeds done"
    board.done("s")
    board.done("a_long_name")
    assert board.lines() == []


def test_a_terminal_shows_progress_and_keeps_no_trace(ksqldb: EmbeddedKsqlDB, tmp_path: Path) -> None:
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "export_to_data_lake.py", "--all"], cwd=ROOT, stdout=slave, stderr=slave, stdin=slave,
        env={**os.environ, "IDLE_SECONDS": "2", "TERM": "xterm"},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "2 feeds                                  20 rows  " in text.splitlines()[-1], "the sum at the end"
    assert "rows/s" in text and "s: 10 rows" in text and "s" + " " * 31 in text and "Traceback" not in text


# where output goes


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_what_is_no_file_is_written_through(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, capfd: Any, option: str
) -> None:
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    capfd.readouterr()
    assert metadata_utils.main([option, str(tmp_path / "file")]) == 0
    assert capfd.readouterr().out == f"wrote {tmp_path / 'file'}\n"
    made = (tmp_path / "file").read_bytes()
    assert metadata_utils.main([option, "-"]) == 0
    out = capfd.readouterr().out.encode()
    assert len(out) == len(made) and not Path("-").exists()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    assert metadata_utils.main([option, str(fifo)]) == 0
    reader.join(20)
    assert stat.S_ISFIFO(fifo.stat().st_mode) and len(got[0]) == len(made)
    line = f"{shlex.quote(sys.executable)} metadata_utils.py {option} >(cat >{tmp_path}/through); sleep 0.3"
    subprocess.run(["bash", "-c", line], cwd=ROOT, check=True, env=dict(os.environ))
    assert len((tmp_path / "through").read_bytes()) == len(made)
    assert metadata_utils.main([option, str(tmp_path)]) == 1 and "Is a directory" in capfd.readouterr().err
    assert metadata_utils.main([option, "/dev/null"]) == 0 and stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("dangling", [False, True])
def test_links_stay_links(ksqldb: EmbeddedKsqlDB, tmp_path: Path, dangling: bool) -> None:
    for number, write in enumerate((
        lambda path: metadata_utils.main(["--csv", path]), lambda path: metadata_utils.main(["--html", path]),
        lambda path: export_to_data_lake.main(["--all", "--metrics-file", path]),
    )):
        real, link = tmp_path / f"real{number}", tmp_path / f"link{number}"
        if not dangling:
            real.write_text("old")
        link.symlink_to(real)
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
        assert write(str(link)) == 0
        assert link.is_symlink() and real.read_text() not in ("", "old")


def test_metrics_do_not_wait_for_a_reader(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert export_to_data_lake.main(["--all", "--metrics-file", str(fifo)]) == 0
    assert f"warning: {fifo}: it is a FIFO without a reader" in capsys.readouterr().err


# commands by name and as options


@pytest.mark.parametrize(("flags", "words"), [
    ("--report", "report"), ("--report --json", "report --json"), ("--stats --deep", "stats --deep"),
    ("--stats --json --since 2025-01-01", "stats --json --since 2025-01-01"), ("--csv -", "csv -"),
    ("--verify --deep", "verify --deep"), ("--sql duckdb", "sql duckdb"), ("--rebuild", "rebuild"),
    ("--compare t 1 v2 --format json", "compare t 1 v2 --format json"), ("--reconcile s", "reconcile s"),
    ("--history --feed s", "history --feed s"), ("--report --feed s", "report --feed s"),
])
def test_a_command_and_its_option_are_the_same(ksqldb: EmbeddedKsqlDB, capfd: Any, flags: str, words: str) -> None:
    ksqldb.create_table("T", "`ID` STRING KEY, `V` INTEGER")
    ksqldb.upsert("T", ["a", 1])
    assert manage_feeds.main(["add", "--name", "t", "--type", "table", "--source", "T"]) == 0
    for _ in range(2):
        assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    capfd.readouterr()
    shown = []
    for argv in (flags.split(), words.split()):
        assert metadata_utils.main(argv) == 0
        lines = capfd.readouterr().out.splitlines()
        shown.append([line for line in lines if "ago" not in line and "seconds" not in line])
    assert len(shown[0]) == len(shown[1]) > 0
    if "report" not in flags:
        assert shown[0] == shown[1]


def test_lake_goes_before_and_behind_a_command(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    other = str(tmp_path / "other")
    assert manage_feeds.main(["--lake", other, "sync"]) == 0 and manage_feeds.main(["sync", "--lake", other]) == 0
    capsys.readouterr()
    for argv in (["--lake", other, "list"], ["list", "--lake", other]):
        assert manage_feeds.main(argv) == 0 and len(capsys.readouterr().out.splitlines()) == 8
    assert metadata_utils.main(["--lake", other, "report"]) == metadata_utils.main(["report", "--lake", other]) == 0
    assert not (tmp_path / "lake" / "feeds" / "active" / "transaction_stream.json").exists()


def test_hints_are_commands_for_the_lake_at_hand(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command that a message advises runs as it is shown, from where it is shown."""
    lake = tmp_path / "my lake"
    lake.mkdir()
    monkeypatch.chdir(tmp_path)
    done = run(str(ROOT / "manage_feeds.py"), "--lake", "my lake", "show", "nobody", cwd=tmp_path)
    advised = done.stderr.strip().partition("see: ")[2]
    assert shlex.split(advised)[1:] == [str(ROOT / "manage_feeds.py"), "list", "--lake", "my lake"]
    again = subprocess.run(["bash", "-c", advised], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    hints.called(lake)
    for text, shown in (
        ("see: python manage_feeds.py list", "manage_feeds.py list --lake 'my lake'"),
        ("python manage_feeds.py reload s --date 2025-01-01. Then", "--date 2025-01-01 --lake 'my lake'. Then"),
        ("run python manage_feeds.py sync, or python manage_feeds.py list and", "sync --lake 'my lake', or"),
        ("run python manage_feeds.py remote push (slow)", "manage_feeds.py --lake 'my lake' remote push (slow)"),
        ("python manage_feeds.py remote restore --lake EMPTY", "manage_feeds.py remote restore --lake EMPTY"),
        ("python metadata_utils.py --rebuild or so", "metadata_utils.py --rebuild --lake 'my lake' or so"),
    ):
        assert shown in hints.here(text), hints.here(text)
        assert hints.here(hints.here(text)) == hints.here(text)
    hints.called(None)
    monkeypatch.chdir(ROOT)
    assert hints.here("see: python manage_feeds.py list").endswith(" manage_feeds.py list")
    hints.called(None, console=True)
    try:
        assert hints.here("run: python metadata_utils.py --rebuild --feed x") == "run: ksql-lake --rebuild --feed x"
        assert hints.here("see: python manage_feeds.py list") == "see: ksql-lake feeds list"
    finally:
        hints.called(None, console=False)


# settings


def test_a_settings_file_stands_between_defaults_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('KSQLDB_URL = "http://ksqldb:1234"\nJOBS = 2\nRETENTION = false\nIDLE_SECONDS = 0.5\n')
    monkeypatch.setenv("DATA_LAKE_SETTINGS", str(file))
    monkeypatch.setenv("JOBS", "3")
    assert data_lake_config.main([]) == 0
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "http://ksqldb:1234" in shown["KSQLDB_URL"] and shown["KSQLDB_URL"].endswith(str(file))
    assert " 3 " in shown["JOBS"] and shown["JOBS"].endswith("environment")
    assert " off " in shown["RETENTION"] and shown["BATCH_SIZE"].endswith("data_lake_config.py")


@pytest.mark.parametrize(("text", "words"), [
    ("JBOS = 3", "no setting is called JBOS; did you mean JOBS?"), ("jobs = 3", "did you mean JOBS?"),
    ("JOBS = [1]", "JOBS must be text, a number, true or false"), ("JOBS = ", "is not TOML"), (None, "there is no "
                                                                                                     "file"),
    ("JOBS = 2.5", "JOBS is 2.5; expected a whole number"), ('JOBS = "many"', "JOBS is 'many'; expected a number"),
])
def test_a_settings_file_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, words: str
) -> None:
    file = tmp_path / "settings.toml"
    if text is not None:
        file.write_text(text + "\n")
    with pytest.raises(ConfigError) as wrong:
        data_lake_config.load({"DATA_LAKE_SETTINGS": str(file)})
    assert words in str(wrong.value)


def test_the_example_of_a_settings_file_is_one(tmp_path: Path) -> None:
    """As it is shipped, and with every line of it in force."""
    example = (ROOT / "settings.example.toml").read_text()
    whole = "\n".join(line.removeprefix("# ") if " = " in line else line for line in example.splitlines())
    for text in (example, whole.replace("/etc/ksql-lake/ksqldb-password", os.devnull)):
        (tmp_path / "settings.toml").write_text(text)
        config = data_lake_config.load({"DATA_LAKE_SETTINGS": str(tmp_path / "settings.toml")})
        assert config.url == "http://localhost:8088"


@pytest.mark.parametrize(("text", "words"), [
    ("s3://bucket/lake", "a lake must be on a local disk"), ("$HOME/lake", "nothing expands the $"),
    ("~nobody_of_that_name/lake", "no such home directory"),
])
def test_places_that_are_no_directory_are_refused(text: str, words: str, capsys: Any) -> None:
    with pytest.raises(ConfigError, match="DATA_LAKE_DIR"):
        data_lake_config.load({"DATA_LAKE_DIR": text})
    for main in (export_to_data_lake.main, manage_feeds.main, metadata_utils.main):
        argv = {manage_feeds.main: ["list"], metadata_utils.main: ["--report"]}.get(main, ["--all"])
        assert main(["--lake", text, *argv]) == 2 and words in capsys.readouterr().err


def test_home_is_expanded_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {"DATA_LAKE_DIR": "lake", "METRICS_FILE": "m.prom", "KSQLDB_CA_CERT": "ca.pem"}
    (tmp_path / "secret").write_text("canary\n")
    settings = {name: f"~/{value}" for name, value in names.items()} | {"KSQLDB_PASSWORD_FILE": "~/secret"}
    config = data_lake_config.load(settings)
    assert config.lake_dir == tmp_path / "lake" and config.alerts.metrics_file == tmp_path / "m.prom"
    assert config.ca_cert == str(tmp_path / "ca.pem") and config.password == "canary"


def test_feeds_of_the_config_are_switched_off_in_one_place(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Their files stay as they are, under version control perhaps."""
    assert manage_feeds.main(["sync"]) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "lake" / "feeds" / "active").iterdir()}
    assert export_to_data_lake.main(["--all", "--json"]) == 1, "this server does not have them"
    monkeypatch.setenv("CONFIG_FEEDS", "off")
    capsys.readouterr()
    assert export_to_data_lake.main(["--all", "--json"]) == 0
    assert [one["feed"] for one in json.loads(capsys.readouterr().out)] == ["r", "s"]
    assert manage_feeds.main(["list", "--json"]) == 0
    states = {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)}
    assert states["s"] == "active" and states["transaction_stream"] == "off"
    assert {path: path.read_bytes() for path in (tmp_path / "lake" / "feeds" / "active").iterdir()} == before
    _nothing_is_said_of_feeds_that_are_off(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("CONFIG_FEEDS", "payment_method_totals, transaction_stream")
    assert manage_feeds.main(["sync"]) == 0
    written = sorted(path.stem for path in (tmp_path / "other" / "feeds" / "active").iterdir())
    assert written == ["payment_method_totals", "transaction_stream"]
    with pytest.raises(ConfigError, match="CONFIG_FEEDS names nobody"):
        data_lake_config.load({"CONFIG_FEEDS": "nobody"})


def _nothing_is_said_of_feeds_that_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Though their last run failed: not by the report, the page or the metrics, nor by a check or a refused run."""
    metrics, page = tmp_path / "lake.prom", tmp_path / "lake.html"
    assert manage_feeds.main(["check", "--online"]) == 0
    assert metadata_utils.main(["report"]) == 0
    assert metadata_utils.main(["html", str(page)]) == 0
    assert export_to_data_lake.main(["--all", "--metrics-file", str(metrics)]) == 0
    monkeypatch.setenv("JOBS", "many")
    assert export_to_data_lake.main(["--all"]) == 2
    monkeypatch.delenv("JOBS")
    shown = capsys.readouterr()
    assert "transaction_" not in shown.out + shown.err + metrics.read_text()
    assert "transaction_" not in page.read_text().split("<h2>Runs</h2>")[0], "the history keeps what happened"
    assert metadata_utils.main(["history", "--json"]) == 0
    refused = {one["feed"] for one in json.loads(capsys.readouterr().out) if "JOBS" in str(one["findings"])}
    assert refused == {"r", "s"}
    assert {one["feed"] for one in ksql_lake.report()} == {"r", "s"}


def test_a_server_without_the_feeds_of_the_config(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    """One line for each cause, and the one setting that ends it; on a server that has other sources."""
    assert manage_feeds.main(["sync"]) == 0
    capsys.readouterr()
    assert manage_feeds.main(["discover"]) == 0 and 'CONFIG_FEEDS = "off"' in capsys.readouterr().out
    assert manage_feeds.main(["check", "--online"]) == 1
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 2, "streams and tables"
    assert "8 feeds have no source" in shown.out and 'CONFIG_FEEDS = "off"' in shown.out
    assert "2 of 10 feeds match" in shown.out
    assert export_to_data_lake.main(["--all", "--quiet"]) == 1
    capsys.readouterr()
    assert metadata_utils.main(["report"]) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("! failed")]
    assert len(found) == 2, "the report, too, names several feeds in one line"
    assert found[0].startswith("! failed      payment_method_totals, product_purchase_counts,")


def test_sources_that_differ_in_case_only(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    ksqldb.create_stream("s", "`A` STRING")
    assert manage_feeds.main(["discover"]) == 0 and "stream  s\n" in capsys.readouterr().out
    assert manage_feeds.main(["discover", "--add"]) == 1
    advice = capsys.readouterr().err
    assert "names must not differ only in case" in advice and "add --source s --name s_2" in advice
    assert manage_feeds.main(advice.split("manage_feeds.py ")[1].split()) == 0
    capsys.readouterr()
    assert manage_feeds.main(["discover"]) == 0 and capsys.readouterr().out == "every source has a feed\n"


def test_check_online_offers_to_disable_what_has_no_source(ksqldb: EmbeddedKsqlDB, capsys: Any) -> None:
    for name in ("gone", "lost"):
        assert manage_feeds.main(["add", "--name", name, "--type", "stream", "--source", name]) == 0
    capsys.readouterr()
    assert manage_feeds.main(["check", "--online"]) == 1
    out = capsys.readouterr().out
    assert f"2 feeds have no source on {ksqldb.url}: gone lost" in out and "manage_feeds.py disable gone lost" in out
    assert manage_feeds.main(["disable", "gone", "lost"]) == 0
    capsys.readouterr()
    assert manage_feeds.main(["check", "--online"]) == 0, "what no export takes cannot fail"
    shown = capsys.readouterr()
    assert "no source" not in shown.out + shown.err and "2 of 2 feeds match" in shown.out
    assert manage_feeds.main(["check", "--online", "gone"]) == 1, "asked about by its name, it is looked at"
    assert "gone: no such stream" in capsys.readouterr().err
    assert export_to_data_lake.main(["--all"]) == 0


def test_check_asks_server_disk_rights_and_clock(
    ksqldb: EmbeddedKsqlDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert data_lake_config.main(["--check"]) == 0
    out = capsys.readouterr().out
    assert "is ksqlDB 0." in out and "everything is as it should be" in out and "no sign that it is wrong" in out
    assert export_to_data_lake.main(["--all", "--quiet"]) == 0
    runs = tmp_path / "lake" / "logs" / "runs.jsonl"
    os.utime(runs, (runs.stat().st_mtime + 3600,) * 2)
    assert data_lake_config.main(["--check"]) == 1 and "WRONG  clock" in capsys.readouterr().out
    secret = tmp_path / "settings.toml"
    secret.write_text('PING_URL = "https://hc-ping.com/x"\n')
    secret.chmod(0o644)
    monkeypatch.setenv("DATA_LAKE_SETTINGS", str(secret))
    monkeypatch.setenv("KSQLDB_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("DATA_LAKE_DIR", str(tmp_path / "absent"))
    assert data_lake_config.main(["--check"]) == 1
    wrong = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("WRONG")]
    assert wrong == ["settings", "lake", "server"] and not (tmp_path / "absent").exists()


def test_check_compares_the_clocks_where_a_gateway_sends_the_time(
    ksqldb: EmbeddedKsqlDB, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """ksqlDB 0.29 sends no Date header (tests/recordings); what stands in front of it often does."""
    for ahead, code, said in ((0, 0, "differ by"), (-300, 1, "ahead of it; set"), (300, 1, "behind it; set")):
        with ReverseProxy(ksqldb.port, "close", ahead) as proxy:
            monkeypatch.setenv("KSQLDB_URL", proxy.url)
            capsys.readouterr()
            assert data_lake_config.main(["--check"]) == code
            (line,) = [line for line in capsys.readouterr().out.splitlines() if " clock " in line]
            assert said in line and line.startswith("WRONG" if code else "ok")


def test_the_demo_is_of_today_and_of_its_own(tmp_path: Path, capsys: Any) -> None:
    demo = ["--demo", "--events", "60", "--lake", str(tmp_path / "demo")]
    assert export_to_data_lake.main(demo) == 0
    frame = ksql_lake.read("transaction_stream", lake=tmp_path / "demo")
    age = pd.Timestamp.now(tz="UTC") - frame["ROWTIME"].max()
    assert pd.Timedelta(0) < age < pd.Timedelta(hours=2) and frame["ROWTIME"].dt.date.nunique() in (2, 3)
    capsys.readouterr()
    assert export_to_data_lake.main(demo) == 0
    assert len(ksql_lake.read("transaction_stream", lake=tmp_path / "demo")) == 60, "the second run adds nothing"
    assert export_to_data_lake.main(["--demo", "--events", "70", "--lake", str(tmp_path / "demo")]) == 0
    assert len(ksql_lake.read("transaction_stream", lake=tmp_path / "demo")) == 70, "other numbers start it anew"
    (tmp_path / "lake" / "streams").mkdir(parents=True)
    assert export_to_data_lake.main(["--demo", "--lake", str(tmp_path / "lake")]) == 2
    assert "is not a demo's lake" in capsys.readouterr().err and (tmp_path / "lake" / "streams").is_dir()
