"""The package, its extras, the container's steps and the cron line: each in a fresh place, as a user would."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import ksql_lake
from ksql_lake.cli import export_options
from ksql_lake.embedded import EmbeddedKsqlDB, fill_demo
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def requirements(name: str) -> set[str]:
    lines = (ROOT / name).read_text().splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-r"))}


def test_the_extras_are_the_requirements_files() -> None:
    assert set(PROJECT["project"]["dependencies"]) == requirements("requirements.txt")
    for extra, wanted in PROJECT["project"]["optional-dependencies"].items():
        file = ROOT / f"requirements-{extra}.txt"
        assert set(wanted) == (requirements(file.name) if file.exists() else set()), extra
    assert PROJECT["project"]["dynamic"] == ["version"] and PROJECT["project"]["requires-python"] == ">=3.11"


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M)) - {"native-if-cc"}
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} == targets


def test_the_hooks_before_a_commit_are_make_lint() -> None:
    """Ruff over everything by its own hook, and the other commands to the letter; no hook besides."""
    makefile = (ROOT / "Makefile").read_text()
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.M)
    wanted = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    hooks = [hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
             for hook in repo["hooks"]]
    assert [hook.get("entry", f".venv/bin/{hook['id']} check .") for hook in hooks] == wanted


def test_the_version_is_in_one_place() -> None:
    version = re.escape(ksql_lake.__version__)
    pattern = rf"(version|__version__)[\"']? ?[=:] ?[\"']{version}[\"']"
    places = ["*.py", "*.toml", "*.cfg", "Dockerfile", "*.yaml"]
    listed = subprocess.run(["git", "grep", "-lE", pattern, "--", *places], cwd=ROOT, capture_output=True, text=True)
    assert listed.stdout.split() == ["ksql_lake/__init__.py"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {ksql_lake.__version__}" in changelog or "## Unreleased" in changelog


def clone(target: Path, *only: str) -> Path:
    """The files under version control, or some of them, in a fresh directory."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *only], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as the Dockerfile builds it: from the files that it copies and from nothing else."""
    place = tmp_path_factory.mktemp("package")
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for word in line.split()[:-1]]
    source = clone(place / "src", *copied)
    pip = [sys.executable, "-m", "pip"]
    made = subprocess.run(
        [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(place), str(source)],
        capture_output=True, text=True,
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = place.glob("ksql_lake-*.whl")
    target = place / "site"
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return target


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: (word, arguments), continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_each_instruction_of_the_dockerfile_has_what_it_needs() -> None:
    """Where no engine is there to build it: files that are copied exist and are not ignored, extras are extras, the
    user and the directories are made before they are used, and the words of the lists are JSON."""
    found = instructions()
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in found} == known
    ignored = set((ROOT / ".dockerignore").read_text().split())
    stages = [rest.partition(" AS ")[2] for word, rest in found if word == "FROM"]
    for word, rest in found:
        words = rest.split()
        if word == "COPY" and words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
        elif word == "COPY":
            assert all((ROOT / name).exists() and not {name, f"{name}/"} & ignored for name in words[:-1])
        elif word in ("ENTRYPOINT", "CMD"):
            assert json.loads(rest)
    built = " ".join(rest for word, rest in found if word == "RUN")
    (extras,) = re.findall(r'"\.\[([a-z0-9,]+)\]"', built)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    last = dict(found)  # the last one of each
    lake = re.search(r"DATA_LAKE_DIR=(\S+)", last["ENV"])
    assert lake is not None and lake[1] == last["VOLUME"] == last["WORKDIR"]
    assert f"mkdir {lake[1]} && chown {last['USER']}:" in built and f"--create-home {last['USER']}" in built
    assert f"{re.findall(r'venv (/[a-z/-]+)', built)[0]}/bin:$PATH" in last["ENV"]
    assert re.search(r"^FROM python:3\.(\d+)", DOCKERFILE, re.M)[1] >= "11"  # type: ignore[index]


COMPOSE_KEYS = {"build", "entrypoint", "command", "healthcheck", "depends_on", "environment", "volumes", "ports",
                "stop_grace_period", "restart"}


