"""The README says what the code does: settings, providers, links, and no more than it should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.providers.registry import Registry
from app.settings import Variable, variables
from tests.house.files import ROOT

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("setting", tuple(variables()), ids=lambda setting: setting.name)
def test_a_setting_is_described_with_its_meaning_and_default(setting: Variable) -> None:
    assert f"| `{setting.name}` | {setting.meaning} | {setting.default} |" in README.splitlines()


def test_the_settings_table_has_no_row_that_the_code_does_not_read() -> None:
    shown = re.findall(r"^\| `(MODELPORT_\w+)` \|", README, re.MULTILINE)
    assert shown == [setting.name for setting in variables()]


def test_the_support_matrix_is_the_registrys() -> None:
    head, *rows = Registry.build().matrix()
    table = [_cells(line) for line in _between("providers").splitlines()]
    assert table[0] == list(head)
    assert table[2:] == [[f"[`{kind}`](docs/providers/{kind}.md)", *cells] for kind, *cells in rows]


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) < 200


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_generator_finds_nothing_to_write_and_notices_a_wrong_row(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README)
    assert _check(copy) == 0
    copy.write_text(README.replace("| [`local`]", "| [`elsewhere`]"))
    assert _check(copy) == 1


def _check(readme: Path) -> int:
    program = [sys.executable, str(ROOT / "scripts" / "readme_tables.py"), "--check", str(readme)]
    return subprocess.run(program, capture_output=True, check=False, cwd=ROOT).returncode


def _between(table: str) -> str:
    found = re.search(rf"<!-- {table}:begin[^\n]*-->\n(.*?)<!-- {table}:end -->", README, re.DOTALL)
    assert found
    return found[1]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
