"""The repository's frame: what is locked, listed and promised is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import tiny
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = tiny.ROOT
LOCK = (ROOT / "requirements.lock").read_text().splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("course", "cluster", "test")

# In pieces, so that this file is not one that names them.
REGISTRIES = (
    *("py" + "pi.org", "python" + "hosted", "download.py" + "torch", "ana" + "conda.org"),
    *("registry.np" + "mjs", "np" + "mjs.org"),
)
PLACES = tuple(f"/{name}" + "/" for name in ("work", "root", "tmp", "home", "Users"))


def locked() -> dict[str, str]:
    return {canonicalize_name(name): version for name, _, version in _split(LOCK)}


def _split(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    return (line.partition("==") for line in lines)


def test_the_lock_holds_names_and_versions_only() -> None:
    wrong = [
        line for line in LOCK if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)
    ]
    assert not wrong
    assert len(locked()) == len(LOCK), "a name stands there twice"


def _stated() -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in EXTRAS:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def test_the_lock_satisfies_every_stated_range() -> None:
    versions = locked()
    for requirement in _stated():
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


def test_the_lock_is_closed_and_installed() -> None:
    versions = locked()
    waiting = [(requirement.name, requirement.extras) for requirement in _stated()]
    seen: set[str] = set()
    while waiting:
        name, extras = waiting.pop()
        if canonicalize_name(name) in seen:
            continue
        seen.add(canonicalize_name(name))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.fail(f"{name} is not installed; run: make setup")
        if _is_accelerator(name):
            continue
        assert canonicalize_name(name) in versions, f"{name} is needed and not locked"
        assert Version(found.version).public == versions[canonicalize_name(name)], name
        for line in found.requires or ():
            requirement = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *extras)]
            if any(not requirement.marker or requirement.marker.evaluate(e) for e in environments):
                waiting.append((requirement.name, requirement.extras))


def _is_accelerator(name: str) -> bool:
    # PyTorch's CUDA build brings these and its CPU build does not; torch itself pins them.
    return canonicalize_name(name).startswith(("nvidia-", "cuda-", "triton"))


def test_conda_installs_the_same_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    pip = next(item for item in environment["dependencies"] if isinstance(item, dict))["pip"]
    assert pip == ["-r requirements.lock", "-e ."]
    names = {re.split(r"[<>=]", item)[0] for item in plain}
    assert names == {"python", "pip", "make"}, "a library would be installed twice"
    python = next(item for item in plain if item.startswith("python="))
    assert Version(python.partition("=")[2]) >= Version("3.11")


def _tracked() -> list[Path]:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_tracked_file_names_a_registry_or_a_place_on_a_machine() -> None:
    found = []
    for path in _tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for word in (*REGISTRIES, *PLACES):
            for match in re.finditer(rf"(?<![\w.~}}*]){re.escape(word)}", text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path.relative_to(ROOT)}:{line} {word}")
    assert not found


def test_nothing_built_is_tracked() -> None:
    for path in _tracked():
        parts = path.relative_to(ROOT).parts
        assert not {"_build", ".venv", "__pycache__", "my_blocks"} & set(parts), path
        assert path.suffix not in (".pyc", ".db"), path


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "LICENSE", "LICENSE-content", "CHANGELOG.md", "CONTRIBUTING.md"),
        *("Makefile", ".ci/run", ".pre-commit-config.yaml", ".github/workflows/book.yml"),
        *("_config.yml", "nbgrader_config.py", "environment.yml", "book/_toc.yml"),
    ],
)
def test_the_files_of_the_frame_are_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 100


def test_documents_name_files_that_exist() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "book/for-instructors.md"):
        text = (ROOT / name).read_text()
        # NN_name stands for any chapter.
        text = text.replace("NN_name", "01_attention")
        for path in re.findall(r"`((?:book|tests|autograder|workbook)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), f"{name} names {path}"
        for path in re.findall(r"`(\w+\.md)`", text):
            assert (ROOT / path).exists(), f"{name} names {path}"


def test_documents_name_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets >= {
        *("all", "test", "release", "book", "grade", "serve", "lab", "bench", "clean", "record")
    }
    for name in ("README.md", "CONTRIBUTING.md", "book/how-to-use.md", "book/for-instructors.md"):
        named = re.findall(r"^(?: *)make +([a-z]+)|`make ([a-z]+)", (ROOT / name).read_text(), re.M)
        assert {first or second for first, second in named} <= targets, name


def test_documents_name_commands_that_exist() -> None:
    from typer.main import get_command

    from autograder.cli import app

    known = set(get_command(app).commands)
    for name in ("README.md", "CONTRIBUTING.md", "book/how-to-use.md", "book/for-instructors.md"):
        named = re.findall(r"\bautograder ([a-z]+)\b(?! in\b)", (ROOT / name).read_text())
        used = {word for word in named if word not in ("and",)}
        assert used <= known, name


# --- make -----------------------------------------------------------------------------------


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    # A suite that `make test` started must not hand its make's flags to this one.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, env=clean | environment
    )


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_make_without_python_says_so(tmp_path: Path) -> None:
    ran = make(f"VENV={tmp_path / 'venv'}", "PYTHON=no-such-python", "setup")
    assert ran.returncode != 0
    assert "there is no 'no-such-python'. Install Python 3.11 or newer" in ran.stderr
    assert not (tmp_path / "venv").exists()


def test_make_with_an_old_python_says_so(tmp_path: Path) -> None:
    old = script(tmp_path / "old", '[ "$1" = -V ] && echo Python 3.9.2 && exit 0; exit 1')
    ran = make(f"VENV={tmp_path / 'venv'}", f"PYTHON={old}", "setup")
    assert ran.returncode != 0
    assert "is Python 3.9.2; 3.11 or newer is needed" in ran.stderr


def test_make_without_venv_says_so(tmp_path: Path) -> None:
    bare = script(tmp_path / "bare", 'case "$2" in *ensurepip*) exit 1;; esac; exit 0')
    ran = make(f"VENV={tmp_path / 'venv'}", f"PYTHON={bare}", "setup")
    assert ran.returncode != 0
    assert "apt install python3-venv" in ran.stderr


def test_make_help_lists_every_target() -> None:
    shown = make("help").stdout
    for target in ("all", "test", "book", "grade", "release", "serve", "lab", "clean"):
        assert f"make {target} " in shown


def test_every_step_of_make_is_planned_from_a_fresh_clone(tmp_path: Path) -> None:
    planned = make("--dry-run", f"VENV={tmp_path / 'venv'}", "all")
    assert planned.returncode == 0, planned.stderr
    steps = ["-r requirements.lock", "autograder release", "book/build.py", "autograder.sample"]
    places = [planned.stdout.index(step) for step in steps]
    assert places == sorted(places)
    assert "-r requirements.lock" in make("-n", f"VENV={tmp_path / 'venv'}", "test").stdout


# --- CI -------------------------------------------------------------------------------------


def test_ci_runs_the_two_commands_last() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    lines = path.read_text().split("\n")
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line][-2:] == ["make", "make test"]
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_workflow_runs_the_same_commands_and_publishes_the_pages() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text())
    steps = workflow["jobs"]["build"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert "bubblewrap" in commands[0]
    assert commands[1:] == ["make", "make test"]
    published = next(step for step in steps if "upload-pages" in step.get("uses", ""))
    assert published["with"]["path"] == "_build/html"


def test_hooks_are_local_and_run_what_is_installed() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    tools = Path(sys.executable).parent
    for hook in config["repos"][0]["hooks"]:
        program = Path(hook["entry"].split()[0])
        assert program.parent == Path(".venv/bin")
        assert (tools / program.name).exists(), hook["entry"]
    entries = [hook["entry"] for hook in config["repos"][0]["hooks"]]
    assert any("release --check" in entry for entry in entries)


def test_the_code_is_formatted_and_lint_free() -> None:
    ruff = Path(sys.executable).parent / "ruff"
    for arguments in (["check"], ["format", "--check"]):
        ran = subprocess.run([ruff, *arguments, "."], cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout
