"""What a call is kept together with others by: a key made of its body, the same in every process.

    user, prompt_cache_key    the body's member of that name, of this tenant
    prefix                    the beginning of the prompt: system, instructions or tools come first in it, so
                              everything up to the first user message; of a plain text its first kilobyte

A conversation keeps its prefix when it goes on, and two conversations with the same instructions differ in
their first question, so they spread. A call that has no such member has no key.
"""

from __future__ import annotations

import msgspec

from app.domain.directory import RouteEntry
from app.domain.route import Affinity, hashed
from app.proxy.members import Members, members_of, text_of
from app.proxy.request import AnyRequest

_PROMPTS = ("messages", "input", "prompt")
_BEFORE = ("system", "instructions")
"""What Anthropic's and the Responses API keep apart from their messages."""
_PREFIX_BYTES = 65_536
_TEXT_BYTES = 1_024
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_USER = b'"user"'


def key_of(request: AnyRequest, route: RouteEntry, tenant_id: str) -> int | None:
    """The key by which this route keeps the call; None for none."""
    affinity = route.affinity
    if affinity is Affinity.NONE:
        return None
    if affinity is Affinity.PREFIX:
        prefix = _prefix(request.members)
        return None if not prefix else hashed(prefix)
    text = text_of(request.members.get(affinity.value))
    return None if not text else hashed(f"{tenant_id}\0{text}".encode("utf-8", "surrogatepass"))


def _prefix(members: Members) -> bytes:
    before = b"".join(bytes(members[name]) for name in _BEFORE if name in members)
    prompt = next((bytes(members[name]) for name in _PROMPTS if name in members), b"")
    return (before + _beginning(prompt))[:_PREFIX_BYTES]


def _beginning(prompt: bytes) -> bytes:
    try:
        items = _ITEMS.decode(prompt)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return prompt[:_TEXT_BYTES]
    taken: list[bytes] = []
    for item in items:
        taken.append(bytes(item))
        members = members_of(item)
        if members is None or bytes(members.get("role", b"")) == _USER:
            break
    return b"".join(taken)
