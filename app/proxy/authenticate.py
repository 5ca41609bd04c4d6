"""Who calls: from the Authorization header to a principal, in memory.

    no key, junk, unknown, wrong, expired     401, one text for all
    directory too old to be believed          503: never 401 because *we* cannot tell
    suspended tenant, no tenant, no scope     403

A key that is not accepted costs the same whatever is wrong with it: it is parsed and hashed once, and
compared in full. One that was accepted before is recognised by the SHA-256 of its header, as long as
the directory holds the very value that it was accepted with; a change to the key makes a new one.
"""

from __future__ import annotations

from app.domain.directory import ApiKeyEntry, KeyProof
from app.domain.tenant import Principal, Scope
from app.errors import NotAuthenticated, NotPermitted, StoreUnavailable
from app.http1.exchange import Exchange
from app.kit.secrets import parse_api_key, same_digest, sha256
from app.proxy.follow import STALE_SECONDS, Follower
from app.store.peppers import Peppers

ADMIN_KEY_ID = "bootstrap"
"""Stands for the operator's static key, which has no row."""

_ADMIN = Principal(tenant_id=None, api_key_id=ADMIN_KEY_ID, scopes=frozenset({Scope.ADMIN}))
_RETRY_SECONDS = 2.0
_ACCEPTED_LIMIT = 10_000


class Authenticator:
    """`admin_digest` is the SHA-256 of the operator's static key."""

    def __init__(self, follower: Follower, peppers: Peppers, *, admin_digest: bytes | None = None) -> None:
        self._follower = follower
        self._directory = follower.directory
        self._peppers = peppers
        self._admin_digest = admin_digest
        self._accepted: dict[bytes, tuple[ApiKeyEntry, KeyProof]] = {}
        self._admitted: dict[str, tuple[Principal, int, str]] = {}
        """By key: for whom and in which edition of the directory its tenant was found."""

    def identify(self, authorization: bytes | None) -> Principal:
        """The principal of an `Authorization: Bearer …` header. Raises NotAuthenticated, StoreUnavailable."""
        if self._follower.age_seconds() > STALE_SECONDS:
            raise _unverifiable()
        digest = sha256(authorization or b"")
        accepted = self._accepted.get(digest)
        if accepted is None or self._directory.keys.entries.get(accepted[0].id) is not accepted[0]:
            return self._verify(_bearer(authorization), digest)
        entry, proof = accepted
        return entry.principal if proof.expires_at is None else self._unexpired(entry, proof)

    def admit(self, principal: Principal) -> str:
        """The tenant that a call is billed to. Raises NotPermitted."""
        admitted = self._admitted.get(principal.api_key_id)
        if admitted is not None and admitted[0] is principal and admitted[1] == self._directory.edition:
            return admitted[2]
        tenant_id = self._tenant_of(principal)
        if len(self._admitted) >= _ACCEPTED_LIMIT:
            self._admitted.clear()
        self._admitted[principal.api_key_id] = (principal, self._directory.edition, tenant_id)
        return tenant_id

    def _tenant_of(self, principal: Principal) -> str:
        if principal.tenant_id is None:
            raise NotPermitted("This is a key of the platform, which has no tenant to bill. Use a tenant's key.")
        principal.require(Scope.INFERENCE)
        tenant = self._directory.tenant(principal.tenant_id)
        if tenant is None:
            raise _unknown_key()
        if tenant.suspended:
            raise NotPermitted("This tenant is suspended. Ask the operator of this gateway.", code="tenant_suspended")
        return tenant.id

    def _verify(self, text: str, header_digest: bytes) -> Principal:
        key = parse_api_key(text)
        if key is None:
            return self._admin_or_refuse(text)
        found = self._directory.proofs.get(key.public_id)
        if found is None:
            self._peppers.refuse(text)
            return self._admin_or_refuse(text)
        entry, proof = found
        if not self._peppers.knows(proof.pepper_id):
            raise _unverifiable()
        if not self._peppers.matches(proof.pepper_id, text, proof.digest):
            raise _unknown_key()
        self._accept(header_digest, entry, proof)
        return self._unexpired(entry, proof)

    def _accept(self, header_digest: bytes, entry: ApiKeyEntry, proof: KeyProof) -> None:
        if len(self._accepted) >= _ACCEPTED_LIMIT:
            self._accepted.clear()
        self._accepted[header_digest] = (entry, proof)

    def _unexpired(self, entry: ApiKeyEntry, proof: KeyProof) -> Principal:
        if proof.expires_at is not None and proof.expires_at <= self._follower.database_time():
            raise _unknown_key()
        return entry.principal

    def _admin_or_refuse(self, text: str) -> Principal:
        if self._admin_digest is not None and same_digest(sha256(text.encode()), self._admin_digest):
            return _ADMIN
        raise _unknown_key()


def credentials(exchange: Exchange, *, bare_key: bool = False) -> bytes | None:
    """The Authorization header; where `bare_key` is taken and there is none, one made of `x-api-key`."""
    authorization = exchange.header(b"authorization")
    if authorization is None and bare_key:
        key = exchange.header(b"x-api-key")
        return None if key is None else b"Bearer " + key
    return authorization


def _bearer(authorization: bytes | None) -> str:
    scheme, _, text = (authorization or b"").decode("latin-1").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _unknown_key() -> NotAuthenticated:
    return NotAuthenticated("Incorrect API key. Send a valid one as 'Authorization: Bearer mp_…'.")


def _unverifiable() -> StoreUnavailable:
    return StoreUnavailable("API keys cannot be verified at the moment.", retry_after_seconds=_RETRY_SECONDS)
