"""Why one call went as it did, for who may know: its tenant, and of keys without `read` the one that made it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from app.control.answers import Answer, resource
from app.control.context import ControlContext
from app.control.requests.schemas import AttemptRead, CandidateRead, ExplanationRead, RequestRead
from app.control.tenancy import missing, reach_of
from app.control.usage_view import UsageRecordRead
from app.domain.tenant import Principal, Scope
from app.store import calls, routes, usage_reports
from app.store.calls import Told
from app.store.session import Session
from app.store.tables import ExplanationRow

_KEPT = "Details of refused, failed and retried calls, and of a share of the others, are kept for {hours:g} hours"
_NOTES = {
    "refused": "the last 1,000 refusals of a tenant are.",
    "failed": "this call failed.",
    "retried": "this call needed more than one attempt.",
    "sampled": "this call is one of that share.",
    None: "of this call only the usage record is there.",
}
_PLAIN = ("model", "endpoint", "outcome", "status_code", "error_code", "estimate", "settlement")


async def read(session: Session, *, context: ControlContext, caller: Principal, request_id: str) -> Answer:
    told = await calls.find(session, reach_of(caller), request_id)
    if told is None or not (caller.may(Scope.READ) or told.api_key_id == caller.api_key_id):
        raise missing("request")
    own = None if caller.is_admin else await usage_reports.owned(session, told.tenant_id, _named(told))
    reason: Any = None if told.explanation is None else told.explanation.reason
    kept = _KEPT.format(hours=context.settings.pace.explain_hours)
    shown = RequestRead(
        request_id=request_id,
        tenant_id=told.tenant_id,
        api_key_id=told.api_key_id,
        usage=None if told.record is None else UsageRecordRead.of(told.record, own),
        kept_because=reason,
        note=f"{kept}; {_NOTES.get(reason, _NOTES[None])}",
        explanation=None if told.explanation is None else await _explained(session, caller, told.explanation, own),
        explained_at=None if told.explanation is None else told.explanation.created_at,
    )
    return resource(shown)


def _named(told: Told) -> list[str]:
    """The deployments that stand in what is told."""
    detail = {} if told.explanation is None else told.explanation.detail
    found = {str(one.get("deployment_id")) for one in (*_list(detail, "candidates"), *_list(detail, "attempts"))}
    record = None if told.record is None else told.record.deployment_id
    return sorted(found | ({record} if record else set()))


async def _explained(
    session: Session, caller: Principal, row: ExplanationRow, own: AbstractSet[str] | None
) -> ExplanationRead:
    """What an older or newer process has written may lack parts: they are null or empty."""
    detail = row.detail
    route_id = detail.get("route_id")
    if route_id is not None and await routes.find(session, reach_of(caller), route_id) is None:
        route_id = None
    return ExplanationRead(
        **{name: detail.get(name) for name in _PLAIN},
        route_id=route_id,
        limits=_list(detail, "limits"),
        candidates=[CandidateRead(**_part(one, CandidateRead, own)) for one in _list(detail, "candidates")],
        attempts=[AttemptRead(**_part(one, AttemptRead, own)) for one in _list(detail, "attempts")],
        timings=detail.get("timings") or {},
    )


def _part(
    one: Mapping[str, Any], model: type[CandidateRead | AttemptRead], own: AbstractSet[str] | None
) -> dict[str, Any]:
    """Of a deployment of others it is told that it was there, and not which one it is."""
    shown = {name: one.get(name) for name in model.model_fields}
    if own is not None and one.get("deployment_id") not in own:
        shown |= {name: None for name in ("deployment_id", "upstream_request_id") if name in shown}
    return shown


def _list(detail: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return detail.get(name) or []
