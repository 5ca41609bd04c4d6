"""Authentication: the presented key becomes a principal, or one 401 that tells nothing.

Junk is refused by its checksum, without a look-up. An unknown id costs the same keyed hash as a
known one. A database that does not answer is a 503: a valid key must never be called invalid.
"""

from __future__ import annotations

from app.control.context import ControlContext
from app.domain.tenant import Principal, Scope
from app.errors import NotAuthenticated
from app.kit.secrets import ApiKey, parse_api_key, same_digest, sha256
from app.store import api_keys
from app.store.api_keys import Candidate
from app.store.session import Session
from app.store.values import principal_of

STATIC_ADMIN_KEY_ID = "key_" + "0" * 26
"""The id under which the operator's own key appears; no minted id can equal it."""

_STATIC_ADMIN = Principal(None, STATIC_ADMIN_KEY_ID, frozenset({Scope.ADMIN, Scope.READ, Scope.WRITE}))


async def authenticate(context: ControlContext, session: Session, presented: str | None) -> Principal:
    """The caller that holds `presented`. Raises NotAuthenticated, StoreUnavailable or UnsealError.

    The session is used for one query at most, and for none when the key can be decided without.
    """
    if presented is None:
        raise _refused()
    if _is_static_admin(context, presented):
        return _STATIC_ADMIN
    key = parse_api_key(presented)
    if key is None:
        raise _refused()
    found = await api_keys.find_presented(session, key.public_id)
    if found is None:
        context.peppers.refuse(key.text)
        raise _refused()
    if not await _matches(context, session, key, found):
        raise _refused()
    return principal_of(found.row)


def bearer_token(headers: list[str]) -> str | None:
    """The key in `Authorization: Bearer …`; None when there is none, or more than one such header."""
    if len(headers) != 1:
        return None
    scheme, _, token = headers[0].partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _is_static_admin(context: ControlContext, presented: str) -> bool:
    expected = context.settings.security.admin_key
    return expected is not None and same_digest(sha256(presented.encode()), sha256(expected.encode()))


async def _matches(context: ControlContext, session: Session, key: ApiKey, found: Candidate) -> bool:
    """The comparison is made for dead keys too, so that time does not tell them from wrong ones."""
    if not context.peppers.knows(found.pepper_id):
        await context.peppers.load(session)
    same = context.peppers.matches(found.pepper_id, key.text, found.digest)
    return same and found.alive


def _refused() -> NotAuthenticated:
    return NotAuthenticated("A valid API key is needed. Send it as 'Authorization: Bearer mp_…'.")
