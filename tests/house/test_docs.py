"""Decision records and the changelog keep their form; what documents point at exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.files import ROOT

_RECORDS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
_SECTIONS = ["Context", "Decision", "Consequences", "Alternatives", "Check"]
_DOCUMENTS = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]


def _section(record: Path, name: str) -> str:
    found = re.search(rf"^## {name}\n\n(.*?)(?=^## |\Z)", record.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1].strip()


def test_every_decision_record_is_listed_by_its_number() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index) == [record.name for record in _RECORDS]
    assert [record.name[:4] for record in _RECORDS] == [f"{number:04}" for number in range(1, len(_RECORDS) + 1)]


@pytest.mark.parametrize("record", _RECORDS, ids=lambda record: record.stem)
def test_a_decision_record_has_a_short_context_one_quotable_decision_and_a_check(record: Path) -> None:
    assert re.findall(r"^## (.+)$", record.read_text(), re.MULTILINE) == _SECTIONS
    context = _section(record, "Context").replace("\n", " ")
    assert len(re.findall(r"[.?!](?: |$)", context)) <= 4
    decision = _section(record, "Decision")
    assert all(line.startswith("> ") for line in decision.splitlines())
    assert len(re.findall(r"\.(?:\s|$)", decision)) == 1


@pytest.mark.parametrize("record", _RECORDS, ids=lambda record: record.stem)
def test_the_tests_and_modules_that_a_record_names_exist(record: Path) -> None:
    named = re.findall(r"`((?:tests|app|kit|http1)/[\w/]+\.py)`", record.read_text())
    places = [ROOT if name.startswith(("tests", "app")) else ROOT / "app" for name in named]
    assert [name for place, name in zip(places, named, strict=True) if not (place / name).exists()] == []


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda document: document.stem)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_the_changelog_tells_of_what_is_not_released_or_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(?:Unreleased|\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    assert len(re.findall(r"^- ", changelog, re.MULTILINE)) > 0


def test_the_architecture_page_shows_every_package_and_its_layer() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    packages = {path.stem for path in (ROOT / "app").iterdir() if path.name[0] not in "_."}
    assert {name for name in packages if not re.search(rf"^\| .*`{name}`.* \|", page, re.MULTILINE)} == set()
