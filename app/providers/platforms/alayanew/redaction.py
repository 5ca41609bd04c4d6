"""What of AlayaNeW's answers may be shown: all but keys, and what people put into environments and arguments.

Details and lists hold the service's key, as `apiKey` or `apikey`. An expert service also holds the
container's environment and command line, where tokens for model hubs and registries usually stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"api[-_]?key|access[-_]?key|secret|token(?!s|i[sz])|passw|credential|authorization|signature", re.IGNORECASE
)
_ENVIRONMENT = frozenset({"env", "environment", "environmentvariables"})
_SHORTEST_SECRET = 6


def redacted(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without secrets: by the names of members, and wherever one of those values stands again."""
    found = [value for value in _secrets(entry) if len(value) >= _SHORTEST_SECRET]
    return {key: _clean(key, value, found) for key, value in entry.items()}


def _secrets(value: Any, name: str = "") -> Iterable[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner, name)
    elif isinstance(value, str) and _SECRET_NAME.search(name):
        yield value


def _clean(name: str, value: Any, secrets: list[str]) -> Any:
    if name.lower() in _ENVIRONMENT and isinstance(value, Mapping):
        return dict.fromkeys(value, HIDDEN)
    if _SECRET_NAME.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: _clean(str(key), inner, secrets) for key, inner in value.items()}
    if isinstance(value, list):
        return _arguments([_clean("", inner, secrets) for inner in value])
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
    return value


def _arguments(items: list[Any]) -> list[Any]:
    """`--api-key=…` and `--api-key …` without the value, in a list that may be a command line."""
    shown: list[Any] = []
    hide = False
    for item in items:
        option, equals, _ = item.partition("=") if isinstance(item, str) else ("", "", "")
        secret = bool(_SECRET_NAME.search(option))
        shown.append(HIDDEN if hide else f"{option}={HIDDEN}" if secret and equals else item)
        hide = secret and not equals and not hide
    return shown
