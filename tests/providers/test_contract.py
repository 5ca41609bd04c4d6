"""The contract suite over every provider of the registry, and what the registry itself promises."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.providers.base import Provider
from app.providers.registry import Registry
from tests.providers.benches import BENCHES
from tests.providers.contract import CONTRACT, Bench

ROOT = Path(__file__).parents[2]
KINDS = Registry.build().kinds()


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_provider_keeps_the_contract(
    kind: str, clause: Callable[[Bench], Awaitable[None]], tmp_path: Path
) -> None:
    async with BENCHES[kind](tmp_path) as bench:
        await clause(bench)


@pytest.mark.parametrize("kind", KINDS)
def test_every_provider_declares_what_it_implements_and_nothing_else(kind: str) -> None:
    provider = Registry.build().get(kind)
    methods = {"scale": "scale", "update": "update", "start": "start", "stop": "stop", "restart": "restart"}
    for capability, method in {**methods, "catalog": "models"}.items():
        implemented = getattr(type(provider), method) is not getattr(Provider, method)
        assert implemented == getattr(provider.capabilities, capability), capability


@pytest.mark.parametrize("kind", KINDS)
def test_every_provider_has_its_page_and_its_schemas(kind: str) -> None:
    (described,) = [one for one in Registry.build().describe() if one.kind == kind]
    assert (ROOT / f"docs/providers/{kind}.md").is_file()
    assert described.settings_schema["additionalProperties"] is False
    assert described.credentials_schema["additionalProperties"] is False
    assert all(isinstance(flag, bool) for flag in described.capabilities.values())


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match="openai_compatible") as raised:
        Registry.build().get("bedrock")
    assert raised.value.param == "provider"


def test_the_matrix_has_a_row_for_each_provider_under_one_head() -> None:
    head, *rows = Registry.build().matrix()
    assert [row[0] for row in rows] == list(KINDS)
    assert {len(row) for row in rows} == {len(head)}


def test_a_platform_is_imported_by_the_registry_and_by_itself_only() -> None:
    platforms = ROOT / "app/providers/platforms"
    for path in (ROOT / "app").rglob("*.py"):
        own = path.relative_to(platforms).parts[0] if path.is_relative_to(platforms) else None
        for name in _imports(path):
            if name.startswith("app.providers.platforms.") and path != ROOT / "app/providers/registry.py":
                assert name.split(".")[3] == own, f"{path} imports {name}"


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return found | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
