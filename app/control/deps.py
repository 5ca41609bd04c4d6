"""What handlers are given: the context, the caller, a read session, and transactions.

The order of work is fixed by these dependencies: who (401) → may it (403) → is the query known →
the body → a database session. No session is open while a client's body is awaited.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from app.control.auth import authenticate, bearer_token
from app.control.context import ControlContext
from app.control.transactions import Transactions
from app.control.validation import invalid
from app.domain.tenant import Principal, Scope
from app.errors import FieldError, Unavailable
from app.store.session import Session

ContextProvider = Callable[[], ControlContext | None]
"""Gives the context that the lifespan has made, or None before and after its life."""


async def control_context(request: Request) -> ControlContext:
    """Raises Unavailable while the process is still starting."""
    provider: ContextProvider = request.app.state.context_provider
    context = provider()
    if context is None:
        raise Unavailable("Modelport is starting. Try again shortly.", code="starting", retry_after_seconds=2)
    return context


Context = Annotated[ControlContext, Depends(control_context)]


async def authenticated(request: Request, context: Context) -> Principal:
    """The caller, whatever it may do. A router-level dependency, so that no route can forget it."""
    async with context.store.read() as session:
        caller = await authenticate(context, session, bearer_token(request.headers.getlist("authorization")))
    request.state.principal = caller
    return caller


Caller = Annotated[Principal, Depends(authenticated)]


async def known_query(request: Request) -> None:
    """Refuse query parameters where an operation takes none; the others' models refuse what they do not know."""
    if request.query_params and not request.scope["route"].dependant.query_params:
        fields = [
            FieldError(name[:200], "There is no such parameter.", "unknown_parameter") for name in request.query_params
        ]
        raise invalid(fields[:20])


GUARDS = [Depends(authenticated), Depends(known_query)]
"""Dependencies of every router under /api."""


def _requires(scope: Scope) -> Callable[[Principal], Awaitable[Principal]]:
    async def permitted(caller: Caller) -> Principal:
        caller.require(scope)
        return caller

    return permitted


Reader = Annotated[Principal, Depends(_requires(Scope.READ))]
Writer = Annotated[Principal, Depends(_requires(Scope.WRITE))]
Admin = Annotated[Principal, Depends(_requires(Scope.ADMIN))]


async def _read_session(context: Context, _caller: Caller) -> AsyncIterator[Session]:
    async with context.store.read() as session:
        yield session


ReadSession = Annotated[Session, Depends(_read_session, scope="function")]
"""Closed before the answer is sent."""


async def transactions(request: Request, context: Context, caller: Caller) -> Transactions:
    return Transactions(context, caller, request)


Tx = Annotated[Transactions, Depends(transactions)]
