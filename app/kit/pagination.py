"""Pages: opaque tokens that say where the next page starts, and of which list.

A list is ordered by id, newest first. A token holds the last id of the page before and a
fingerprint of the list's filters, so that it cannot continue another list. It is no capability:
the query it continues is scoped to the caller again.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.errors import InvalidRequest
from app.kit import json
from app.kit.secrets import sha256

_FINGERPRINT_BYTES = 8
_ID = re.compile(rb"[a-z]{2,3}_[0-9a-z]{26}")


class Identified(Protocol):
    """A row with an id that sorts by creation time."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Identified)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Up to `size` items older than the id `after`; `fingerprint` names the list and its filters."""

    size: int
    after: str | None
    fingerprint: bytes


def page_request(size: int, token: str | None, *filters: str | None) -> PageRequest:
    """Raises InvalidRequest for a token that we did not make, or made for another list."""
    fingerprint = sha256(json.dumps(filters))[:_FINGERPRINT_BYTES]
    return PageRequest(size, _read(token, fingerprint) if token is not None else None, fingerprint)


def cut(found: Sequence[Item], page: PageRequest) -> tuple[Sequence[Item], str | None]:
    """A page and the token of the next one, from up to `size` + 1 items; None when there is no next."""
    if len(found) <= page.size:
        return found, None
    kept = found[: page.size]
    return kept, _write(kept[-1].id, page.fingerprint)


def _write(last_id: str, fingerprint: bytes) -> str:
    return base64.urlsafe_b64encode(fingerprint + last_id.encode()).rstrip(b"=").decode()


def _read(token: str, fingerprint: bytes) -> str:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    last_id = raw[_FINGERPRINT_BYTES:]
    if raw[:_FINGERPRINT_BYTES] != fingerprint or not _ID.fullmatch(last_id):
        raise InvalidRequest(
            "The page token is not of this list; take it from next_page_token and repeat the same filters.",
            param="page_token",
            code="invalid_page_token",
        )
    return last_id.decode()
