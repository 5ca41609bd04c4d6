"""Limits where the rot of such code bases begins: long files, long functions, strings tied to one machine."""

from __future__ import annotations

import ast
import re

from tests.house.files import ROOT, modules, text_files

_MODULE_LINES = 500
_FUNCTION_LINES = 110

# Put together here, so that this file does not contain what it looks for.
_FORBIDDEN = [
    *("pypi" + ending for ending in (".org", ".python.org")),
    "python" + "hosted.org",
    "registry." + "npmjs.org",
    *(r"(?<![\w./])/" + place + r"\b" for place in ("work/", "root/", "home/", "opt/(?:pypi|wheels)", "mnt/")),
    "resolved" + r'":\s*"http',
]


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules("app")}
    assert {path: lines for path, lines in long.items() if lines > _MODULE_LINES} == {}


def test_no_function_is_longer_than_two_screens() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{function.name}": lines
        for path in modules("app")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (function.end_lineno or 0) - function.lineno + 1) > _FUNCTION_LINES
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [str(path.relative_to(ROOT)) for path in modules("app") if not _says_what_it_is(path.read_text())]
    assert silent == []


def test_no_file_names_a_package_index_or_a_path_of_somebodys_machine() -> None:
    forbidden = re.compile("|".join(_FORBIDDEN))
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def _says_what_it_is(source: str) -> bool:
    """An empty `__init__` has nothing to say."""
    tree = ast.parse(source)
    return not tree.body or ast.get_docstring(tree) is not None
