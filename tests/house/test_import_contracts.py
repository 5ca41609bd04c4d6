"""The import contracts can fail: one violation of each is planted in a copy, and each is found.

That they hold for the code as it is, is `make imports`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.files import ROOT

_CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
_PLANTED = {
    "utils.py": "",
    "kit/planted_one.py": "import app.kit.planted_two",
    "kit/planted_two.py": "import app.kit.planted_one",
    "domain/planted.py": "import cryptography, fastapi, httpx2, orjson, socket, sqlalchemy, structlog",
    "ledger/planted.py": "import app.http1",
    "providers/planted.py": "import app.store",
    "providers/platforms/local/planted.py": "import app.providers.platforms.openai_compatible",
    "background/planted.py": "import app.http1, app.providers.platforms.local",
    "proxy/planted.py": "import pydantic",
    "control/planted.py": "import app.ledger, app.lifespan, app.providers.client",
    "control/me/planted.py": "import app.control.tenants",
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> str:
    copy = tmp_path_factory.mktemp("planted")
    shutil.copytree(ROOT / "app", copy / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for path, source in _PLANTED.items():
        (copy / "app" / path).write_text(f'"""Planted."""\n{source}\n')
    return _lint(copy)


@pytest.mark.parametrize("name", [contract["name"] for contract in _CONTRACTS])
def test_a_contract_notices_when_it_is_broken(verdicts: str, name: str) -> None:
    assert f"{name} BROKEN" in verdicts


def test_a_module_that_is_in_no_layer_is_named(verdicts: str) -> None:
    assert "utils" in verdicts


def test_every_resource_of_the_control_plane_is_kept_from_the_others() -> None:
    found = {f"app.control.{path.parent.name}" for path in (ROOT / "app" / "control").glob("*/router.py")}
    kept_apart = next(set(one["modules"]) for one in _CONTRACTS if one["name"].startswith("Resources"))
    assert kept_apart == found


def _lint(directory: Path) -> str:
    program = Path(sys.executable).with_name("lint-imports")
    wide = {**os.environ, "COLUMNS": "1000", "PYTHONPATH": str(directory)}
    done = subprocess.run(
        [program, "--no-cache", "--no-logo"], cwd=directory, env=wide, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout
