"""Write the README's tables from the code: settings and support matrix.

    readme_tables.py [--check] [FILE]     --check writes nothing and fails when there is something to write

A table stands between `<!-- NAME:begin … -->` and `<!-- NAME:end -->`; everything else is left alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from app.providers.registry import Registry
from app.settings import variables

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> None:
    arguments = [one for one in sys.argv[1:] if one != "--check"]
    file = Path(arguments[0]) if arguments else README
    before = file.read_text()
    after = with_tables(before)
    if "--check" not in sys.argv:
        file.write_text(after)
    elif after != before:
        sys.exit(f"{file.name}: its tables are not what the code says: run make readme")


def with_tables(text: str) -> str:
    """The same text with each marked table made anew. Exits when a marker is missing."""
    for name, table in TABLES.items():
        place = re.search(rf"<!-- {name}:begin[^\n]*-->\n(.*?)<!-- {name}:end -->", text, re.DOTALL)
        if place is None:
            sys.exit(f"README.md: no markers for the table {name!r}")
        text = text[: place.start(1)] + table() + text[place.end(1) :]
    return text


def settings_table() -> str:
    rows = ((f"`{one.name}`", one.meaning, one.default) for one in variables())
    return markdown(("variable", "meaning", "default"), rows)


def providers_table() -> str:
    head, *rows = Registry.build().matrix()
    return markdown(head, ((f"[`{kind}`](docs/providers/{kind}.md)", *cells) for kind, *cells in rows))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


TABLES: dict[str, Callable[[], str]] = {"settings": settings_table, "providers": providers_table}

if __name__ == "__main__":
    main()
