"""The systemd example: read by systemd itself, and its command run as it stands."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import export_to_data_lake
from ksql_lake.cli import export_options
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples" / "systemd"
SERVICE, TIMER = "ksql-lake-export.service", "ksql-lake-export.timer"
FOLLOW = "ksql-lake-follow.service"
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(EXAMPLES / name)
    return parser


@needs_systemd
@pytest.mark.parametrize("name", [SERVICE, TIMER, FOLLOW])
def test_systemd_finds_nothing_wrong(name: str, tmp_path: Path) -> None:
    """Unknown keys are only told on stderr; the program has to exist, so this one's Python stands in for it."""
    for file in (SERVICE, TIMER, FOLLOW):
        text = (EXAMPLES / file).read_text().replace("/opt/ksql-lake/.venv/bin/python", sys.executable)
        (tmp_path / file).write_text(text)
    run = subprocess.run(
        ["systemd-analyze", "verify", f"./{name}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


@needs_systemd
def test_every_time_that_is_named_is_one(tmp_path: Path) -> None:
    named = set(re.findall(r"OnCalendar=(.*)", (EXAMPLES / TIMER).read_text()))
    named |= set(re.findall(r"systemd-analyze calendar '(.*?)'", (ROOT / "README.md").read_text()))
    assert named == {"*-*-* 02:00:00 UTC", "*-*-* 03:30:00 Europe/Paris"}
    for time in named:
        run = subprocess.run(["systemd-analyze", "calendar", time], capture_output=True, text=True, check=True)
        assert f"Normalized form: {time}" in run.stdout


def test_the_service_says_what_the_readme_says() -> None:
    service, timer = unit(SERVICE)["Service"], unit(TIMER)["Timer"]
    assert (service["Type"], service["KillSignal"], timer["Persistent"]) == ("oneshot", "SIGINT", "true")
    assert timer["OnCalendar"].endswith(" UTC") and timer["Unit"] == SERVICE
    name = service["LoadCredential"].partition(":")[0]
    assert service["Environment"] == f"KSQLDB_PASSWORD_FILE=%d/{name}"


def test_it_goes_by_the_settings_file_beside_the_scripts() -> None:
    service = unit(SERVICE)["Service"]
    assert service["EnvironmentFile"].startswith("-"), "which may be absent"
    assert f"{service['WorkingDirectory']}/settings.toml" in (EXAMPLES / SERVICE).read_text()


def test_its_command_is_one_of_ours() -> None:
    for name in (SERVICE, FOLLOW):
        _, script, *argv = shlex.split(unit(name)["Service"]["ExecStart"])
        assert (ROOT / script).samefile(export_to_data_lake.__file__)
        args = export_options.parser(None).parse_args(argv)
        assert args.all and args.follow == (name == FOLLOW)


def test_a_follower_tells_systemd_that_it_is_ready() -> None:
    service = unit(FOLLOW)["Service"]
    assert (service["Type"], service["KillSignal"], service["Restart"]) == ("notify", "SIGTERM", "on-failure")
    assert int(service["WatchdogSec"]) > 0
