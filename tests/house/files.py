"""The repository as the house tests read it: files that are ours, without what tools leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NOT_OURS = {".git", ".venv", ".modelport", "node_modules", "__pycache__", "dist", "build", ".work"}


def text_files() -> Iterator[tuple[Path, str]]:
    """Every text file of the repository with its content, paths relative to the root."""
    for path in _walk(ROOT):
        try:
            yield path.relative_to(ROOT), path.read_text()
        except UnicodeDecodeError:
            continue


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.name in _NOT_OURS or path.name.endswith(("_cache", ".egg-info")) or path.is_symlink():
            continue
        if path.is_dir():
            if not path.name.startswith(".") or path.name == ".ci":
                yield from _walk(path)
        else:
            yield path
