"""`make` and the preparation of `.venv`: the verbs there are, and what makes it install again."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.house.files import ROOT

_VERBS = "run test help lint types check bench openapi lock migrate sandbox".split()
_INPUTS = ("pyproject.toml", "requirements.lock", "requirements-dev.lock", "requirements-demo.lock")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with an environment that was prepared for tests."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "prepare.py", tmp_path / "scripts")
    for name in _INPUTS:
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    script = _loaded(tmp_path)
    script.STAMP.write_text(json.dumps({name: script.digest(name) for name in script.LOCKS} | {"root": str(tmp_path)}))
    return tmp_path


def _loaded(checkout: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("prepare", checkout / "scripts" / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("purpose", ["run", "test"])
def test_an_environment_that_fits_its_locks_is_left_alone_without_a_word(checkout: Path, purpose: str) -> None:
    done = subprocess.run(
        [sys.executable, str(checkout / "scripts" / "prepare.py"), purpose], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_changed_lock_or_dependency_is_noticed_and_a_tools_setting_is_not(checkout: Path) -> None:
    script = _loaded(checkout)
    before = script.digest("run")
    project = (checkout / "pyproject.toml").read_text()
    (checkout / "pyproject.toml").write_text(project + '\n[tool.something]\nsetting = "changed"\n')
    assert script.digest("run") == before
    (checkout / "pyproject.toml").write_text(project.replace('"alembic",', '"alembic>1",'))
    assert script.digest("run") != before
    (checkout / "pyproject.toml").write_text(project)
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert script.digest("run") != before


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("Collecting alembic==1.20.1 (from -r a.lock (line 1))", "alembic"),
        ("Processing /x/annotated_types-0.8.0-py3-none-any.whl (from -r a.lock (line 14))", "annotated_types"),
        ("Requirement already satisfied: typing-extensions==4.16.0 in ./lib (from -r a.lock)", "typing-extensions"),
    ],
)
def test_progress_is_counted_from_what_pip_says(checkout: Path, line: str, package: str) -> None:
    assert _loaded(checkout).STEP.match(line)[1] == package


def test_the_announced_number_of_packages_leaves_out_those_of_other_platforms(checkout: Path) -> None:
    script = _loaded(checkout)
    lock = "a==1 \\\n    --hash=x\nb==2 ; sys_platform == 'win32' \\\nc-d==3 ; sys_platform != 'emscripten' \\\n"
    assert script.PINNED.findall(lock) == ["a", "c-d"]


@pytest.mark.parametrize("verb", _VERBS)
def test_make_help_names_every_verb(verb: str) -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"make {verb} " in said


@pytest.mark.parametrize(("optimized", "found"), [(True, "python3"), (False, "/usr/bin/python3")])
def test_a_slow_python_gives_way_to_the_systems(tmp_path: Path, optimized: bool, found: str) -> None:
    if subprocess.run(
        ["/usr/bin/python3", "-c", "import ensurepip, venv"], capture_output=True, check=False
    ).returncode:
        pytest.skip("the system has no Python that can make environments")
    stub = tmp_path / "python3"
    stub.write_text(f"#!/bin/sh\nexit {0 if optimized else 1}\n")
    stub.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    said = subprocess.run([ROOT / "scripts" / "fastest-python"], env={"PATH": path}, capture_output=True, check=True)
    assert said.stdout.decode().strip() == found
