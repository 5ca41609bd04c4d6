"""Peppers: the secrets that key the hashes of api keys, unsealed once for each process.

Peppers are only ever added; a key names the one it was made with. `Peppers` is filled at start and
again whenever a key names a pepper that is not known yet.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import StoreUnavailable
from app.kit.ids import new_id
from app.kit.secrets import Keyring, key_digest, new_pepper, same_digest
from app.store import places
from app.store.tables import PepperRow

_DUMMY_DIGEST = bytes(32)


class Peppers:
    """Pepper id → secret, and the work that every key check does, known key or not."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._secrets: dict[str, bytes] = {}
        self._newest: str | None = None

    @property
    def newest_id(self) -> str:
        """The pepper for new keys. Raises StoreUnavailable before the first `load`."""
        if self._newest is None:
            raise StoreUnavailable("Modelport is starting: its keys are not read yet.", retry_after_seconds=2)
        return self._newest

    def knows(self, pepper_id: str) -> bool:
        return pepper_id in self._secrets

    def digest(self, pepper_id: str, key_text: str) -> bytes:
        return key_digest(self._secrets[pepper_id], key_text)

    def matches(self, pepper_id: str, key_text: str, expected: bytes) -> bool:
        return same_digest(self.digest(pepper_id, key_text), expected)

    def refuse(self, key_text: str) -> None:
        """The work of `matches` for a key that does not exist, so that time tells nothing."""
        same_digest(self.digest(self.newest_id, key_text), _DUMMY_DIGEST)

    async def load(self, session: AsyncSession) -> None:
        """Read all peppers. Raises UnsealError when the master key that sealed one is missing."""
        for row in await session.scalars(select(PepperRow).order_by(PepperRow.id)):
            if row.id not in self._secrets:
                self._secrets[row.id] = self._keyring.unseal(row.sealed, places.pepper(row.id))
            self._newest = row.id

    async def ensure_one(self, session: AsyncSession) -> None:
        """Make the first pepper; two processes doing so at once leave two, which is fine."""
        await self.load(session)
        if self._newest is None:
            pepper_id = new_id("pep")
            session.add(PepperRow(id=pepper_id, sealed=self._keyring.seal(new_pepper(), places.pepper(pepper_id))))
            await session.flush()
            await self.load(session)
