"""What the audit says of a write: who did what to which resource, and the fields that were given.

Everything follows from the request and its answer, so that a new operation is audited without doing
anything for it: the action is the operation's name, the resource the last id of its path or the one
that the answer shows. Fields that are never shown are named, and their values are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from app.control.answers import Answer
from app.control.body import body_of
from app.domain.tenant import Principal
from app.kit import json
from app.store import audit
from app.store.session import Session

UNTOLD = frozenset({"credentials", "provider_options"})
"""Fields whose values are sealed, and shown nowhere."""
NOT_SHOWN = "(not shown)"
_LONGEST_BYTES = 32 * 1024
_TOO_LONG = "(too long)"
_UNNOTED_PARAMETERS = frozenset({"tenant_id", "validate_only"})


async def note(session: Session, caller: Principal, request: Request, answer: Answer) -> None:
    """Write it down, in the transaction of the change itself."""
    shown = json.loads(answer.body) if answer.body else {}
    await audit.add(
        session,
        tenant_id=_owner(caller, request, answer, shown),
        api_key_id=caller.api_key_id,
        action=request.scope["route"].name,
        resource_type=_resource_type(request),
        resource_id=_resource_id(request, shown),
        request_id=request.state.request_id,
        changes=_changes(request),
    )


def _owner(caller: Principal, request: Request, answer: Answer, shown: Mapping[str, Any]) -> str | None:
    """Whose resource it is; None: the platform's."""
    found = answer.owner or request.path_params.get("tenant_id")
    if found is None and _resource_type(request) == "tenant":
        found = shown.get("id")
    return found or shown.get("tenant_id", caller.tenant_id)


def _resource_type(request: Request) -> str:
    """As in the API's tags, in the singular: `deployment`, `api_key`, `limits`."""
    tag = str(request.scope["route"].tags[0]).replace(" ", "_")
    return tag if tag == "limits" else tag.removesuffix("s")


def _resource_id(request: Request, shown: Mapping[str, Any]) -> str:
    """What was made has its id in the answer only; an adoption's path names the account it was on."""
    of_kind = f"{_resource_type(request).removeprefix('api_')}_id"
    found = request.path_params.get(of_kind) or shown.get("id")
    return str(found or next(reversed(request.path_params.values()), "platform"))


def _changes(request: Request) -> dict[str, Any]:
    options = {name: value for name, value in request.query_params.items() if name not in _UNNOTED_PARAMETERS}
    return {name: _told(name, value) for name, value in {**body_of(request), **options}.items()}


def _told(name: str, value: Any) -> Any:
    if name in UNTOLD and value:
        return NOT_SHOWN
    return value if len(json.dumps(value)) <= _LONGEST_BYTES else _TOO_LONG
