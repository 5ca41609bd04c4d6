"""Writes: one transaction, committed before its answer is sent, repeated as a whole on deadlock.

A write is a function of a session, so that it can be run again from the start when Postgres ends it
for a deadlock or a serialization failure; a FastAPI dependency that yields a session could not.
After the commit this process's own directory takes in what changed, and only then the client hears
of it: a key that was revoked here is refused here from the moment of the answer.

Every write that a caller asks for comes through here, and leaves its line in the audit in the same
transaction: no resource can forget it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from app.control.answers import Answer
from app.control.audit_trail import note
from app.control.context import ControlContext
from app.control.idempotency import Idempotency, idempotency_of
from app.domain.tenant import Principal
from app.errors import StoreUnavailable
from app.kit.logging import get_logger
from app.store import changes
from app.store.session import Session

Work = Callable[[Session], Awaitable[Answer]]

log = get_logger(__name__)


class Transactions:
    """How one request writes."""

    def __init__(self, context: ControlContext, caller: Principal, request: Request) -> None:
        self._context = context
        self._caller = caller
        self._request = request

    async def commit(self, work: Work) -> Response:
        """Run `work`, commit, and answer with what it returned."""
        answer = await self._commit(partial(self._audited, work))
        return answer.response()

    async def commit_once(self, work: Work, *, validate_only: bool = False) -> Response:
        """As `commit`, for a POST: a repeated Idempotency-Key gets the first answer, and no second effect.

        `validate_only`: run it all, with every check the database makes, and roll back: 200.
        """
        idempotency = idempotency_of(self._context, self._caller, self._request)
        if validate_only:
            return (await self._rehearse(work)).response()
        if idempotency is None:
            return await self.commit(work)
        return await self._commit_once(work, idempotency)

    async def answered_before(self) -> Response | None:
        """The stored answer of this Idempotency-Key, for work that begins outside of a transaction."""
        idempotency = idempotency_of(self._context, self._caller, self._request)
        if idempotency is None:
            return None
        async with self._context.store.read() as session:
            answer = await idempotency.stored(session)
        return None if answer is None else _replayed(answer)

    async def _commit_once(self, work: Work, idempotency: Idempotency) -> Response:
        replayed = False

        async def once(session: Session) -> Answer:
            nonlocal replayed
            await idempotency.claim(session)
            earlier = await idempotency.stored(session)
            replayed = earlier is not None
            if earlier is not None:
                return earlier
            answer = await self._audited(work, session)
            await idempotency.keep(session, answer)
            return answer

        answer = await self._commit(once)
        return _replayed(answer) if replayed else answer.response()

    async def _audited(self, work: Work, session: Session) -> Answer:
        answer = await work(session)
        await note(session, self._caller, self._request, answer)
        return answer

    async def _commit(self, work: Work) -> Answer:
        async def noting_changes(session: Session) -> tuple[Answer, bool]:
            answer = await work(session)
            return answer, bool(session.info.get(changes.CHANGED))

        answer, changed = await self._context.store.retry(noting_changes)
        if changed:
            await self._refresh_directory()
        return answer

    async def _refresh_directory(self) -> None:
        """The effect is committed: failing to see it here must not turn the answer into an error."""
        try:
            await self._context.refresh_directory()
        except StoreUnavailable as away:
            log.warning("directory_not_refreshed", detail=away.detail)

    async def _rehearse(self, work: Work) -> Answer:
        async def rolled_back(session: Session) -> Answer:
            raise _RolledBack(await work(session))

        try:
            return await self._context.store.retry(rolled_back)
        except _RolledBack as done:
            return Answer(200, done.answer.body)


class _RolledBack(Exception):
    """Ends a rehearsal's transaction without a commit."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _replayed(answer: Answer) -> Response:
    return answer.response(**{"idempotent-replayed": "true"})
