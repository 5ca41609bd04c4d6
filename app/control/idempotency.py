"""Idempotency-Key: the same principal, path, key and body gets the first answer again for 24 hours.

    claim (one transaction at a time, else 409) → stored answer? return it → work → keep the answer

The answer is sealed and stored in the transaction of the effect, so there is never one without the
other. Failures are not stored: nothing happened, and the request may be repeated. What was asked is
remembered as a keyed hash, because a body may hold a password.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from app.control.answers import Answer
from app.control.body import body_of
from app.control.context import ControlContext
from app.domain.tenant import Principal
from app.errors import Conflict, InvalidRequest
from app.kit import json
from app.kit.secrets import Place, same_digest
from app.store import idempotency as kept
from app.store import places
from app.store.idempotency import Slot
from app.store.session import Session
from app.store.tables import IdempotencyKeyRow

KEY_LIMIT = 255
_ID_BYTES = len("pep_") + 26


@dataclass(frozen=True, slots=True)
class Idempotency:
    """One request's slot, and what it asked for."""

    context: ControlContext
    slot: Slot
    asked: str

    async def claim(self, session: Session) -> None:
        """Hold the slot until the transaction ends. Raises Conflict `idempotency_in_progress`."""
        if not await kept.try_lock(session, self.slot):
            raise Conflict(
                "A request with this Idempotency-Key is still running. Repeat it shortly.",
                code="idempotency_in_progress",
                retryable=True,
                retry_after_seconds=1,
            )

    async def stored(self, session: Session) -> Answer | None:
        """The answer given before. Raises Conflict `idempotency_key_reused` when something else was asked."""
        row = await kept.find(session, self.slot)
        if row is None or row.answer_sealed is None or row.status_code is None:
            return None
        if not await self._asked_the_same(session, row):
            raise Conflict(
                "This Idempotency-Key was used for another request. Take a new key for each request.",
                code="idempotency_key_reused",
            )
        opened = json.loads(self.context.keyring.unseal(row.answer_sealed, self._place()))
        return Answer(row.status_code, opened["body"].encode(), opened["headers"])

    async def keep(self, session: Session, answer: Answer) -> None:
        plain = json.dumps({"body": answer.body.decode(), "headers": dict(answer.headers)})
        await kept.keep(
            session,
            self.slot,
            body_digest=self._digest(self.context.peppers.newest_id),
            status_code=answer.status_code,
            answer_sealed=self.context.keyring.seal(plain, self._place()),
        )

    async def _asked_the_same(self, session: Session, row: IdempotencyKeyRow) -> bool:
        pepper_id = row.body_digest[:_ID_BYTES].decode()
        if not self.context.peppers.knows(pepper_id):
            await self.context.peppers.load(session)
        return same_digest(row.body_digest, self._digest(pepper_id))

    def _digest(self, pepper_id: str) -> bytes:
        """The pepper's id, then the hash that it keys."""
        return pepper_id.encode() + self.context.peppers.digest(pepper_id, self.asked)

    def _place(self) -> Place:
        return places.idempotent_answer(self.slot.api_key_id, self.slot.path, self.slot.key)


def idempotency_of(context: ControlContext, caller: Principal, request: Request) -> Idempotency | None:
    """What the request's Idempotency-Key asks for; None without one. Raises InvalidRequest for a bad key."""
    sent = request.headers.getlist("idempotency-key")
    if not sent:
        return None
    key = sent[0]
    if len(sent) > 1 or not 0 < len(key) <= KEY_LIMIT or not key.isascii() or not key.isprintable():
        raise InvalidRequest(
            f"Send one Idempotency-Key of 1 to {KEY_LIMIT} printable ASCII characters, for example a UUID.",
            param="Idempotency-Key",
            code="invalid_idempotency_key",
        )
    slot = Slot(caller.api_key_id, request.scope["path"], key)
    return Idempotency(context, slot, _asked(request))


def _asked(request: Request) -> str:
    query = sorted(request.query_params.multi_items())
    return json.dumps_sorted([query, body_of(request)]).decode()
