"""The create's token in a group's name: what a person sees in ZStack's console leads back to us.

The uuid is what keeps a create from happening twice. The name finds it again where a platform gave the
group another uuid, and tells ours from foreign ones in a list, which shows names but no tags.
"""

from __future__ import annotations

import re

_NAME_LIMIT = 128
_TOKEN = re.compile(r"(?:^|-)(mp-[0-9a-hjkmnp-tv-z]{26})$")


def group_name(name: str, token: str) -> str:
    """The deployment's name, for people, and the token, for us."""
    head = name[: _NAME_LIMIT - len(token) - 1].rstrip("-")
    return f"{head}-{token}"


def token_of(name: str | None) -> str | None:
    """The token in a group's name; None for a group that Modelport did not make."""
    found = _TOKEN.search(name or "")
    return found[1] if found else None
