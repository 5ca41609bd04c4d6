"""What of ZStack's answers may be shown: all but keys, and what people put into environments and YAML.

Groups and services carry YAML, start commands and environments, where tokens for model hubs and
registries usually stand; instances carry the virtual machine with its console.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_CORE = r"(?:api[-_]?key|access[-_]?key|secret|token(?!s|i[sz])|passw|credential|authorization)"
_SECRET_NAME = re.compile(_CORE, re.IGNORECASE)
_NAME = rf"[\w.-]{{0,40}}{_CORE}[\w.-]{{0,40}}"
_VALUE = r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;\"']+)"
_ASSIGNED = re.compile(rf"({_CORE}[\w.-]{{0,40}}[\"']?[ \t]{{0,8}}[:=][ \t]{{0,8}}){_VALUE}", re.IGNORECASE)
_OPTION = re.compile(rf"(--{_NAME}[ \t]{{1,8}}){_VALUE}", re.IGNORECASE)
_LISTED = re.compile(
    rf"(name:[ \t]{{0,8}}[\"']?{_NAME}[\"']?[ \t]{{0,8}}\r?\n[ \t]{{0,80}}value:[ \t]{{0,8}}){_VALUE}", re.IGNORECASE
)
"""Each begins with something rare and looks ahead within bounds: a readme may be megabytes of anything."""
_ENVIRONMENTS = frozenset({"env", "environment", "environmentvariables"})


def redacted(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without secrets: by the names of members, and by names within texts."""
    return {key: _clean(str(key), value) for key, value in entry.items()}


def clean_text(text: str) -> str:
    """`TOKEN: x`, `--api-key x`, `KEY=x` and Kubernetes' name and value lines, without the values."""
    for pattern in (_LISTED, _OPTION, _ASSIGNED):
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def _clean(name: str, value: Any) -> Any:
    if name.lower() in _ENVIRONMENTS and isinstance(value, Mapping):
        return dict.fromkeys(value, HIDDEN)
    if _SECRET_NAME.search(name) and isinstance(value, str) and value:
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: _clean(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean("", inner) for inner in value]
    return clean_text(value) if isinstance(value, str) else value
