"""The create's device: AlayaNeW takes no key of ours, so our token is the end of the service's name.

The list shows names, so what an attempt with a lost answer made is found there; nothing stops a
second create of the same name, so none is ever made (`CreateDevice.NONE`).
"""

from __future__ import annotations

import re

_NAME_LIMIT = 63
"""A DNS label: the vendor publishes no rule, and the service runs on Kubernetes [inferred]."""
_TOKEN = re.compile(r"(?:^|-)(mp-[0-9a-hjkmnp-tv-z]{26})$")


def service_name(name: str, token: str) -> str:
    """The deployment's name, for people, and the token, for us."""
    head = name[: _NAME_LIMIT - len(token) - 1].rstrip("-")
    return f"{head}-{token}"


def token_of(name: str | None) -> str | None:
    """The token in a service's name; None for a service that Modelport did not make."""
    found = _TOKEN.search(name or "")
    return found[1] if found else None


def carries(name: str | None, token: str) -> bool:
    return name is not None and (name == token or name.endswith(f"-{token}"))
