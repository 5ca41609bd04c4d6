"""ZStack's query conditions: `q=<name><operator><value>`, several are joined by AND.

The server takes the first operator of its list that stands anywhere in the text, so a value that holds one
would be taken apart at the wrong place (`name=a!=b` reads as `name=a` not equal to `b`), and there is no
escape. Such a value cannot be asked for; whoever needs it lists all and compares.

Source: zstackio/zstack, `RestServer.handleQueryApi` (read 2026-11-21).
"""

from __future__ import annotations

OPERATORS = ("!=", ">=", "<=", "!?=", "!~=", "~=", "?=", "=", ">", "<", "is null", "not null")
"""In the order in which the server looks for them."""


def equals(name: str, value: str) -> tuple[str, str] | None:
    """The query pair for `name` equal to `value`, None where it cannot be written."""
    unreadable = any(operator in value for operator in OPERATORS) or not value.isprintable()
    return None if unreadable else ("q", f"{name}={value}")