@pytest.mark.parametrize("file", ["compose.yaml", "examples/compose/follow.yaml"])
def test_compose_files_are_what_compose_takes(file: str) -> None:
    project = yaml.safe_load((ROOT / file).read_text())
    assert set(project) <= {"services", "volumes"}
    for service in project["services"].values():
        assert set(service) <= COMPOSE_KEYS
        assert ((ROOT / file).parent / service["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
        for other, condition in service.get("depends_on", {}).items():
            assert "healthcheck" in project["services"][other] and condition == {"condition": "service_healthy"}
        for volume in service.get("volumes", ()):
            name, target = volume.split(":")
            assert target == dict(instructions())["VOLUME"] and (name[0] == "." or name in project["volumes"])
        if "healthcheck" in service:
            assert service["healthcheck"]["test"][0] == "CMD" and compile(service["healthcheck"]["test"][3], "", "exec")
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())
        if "entrypoint" not in service:  # the image's: ksql-lake
            assert service["command"][0] == "export" and export_options.parser(None).parse_args(service["command"][1:])


def test_the_docker_lines_of_the_docs_are_commands() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    lines = [shlex.split(line) for line in re.findall(r"^\$ (docker run .*)$", page, re.M)]
    assert len(lines) >= 2
    for words in lines:
        script, *argv = words[words.index("ksql-lake") + 1:]
        assert script in ("feeds", "export") and argv[:1] in (["discover"], ["--all"])
        assert f"lake:{dict(instructions())['VOLUME']}" in words


def ksql_lake_command(installed: Path, line: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A shell line in which `ksql-lake` and `python` are those of the installed package; nothing of the clone is."""
    line = line.replace("ksql-lake ", f"{shlex.quote(sys.executable)} {installed}/bin/ksql-lake ")
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return subprocess.run(
        ["sh", "-ec", line], cwd=cwd, capture_output=True, text=True, env={**kept, "PYTHONPATH": str(installed), **env}
    )


@pytest.mark.slow
def test_the_container_step_by_step(installed: Path, tmp_path: Path) -> None:
    """What the compose file starts, with its own words: the embedded server, then the export; then the health check."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    server = [word if word != "8088" else "0" for word in compose["ksqldb"]["entrypoint"]]
    server[server.index("0.0.0.0")], server[0] = "127.0.0.1", sys.executable
    process = subprocess.Popen(server, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(installed)})
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[3].rstrip(",")
        lake = tmp_path / "lake"
        lake.mkdir()
        env = {**compose["export"]["environment"], "KSQLDB_URL": url, "DATA_LAKE_DIR": str(lake)}
        (line,) = compose["export"]["command"]
        done = ksql_lake_command(installed, line, lake, **env)
        assert done.returncode == 0, done.stderr + done.stdout
        assert "native reader" in done.stdout and "nothing needs attention" in done.stdout
        assert len(ksql_lake.read("transaction_stream", lake=lake)) == 10_000
        health = re.search(r"HEALTHCHECK.*CMD \[(.*)\]", DOCKERFILE)
        assert health is not None
        check = " ".join(word.strip(' "') for word in health[1].split(","))
        assert ksql_lake_command(installed, check, lake, **env).returncode == 0
        assert ksql_lake_command(installed, check, lake, **{**env, "KSQLDB_URL": "http://127.0.0.1:1"}).returncode == 1
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_the_installed_command_is_the_scripts(installed: Path, tmp_path: Path) -> None:
    """Its lake lies where one works, not where the code does."""
    run = ksql_lake_command
    assert run(installed, "ksql-lake --version", tmp_path).stdout == f"ksql-lake {ksql_lake.__version__}\n"
    assert run(installed, "ksql-lake config", tmp_path).returncode == 0 and (tmp_path / "data_lake/streams").is_dir()
    done = run(installed, "ksql-lake feeds sync && ksql-lake feeds list && ksql-lake report", tmp_path)
    assert done.returncode == 0 and "transaction_stream               stream  active" in done.stdout
    done = run(installed, "ksql-lake feeds show nobody", tmp_path)
    assert done.returncode == 1 and done.stderr.endswith("see: ksql-lake feeds list\n")
    assert run(installed, "ksql-lake nothing", tmp_path).returncode == 2
    for word in ("export", "feeds", "config", "report", "stats", "compare"):
        done = run(installed, f"ksql-lake {word} --help", tmp_path)
        assert done.returncode == 0 and f"usage: ksql-lake {word}" in done.stdout
    (tmp_path / "settings.toml").write_text("JOBS = 7\n")
    assert str(tmp_path / "settings.toml") in run(installed, "ksql-lake config", tmp_path).stdout


@pytest.fixture
def ksqldb() -> Iterator[EmbeddedKsqlDB]:
    with EmbeddedKsqlDB() as database:
        fill_demo(database, 100)
        yield database


@pytest.mark.slow
def test_the_cron_line_of_readme_works_on_a_fresh_clone(ksqldb: EmbeddedKsqlDB, tmp_path: Path, capsys: Any) -> None:
    """With the empty environment of cron, before anything was made; settings.toml says where the server is."""
    project = clone(tmp_path / "project")
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (project / "settings.toml").write_text(f'KSQLDB_URL = "{ksqldb.url}"\nIDLE_SECONDS = 0.3\nRETENTION = "off"\n')
    texts = [path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
    found = [line for text in texts for line in re.findall(r"^ +0 2 \* \* \* (.*)$", text, re.M)]
    assert found
    for line in found:
        line = line.partition(" # ")[0].replace("/path/to/project", str(project)).replace("%", "")
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd="/", env={
            "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path[1:]),
        })
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), line
    assert len(ksql_lake.read("transaction_stream", lake=project / "data_lake")) == 100
    assert time.time() - (project / "data_lake" / "logs" / "runs.jsonl").stat().st_mtime < 600
